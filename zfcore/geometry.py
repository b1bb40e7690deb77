"""Sizes, receptive fields and crops of maps; knows nothing of arrays' contents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def output_size(size: int, window: int, stride: int, before: int, after: int, dilation: int = 1,
                ceil_mode: bool = False) -> int:
    """Number of window positions along one axis; may be <= 0, which callers refuse.

    In ceil mode a last window that would start in the padding after the map does not exist.
    """
    span = size + before + after - dilation * (window - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after) such that the output has ceil(size / stride) positions; the odd cell goes after."""
    total = max((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def window_starts(size: int, window: int, stride: int) -> np.ndarray:
    """First cells of windows that cover an axis: from 0 by the stride, the last one moved inside."""
    last = size - window
    return np.array([*range(0, last, stride), last], np.int64)


@dataclass(frozen=True)
class Tile:
    """Where the arrays of a batch of crops lie in their map.

    Cell (row, column) of item n is cell `origins[n] + (row, column)` of a map of size `extent`;
    cells outside the map are padding. Operations on tiles use no padding of their own: the tile
    already holds every cell that their windows touch.

    Attributes
    ----------
    origins : int32 array (N, 2), row and column of each crop's first cell; may be negative
    extent : (height, width) of the whole map
    """

    origins: np.ndarray
    extent: tuple[int, int]


@dataclass(frozen=True)
class Window:
    """What a layer's output cell sees of its input, along (rows, columns).

    Output cell p reads the `span` input cells from `p * stride - before`.
    """

    stride: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    span: tuple[int, int] = (1, 1)


POINTWISE = Window()


@dataclass(frozen=True)
class Field:
    """The cells of one tensor that a unit elsewhere can touch, along (rows, columns).

    For the unit at position u they start at `u * stride + offset` and are `size` many; the part
    outside the tensor's map is padding. With the tensor that is the network's input this is the
    unit's receptive field.
    """

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    offset: tuple[int, int] = (0, 0)

    def below(self, window: Window) -> Field:
        """The field in a layer's input, given this field in its output."""
        axes = range(2)
        return Field(
            size=_pair([(self.size[a] - 1) * window.stride[a] + window.span[a] for a in axes]),
            stride=_pair([self.stride[a] * window.stride[a] for a in axes]),
            offset=_pair([self.offset[a] * window.stride[a] - window.before[a] for a in axes]),
        )

    def hull(self, other: Field) -> Field | None:
        """The smallest field around both, for tensors with several consumers.

        None if the strides differ: then their distance depends on the unit's position, and no
        tile of constant size holds both.
        """
        if self.stride != other.stride:
            return None
        start = [min(self.offset[a], other.offset[a]) for a in range(2)]
        end = [max(self.offset[a] + self.size[a], other.offset[a] + other.size[a]) for a in range(2)]
        return Field(_pair([end[a] - start[a] for a in range(2)]), self.stride, _pair(start))

    def origins(self, rows: Any, columns: Any) -> np.ndarray:
        """First cells, int32 (N, 2), of the fields of the units at `rows`, `columns`; may be negative."""
        positions = np.stack([np.asarray(rows, np.int64), np.asarray(columns, np.int64)], axis=-1)
        return (positions * self.stride + self.offset).astype(np.int32)


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]
