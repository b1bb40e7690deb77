"""Waiting for a number in memory to change, outside the interpreter's lock.

A thread that sleeps takes some 50 microseconds to wake, as long as many kernels take in all; one that
looks at a number again and again sees it change within one.
"""

from __future__ import annotations

import platform
import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .compile import kernel

_X86 = platform.machine().lower() in ("x86_64", "amd64")


@intrinsic
def _load(typing_context: Any, address: Any) -> Any:
    """The 64-bit number at an address, read anew every time."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)
    return types.int64(types.uint64), code


@intrinsic
def _store(typing_context: Any, address: Any, number: Any) -> Any:
    """Write the 64-bit number at an address, after everything that was written before."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], place, "seq_cst", 8)
        return context.get_dummy_value()
    return types.void(types.uint64, types.int64), code


@intrinsic
def _pause(typing_context: Any) -> Any:
    """Leave the core to its other thread for a moment, where the processor has a word for it."""
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _X86:
            name = "llvm.x86.sse2.pause"
            builder.call(builder.module.declare_intrinsic(name, fnty=ir.FunctionType(ir.VoidType(), [])), [])
        return context.get_dummy_value()
    return types.void(), code


@kernel
def changed(number, seen, looks, after, done):
    """Whether number[0] stops being `seen` within so many looks; waits for `after` more once it has.

    First of all done[0] = 1: who waits for that then finds the interpreter's lock free.
    """
    _store(done.ctypes.data, 1)
    address = number.ctypes.data
    for _ in range(looks):
        if _load(address) != seen:
            for _ in range(after):
                _pause()
            return True
        _pause()
    return False


def looks_in(seconds: float) -> int:
    """Looks that take about so long on this machine, measured."""
    number, done = np.zeros((2, 1), np.int64)
    changed(number, 0, 1, 0, done)  # compiled
    start = time.perf_counter()
    changed(number, 0, 4000, 0, done)
    return max(1, int(4000 * seconds / (time.perf_counter() - start)))
