"""Images that differ from a known one inside a rectangle: only what the change can reach is computed.

The tensors of the unchanged image are kept. At each layer the cells that a change can reach are a
rectangle, a little larger than in the layer below; their inputs are cut out of the kept tensor, the
changed cells pasted into them, and the layer runs on these tiles. Where a layer sees all of its input
at once (a fully connected one, a global pool) the changed cells are pasted into the whole map. The
values are those of a pass over the whole changed image with the direct algorithm, bit for bit, as with the crops
of `cones`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..geometry import Tile, Window
from ..layers import Run, Shape
from ..units import PRE
from . import walk
from .walk import IMAGE, Node

if TYPE_CHECKING:
    from .graph import Network

# A crop gives the whole map's bits only where sums do not depend on the place in the map.
DIRECT = Run(parameters=False, algorithm="direct")


@dataclass
class Part:
    """The cells of a tensor that may differ from the unchanged image's.

    Attributes
    ----------
    array : (n, height, width, channels), one rectangle an image; (n, channels) for vectors
    origins : int (n, 2), first cells; zeros where `array` is the whole map
    """

    array: Any
    origins: np.ndarray


class Changes:
    """One image's tensors, and what becomes of them when a rectangle of its pixels changes.

    Parameters
    ----------
    network : with parameters
    x : the unchanged image, (1, height, width, channels), preprocessed
    keep : tensors that are wanted of the changed images, such as "conv5", "conv5.pre" and the output
    local : False computes whole maps, to see what locality saves

    Attributes
    ----------
    base : tensors of the unchanged image by name, the kept ones among them, where the network runs
    """

    def __init__(self, network: Network, x: Any, keep: Collection[str], local: bool = True) -> None:
        checks.require(bool(keep), "Changes", "keep", keep, "one tensor's name or more")
        network._check_input(x)
        checks.require(len(x) == 1, "Changes", "len(x)", len(x), "1, the unchanged image")
        self.network, self.keep, self.local = network, tuple(keep), local
        for name in self.keep:
            network.tensor_shape(name)
        self.nodes = network.below(self.keep)
        wanted = {name for node in self.nodes for name in node.inputs} | set(self.keep)
        network._check_parameters(self.nodes)
        self.base = walk.up(network.ops, network._enter("Changes", x), self.nodes, keep=wanted, run=DIRECT).kept
        self.computed = 0  # multiply-adds so far, beside what whole passes would have taken
        self.dense = 0

    def run(self, tiles: Any, origins: np.ndarray) -> dict[str, Part]:
        """Tensors of changed images.

        Parameters
        ----------
        tiles : (n, height, width, channels), preprocessed: the changed pixels, inside the image
        origins : int (n, 2), row and column of each tile's first pixel

        Returns
        -------
        the kept tensors' changed parts by name, on the host
        """
        origins = np.asarray(origins, np.int64)
        shapes = self.network.shapes
        checks.shape("Changes.run", "origins", origins, (len(tiles), 2))
        extent = np.array(shapes[IMAGE][:2])
        inside = (origins >= 0).all() and (origins + np.array(tiles.shape[1:3]) <= extent).all()
        checks.require(bool(inside), "Changes.run", "(tiles, origins)", (tiles.shape, "outside"),
                       f"tiles inside the image of {extent.tolist()}")
        parts = {IMAGE: Part(self.network._enter("Changes.run", tiles), origins)}
        if not self.local:
            parts[IMAGE] = Part(self._whole(IMAGE, parts[IMAGE]), np.zeros_like(origins))
        found: dict[str, Part] = {name: part for name, part in parts.items() if name in self.keep}
        last = {name: place for place, node in enumerate(self.nodes) for name in node.inputs}
        for place, node in enumerate(self.nodes):
            part, pre = self._step(node, [parts[name] for name in node.inputs])
            parts[node.name] = part
            if node.name in self.keep:
                found[node.name] = part
            if pre is not None:
                found[node.name + PRE] = pre
            for name in set(node.inputs):
                if last[name] == place:
                    del parts[name]
        return {name: Part(self.network.ops.backend.to_numpy(part.array), part.origins) for name, part in found.items()}

    def whole(self, name: str, part: Part) -> Any:
        """A tensor of the changed images in full, (n, *shape), on the host: the base's with the changed part in it."""
        array = self.network._enter("Changes.whole", part.array)
        return self.network.ops.backend.to_numpy(self._whole(name, Part(array, part.origins)))

    def _step(self, node: Node, inputs: Sequence[Part]) -> tuple[Part, Part | None]:
        """Run a layer on what the changes of its inputs can reach."""
        ops, layer = self.network.ops, node.layer
        count = len(inputs[0].array)
        pre = node.name + PRE in self.keep
        run = replace(DIRECT, pre=pre)
        region = self._reach(node, inputs) if len(node.shape) == 3 else None
        shapes = [self.network.shapes[name] for name in node.inputs]
        adds = layer.multiply_adds(*shapes) * count
        self.dense += adds
        if region is None:
            arrays = [self._whole(name, part) for name, part in zip(node.inputs, inputs, strict=True)]
            y, cache = layer.forward(ops, *arrays, run=run)
            origins = np.zeros((count, 2), np.int64)
        else:
            first, size, windows = region
            arrays, tile = [], None
            for index, (name, part, window) in enumerate(zip(node.inputs, inputs, windows, strict=True)):
                start = first * window.stride - np.array(window.before)
                span = [(size[axis] - 1) * window.stride[axis] + window.span[axis] for axis in range(2)]
                arrays.append(self._cut(name, part, start, span))
                if index == 0:
                    tile = Tile(start.astype(np.int32), (shapes[0][0], shapes[0][1]))
            y, cache = layer.forward(ops, *arrays, run=replace(run, tile=tile))
            origins = first
            adds = adds * size[0] * size[1] // math.prod(node.shape[:2])
        self.computed += adds
        return Part(y, origins), Part(cache["pre"], origins) if pre else None

    def _reach(self, node: Node, inputs: Sequence[Part]
               ) -> tuple[np.ndarray, tuple[int, int], list[Window]] | None:
        """First cells and common size of the rectangles of outputs that see changed cells; None: all."""
        windows, firsts, lasts = [], [], []
        for name, part in zip(node.inputs, inputs, strict=True):
            shape: Shape = self.network.shapes[name]
            window = node.layer.geometry(shape) if len(shape) == 3 else None
            if window is None:
                return None
            windows.append(window)
            stride, before, span = (np.array(each) for each in (window.stride, window.before, window.span))
            begin = part.origins + before
            firsts.append(-((span - 1 - begin) // stride))  # ceil((begin - span + 1) / stride)
            lasts.append((begin + np.array(part.array.shape[1:3]) - 1) // stride)
        limit = np.array(node.shape[:2])
        first = np.clip(np.min(firsts, axis=0), 0, limit - 1)
        last = np.clip(np.max(lasts, axis=0), first, limit - 1)
        if not len(first):
            return first, (1, 1), windows
        size = (last - first + 1).max(axis=0)
        if (size >= limit).all():
            return None
        return np.minimum(first, limit - size), (int(size[0]), int(size[1])), windows

    def _whole(self, name: str, part: Part) -> Any:
        base, array = self.base[name], part.array
        if array.shape[1:] == base.shape[1:]:
            return array
        whole = self.network.ops.backend.empty((len(array), *base.shape[1:]), base.dtype)
        whole[:] = base
        height, width = array.shape[1:3]
        for target, source, (row, column) in zip(whole, array, part.origins.tolist(), strict=True):
            target[row:row + height, column:column + width] = source
        return whole

    def _cut(self, name: str, part: Part, start: np.ndarray, span: Sequence[int]) -> Any:
        """Tiles of the changed tensor from `start` (n, 2) of size `span`; zeros outside its map."""
        base, array = self.base[name][0], part.array
        tiles = self.network.ops.backend.zeros((len(array), span[0], span[1], base.shape[2]), base.dtype)
        height, width = array.shape[1:3]
        extent = base.shape[:2]
        for tile, source, first, origin in zip(tiles, array, start.tolist(), part.origins.tolist(), strict=True):
            _paste(tile, first, base, (0, 0), extent)
            _paste(tile, first, source, origin, (height, width))
        return tiles


def _paste(tile: Any, first: Sequence[int], source: Any, origin: Sequence[int], size: Sequence[int]) -> None:
    """Copy into `tile`, whose first cell is `first`, what it shares with `source`, which begins at `origin`."""
    spans = []
    for axis in range(2):
        begin = max(first[axis], origin[axis])
        end = min(first[axis] + tile.shape[axis], origin[axis] + size[axis])
        if end <= begin:
            return
        spans.append((slice(begin - first[axis], end - first[axis]), slice(begin - origin[axis], end - origin[axis])))
    tile[spans[0][0], spans[1][0]] = source[spans[0][1], spans[1][1]]
