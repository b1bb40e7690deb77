"""Crops of maps: clearing what lies outside the map."""

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


# ------------------------------------------------------------------------------------------------
# launchers


def clear_outside(x: np.ndarray, bounds: np.ndarray) -> None:
    """Clear, in place, the cells of x (N, h, w, C) outside `bounds` (N, 4)."""
    parallel(clear_outside_kernel, x.shape[0] * x.shape[1], x, bounds, grain=grain(x.shape[2] * x.shape[3]))
