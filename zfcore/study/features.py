"""Features of any layers over a data set: one pass, bounded memory, memory-mapped arrays."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..data import Stream, open_images
from . import results
from .saved import Saved

__all__ = ["Features", "compared", "features", "pooled"]

POOLINGS = ("average", "max", "none")


@dataclass
class Features(Saved):
    """What layers say about the pictures of a data set.

    Attributes
    ----------
    values : {layer: float32 (pictures, features)}, memory-mapped; C order of (rows, columns, maps)
    shapes : {layer: int64 (rows, columns, maps) or (features,)}, of one picture's features
    indices : int64 (pictures,), places in the data set; bad pictures are left out
    labels : int64 (pictures,) or None
    class_names : or None
    pooling, cells : how maps were pooled
    network_hash, images_manifest : SHA-256 of the network and of the data set
    """

    kind: ClassVar[str] = "features"

    values: dict[str, np.ndarray]
    shapes: dict[str, np.ndarray]
    indices: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None
    pooling: str
    cells: int
    network_hash: str
    images_manifest: str

    def sizes(self, where: str, others: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Each layer's `shapes`; ValueError if another network's are given and are not the same."""
        for name, shape in (others or {}).items():
            checks.require(np.array_equal(shape, self.shapes[name]), where, f"the size of {name!r}",
                           self.shapes[name].tolist(), f"{shape.tolist()}, that of the other networks")
        return dict(self.shapes)


def compared(where: str, networks: Any, layers: Sequence[str] | str) -> tuple[dict[str, Any], list[str]]:
    """Networks by their names, and names of layers; ValueError for a layer that one of them lacks.

    Parameters
    ----------
    where : the operation, for errors
    networks : one, or {name: network}
    layers : names of tensors, or one
    """
    given = dict(networks) if isinstance(networks, Mapping) else {"network": networks}
    names = [layers] if isinstance(layers, str) else list(layers)
    checks.require(len(given) > 0, where, "networks", networks, "one network or more")
    for network in given.values():
        for name in names:
            network.tensor_shape(name)  # an unknown name's error lists the valid ones
    return given, names


def pooled(maps: np.ndarray, pooling: str = "average", cells: int = 6) -> np.ndarray:
    """Maps brought to at most cells x cells: cell i of g over n rows takes rows floor(i n / g) to ceil((i + 1) n / g).

    Parameters
    ----------
    maps : (N, rows, columns, maps), or (N, features), which stay as they are
    pooling : "average", "max" or "none"
    cells : the most rows and columns that are left

    Returns
    -------
    (N, min(rows, cells), min(columns, cells), maps), or the array itself
    """
    checks.one_of("pooled", "pooling", pooling, POOLINGS)
    checks.integer("pooled", "cells", cells, 1)
    if maps.ndim != 4 or pooling == "none" or (maps.shape[1] <= cells and maps.shape[2] <= cells):
        return maps
    for axis in (1, 2):
        size = maps.shape[axis]
        count = min(size, cells)
        parts = []
        for cell in range(count):
            window = [slice(None)] * 4
            window[axis] = slice(cell * size // count, -(-(cell + 1) * size // count))
            part = maps[tuple(window)]
            parts.append(part.mean(axis=axis, dtype=np.float32) if pooling == "average" else part.max(axis=axis))
        maps = np.stack(parts, axis=axis)
    return maps


def _pooled_shape(shape: Sequence[int], pooling: str, cells: int) -> tuple[int, ...]:
    if len(shape) != 3 or pooling == "none":
        return tuple(shape)
    return min(shape[0], cells), min(shape[1], cells), shape[2]


def features(network: Any, images: Any, layers: Sequence[str] | str, *, pooling: str = "average", cells: int = 6,
             batch_size: int = 32, threads: int | None = None, on_bad: str = "fail", scratch: Any = None,
             progress: bool = True) -> Features:
    """Run a data set through a network once and keep what layers say.

    Parameters
    ----------
    network : with parameters and a preprocessing
    images : what `data.open_images` takes
    layers : names of tensors, such as "conv5", "pool5", "fc7"
    pooling : how maps larger than `cells` are brought down: "average", "max" or "none" (all of them)
    cells : the most rows and columns that are left; each axis is pooled by itself
    batch_size, threads : pictures at a time, threads that decode; the result does not depend on them
    on_bad : for images given as paths: "fail", or "skip" bad pictures
    scratch : folder in which the arrays lie until the result is let go (`save` copies them); None: the system's
    progress : show a bar on stderr

    Returns
    -------
    Features, whose arrays are memory-mapped files
    """
    from tqdm import tqdm

    where = "features"
    names = [layers] if isinstance(layers, str) else list(layers)
    checks.require(len(names) > 0 and len(set(names)) == len(names), where, "layers", layers, "names, each once")
    checks.one_of(where, "pooling", pooling, POOLINGS)
    checks.integer(where, "cells", cells, 1)
    shapes = {name: _pooled_shape(network.tensor_shape(name), pooling, cells) for name in names}
    source = open_images(images, on_bad=on_bad)
    checks.require(len(source) > 0, where, "images", "an empty data set", "at least one image")
    if network.preprocessing is None:
        checks.fail(where, "network.preprocessing", None, "a Preprocessing: how pixels become the input")
    folder = tempfile.TemporaryDirectory(prefix="zfcore-features-", dir=scratch)
    try:
        arrays = {name: np.lib.format.open_memmap(Path(folder.name) / f"{number}.npy", "w+", np.float32,
                                                  (len(source), math.prod(shapes[name])))
                  for number, name in enumerate(names)}
        found: list[np.ndarray] = []
        done = 0
        stream = Stream(source, network.preprocessing, batch_size, threads=threads)
        with tqdm(total=len(source), desc=f"features of {network.name}", unit="image", disable=not progress) as bar:
            for batch in stream:
                count = len(batch.indices)
                kept = network.features(network.preprocessing.apply(batch.pixels), names)
                for name, array in arrays.items():
                    maps = network.ops.backend.to_numpy(kept[name])
                    array[done:done + count] = pooled(maps, pooling, cells).reshape(count, -1)
                found.append(batch.indices)
                done += count
                bar.update(count)
        checks.require(done > 0, where, "images", "no picture that can be read", "at least one")
        indices = np.concatenate(found)
        result = Features({name: array[:done] for name, array in arrays.items()},
                          {name: np.array(shape, np.int64) for name, shape in shapes.items()}, indices,
                          None if source.labels is None else source.labels[indices], source.class_names, pooling,
                          cells, results.network_hash(network), source.manifest())
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(result, folder.cleanup)
    return result
