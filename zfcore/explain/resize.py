"""Maps and images at other sizes, bilinearly, as float arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _weights(size: int, wanted: int) -> np.ndarray:
    """(wanted, size): each output cell's shares of the input cells, whose centres are at halves."""
    matrix = np.zeros((wanted, size))
    places = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    first = np.floor(places).astype(np.intp)
    share = places - first
    rows = np.arange(wanted)
    matrix[rows, first] += 1 - share
    matrix[rows, np.minimum(first + 1, size - 1)] += share
    return matrix


def resize_maps(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize (N, height, width) or (N, height, width, channels) to `size`, bilinearly.

    Cells have their centres at halves, the border repeats (torch's `interpolate` with
    align_corners=False). Reducing to less than half of a size skips cells.

    Parameters
    ----------
    maps : float
    size : (height, width)

    Returns
    -------
    array of the same dtype
    """
    rows, columns = _weights(maps.shape[1], size[0]), _weights(maps.shape[2], size[1])
    return np.einsum("ph,qw,nhw...->npq...", rows, columns, maps, optimize=True).astype(maps.dtype)
