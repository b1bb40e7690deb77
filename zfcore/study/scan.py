"""The single pass over a data set that makes an atlas."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..data import Images, Stream, open_images
from . import results
from .atlas import Atlas, images_of
from .top import Collector, patch_size

MEMORY_LIMIT = 4 * 2**30


@dataclass
class Forecast:
    """What a scan will need; `str()` is a line for people.

    Attributes
    ----------
    images, maps : how many
    patch_bytes : what the kept patches take, in memory or on disk
    batch_bytes : about what the parameters and a batch's activations take at their worst
    seconds : about how long it will take; None before it was measured
    on_disk : whether the patches are in a temporary file
    """

    images: int
    maps: int
    patch_bytes: int
    batch_bytes: int
    seconds: float | None = None
    on_disk: bool = False

    def __str__(self) -> str:
        place = "on disk" if self.on_disk else "in memory"
        duration = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return (f"{self.images:,} images, {self.maps:,} feature maps: {size_text(self.patch_bytes)} "
                f"of patches {place}, about {size_text(self.batch_bytes)} for a batch{duration}")


def forecast(network: Any, layers: Sequence[str], images: int, *, top: int = 9, batch_size: int = 32
             ) -> Forecast:
    """What a scan of `images` images will need, but for the time, which only a first batch shows."""
    patches = maps = 0
    for layer in layers:
        height, width = patch_size(network.cone(layer))
        count = network.tensor_shape(layer)[-1]
        maps += count
        patches += count * top * height * width * network.input_shape[2]
    return Forecast(images, maps, patches, network.memory(min(batch_size, max(images, 1))).forward)


def scan(network: Any, images: Any, layers: Sequence[str] | str | None = None, top: int = 9, *,
         batch_size: int = 32, memory_limit: int = MEMORY_LIMIT,
         scratch: str | os.PathLike[str] | None = None, shard: tuple[int, int] = (0, 1),
         threads: int | None = None, on_bad: str = "fail", progress: bool = True) -> Atlas:
    """Find every feature map's strongest activations over a data set, in one pass.

    Memory does not grow with the data set. Images are decoded by threads while the network works.

    Parameters
    ----------
    network : the network; its preprocessing says how images become its input
    images : a data set, or what `data.open_images` takes: a folder, files, a packed set, an array
    layers : names of layers, a list or "conv3,conv5"; every convolution
    top : entries a map, one an image
    batch_size, threads : images at a time, and threads that decode; the result does not depend on them
    memory_limit : bytes that the kept patches may take in memory; beyond it they go to a temporary
        file in `scratch`, and without that folder it is an error, before any work
    scratch : a folder for that file, which is removed with the atlas
    shard : (number, of how many): scan only this part; `Atlas.merge` joins the parts
    on_bad : for images given as paths: "fail" or "skip" bad pictures; skipped ones are recorded
    progress : print a forecast and a progress bar on stderr

    Returns
    -------
    Atlas

    Raises
    ------
    ValueError : unknown layers, bad settings, activations that are not finite, too little memory
    data.ImageError : a bad picture, with its path
    """
    source = open_images(images, on_bad=on_bad)
    names = chosen_layers(network, layers)
    checks.integer("atlas", "top", top, 1)
    checks.integer("atlas", "batch_size", batch_size, 1)
    number, parts = checks.pair("atlas", "shard", shard, 0)
    checks.require(number < parts, "atlas", "shard", shard, "(number, parts) with number < parts")
    checks.require(len(source) > 0, "atlas", "images", "an empty data set", "at least one image")
    most = max(len(source), 1000)
    checks.require(top <= most, "atlas", "top", top, f"at most {most}, for {len(source)} images")
    if network.preprocessing is None:
        checks.fail("atlas", "network.preprocessing", None, "a Preprocessing, which says how pixels become the "
                    "input: load(path, preprocessing='torchvision') or another preset, or a JSON file")
    begin, end = len(source) * number // parts, len(source) * (number + 1) // parts
    expected = forecast(network, names, end - begin, top=top, batch_size=batch_size)
    folder = _room(expected, memory_limit, scratch)
    try:
        collectors = []
        for place, name in enumerate(names):
            file = None if folder is None else Path(folder.name) / f"{place}.npy"
            collectors.append(Collector(name, network.tensor_shape(name)[-1], top, network.cone(name),
                                        network.input_shape[2], file))
        stream = Stream(source, network.preprocessing, batch_size, begin, end, threads)
        _run(network, source, stream, collectors, expected, progress)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise
    layers_found = {collector.layer: collector.finish() for collector in collectors}
    kept = images_of(layers_found)
    atlas = Atlas(
        layers=layers_found, top=top, image_shape=network.input_shape, count=len(source),
        covered=[(begin, end)] if end > begin else [], names={index: source.names[index] for index in kept},
        labels={} if source.labels is None else {index: int(source.labels[index]) for index in kept},
        class_names=source.class_names, skipped=dict(sorted(stream.skipped.items())),
        hashes={"network": results.network_hash(network), "images": source.manifest(),
                "pixels": f"{stream.pixel_hash:064x}"},
        preprocessing=network.preprocessing, network_name=network.name, network=network)
    if folder is not None:
        weakref.finalize(atlas, folder.cleanup)
    return atlas


def chosen_layers(network: Any, layers: Sequence[str] | str | None) -> list[str]:
    """Names of the layers that were asked for; None: every convolution."""
    if layers is None:
        names = [row.name for row in network.layers() if row.type == "Convolution"]
        checks.require(bool(names), "atlas", "layers", None, "names of layers (it has no convolution)")
        return names
    names = [part.strip() for part in layers.split(",")] if isinstance(layers, str) else list(layers)
    checks.require(bool(names) and len(set(names)) == len(names), "atlas", "layers", layers,
                   "one name or more, each once")
    for name in names:
        network.cone(name)  # an unknown name's error lists the valid ones
    return names


def _room(expected: Forecast, memory_limit: int, scratch: Any) -> tempfile.TemporaryDirectory[str] | None:
    """A folder for the patches if they do not fit; ValueError where none was given."""
    checks.integer("atlas", "memory_limit", memory_limit, 1)
    if expected.patch_bytes <= memory_limit:
        return None
    if scratch is None:
        checks.fail("atlas", "memory_limit", size_text(memory_limit),
                    f"at least {size_text(expected.patch_bytes)} for the patches of {expected.maps} maps; "
                    "or give a folder for them (scratch), or fewer layers")
    expected.on_disk = True
    return tempfile.TemporaryDirectory(prefix="zfcore-atlas-", dir=scratch)


def _run(network: Any, source: Images, stream: Stream, collectors: list[Collector], expected: Forecast,
         progress: bool) -> None:
    """Feed all batches; after the first, say what to expect."""
    from tqdm import tqdm

    with tqdm(total=expected.images, desc="atlas", unit="image", disable=not progress) as bar:
        for batch in stream:
            if expected.seconds is None:
                # One image first, so that compiling kernels is not taken for the time of a batch.
                _feed(network, source, batch.indices[:1], batch.pixels[:1], collectors, keep=False)
                started = time.perf_counter()
            _feed(network, source, batch.indices, batch.pixels, collectors)
            if expected.seconds is None:
                each = (time.perf_counter() - started) / len(batch.indices)
                expected.seconds = each * expected.images
                if progress:
                    tqdm.write(f"atlas: {expected}", file=sys.stderr)
            bar.update(int(batch.indices[-1]) + 1 - stream.begin - bar.n)
        bar.update(expected.images - bar.n)


def _feed(network: Any, source: Images, indices: np.ndarray, pixels: np.ndarray,
          collectors: list[Collector], keep: bool = True) -> None:
    """Run a batch up to the highest layer and take its maps' maxima."""
    shape = network.input_shape
    if pixels.shape[1:] != shape:
        checks.fail("atlas", f"size of {source.names[indices[0]]!r}", pixels.shape[1:],
                    f"{shape}, the network's input (set the preprocessing's size and crop)")
    tensors = network.features(network.preprocessing.apply(pixels), [each.layer for each in collectors])
    for collector in collectors:
        tensor = tensors.pop(collector.layer)
        width = 1
        if tensor.ndim == 2:
            values, positions = tensor, np.zeros(tensor.shape, np.int32)
        else:
            width = tensor.shape[2]
            values, positions = network.ops.map_maximum(tensor)
        if keep:
            collector.update(values, positions // width, positions % width, indices, pixels,
                             [source.names[index] for index in indices])


def size_text(count: float) -> str:
    """Bytes for people: "183 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _duration(seconds: float) -> str:
    """Seconds for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


atlas = scan  # zfcore.atlas(net, images), as users type it
