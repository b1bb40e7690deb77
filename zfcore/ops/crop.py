"""Crops of maps (`geometry.Tile`): where they lie inside their map, and clearing the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks
from ..geometry import Tile

__all__ = ["clear_outside"]


def bounds_of(where: str, shape: tuple[int, ...], tile: Tile | None) -> np.ndarray:
    """(N, 4) int64: rows [top, bottom) and columns [left, right) of each image that lie inside its map."""
    images, height, width = shape[:3]
    if tile is None:
        whole = np.empty((images, 4), np.int64)
        whole[:] = 0, height, 0, width
        return whole
    origins = np.asarray(tile.origins)
    if origins.dtype.kind not in "iu":
        checks.fail(where, "tile.origins.dtype", origins.dtype, "integers", TypeError)
    checks.shape(where, "tile.origins", origins, (images, 2))
    extent = checks.pair(where, "tile.extent", tile.extent, 1)
    bounds = np.empty((images, 4), np.int64)
    for axis, size in enumerate((height, width)):
        first = origins[:, axis].astype(np.int64)
        bounds[:, 2 * axis] = np.clip(-first, 0, size)
        bounds[:, 2 * axis + 1] = np.clip(extent[axis] - first, 0, size)
    return bounds


def clear_outside(x: Any, tile: Tile, *, backend: Any = None) -> Any:
    """Set to 0, in place, the cells of crops that lie outside their map.

    Parameters
    ----------
    x : writeable, C-contiguous array (N, h, w, C)
    tile : where each crop lies

    Returns
    -------
    x itself
    """
    backend = backend or backends.of(x)
    checks.floats("clear_outside", "x", x, 4, backend)
    bounds = bounds_of("clear_outside", x.shape, tile)
    in_place("clear_outside", x=x)
    backend.clear_outside(x, bounds)
    return x


def in_place(where: str, **arrays: Any) -> None:
    """Require arrays that can be changed in place: writeable, C-contiguous, aligned, sharing no memory."""
    given = list(arrays.items())
    for name, array in given:  # device arrays have no mark against writing
        state = {flag: bool(getattr(array.flags, flag, True)) for flag in ("writeable", "c_contiguous", "aligned")}
        if not all(state.values()):
            checks.fail(where, f"{name}.flags", state, "a writeable, C-contiguous, aligned array")
    for i, (name, array) in enumerate(given):
        for other, second in given[:i]:
            if np.may_share_memory(array, second):
                checks.fail(where, f"{name}", f"an array that shares memory with {other}", "separate arrays")
