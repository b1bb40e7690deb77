"""The single pass over a data set that makes an atlas."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..data import Images, Stream, open_images
from ..kernels.memory import empty
from ..kernels.threads import parallel
from ..kernels.work import grain
from . import patches, results
from .atlas import Atlas, images_of
from .forecast import Forecast, forecast, report_seconds, size_text
from .state import State
from .top import Collector, LayerTop, strongest_of

MEMORY_LIMIT = 4 * 2**30
SAVE_EVERY = 5000  # images between two states


def scan(network: Any, images: Any, layers: Sequence[str] | str | None = None, top: int = 9, *,
         batch_size: int = 32, memory_limit: int = MEMORY_LIMIT,
         scratch: str | os.PathLike[str] | None = None, shard: tuple[int, int] = (0, 1),
         threads: int | None = None, on_bad: str = "fail", one_per_image: bool = True,
         state: str | os.PathLike[str] | None = None, save_every: int = SAVE_EVERY, progress: bool = True) -> Atlas:
    """Find every feature map's strongest activations over a data set, in one pass.

    Memory does not grow with the data set. Images are decoded by threads while the network works.

    Parameters
    ----------
    network : the network; its preprocessing says how images become its input
    images : a data set, or what `data.open_images` takes: a folder, files, a packed set, an array
    layers : names of layers, a list or "conv3,conv5"; every convolution
    top : entries a map
    batch_size, threads : images at a time, and threads that decode; the result does not depend on them
    memory_limit : bytes that the kept patches may take in memory; beyond it they go to a temporary
        file in `scratch`, and without that folder it is an error, before any work
    scratch : a folder for that file, which is removed with the atlas
    shard : (number, of how many): scan only this part; `Atlas.merge` joins the parts
    on_bad : for images given as paths: "fail" or "skip" bad pictures; skipped ones are recorded
    one_per_image : at most one entry of a map is from the same image; False: as many as are strongest
    state : a folder in which the scan keeps what it has, every `save_every` images and at the end; a scan
        that was killed goes on from there, with the same result bit for bit. Delete it when the
        atlas is saved
    save_every : images between two states
    progress : print a forecast and a progress bar on stderr; the times follow when a batch was measured

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
    checks.integer("atlas", "save_every", save_every, 1)
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
    job = _Scan(network, source, names, top, begin, end, one_per_image)
    keeper = None if state is None else State(state)
    folder = _room(expected, memory_limit, scratch)
    try:
        with contextlib.nullcontext() if keeper is None else keeper.locked():
            before = None if keeper is None else keeper.load(job.identity(), begin, end)
            job.start(folder, before, batch_size, threads)
            with network.while_frozen():
                job.run(expected, progress, None if keeper is None else keeper.save, save_every)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise
    atlas = job.atlas()
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


