"""Sizes, receptive fields and crops of maps; knows nothing of arrays' contents."""

from __future__ import annotations

from dataclasses import dataclass

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
