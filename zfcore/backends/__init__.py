"""The only place that chooses where kernels run.

A backend is a module with one function for each kernel launcher (outputs first) and `empty`,
`zeros`, `asarray`, `to_numpy` for its arrays. `ZFCORE_BACKEND` overrides the choice by array type.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np

NAMES = ("numba", "emulated")


def get(name: str) -> ModuleType:
    """Return the backend module called `name`."""
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}; allowed: one of {', '.join(map(repr, NAMES))}")
    return importlib.import_module(f"zfcore.backends.{name}")


def default() -> str:
    """Name of the backend that is used where nothing else says which."""
    return os.environ.get("ZFCORE_BACKEND") or "numba"


def of(array: Any) -> ModuleType:
    """Return the backend that works on `array`'s type."""
    if isinstance(array, np.ndarray):
        return get(default())
    raise TypeError(f"array is a {type(array).__module__}.{type(array).__name__}; allowed: numpy.ndarray")
