"""Convolution and linear layers on the emulated CUDA kernels: exact on integers, as Numba's."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .launch import run

# x, filters, window, stride, padding, dilation, groups
CASES = [
    ((2, 6, 7, 3), 5, (3, 3), 1, 1, 1, 1),
    ((1, 9, 8, 4), 6, (5, 3), (2, 3), (2, 1, 0, 2), 1, 2),
    ((1, 1, 1, 1), 1, (1, 1), 1, 0, 1, 1),
    ((2, 11, 10, 3), 70, (7, 7), 2, 1, 1, 1),
    ((1, 10, 9, 6), 6, (3, 2), 2, (1, 2), (2, 3), 3),
    ((1, 12, 12, 2), 3, (2, 2), 4, 0, 3, 1),
    ((3, 5, 5, 40), 33, (1, 1), 1, 0, 1, 1),
    ((0, 5, 5, 4), 4, (3, 3), 1, 1, 1, 1),
    ((1, 4, 4, 8), 8, (3, 3), 1, 1, 1, 8),
    ((1, 9, 9, 5), 4, (1, 1), 3, 0, 1, 1),
    ((2, 3, 40, 17), 66, (3, 5), 1, (1, 2), 1, 1),
    ((2, 9, 7, 12), 24, (3, 2), 2, (1, 0), 1, 4),
    ((1, 5, 6, 22), 22, (2, 2), 1, 0, 1, 2),
    ((1, 10, 12, 5), 9, (3, 2), 1, (2, 1), (2, 3), 1),
]
DTYPES = (np.float32, np.float64)


def integers(shape, dtype, seed):
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "filters", "window", "stride", "padding", "dilation", "groups"), CASES)
def test_convolution(agree, shape, filters, window, stride, padding, dilation, groups, dtype):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = integers(shape, dtype, 0)
    weight, bias = integers((filters, *window, shape[3] // groups), dtype, 1), integers(filters, dtype, 2)
    y = agree(ops.convolution, x, weight, bias, **options)
    agree(ops.convolution, x, weight, **options, activation="relu")
    dy = integers(y.shape, dtype, 3)
    agree(ops.convolution_input_gradient, dy, weight, shape, **options)
    agree(ops.convolution_weight_gradient, dy, x, weight.shape, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "inputs", "outputs"),
                         [(3, 5, 7), (1, 1, 1), (70, 130, 65), (0, 4, 5), (2, 300, 3), (3, 1100, 66)])
def test_linear(agree, batch, inputs, outputs, dtype):
    x, weight, bias = (integers(shape, dtype, 0) for shape in ((batch, inputs), (outputs, inputs), outputs))
    y = agree(ops.linear, x, weight, bias, activation="relu")
    agree(ops.linear_input_gradient, y % 7, weight)
    agree(ops.linear_weight_gradient, y % 7, x)


def test_many_parts(agree):
    """A weight gradient over enough cells to be cut into parts."""
    x, dy = integers((2, 30, 31, 2), np.float32, 0), integers((2, 30, 31, 3), np.float32, 1)
    agree(ops.convolution_weight_gradient, dy, x, (3, 3, 3, 2), padding=1)


def test_a_row_does_not_depend_on_the_others():
    """Pieces of terms in many blocks, or all in one, of one row or of more: the bits are the same."""
    generator = np.random.default_rng(0)
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((3, 1100), (30, 1100)))
    emulated = backends.get("emulated")
    elements = emulated.extension.linear_workspace(3, 30, 1100, 0)
    assert elements == 3 * 3 * 30
    assert emulated.extension.linear_workspace(64 * 128, 30, 1100, 0) == 0  # enough blocks without
    results = []
    for rows, workspace in ((3, emulated.empty(elements, np.float32)), (3, None), (1, None)):
        results.append(emulated.empty((rows, 30), np.float32))
        run("linear_forward", results[-1], workspace, x[:rows], weight, None, False, 0)
        np.testing.assert_array_equal(results[-1], results[0][:rows])
    dy, transposed = x, np.ascontiguousarray(weight.T)  # (outputs, inputs): the gradient's terms are outputs
    for workspace in (emulated.empty(elements, np.float32), None):
        dx = emulated.empty((3, 30), np.float32)
        run("linear_input_gradient", dx, workspace, dy, transposed, 0)
        np.testing.assert_array_equal(dx, results[0])
