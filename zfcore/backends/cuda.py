"""The CUDA backend: CuPy arrays in (its memory pool), the kernels of csrc/ on CuPy's current stream.

Importing this module fails with the reason where it cannot run: no CuPy, an installation without the
compiled kernels, no driver, no device, or one that is older than the kernels.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from .. import checks
from .compiled import Launchers, load
from .recording import Recording

name = "cuda"
ARRAYS = "cupy"
PRECISIONS = checks.PRECISIONS
OLDEST = (8, 0)  # compute capability


def _arrays() -> ModuleType:
    """CuPy, which must find a device."""
    try:
        import cupy
    except ImportError as error:
        raise ImportError(f"CuPy is missing or does not load (pip install 'zfcore[cuda]'): {error}") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # of CuPy's own kind, where there is no driver
        raise ImportError(f"no CUDA device: {error}") from None
    if count < 1:
        raise ImportError("no CUDA device")
    capability = cupy.cuda.Device().compute_capability
    if (int(capability[:-1]), int(capability[-1])) < OLDEST:
        raise ImportError(f"the CUDA device has compute capability {capability}; the kernels need 80 or more")
    return cupy


extension = load()
_cupy = _arrays()


def _with_room(make: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
    """What `make` makes, or MemoryError in words."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    try:
        return make(shape, dtype)
    except _cupy.cuda.memory.OutOfMemoryError:
        needed = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        free, total = _cupy.cuda.runtime.memGetInfo()
        raise MemoryError(f"cuda: an array of shape {shape} needs {needed} bytes, and {free} of the device's "
                          f"{total} are free; a smaller batch needs less") from None


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """Array of this backend with any values."""
    return _with_room(_cupy.empty, shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """Array of zeros of this backend."""
    return _with_room(_cupy.zeros, shape, dtype)


def asarray(array: Any, dtype: Any = None) -> Any:
    """C-contiguous array on the current device; NumPy's are copied to it, others only where they must be."""
    if not isinstance(array, _cupy.ndarray):
        if _cupy.cuda.get_current_stream().is_capturing():
            raise RuntimeError("cuda: an array of the host's inside recorded work, which would read it at every launch")
        host = np.ascontiguousarray(array, dtype)
        made = empty(host.shape, host.dtype)
        made.set(host)
        return made
    if array.device.id != _cupy.cuda.runtime.getDevice():
        raise ValueError(f"cuda: an array is on device {array.device.id}; allowed: the current device, "
                         f"{_cupy.cuda.runtime.getDevice()}")
    if array.data.ptr % array.dtype.itemsize:
        array = array.copy()
    if array.flags.c_contiguous and dtype in (None, array.dtype):
        return array
    made = empty(array.shape, array.dtype if dtype is None else dtype)
    made[...] = array
    return made


def to_numpy(array: Any) -> np.ndarray:
    """A copy on the host; waits for the array's values."""
    return array if isinstance(array, np.ndarray) else _cupy.asnumpy(array)


def from_outside(array: Any, changed: bool = False) -> Any:
    """Another library's array on the device, without a copy; `changed`: it will be written to.

    By DLPack, which orders the two libraries' streams, or by __cuda_array_interface__, whose stream is waited for.
    """
    if hasattr(array, "__dlpack__"):
        return _cupy.from_dlpack(array)
    described = array.__cuda_array_interface__
    stream = described.get("stream")
    if stream == 0:
        raise ValueError("__cuda_array_interface__ has stream 0; allowed: None, 1 (legacy), 2 (of the thread), or a "
                         "stream's address")
    if changed and described["data"][1]:
        raise ValueError("__cuda_array_interface__ is of a read-only array; allowed: one that may be written")
    return _cupy.asarray(array)


def recording() -> Recording:
    """Work that is recorded once and launched again, as a CUDA graph."""
    return Recording(_cupy)


def memory() -> dict[str, int]:
    """Bytes of the device: free, in all, and held by CuPy's pool."""
    free, total = _cupy.cuda.runtime.memGetInfo()
    return {"free": int(free), "total": int(total), "pool": int(_cupy.get_default_memory_pool().total_bytes())}


def device_name() -> str:
    """Name of the current device."""
    properties = _cupy.cuda.runtime.getDeviceProperties(_cupy.cuda.runtime.getDevice())
    found = properties["name"]
    return found.decode() if isinstance(found, bytes) else str(found)


_launchers = Launchers(extension, sys.modules[__name__], lambda: int(_cupy.cuda.get_current_stream().ptr))
globals().update({key: getattr(_launchers, key) for key in dir(Launchers) if not key.startswith("_")})
