"""The thread pool where there are no threads to be had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from zfcore import ops
from zfcore.kernels import threads

AT_EXIT = """
import atexit, sys, threading
import numpy as np
from zfcore import ops

x = np.ones((8, 64, 64, 64), np.float32)

def late():
    threading.main_thread().join()  # the interpreter has begun to end
    print("late", float(ops.relu(x).sum()))

if "first" in sys.argv:
    ops.relu(x)
threading.Thread(target=late).start()
atexit.register(lambda: print("exit", float(ops.relu(x).sum())))
"""


@pytest.mark.parametrize("before", ["first", "never"])
def test_kernels_run_while_the_interpreter_ends(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZFCORE_NUM_THREADS", "4")
    done = subprocess.run([sys.executable, "-c", AT_EXIT, before], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.split() == ["late", "2097152.0", "exit", "2097152.0"]


@pytest.mark.parametrize("begun", [0, 1])
def test_a_system_without_another_thread_is_no_error(begun: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((8, 64, 64, 64)).astype(np.float32)
    started, start = [], threading.Thread.start

    def refuses(thread: threading.Thread) -> None:
        if len(started) >= begun:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "_threads", 6)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    for _ in range(20):
        assert (ops.relu(x) == np.maximum(x, 0)).all()
    threads._forget_pool()


def failing(begin: int, end: int, done: np.ndarray) -> None:
    """A kernel whose item 3 fails, on whichever thread."""
    if begin <= 3 < end:
        raise ZeroDivisionError("item 3")
    done[begin:end] += 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_pieces_error_reaches_the_caller_and_the_pool_goes_on(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_threads", count)
    for _ in range(50):
        done = np.zeros(40, np.int64)
        with pytest.raises(ZeroDivisionError, match="item 3"):
            threads.parallel(failing, 40, done)
        assert done.max() <= 1
        done[:] = 0
        threads.parallel(add_one, 40, done)
        assert (done == 1).all()


def add_one(begin: int, end: int, done: np.ndarray) -> None:
    """Counts how often an item is done."""
    done[begin:end] += 1


@pytest.mark.parametrize("items", [1, 5, 64, 1000, 12345])
@pytest.mark.parametrize("grain", [1, 7, 64])
@pytest.mark.parametrize("count", [2, 3, 16])
def test_pieces_are_whole_grains_few_and_at_last_small(items: int, grain: int, count: int) -> None:
    pieces = threads._pieces(items, grain, count)
    begins, ends = zip(*pieces, strict=True)
    assert begins == (0, *ends[:-1]) and ends[-1] == items
    assert all(begin % grain == 0 for begin in begins)
    sizes = np.subtract(ends, begins)
    assert 0 < sizes.min() <= grain and sizes.max() <= max(grain, items / count)
    middle = (len(sizes) + 1) // 2
    assert (np.diff(sizes[:middle]) <= 0).all() and (np.diff(sizes[middle:-1]) >= 0).all()
    assert len(sizes) <= 2 * count * (2 + np.log(items))


def test_callers_share_the_workers_and_every_item_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_threads", 3)
    counts = [np.zeros(200, np.int64) for _ in range(6)]

    def call(done: np.ndarray) -> None:
        for _ in range(30):
            threads.parallel(add_one, 200, done, grain=7)

    callers = [threading.Thread(target=call, args=(done,)) for done in counts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert all((done == 30).all() for done in counts)


def test_no_array_is_kept_by_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_threads", 4)
    for _ in range(200):
        done = np.zeros(16, np.int64)
        gone = weakref.ref(done)
        threads.parallel(add_one, 16, done)
        del done
        assert gone() is None


def test_an_interrupt_while_compiling_locks_nobody_out(tmp_path: Path) -> None:
    """Ctrl-C just inside the lock of LLVM's binding, as one kernel is compiled; then a thread compiles another."""
    program = (
        "import os, signal, sys, threading\n"
        "import numpy as np\n"
        "from llvmlite.binding import ffi\n"
        "from zfcore.kernels.compile import kernel\n"
        "@kernel\n"
        "def first(x):\n"
        "    x[0] += 1\n"
        "@kernel\n"
        "def second(x):\n"
        "    x[0] += 2\n"
        "sent = []\n"
        "def inside():\n"
        "    if not sent:\n"
        "        sent.append(os.kill(os.getpid(), signal.SIGINT))\n"
        "        sum(range(10**5))\n"
        "ffi.lib._lock.register(inside, lambda: None)\n"
        "x = np.zeros(1)\n"
        "try:\n"
        "    first(x)\n"
        "    sys.exit('no interrupt')\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "other = threading.Thread(target=second, args=(x,), daemon=True)\n"
        "other.start()\n"
        "other.join(60)\n"
        "first(x)\n"
        "print(x[0], other.is_alive(), flush=True)\n"
        "os._exit(0)\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
                            env={**os.environ, "ZFCORE_CACHE_DIR": str(tmp_path)})
    assert result.stdout == "3.0 False\n", result.stdout + result.stderr
