"""Launchers over a compiled extension: the names and arguments of the Numba ones.

The extension's functions take arrays by pointer, sizes from their shapes, and a stream last. What
the Numba launchers do in Python besides (settings in the array's type, small workspaces, a flag read
back) is done here, once for every compiled backend.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

_UNBOUNDED = 2**30  # what 64-bit bounds beyond any map become on the device


class Launchers:
    """One method for each launcher of `backends.numba`, over `extension`.

    Parameters
    ----------
    extension : the compiled module
    arrays : NumPy, or a module of the same names for the device's arrays
    stream : returns the current stream as an integer
    """

    def __init__(self, extension: ModuleType, arrays: Any, stream: Callable[[], int]) -> None:
        self._extension = extension
        self._arrays = arrays
        self._stream = stream

    def _run(self, name: str, *arguments: Any) -> None:
        getattr(self._extension, name)(*arguments, self._stream())

    def _bounds(self, bounds: Any) -> Any:
        """Bounds (N, 4) as the device's int32."""
        return self._arrays.asarray(np.clip(bounds, -_UNBOUNDED, _UNBOUNDED).astype(np.int32))

    # ------------------------------------------------------------------------------------- pooling

    def max_pool(self, y: Any, switches: Any, x: Any, bounds: Any, window: Any, stride: Any, before: Any) -> None:
        """Fill y and switches (N, P, Q, C) from x (N, H, W, C)."""
        self._run("max_pool", y, switches, x, self._bounds(bounds), window, stride, before)

    def check_switches(self, switches: Any, bounds: Any, window: Any, stride: Any, before: Any) -> bool:
        """Whether every switch points at a cell inside its window and inside the map; waits for the answer."""
        bad = self._arrays.zeros(1, np.int32)
        self._run("check_switches", bad, switches, self._bounds(bounds), window, stride, before)
        return not int(bad[0])

    def max_unpool(self, x: Any, y: Any, switches: Any, bounds: Any, window: Any, stride: Any, before: Any,
                   last_wins: bool) -> None:
        """Fill x (N, H, W, C) with the values of y (N, P, Q, C) at their switches."""
        self._run("max_unpool", x, y, switches, self._bounds(bounds), window, stride, before, last_wins)

    def average_pool(self, y: Any, x: Any, bounds: Any, counted: Any, window: Any, stride: Any, before: Any) -> None:
        """Fill y (N, P, Q, C) from x (N, H, W, C)."""
        self._run("average_pool", y, x, self._bounds(bounds), self._bounds(counted), window, stride, before)

    def average_pool_gradient(self, dx: Any, dy: Any, bounds: Any, counted: Any, window: Any, stride: Any,
                              before: Any) -> None:
        """Fill dx (N, H, W, C) from dy (N, P, Q, C)."""
        self._run("average_pool_gradient", dx, dy, self._bounds(bounds), self._bounds(counted), window, stride, before)

    def global_average_pool(self, y: Any, x: Any) -> None:
        """Fill y (N, C) from x (N, H, W, C)."""
        self._run("global_average_pool", y, x)

    def global_average_pool_gradient(self, dx: Any, dy: Any) -> None:
        """Fill dx (N, H, W, C) from dy (N, C)."""
        self._run("global_average_pool_gradient", dx, dy)

    def map_maximum(self, values: Any, positions: Any, x: Any) -> None:
        """Fill values and positions (N, C) from x (N, H, W, C)."""
        self._run("map_maximum", values, positions, x)

    def global_max_pool_gradient(self, dx: Any, dy: Any, positions: Any) -> None:
        """Fill dx (N, H, W, C) from dy and positions (N, C)."""
        self._run("global_max_pool_gradient", dx, dy, positions)
