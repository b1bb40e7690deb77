"""Arrays of 16 bits for the tests: float16 is NumPy's, bfloat16 crosses as its bits (uint16)."""

from __future__ import annotations

from typing import Any

import numpy as np

# name, its number in ops.h, type of the arrays, unit roundoff of the storage, smallest positive step
FLOAT16 = ("float16", 2, np.float16, 2.0**-11, 2.0**-24)
BFLOAT16 = ("bfloat16", 3, np.uint16, 2.0**-8, 2.0**-133)
STORAGES = (FLOAT16, BFLOAT16)


def stored(values: np.ndarray, storage: Any) -> np.ndarray:
    """Values rounded to the storage, to the nearest, ties to even."""
    values = np.asarray(values, np.float32)
    if storage is FLOAT16:
        return values.astype(np.float16)
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def wide(array: np.ndarray) -> np.ndarray:
    """The numbers that an array holds, as float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
