"""The CUDA kernels on the CPU, for tests: NumPy arrays in, the sources of csrc/ compiled by g++.

`make emulated` builds the extension into build/emulated; ZFCORE_EMULATED names another folder. It
is slow on purpose (every CUDA thread is a fiber in a random order) and no part of a release.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import checks
from .compiled import Launchers
from .numba import asarray, to_numpy, zeros  # noqa: F401

name = "emulated"
ARRAYS = "numpy"
PRECISIONS = checks.PRECISIONS


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Array of 0xff bytes (NaN, -1, 255): a cell that no thread writes shows in the result."""
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array


def _load() -> ModuleType:
    """The extension module, from its folder of the build."""
    folder = Path(os.environ.get("ZFCORE_EMULATED") or Path(__file__).parents[2] / "build" / "emulated")
    for file in sorted(folder.glob("_emulated*.so")):
        spec = importlib.util.spec_from_file_location("_emulated", file)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ImportError(f"the emulated CUDA kernels are not built: no _emulated*.so in {folder} (make emulated)")


extension = _load()
_launchers = Launchers(extension, np, lambda: 0)
globals().update({key: getattr(_launchers, key) for key in dir(Launchers) if not key.startswith("_")})
