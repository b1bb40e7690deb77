"""Uninitialised arrays from recycled memory.

The operating system clears every page that it hands out, and takes large blocks back as soon as they
are freed: a network that allocates its activations afresh in each pass spends a tenth of its time on that.
So large blocks are kept for a while when their last array is gone, the most recent ones, up to LIMIT bytes.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

SMALLEST = 1 << 20  # bytes; smaller arrays are left to NumPy
LIMIT = 1 << 30  # bytes of blocks that nobody uses
LINE = 64  # arrays start at a cache line

_idle: deque[_Block] = deque()  # the oldest first; single operations on it are atomic


class _Block:
    """Memory of one size, and where its first cache line is."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = np.empty(size + LINE, np.uint8)
        self.start = self.memory.ctypes.data + -self.memory.ctypes.data % LINE


class _Lease:
    """The base of every array on a block: when the last array is gone, so is this, and the block is idle."""

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.__array_interface__ = {"data": (block.start, False), "shape": (block.size,), "typestr": "|u1",
                                    "version": 3}

    def __del__(self) -> None:
        _idle.append(self.block)
        while sum(block.size for block in tuple(_idle)) > LIMIT:
            try:
                _idle.popleft()
            except IndexError:  # another thread was faster
                return


def _class(size: int) -> int:
    """The size rounded up by less than an eighth, so that similar arrays can share blocks."""
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def _take(size: int) -> _Block:
    for block in tuple(_idle):
        if block.size == size:
            try:
                _idle.remove(block)
                return block
            except ValueError:  # another thread took it
                continue
    return _Block(size)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like numpy.empty."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALLEST or size > LIMIT:
        return np.empty(shape, dtype)
    lease = _Lease(_take(_class(size)))
    return np.asarray(lease)[:size].view(dtype).reshape(shape)


def release() -> None:
    """Give all idle memory back to the operating system."""
    _idle.clear()
