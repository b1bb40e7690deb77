"""Arrays of other libraries (PyTorch, JAX, ...): taken over without a copy, and results handed back in kind.

By DLPack, or by `__cuda_array_interface__` where an array has nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import get
from .bfloat16 import Bfloat16

CPU, CUDA = 1, 2  # DLPack's numbers of kinds of devices


def take(where: str, name: str, value: Any, changed: bool) -> Any:
    """The same memory as an array of NumPy or CuPy; of bfloat16, its bits.

    Parameters
    ----------
    where, name : operation and argument, for errors
    value : an array with `__dlpack_device__` or `__cuda_array_interface__`; a bare DLPack capsule has
        neither, since it serves only once
    changed : whether the operation writes to it

    Raises
    ------
    ValueError : on a device that is neither the CPU nor a CUDA GPU, of a type that NumPy and CuPy lack, or
        refused by its own library (as PyTorch refuses tensors that require gradients)
    """
    if isinstance(value, Bfloat16):
        return value.bits
    if _is_bfloat16(value):
        return take(where, name, _library(value, "int16", lambda kind: value.view(kind)), changed).view(np.uint16)
    try:
        kind = int(value.__dlpack_device__()[0]) if hasattr(value, "__dlpack_device__") else CUDA
        if kind == CPU:
            array = np.from_dlpack(value)
            if changed and not array.flags.writeable:
                raise ValueError("it is read-only")
            return array
        if kind == CUDA:
            return get("cuda").from_outside(value, changed)
        raise ValueError(f"it is on a device of DLPack's kind {kind}")
    except (ValueError, TypeError, BufferError, RuntimeError, ImportError) as error:
        raise ValueError(f"{where}: {name} of type {_type(value)} cannot be taken over: {error}; "
                         "allowed: arrays on the CPU or on a CUDA GPU that can be used") from error


def hand_back(result: Any, like: Any) -> Any:
    """An operation's result, or several, as arrays of `like`'s library; the memory is the same."""
    if isinstance(result, (tuple, list)):
        return type(result)(hand_back(each, like) for each in result)
    if result is None:
        return None
    if result.dtype == np.uint16:  # no operation returns integers of this type
        if isinstance(like, Bfloat16):
            return Bfloat16(result)
        return _library(like, "bfloat16", lambda kind: hand_back(result.view(np.int16), like).view(kind))
    if isinstance(like, Bfloat16):
        return result
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(like).__module__.partition(".")[0]]
    take_over = getattr(library, "from_dlpack", None) or getattr(library, "asarray", None)
    if take_over is None:
        raise TypeError(f"{_type(like)}: its library has no from_dlpack; allowed: arrays of one that has")
    return take_over(result)


def _is_bfloat16(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).rpartition(".")[2] == "bfloat16"


def _library(value: Any, name: str, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of the type called `name` in the array's own library, which must have it."""
    found = getattr(sys.modules[type(value).__module__.partition(".")[0]], name, None)
    if found is None:
        raise TypeError(f"{_type(value)}: its library has no {name} by that name; allowed: arrays of PyTorch, or "
                        "ops.Bfloat16 of the bits")
    return use(found)


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"
