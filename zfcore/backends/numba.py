"""The CPU backend: NumPy arrays in, Numba kernels over the package's threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.convolution import (  # noqa: F401
    channel_sum,
    convolution_forward,
    convolution_input_gradient,
    convolution_weight_gradient,
)
from ..kernels.linear import linear_forward, linear_input_gradient, linear_weight_gradient  # noqa: F401

name = "numba"


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised array of this backend."""
    return np.empty(shape, dtype)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Array of zeros of this backend."""
    return np.zeros(shape, dtype)


def asarray(array: Any, dtype: Any = None) -> np.ndarray:
    """C-contiguous, aligned array of this backend; copies only where it must."""
    return np.require(array, dtype, ["C", "A"])


def to_numpy(array: np.ndarray) -> np.ndarray:
    """The array itself: it is NumPy's already."""
    return array
