"""The package's own thread pool.

Kernels are one-thread Numba functions that release the GIL and work on items `begin` to `end`.
That compiles faster than Numba's parallel mode, is safe when several Python threads call in at
once (one of Numba's threading layers aborts the process there), and leaves BLAS settings alone.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_threads: int | None = None


def get_num_threads() -> int:
    """Threads that a kernel uses: set_num_threads, else ZFCORE_NUM_THREADS, else the usable cores."""
    if _threads is not None:
        return _threads
    value = os.environ.get("ZFCORE_NUM_THREADS", "")
    if value:
        if not value.isdecimal() or int(value) < 1:
            raise ValueError(f"ZFCORE_NUM_THREADS is {value!r}; allowed: an integer >= 1")
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(count: int | None) -> None:
    """Set the number of threads; None goes back to the environment's. Results do not depend on it."""
    global _threads
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(f"set_num_threads: count is {count!r}; allowed: an integer >= 1 or None")
    _threads = count


def _workers(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    from concurrent.futures import ThreadPoolExecutor  # refused once the interpreter is ending

    with _lock:
        if _pool is None or _pool_size < count:
            # The older, smaller pool finishes what it holds and is then collected.
            _pool = ThreadPoolExecutor(count, thread_name_prefix="zfcore")
            _pool_size = count
        return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads, and may have copied a held lock."""
    global _pool, _pool_size, _lock
    _pool, _pool_size, _lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def parallel(kernel: Callable[..., Any], items: int, *arguments: Any, grain: int = 1) -> None:
    """Run `kernel(begin, end, *arguments)` over range(items), cut into pieces of `grain` items.

    Threads take the next piece when they are free. Every item must write its own part of the
    output, so the result does not depend on who took it.
    """
    if items <= 0:
        return
    pieces = -(-items // grain)
    threads = min(get_num_threads(), pieces)
    if threads == 1:
        kernel(0, items, *arguments)
        return
    following = itertools.count()  # next() on it is atomic
    done: list[int] = []

    def work() -> None:
        while (piece := next(following)) < pieces:
            try:
                kernel(piece * grain, min((piece + 1) * grain, items), *arguments)
            finally:
                done.append(piece)

    helpers, refused = [], False
    try:
        for _ in range(threads - 1):
            helpers.append(_workers(threads - 1).submit(work))
    except RuntimeError:  # the interpreter is ending, or the system has no thread left: the caller does the rest
        refused = True
    try:
        work()
    finally:
        for helper in helpers:
            helper.result()
    while refused and len(done) < pieces:  # a refused helper may have been queued: a thread may hold its piece
        time.sleep(1e-4)
