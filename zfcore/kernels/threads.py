"""The package's own thread pool.

Kernels are one-thread Numba functions that release the GIL and work on items `begin` to `end`.
That compiles faster than Numba's parallel mode, is safe when several Python threads call in at
once (one of Numba's threading layers aborts the process there), and leaves BLAS settings alone.

A worker that runs out of work looks for more for HOT seconds, without the GIL, before it goes to sleep:
handing work over takes some 10 microseconds then, instead of 90. The caller works too, and takes
back what no worker has begun when it is done itself.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

HOT = 250e-6  # seconds for which a worker looks for more work before it sleeps
SHARES = 2  # a piece is this part of a thread's share of what is left
CALLER = 4e-6  # seconds for which a caller still needs the GIL after it has handed out work

_lock = threading.Lock()
_pool: _Pool | None = None
_ended = False
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


class _Share:
    """One worker's share of a call: the work may be begun by one worker, or taken back by the caller."""

    __slots__ = ("begun", "error", "finished", "number", "work")

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work  # None once begun: nobody keeps its arrays for longer
        self.begun = threading.Lock()
        self.finished = threading.Lock()
        self.finished.acquire()
        self.number = np.zeros(1, np.int64)  # 1 when finished and the worker has left the interpreter
        self.error: BaseException | None = None

    def take(self) -> Callable[[], None] | None:
        """The work, for the first who asks."""
        if not self.begun.acquire(blocking=False):
            return None
        work, self.work = self.work, None
        return work

    def run(self) -> None:
        """Do it, if nobody has."""
        if (work := self.take()) is None:
            return
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (the caller raises it)
            self.error = error
        del work
        self.finished.release()


class _Pool:
    """Workers that wait for shares, hot at first and then asleep."""

    def __init__(self) -> None:
        from .wait import changed, looks_in

        self._changed, self._queue = changed, SimpleQueue[_Share | None]()
        self._nobody = np.zeros(1, np.int64)  # waits for this
        self._bell = np.zeros(1, np.int64)  # another number whenever work was put into the queue
        self._looks, self._after = looks_in(HOT), looks_in(CALLER)
        self.workers: list[threading.Thread] = []

    def grow(self, count: int) -> None:
        """Have `count` workers; RuntimeError where the system refuses."""
        while len(self.workers) < count:
            worker = threading.Thread(target=self._serve, name=f"zfcore-{len(self.workers)}", daemon=True)
            worker.start()
            self.workers.append(worker)

    def _serve(self) -> None:
        done = np.zeros(1, np.int64)
        while True:
            seen = self._bell[0]
            try:
                share = self._queue.get_nowait()
                done[0] = 1
            except Empty:
                if self._changed(self._bell, seen, self._looks, self._after, done):
                    continue
                share = self._queue.get()
            if share is None:
                return
            share.run()
            done = share.number  # told when nothing is left to do in the interpreter
            del share  # its arrays may go

    def put(self, shares: list[_Share]) -> None:
        """Hand out work."""
        for share in shares:
            self._queue.put(share)
        self._bell[0] += 1

    def wait(self, shares: list[_Share]) -> None:
        """Until all are finished; for those that nobody has begun, not at all."""
        for share in shares:
            if share.take() is None:
                if not share.number[0]:
                    self._changed(share.number, 0, self._looks, 0, self._nobody)
                with share.finished:
                    pass
        for share in shares:
            if share.error is not None:
                raise share.error

    def stop(self) -> None:
        """End the workers: none may run compiled code when the interpreter takes it down."""
        for _ in self.workers:
            self._queue.put(None)
        self._bell[0] += 1
        for worker in self.workers:
            worker.join(1)


def _helpers(count: int) -> tuple[_Pool, int]:
    """The pool, and how many workers it has of the `count` that are wanted."""
    global _pool

    with _lock:
        if _pool is None:
            _pool = _Pool()
        if not _ended:
            try:
                _pool.grow(count)
            except RuntimeError:  # the interpreter is ending, or the system has no thread left
                pass
        return _pool, 0 if _ended else min(count, len(_pool.workers))


def _forget_pool() -> None:
    """A forked child has none of its parent's threads, and may have copied a held lock."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


def _end() -> None:
    global _ended
    with _lock:
        _ended = True
    if _pool is not None:
        _pool.stop()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@lru_cache(maxsize=512)
def _pieces(items: int, grain: int, threads: int) -> tuple[tuple[int, int], ...]:
    """Where each piece of the work begins and ends, in order: whole grains, large at both ends and small in the middle.

    The caller takes pieces from the front and the workers from the back, so that the same rows meet the same
    core's cache in one call after another. A piece is a share of what is left: so there are few of them (taking one
    costs microseconds, more than a grain of a small map's work), and the last ones are small: nobody waits long.
    """
    front: list[tuple[int, int]] = []
    back: list[tuple[int, int]] = []
    low, high = 0, -(-items // grain)  # grains that are left
    while low < high:
        share = max(1, (high - low) // (SHARES * threads))
        if len(front) == len(back):
            front.append((low * grain, min((low + share) * grain, items)))
            low += share
        else:
            back.append(((high - share) * grain, min(high * grain, items)))
            high -= share
    return *front, *back[::-1]


def parallel(kernel: Callable[..., Any], items: int, *arguments: Any, grain: int = 1) -> None:
    """Run `kernel(begin, end, *arguments)` over range(items), cut into pieces of whole grains of items.

    Threads take the next piece when they are free. Every item must write its own part of the
    output, so the result does not depend on who took it, nor on the pieces.
    """
    if items <= 0:
        return
    threads = min(get_num_threads(), -(-items // grain))
    pool, helpers = _helpers(threads - 1) if threads > 1 else (None, 0)
    if pool is None or not helpers:
        kernel(0, items, *arguments)
        return
    pieces = deque(_pieces(items, grain, threads))

    def work(take: Callable[[], tuple[int, int]] = pieces.pop) -> None:
        while True:
            try:
                begin, end = take()  # atomic
            except IndexError:
                return
            kernel(begin, end, *arguments)

    shares = [_Share(work) for _ in range(helpers)]
    pool.put(shares)
    try:
        work(pieces.popleft)
    finally:
        pool.wait(shares)
