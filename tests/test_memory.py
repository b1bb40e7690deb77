"""Recycled memory: never shared by two living arrays, given back, bounded."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zfcore import ops
from zfcore.kernels import memory
from zfcore.kernels.pooling import max_pool_kernel

FLOATS = memory.LARGE // 4


@pytest.fixture(autouse=True)
def empty_pool():
    gc.collect()
    memory.release()
    yield
    memory.release()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7), (FLOATS - 1,), (FLOATS,), (3, FLOATS + 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32])
def test_shape_type_and_alignment(shape, dtype):
    array = memory.empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    assert array.ctypes.data % memory.LINE == 0 or array.size == 0
    array[...] = 1


def test_memory_is_used_again_after_the_last_view():
    array = memory.empty((FLOATS,), np.float32)
    address, view = array.ctypes.data, array[10:].reshape(-1, 1)[::3]
    view[:] = 7
    del array
    other = memory.empty((FLOATS,), np.float32)
    assert other.ctypes.data != address and not np.shares_memory(other, view)
    other[:] = 0
    assert (view == 7).all()
    del view
    assert memory.empty((FLOATS,), np.float32).ctypes.data == address
    del other


def test_only_about_the_same_size_is_used_again():
    address = memory.empty((2 * FLOATS,), np.float32).ctypes.data
    small = memory.empty((FLOATS,), np.float32)
    assert small.ctypes.data != address
    assert memory.empty((2 * FLOATS - 1000,), np.float32).ctypes.data == address


def test_read_only_inputs_need_no_kernels_of_their_own():
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
    expected, known = ops.max_pool(x, window=2), len(max_pool_kernel.signatures)
    frozen = x.copy()
    frozen.flags.writeable = False
    for a, b in zip(ops.max_pool(frozen, window=2), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(max_pool_kernel.signatures) == known
    assert not frozen.flags.writeable
    with pytest.raises(ValueError, match="weight.flags is"):
        ops.renormalize_filters(frozen, 0.1)
    view = memory.readable(memory.readable(frozen[:0]))
    assert view.shape == (0, 5, 5, 3)
    alias = memory.readable(frozen)
    del frozen
    np.testing.assert_array_equal(alias, x)  # the alias keeps the memory alive


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1, 1.05, 1.5, 2])), max_size=30))
def test_living_arrays_never_overlap(steps):
    """Six names, rebound in any order: each keeps its own values."""
    living = {}
    for number, (name, size) in enumerate(steps):
        living.pop(name, None)
        living[name] = (memory.empty((int(size * FLOATS),), np.float32), number)
        living[name][0].fill(number)
        for array, value in living.values():
            assert array[0] == value and array[-1] == value and array[len(array) // 2] == value


def test_idle_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "limit", 10 * memory.LARGE)
    arrays = [memory.empty((FLOATS * (i + 1),), np.float32) for i in range(8)]
    assert memory._idle_bytes == 0
    arrays.clear()
    assert 0 < memory._idle_bytes <= memory.limit
    assert memory._idle_bytes == sum(piece.nbytes for piece in memory._idle.values())
    memory.release()
    assert memory._idle_bytes == 0 and not memory._idle


def test_many_threads():
    wrong = []

    def work(value):
        for i in range(200):
            array = memory.empty((FLOATS + i % 3,), np.float32)
            array.fill(value)
            if array[0] != value or array[-1] != value or array[::4096].min() != value:
                wrong.append(value)

    workers = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert memory._idle_bytes == sum(piece.nbytes for piece in memory._idle.values())


class Collecting(OrderedDict):
    """Gives memory back in the middle of every step, as a collection of garbage may."""

    garbage: ClassVar[list] = []

    def __getitem__(self, address):
        self.garbage.clear()
        return super().__getitem__(address)

    def __reversed__(self):
        for address in super().__reversed__():
            yield address
            self.garbage.clear()

    def popitem(self, last=True):
        self.garbage.clear()
        return super().popitem(last)


def test_memory_that_comes_back_in_the_middle_of_a_search_or_a_count(monkeypatch):
    monkeypatch.setattr(memory, "_idle", Collecting())
    for number in range(1, 4):
        memory.empty((4 * number * FLOATS,), np.float32)
    Collecting.garbage.append(memory.empty((2 * FLOATS,), np.float32))
    assert memory.empty((FLOATS,), np.float32).shape == (FLOATS,)
    Collecting.garbage.append(memory.empty((2 * FLOATS,), np.float32))
    memory.release()
    assert memory._idle_bytes == sum(piece.nbytes for piece in memory._idle.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, where another test loaded it
def test_a_child_forked_in_the_middle_of_a_count_counts_anew(monkeypatch):
    memory.empty((FLOATS,), np.float32)
    monkeypatch.setattr(memory, "_idle_bytes", memory._idle_bytes + 1000)
    child = os.fork()
    if child == 0:
        right = False
        try:
            memory.release()
            right = memory._idle_bytes == 0
        finally:
            os._exit(0 if right else 1)
    monkeypatch.undo()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, where another test loaded it
def test_a_forked_child_may_allocate_while_the_parent_holds_the_lock():
    with memory._lock:
        child = os.fork()
        if child == 0:
            memory.empty((FLOATS,), np.float32).fill(1)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_arrays_that_outlive_the_interpreter_are_no_trouble():
    code = "from zfcore.kernels import memory; kept = [memory.empty((1 << 20,), 'f4') for _ in range(3)]"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_an_owner_that_gives_its_memory_back_too_early_is_noticed(monkeypatch):
    """Without the view's hold on its owner two arrays would share memory: the check above sees it."""
    monkeypatch.setattr(memory, "_take", lambda size: shared[:size] if size <= shared.size else None)
    monkeypatch.setattr(memory, "_finalizing", lambda: True)
    shared = np.empty(4 * memory.LARGE, np.uint8)
    with pytest.raises(AssertionError):
        test_living_arrays_never_overlap.hypothesis.inner_test([(0, 1), (1, 1)])
