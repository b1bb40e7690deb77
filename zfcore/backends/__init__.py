"""The only place that chooses where kernels run.

A backend is a module with one function for each kernel launcher (outputs first), `empty`, `zeros`,
`asarray`, `to_numpy` for its arrays; `ARRAYS` names the library that they are of. Arrays choose the backend
by their type; where there are none yet, `use` or `ZFCORE_BACKEND` says which.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from .bfloat16 import Bfloat16

NAMES = ("numba", "emulated", "cuda")
_chosen: str | None = None


def get(name: str) -> ModuleType:
    """Return the backend module called `name`; ImportError, with the reason, where it cannot run."""
    if name not in NAMES:
        raise ValueError(f"backend is {name!r}; allowed: one of {', '.join(map(repr, NAMES))}")
    return importlib.import_module(f"zfcore.backends.{name}")


def default() -> str:
    """Name of the backend that is used where nothing else says which."""
    return _chosen or os.environ.get("ZFCORE_BACKEND") or "numba"


def use(name: str | None) -> None:
    """Choose the default for this process; None: what the environment says."""
    global _chosen
    if name is not None:
        get(name)
    _chosen = name


def for_device(device: str) -> str | None:
    """What `use` takes for a device by its name: "cuda", "cpu", or "auto", a GPU where one can be used.

    Raises
    ------
    ValueError : a device that there is not, with the reason
    """
    if device == "cuda":
        try:
            return str(get("cuda").name)
        except ImportError as error:
            raise ValueError(f"--device is 'cuda'; allowed here: 'cpu' ({error})") from None
    if device not in ("auto", "cpu"):
        raise ValueError(f"--device is {device!r}; allowed: 'auto', 'cpu' or 'cuda'")
    named = os.environ.get("ZFCORE_BACKEND")
    if device == "auto":
        return "cuda" if not named and why_not("cuda") is None else None
    return "numba" if named == "cuda" else None


def why_not(name: str) -> str | None:
    """Why a backend cannot be used here; None: it can."""
    try:
        get(name)
    except Exception as error:  # whatever keeps it from loading is the answer
        return str(error)
    return None


def built() -> str:
    """Which devices the installed CUDA kernels were compiled for, or why there are none."""
    return str(importlib.import_module("zfcore.backends.compiled").targets())


def _on_device(value: Any) -> bool:
    """Whether a value is an array of CuPy; asks without loading it."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def kind(value: Any) -> str | None:
    """Whose array a value is: "numpy", "cupy", "outside" (another library's, see `outside`), or None."""
    if isinstance(value, np.ndarray):
        return "numpy"
    if _on_device(value):
        return "cupy"
    if isinstance(value, Bfloat16):
        return "outside"
    return "outside" if hasattr(value, "__dlpack_device__") or hasattr(value, "__cuda_array_interface__") else None


def is_array(value: Any) -> bool:
    """Whether some backend works on a value's type."""
    return kind(value) in ("numpy", "cupy")


def to_numpy(array: Any) -> np.ndarray:
    """Any backend's array on the host; NumPy's own as it is."""
    return array if isinstance(array, np.ndarray) else np.asarray(of(array).to_numpy(array))


def of(array: Any) -> ModuleType:
    """Return the backend that works on `array`'s type."""
    if _on_device(array):
        return get("cuda")
    if isinstance(array, np.ndarray):
        return get("numba" if default() == "cuda" else default())
    raise TypeError(f"backends.of: array is a {type(array).__module__}.{type(array).__name__}; "
                    "allowed: numpy.ndarray or cupy.ndarray")
