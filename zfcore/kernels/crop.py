"""Crops: clearing what lies outside the map, and cutting patches out of images."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .threads import parallel
from .work import grain

# ------------------------------------------------------------------------------------------------
# kernels


@kernel
def clear_outside_kernel(begin, end, x, bounds):
    """One row of one crop: cells outside rows [top, bottom) and columns [left, right) become 0."""
    rows, columns = x.shape[1:3]
    for item in range(begin, end):
        n, r = item // rows, item % rows
        inside = bounds[n, 0] <= r < bounds[n, 1]
        for s in range(columns):
            if not (inside and bounds[n, 2] <= s < bounds[n, 3]):
                x[n, r, s] = 0


@kernel
def cut_patches_kernel(begin, end, patches, places, images, items, origins, channels):
    """One patch: patches (P, h, w * C) from images (N, H, W * C)."""
    height, width = patches.shape[1:]
    rows, columns = images.shape[1:]
    for i in range(begin, end):
        top, left = origins[i, 0], origins[i, 1] * channels
        first, last = min(max(-left, 0), width), max(min(columns - left, width), 0)
        for r in range(height):
            line = patches[places[i], r]
            if not 0 <= top + r < rows or last <= first:
                line[:] = 0
                continue
            line[:first] = 0
            line[last:] = 0
            target, source = line[first:last], images[items[i], top + r, left + first:left + last]
            for c in range(target.size):
                target[c] = source[c]


# ------------------------------------------------------------------------------------------------
# launchers


def clear_outside(x: np.ndarray, bounds: np.ndarray) -> None:
    """Clear, in place, the cells of x (N, h, w, C) outside `bounds` (N, 4)."""
    parallel(clear_outside_kernel, x.shape[0] * x.shape[1], x, bounds, grain=grain(x.shape[2] * x.shape[3]))


def cut_patches(patches: np.ndarray, places: np.ndarray, images: np.ndarray, items: np.ndarray,
                origins: np.ndarray) -> None:
    """patches[places[i]] = the part of images[items[i]] at origins[i], 0 outside the image.

    Parameters
    ----------
    patches : uint8 (P, h, w, C)
    places : int64 (n,), every one at most once
    images : uint8 (N, H, W, C)
    items : int64 (n,)
    origins : int32 (n, 2), row and column; may be negative
    """
    parallel(cut_patches_kernel, len(places), lines_of(patches), places, lines_of(images), items, origins,
             images.shape[3], grain=grain(patches.shape[1] * patches.shape[2] * patches.shape[3] // 8))


def lines_of(x: np.ndarray) -> np.ndarray:
    """x (N, H, W, C) as (N, H, W * C)."""
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
