"""Arrays of other libraries (PyTorch, JAX, ...): taken over without a copy, and results handed back in kind.

By DLPack, or by `__cuda_array_interface__` where an array has nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import get

CPU, CUDA = 1, 2  # DLPack's numbers of kinds of devices


def take(where: str, name: str, value: Any, changed: bool) -> Any:
    """The same memory as an array of NumPy or CuPy.

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
    if hasattr(like, "__array_namespace__"):
        return like.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(like).__module__.partition(".")[0]]
    take_over = getattr(library, "from_dlpack", None) or getattr(library, "asarray", None)
    if take_over is None:
        raise TypeError(f"{_type(like)}: its library has no from_dlpack; allowed: arrays of one that has")
    return take_over(result)


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"
