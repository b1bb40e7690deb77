"""Kept forms of declared arrays: made once, forgotten in time, never another array's, never too many."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from zfcore import ops
from zfcore.kernels import kept as kept_forms
from zfcore.kernels.kept import Declaration, kept, kept_bytes


class Builder:
    """Makes a copy of the weight it is given, and counts."""

    def __init__(self, weight: np.ndarray) -> None:
        self.weight, self.calls = weight, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.weight.copy()


def weight(shape=(4, 3), dtype=np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture(autouse=True)
def nothing_stays():
    gc.collect()
    before = kept_bytes()
    yield
    gc.collect()
    assert kept_bytes() == before


def test_a_form_is_made_once_while_its_weight_is_declared():
    array = weight()
    build = Builder(array)
    assert kept(array, "a", build) is not kept(array, "a", build)
    assert build.calls == 2
    declaration = Declaration([array])
    first = kept(array, "a", build)
    assert kept(array, "a", build) is first
    assert build.calls == 3
    assert kept(array, "b", build) is not first  # another form
    assert kept_bytes() >= 2 * array.nbytes
    declaration.end()
    assert kept(array, "a", build) is not first
    declaration.end()  # a second time does nothing


def test_numbers_are_kept_too():
    array = weight()
    declaration = Declaration([array])
    calls = []
    for _ in range(2):
        assert kept(array, "infinite", lambda: calls.append(1) or 0) == 0
    assert len(calls) == 1
    declaration.end()


def test_declared_arrays_refuse_writes_and_are_as_before_afterwards():
    array, fixed = weight(), weight()
    fixed.flags.writeable = False
    declaration = Declaration([array, fixed, None, 3.0])  # other things are left alone
    for each in (array, fixed):
        with pytest.raises(ValueError, match="read-only"):
            each[0] = 1
    declaration.end()
    array[0] = 1
    assert not fixed.flags.writeable


def test_declarations_overlap():
    array = weight()
    build = Builder(array)
    outer, inner = Declaration([array]), Declaration([array, array])
    form = kept(array, "a", build)
    outer.end()
    assert not array.flags.writeable
    assert kept(array, "a", build) is form
    inner.end()
    assert array.flags.writeable


def test_a_declaration_ends_when_nobody_has_it_any_more():
    array = weight()
    declaration = Declaration([array])
    kept(array, "a", Builder(array))
    del declaration
    assert array.flags.writeable


def test_forms_go_with_their_array():
    array = weight((64, 64))
    before = kept_bytes()
    declaration = Declaration([array])
    kept(array, "a", Builder(array))
    assert kept_bytes() == before + array.nbytes
    del array
    gc.collect()
    assert kept_bytes() == before
    declaration.end()


def test_only_the_same_memory_shape_and_type_are_the_same_weight():
    array = weight((4, 4))
    declaration = Declaration([array])
    form = kept(array, "a", Builder(array))
    assert kept(array[:], "a", Builder(array)) is form  # what `readable` makes of it
    for other in (array.reshape(2, 8), array[:2], array.view(np.int32), array.copy(), array[1:]):
        build = Builder(other)
        assert kept(other, "a", build) is not form
        assert build.calls == 1
    declaration.end()


def test_of_two_declared_aliases_the_first_has_the_forms():
    array = weight()
    alias = array[:]
    build = Builder(array)
    one, two = Declaration([array]), Declaration([alias])
    form = kept(alias, "a", build)
    assert kept(array, "a", build) is form
    two.end()
    assert alias.flags.writeable is False or kept(array, "a", build) is form
    one.end()
    assert array.flags.writeable


def test_an_array_whose_mark_was_taken_away_has_no_forms():
    array = weight()
    declaration = Declaration([array])
    old = kept(array, "a", Builder(array))
    array.flags.writeable = True
    array[:] = 7
    form = kept(array, "a", Builder(array))
    assert form is not old
    np.testing.assert_array_equal(form, array)
    declaration.end()


def test_all_forms_together_are_bounded(monkeypatch):
    array = weight((16, 16))
    build = Builder(array)
    monkeypatch.setattr(kept_forms, "limit", kept_bytes() + 2 * array.nbytes)
    declaration = Declaration([array])
    for _ in range(2):
        for key in "abc":
            np.testing.assert_array_equal(kept(array, key, build), array)
    assert build.calls == 4  # the third has no room, and is made again
    declaration.end()


def test_empty_and_strided_arrays_are_only_marked():
    empty, strided = np.zeros((0, 3), np.float32), weight((4, 6))[:, ::2]
    declaration = Declaration([empty, strided])
    build = Builder(empty)
    kept(empty, "a", build)
    kept(empty, "a", build)
    assert build.calls == 2
    assert not strided.flags.writeable
    declaration.end()
    assert strided.flags.writeable


def test_declarations_that_outlive_the_interpreter_are_no_trouble():
    code = ("import numpy as np; from zfcore.kernels.kept import Declaration, kept; array = np.ones(9, 'f4'); "
            "declared = [Declaration([array]), Declaration([array])]; kept(array, 1, array.copy)")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_share_forms_and_declarations():
    arrays = [weight(seed=seed) for seed in range(4)]
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(200):
            declaration = Declaration(arrays)
            for index, array in enumerate(arrays):
                form = kept(array, "a", Builder(array))
                if array.flags.writeable or not np.array_equal(form, weight(seed=index)):
                    wrong.append((number, index))
            declaration.end()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not wrong
    assert all(array.flags.writeable for array in arrays)


@pytest.mark.parametrize("shape, keywords", [
    ((32, 3, 3, 32), {"padding": 1}),
    ((32, 3, 3, 32), {"padding": 1, "algorithm": "winograd"}),
    ((32, 3, 3, 32), {"padding": 1, "algorithm": "winograd_exact"}),
    ((32, 5, 5, 32), {"padding": 2, "stride": 2, "algorithm": "winograd"}),
    ((32, 3, 3, 16), {"padding": 1, "groups": 2}),
    ((32, 3, 3, 16), {"padding": 1, "groups": 2, "algorithm": "winograd"}),
    ((6, 3, 3, 32), {"padding": 1, "stride": 2}),
    ((6, 2, 2, 32), {"stride": 3}),
    ((8, 3, 3, 32), {"dilation": 2}),
    ((32, 3, 3, 1), {"groups": 32}),
])
def test_one_weight_in_many_convolutions(shape, keywords):
    """One declared weight serves any sizes and both directions, and every result has the bits of an undeclared one."""
    filters = weight(shape)
    own = filters.copy()
    declaration = Declaration([filters])
    for images, height in ((1, 12), (3, 12), (2, 9), (1, 12)):
        x = weight((images, height, height + 2, 32), seed=height)
        y = ops.convolution(x, own, **keywords)
        np.testing.assert_array_equal(ops.convolution(x, filters, **keywords), y)
        expected = ops.convolution_input_gradient(y, own, x.shape, **keywords)
        np.testing.assert_array_equal(ops.convolution_input_gradient(y, filters, x.shape, **keywords), expected)
    declaration.end()


def test_a_weight_that_is_not_finite_lets_no_product_be_left_out():
    filters = weight((8, 3, 3, 32))
    dy = np.zeros((1, 6, 6, 8), np.float32)
    declaration = Declaration([filters])
    assert np.isfinite(ops.convolution_input_gradient(dy, filters, (1, 8, 8, 32))).all()
    declaration.end()
    filters[0, 0, 0, 0] = np.inf
    declaration = Declaration([filters])
    for _ in range(2):
        dx = ops.convolution_input_gradient(dy, filters, (1, 8, 8, 32))
        assert np.isnan(dx[..., 0]).all()  # where the tap meets padding too
        assert np.isfinite(dx[..., 1:]).all()
    declaration.end()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs, inputs", [(5, 7), (300, 1100), (129, 512)])
def test_few_rows_of_a_linear_layer_have_the_bits_of_many(outputs, inputs, dtype):
    """Zero signals among them, and declared weights or not: neither the batch nor the declaration shows."""
    weights = weight((outputs, inputs), dtype)
    dy = weight((7, outputs), dtype, seed=1)
    dy[:, ::3] = 0
    dy[2] = 0
    expected = ops.linear_input_gradient(dy, weights)
    for declared in (False, True):
        declaration = Declaration([weights] if declared else [])
        for rows in (1, 2, 4):
            for first in range(7 - rows):
                part = slice(first, first + rows)
                np.testing.assert_array_equal(ops.linear_input_gradient(dy[part], weights), expected[part])
        declaration.end()


@pytest.mark.parametrize("declared", [False, True])
def test_an_infinite_weight_of_an_output_without_a_signal_is_still_read(declared):
    weights, dy = weight((6, 40)), np.ones((1, 6), np.float32)
    weights[3, 5], dy[0, 3] = np.inf, 0
    declaration = Declaration([weights] if declared else [])
    for _ in range(2):
        dx = ops.linear_input_gradient(dy, weights)
        assert np.flatnonzero(np.isnan(dx[0])).tolist() == [5]
    declaration.end()