class _Scan:
    """A scan under way: where it is, and what it has found."""

    def __init__(self, network: Any, source: Images, layers: list[str], top: int, begin: int, end: int,
                 one_per_image: bool) -> None:
        self.network, self.source, self.layers, self.top = network, source, layers, top
        self.begin, self.end, self.done, self.one_per_image = begin, end, begin, one_per_image
        self.manifest = source.manifest()
        pool = ThreadPoolExecutor(1, thread_name_prefix="zfcore-hash")  # beside the first batches: 0.14 s for AlexNet
        self.network_hash = pool.submit(results.network_hashing(network))
        pool.shutdown(wait=False)  # the thread ends with its work
        self.collectors: list[Collector] = []
        self.shelf = patches.Shelf()

    def start(self, folder: tempfile.TemporaryDirectory[str] | None, before: Atlas | None, batch_size: int,
              threads: int | None) -> None:
        """Begin, or go on from an atlas of the first images."""
        for place, name in enumerate(self.layers):
            file = None if folder is None else Path(folder.name) / f"{place}.npy"
            self.collectors.append(Collector(
                name, self.network.tensor_shape(name)[-1], self.top, self.network.cone(name),
                self.network.input_shape[2], file, None if before is None else before[name]))
        if before is not None and before.covered:
            self.done = before.covered[0][1]
        self.stream = Stream(self.source, self.network.preprocessing, batch_size, self.done, self.end, threads)
        if before is not None:
            self.stream.skipped.update(before.skipped)
            self.stream.pixel_hash = int(before.hashes["pixels"], 16)

    def identity(self) -> dict[str, Any]:
        """What a state must have in common with this scan."""
        atlas = self.atlas()
        atlas.layers = {}
        shapes = {name: (self.network.tensor_shape(name)[-1], self.top) for name in self.layers}
        return {**atlas.identity(), "the layers": shapes}

    def atlas(self) -> Atlas:
        """What was found so far."""
        source, found = self.source, self._finished()
        kept = images_of(found)
        skipped = self.stream.skipped if found else {}
        pixels = self.stream.pixel_hash if found else 0
        return Atlas(
            layers=found, top=self.top, image_shape=self.network.input_shape, count=len(source),
            covered=[(self.begin, self.done)] if self.done > self.begin else [],
            names={index: source.names[index] for index in kept},
            labels={} if source.labels is None else {index: int(source.labels[index]) for index in kept},
            class_names=source.class_names, skipped=dict(sorted(skipped.items())),
            hashes={"network": self.network_hash.result(), "images": self.manifest, "pixels": f"{pixels:064x}"},
            preprocessing=self.network.preprocessing, network_name=self.network.name,
            one_per_image=self.one_per_image, network=self.network)

    def _finished(self) -> dict[str, LayerTop]:
        """What was found so far; patches stay uncut where their images take less memory."""
        tops = {each.layer: each.top for each in self.collectors}
        shelf = self.shelf.only(np.array(images_of(tops), np.int64))
        later = (all(isinstance(top.held, patches.Uncut) for top in tops.values())
                 and shelf.nbytes < sum(top.held.nbytes for top in tops.values()))
        found = {each.layer: each.finish(shelf, later) for each in self.collectors}
        if not later:
            self.shelf = patches.Shelf()
        return found

    def run(self, expected: Forecast, progress: bool, save: Callable[[Atlas], None] | None, save_every: int) -> None:
        """Feed all batches; every now and then keep the state.

        What it needs is said before the first, how long it takes after it.
        """
        from tqdm import tqdm

        if progress:
            sys.stderr.write(f"atlas: {expected}\n")
            sys.stderr.flush()
        saved, alone = self.done, expected.images <= self.stream.batch_size
        with tqdm(total=expected.images, initial=self.done - self.begin, desc="atlas", unit="image",
                  disable=not progress) as bar:
            for number, batch in enumerate(self.stream):
                # The second batch is timed, so that compiling kernels is not taken for the time of one; where
                # there is only one batch, an image goes first.
                timed = expected.seconds is None and (alone or number > 0)
                if timed and alone and number == 0:
                    self._feed(batch.indices[:1], batch.pixels[:1], keep=False)
                started = time.perf_counter()
                self._feed(batch.indices, batch.pixels)
                if timed:
                    each = (time.perf_counter() - started) / len(batch.indices)
                    expected.seconds = each * (self.end - self.done)
                    maps = {collector.layer: collector.top.maps for collector in self.collectors}
                    expected.report_seconds = report_seconds(self.network, maps, self.top, each)
                    if progress:
                        tqdm.write(f"atlas: {expected.times}", file=sys.stderr)
                self.done = int(batch.indices[-1]) + 1
                if save is not None and self.done - saved >= save_every:
                    save(self.atlas())
                    saved = self.done
                bar.update(self.done - self.begin - bar.n)
            self.done = self.end
            bar.update(expected.images - bar.n)
        if save is not None and (saved < self.end or self.begin == self.end):
            save(self.atlas())

    def _feed(self, indices: np.ndarray, pixels: np.ndarray, keep: bool = True) -> None:
        """Run a batch up to the highest layer and take its maps' maxima."""
        network, names = self.network, [self.source.names[index] for index in indices]
        shape = network.input_shape
        if pixels.shape[1:] != shape:
            checks.fail("atlas", f"size of {names[0]!r}", pixels.shape[1:],
                        f"{shape}, the network's input (set the preprocessing's size and crop)")
        backend = network.ops.backend
        tensors = network.features(backend.asarray(self._numbers(pixels)), self.layers)
        fresh = False
        for collector in self.collectors:
            tensor = tensors.pop(collector.layer)
            width, each = 1, 1
            if tensor.ndim == 2:
                values, positions = backend.to_numpy(tensor), np.zeros(tensor.shape, np.int32)
            elif self.one_per_image:
                width = tensor.shape[2]
                values, positions = map(backend.to_numpy, network.ops.map_maximum(tensor))
            else:
                width, each = tensor.shape[2], min(self.top, tensor.shape[1] * tensor.shape[2])
                values, positions = strongest_of(backend.to_numpy(tensor), self.top)
            if keep:
                fresh |= collector.update(values, positions // width, positions % width, indices.repeat(each), names)
        if fresh:
            self.shelf.put(indices, pixels)
        if self.shelf.nbytes > patches.RECENT:
            for collector in self.collectors:
                collector.cut(self.shelf)
            self.shelf = patches.Shelf()

    def _numbers(self, pixels: np.ndarray) -> np.ndarray:
        """The network's input, made by all threads."""
        found, prepare = empty(pixels.shape, np.float32), self.network.preprocessing.apply

        def fill(begin: int, end: int) -> None:
            prepare(pixels[begin:end], out=found[begin:end])

        parallel(fill, len(pixels), grain=grain(pixels[0].size // 4))
        return found


atlas = scan  # zfcore.atlas(net, images), as users type it
