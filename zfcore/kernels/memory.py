"""Recycled memory for large arrays.

Memory fresh from the system must be mapped and cleared page by page, which costs more than most
kernels that then fill it (74 MB: 5 to 40 ms). So the memory of large arrays goes back to a pool when
their last view dies, and serves the next array of about that size. All arrays start at a cache line.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

LARGE = 1 << 20  # bytes; smaller arrays come from NumPy, whose allocator keeps such memory itself
LINE = 64  # bytes of a cache line and of a vector register

_lock = threading.RLock()  # reentrant: a collection of garbage in here may give memory back
_idle: OrderedDict[int, np.ndarray] = OrderedDict()  # by address, the longest idle first
_idle_bytes = 0
_finalizing = sys.is_finalizing  # kept here: at the interpreter's end modules lose their contents


def share_of_memory() -> int:
    """An eighth of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
    except (AttributeError, OSError, ValueError):
        return 1 << 29


limit = share_of_memory()  # most bytes that may lie idle


def _forget() -> None:
    """A forked child may have copied a held lock, in whose middle the count was wrong; the memory is good."""
    global _lock, _idle_bytes
    _lock = threading.RLock()
    _idle_bytes = sum(memory.nbytes for memory in _idle.values())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Block:
    """Owner of one piece of memory, the base of every view of it; gives it back when the last one dies."""

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        if not _finalizing():
            _give(self._memory)


def _give(memory: np.ndarray) -> None:
    global _idle_bytes
    with _lock:
        _idle[memory.__array_interface__["data"][0]] = memory
        _idle_bytes += memory.nbytes
        _shrink(limit)


def _take(size: int) -> np.ndarray | None:
    """The piece that was used last of those that hold `size` bytes and waste at most an eighth."""
    global _idle_bytes
    with _lock:
        for address, memory in reversed(list(_idle.items())):  # a collection may change it in mid-loop
            if size <= memory.nbytes <= size + size // 8 and _idle.pop(address, None) is not None:
                _idle_bytes -= memory.nbytes
                return memory
    return None


def _shrink(most: int) -> None:
    global _idle_bytes
    while _idle and _idle_bytes > most:
        memory = _idle.popitem(last=False)[1]  # first: a collection in here may count too
        _idle_bytes -= memory.nbytes


def release() -> None:
    """Give all idle memory back to the system."""
    with _lock:
        _shrink(0)


class _Alias:
    """The same memory without the mark that forbids writing."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory alive
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def readable(array: np.ndarray) -> np.ndarray:
    """An input for kernels: to Numba a read-only array is another type, for which it would compile again.

    Kernels never write to their inputs; what is changed in place is checked for that mark before.
    """
    return array if array.flags.writeable else np.asarray(_Alias(array))


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised array whose first element starts a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        raw = np.empty(size + LINE, np.uint8)
    else:
        found = _take(size + LINE)
        raw = np.asarray(_Block(np.empty(size + LINE, np.uint8) if found is None else found))
    start = -raw.__array_interface__["data"][0] % LINE
    return np.ndarray(shape, dtype, raw, start)
