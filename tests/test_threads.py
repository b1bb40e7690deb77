"""The thread pool where there are no threads to be had."""

from __future__ import annotations

import subprocess
import sys
import threading

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
    monkeypatch.setattr(threads, "_pool_size", 0)
    monkeypatch.setattr(threads, "_threads", 6)
    monkeypatch.setattr(threading.Thread, "start", refuses)
    for _ in range(20):
        assert (ops.relu(x) == np.maximum(x, 0)).all()
    threads._forget_pool()
