"""Cones: the crops of every tensor below a layer that one of its units can touch.

A unit touches only its receptive field, at every layer below, on the way up and on the way down.
All units of a layer have tiles of one size at each tensor; their origins differ, and may lie
outside the map: such cells are zero, as the map's own padding is, and are cleared after each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import POINTWISE, Field, Tile, Window
from ..layers import Shape
from .walk import IMAGE, Frame, Node


@dataclass(frozen=True)
class Cone:
    """What the units of a layer touch.

    Attributes
    ----------
    layer : the layer's name
    whole : whether tiles are whole images: the units see all of it, or more of it than a crop saves
    extent : (height, width) of the image
    fields : for every tensor below, the unit's cells there; empty if `whole`
    """

    layer: str
    whole: bool
    extent: tuple[int, int]
    fields: dict[str, Field]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a tile of pixels: the receptive field, or the whole image."""
        return self.extent if self.whole else self.fields[IMAGE].size

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels between the tiles of neighbouring units; 0 for whole images."""
        return (0, 0) if self.whole else self.fields[IMAGE].stride

    @property
    def offset(self) -> tuple[int, int]:
        """Where the tile of the unit at (0, 0) starts."""
        return (0, 0) if self.whole else self.fields[IMAGE].offset

    def origins(self, rows: Any, columns: Any) -> np.ndarray:
        """First pixels, int32 (N, 2), of the tiles of units at these positions; may be negative."""
        if self.whole:
            return np.zeros((len(np.atleast_1d(rows)), 2), np.int32)
        return self.fields[IMAGE].origins(np.atleast_1d(rows), np.atleast_1d(columns))

    def extract(self, images: np.ndarray, indices: Sequence[int] | np.ndarray,
                origins: np.ndarray) -> np.ndarray:
        """Cut tiles out of images; pixels outside an image are 0.

        Parameters
        ----------
        images : (N, height, width, channels) of any dtype
        indices : the image of each tile
        origins : int (n, 2), as `origins` gives them

        Returns
        -------
        tiles : (n, *size, channels)
        """
        if self.whole:
            return images[np.asarray(indices, np.intp)]
        tiles = np.zeros((len(origins), *self.size, images.shape[3]), images.dtype)
        for tile, index, origin in zip(tiles, indices, np.asarray(origins).tolist(), strict=True):
            start = [max(-value, 0) for value in origin]
            stop = [min(size, extent - value)
                    for size, extent, value in zip(self.size, self.extent, origin, strict=True)]
            if stop[0] > start[0] and stop[1] > start[1]:
                tile[start[0]:stop[0], start[1]:stop[1]] = images[
                    index, start[0] + origin[0]:stop[0] + origin[0], start[1] + origin[1]:stop[1] + origin[1]]
        return tiles


def fields_below(nodes: Sequence[Node], top: str, shapes: dict[str, Shape]) -> dict[str, Field] | None:
    """For each tensor below `top`, the cells that a unit of `top` touches.

    At forks the hull over the branches. None if some layer sees its whole input, or if branches of
    different strides meet, so that no constant tile holds both.
    """
    fields: dict[str, Field] = {top: Field()}
    for node in reversed(nodes):
        if node.name not in fields:
            continue
        for name in node.inputs:
            window = node.layer.geometry(shapes[name])
            if window is None or len(shapes[name]) != 3:
                return None
            below = fields[node.name].below(window)
            joined = fields[name].hull(below) if name in fields else below
            if joined is None:
                return None
            fields[name] = joined
    return fields


def build(nodes: Sequence[Node], top: str, shapes: dict[str, Shape]) -> Cone:
    """The cone below `top`; whole where crops would hold as many pixels as the image or more."""
    extent = shapes[IMAGE][0], shapes[IMAGE][1]
    fields = fields_below(nodes, top, shapes)
    if fields is None or fields[IMAGE].size[0] * fields[IMAGE].size[1] >= extent[0] * extent[1]:
        return Cone(top, True, extent, {})
    return Cone(top, False, extent, fields)


class Crop(Frame):
    """Arrays are the tiles of a batch of units, one a unit.

    Parameters
    ----------
    cone : a cone that is not whole
    shapes : every tensor's shape
    rows, columns : the units' positions
    """

    def __init__(self, cone: Cone, shapes: dict[str, Shape], rows: np.ndarray, columns: np.ndarray) -> None:
        self.fields, self.shapes, self.rows, self.columns = cone.fields, shapes, rows, columns
        self._outside: dict[tuple[str, Field], Tile | None] = {}

    def _at(self, tensor: str, field: Field) -> Tile:
        height, width = self.shapes[tensor][:2]
        return Tile(field.origins(self.rows, self.columns), (height, width))

    def _clear(self, ops: Any, tensor: str, field: Field, array: Any) -> Any:
        """Zero the cells that are not in the map, where there are any."""
        key = tensor, field
        if key not in self._outside:
            tile = self._at(tensor, field)
            sticks_out = (tile.origins < 0).any() or (tile.origins + field.size > tile.extent).any()
            self._outside[key] = tile if sticks_out else None
        tile_outside = self._outside[key]
        if tile_outside is not None:
            ops.clear_outside(array, tile_outside)
        return array

    def _window(self, node: Node, index: int) -> Window:
        window = node.layer.geometry(self.shapes[node.inputs[index]])
        assert window is not None  # else the cone were whole
        return window

    def _part(self, node: Node, index: int) -> tuple[Field, tuple[slice, ...] | None]:
        """The cells of an input that this node reads, and where they are in the input's tile."""
        mine = self.fields[node.name].below(self._window(node, index))
        all_of_it = self.fields[node.inputs[index]]
        if mine == all_of_it:
            return mine, None
        start = [mine.offset[axis] - all_of_it.offset[axis] for axis in range(2)]
        return mine, (slice(None), *(slice(start[axis], start[axis] + mine.size[axis]) for axis in range(2)))

    def tile(self, node: Node) -> Tile | None:
        return self._at(node.inputs[0], self._part(node, 0)[0])

    def enter(self, ops: Any, node: Node, index: int, array: Any) -> Any:
        place = self._part(node, index)[1]
        return array if place is None else ops.backend.asarray(array[place])

    def leave(self, ops: Any, node: Node, array: Any) -> Any:
        return self._clear(ops, node.name, self.fields[node.name], array)

    def back(self, ops: Any, node: Node, index: int, signal: Any) -> Any:
        producer = node.inputs[index]
        mine, place = self._part(node, index)
        if self._window(node, index) != POINTWISE:
            # Pointwise layers leave zeros outside; the others have sent signals into the padding.
            signal = self._clear(ops, producer, mine, signal)
        if place is None:
            return signal
        size = self.fields[producer].size
        whole = ops.backend.zeros((signal.shape[0], *size, signal.shape[3]), signal.dtype)
        whole[place] = signal
        return whole
