"""Fully connected layers and the register tiles below them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases.linear import CORNERS
from hypothesis import given
from hypothesis import strategies as st
from reference import linear as reference

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.kernels import instructions, matrix, threads

UNIT = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}


def gamma(length: int, dtype=np.float32) -> float:
    """The bound of a sum's relative rounding error: n u / (1 - n u)."""
    return length * UNIT[np.dtype(dtype)] / (1 - length * UNIT[np.dtype(dtype)])


def arrays(batch, outputs, inputs, dtype=np.float32, limit=None, seed=0):
    """x, weight, dy, bias: small integers up to `limit`, or normal numbers."""
    rng = np.random.default_rng(seed)
    shapes = ((batch, inputs), (outputs, inputs), (batch, outputs), (outputs,))
    if limit is None:
        return [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return [rng.integers(-limit, limit + 1, shape).astype(dtype) for shape in shapes]


def compute(x, weight, dy):
    return (ops.linear(x, weight), ops.linear_input_gradient(dy, weight), ops.linear_weight_gradient(dy, x))


def expect(x, weight, dy):
    return (reference.linear(x, weight), reference.input_gradient(dy, weight), reference.weight_gradient(dy, x))


def check_exact(shape, dtype=np.float32, seed=0):
    """Integers whose sums are exact in float32: every bit must be the loop's."""
    x, weight, dy, _ = arrays(*shape, dtype, min(100, int(np.sqrt(2**24 / max(shape)))), seed)
    for ours, theirs in zip(compute(x, weight, dy), expect(x, weight, dy), strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)


def check_adjoint(shape):
    """<A x, dy> = <x, A' dy> = <weight, gradient>, exactly on integers."""
    x, weight, dy, _ = arrays(*shape, limit=3, seed=1)
    y, dx, dweight = (value.astype(np.float64) for value in compute(x, weight, dy))
    assert (y * dy).sum() == (dx * x).sum() == (dweight * weight).sum()


@pytest.mark.parametrize("shape", CORNERS, ids=str)
def test_integers_are_exact(shape):
    check_exact(shape)


@pytest.mark.parametrize("shape", CORNERS[2:9:2], ids=str)
def test_integers_are_exact_in_float64(shape):
    check_exact(shape, np.float64)


@given(st.integers(0, 20), st.integers(1, 40), st.integers(1, 140), st.integers(0, 9))
def test_any_shape(batch, outputs, inputs, seed):
    check_exact((batch, outputs, inputs), seed=seed)


@pytest.mark.parametrize("shape", CORNERS, ids=str)
def test_rounding_stays_within_the_bound(shape):
    x, weight, dy, _ = arrays(*shape)
    batch, outputs, inputs = shape
    sizes = expect(abs(x), abs(weight), abs(dy))
    for ours, theirs, size, length in zip(compute(x, weight, dy), expect(x, weight, dy), sizes,
                                          (inputs, outputs, batch), strict=True):
        assert (abs(ours - theirs) <= gamma(length + 2) * size).all()


@pytest.mark.parametrize("shape", CORNERS[::2], ids=str)
def test_bias_and_relu(shape):
    x, weight, _, bias = arrays(*shape, limit=3)
    y = reference.linear(x, weight, bias)
    np.testing.assert_array_equal(ops.linear(x, weight, bias), y)
    rectified = ops.linear(x, weight, bias, activation="relu")
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))
    assert not np.signbit(rectified).any()
    y = ops.linear(np.full((1, 1), np.nan, np.float32), np.ones((1, 1), np.float32), activation="relu")
    assert np.isnan(y).all()


@pytest.mark.parametrize("shape", CORNERS, ids=str)
def test_gradients_are_adjoints(shape):
    check_adjoint(shape)


def test_finite_differences():
    x, weight, dy, _ = arrays(3, 5, 40, np.float64)
    _, dx, dweight = compute(x, weight, dy)
    step, size = 6.9e-6, (reference.linear(abs(x), abs(weight)) * abs(dy)).sum()
    for array, gradient in ((x, dx), (weight, dweight)):
        for place in range(0, array.size, 17):
            value, ends = array.flat[place], []
            for shift in (step, -step):
                array.flat[place] = value + shift
                ends.append((ops.linear(x, weight) * dy).sum())
            array.flat[place] = value
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope - gradient.flat[place]) <= 2 * gamma(100, np.float64) * size / step


def check_batch(shape):
    """A row's bits depend on the row alone: forward, and down."""
    x, weight, dy, bias = arrays(*shape)
    y, dx = ops.linear(x, weight, bias), ops.linear_input_gradient(dy, weight)
    for some in ([shape[0] - 1], [1, 0], list(range(1, shape[0]))):
        np.testing.assert_array_equal(ops.linear(x[some], weight, bias), y[some])
        np.testing.assert_array_equal(ops.linear_input_gradient(dy[some], weight), dx[some])


@pytest.mark.parametrize("shape", [(2, 7, 30), (9, 10, 700), (103, 20, 530), (16, 130, 1025)], ids=str)
def test_a_row_does_not_depend_on_its_batch(shape):
    check_batch(shape)


@pytest.mark.parametrize("shape", [(5, 64, 700), (120, 300, 1100)], ids=str)
def test_results_do_not_depend_on_the_threads(shape, monkeypatch):
    x, weight, dy, _ = arrays(*shape)
    results = []
    for count in (1, 2, 5, 2):
        monkeypatch.setattr(threads, "_threads", count)
        results.append(compute(x, weight, dy))
    for other in results[1:]:
        for ours, first in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_views_and_read_only_arrays():
    x, weight, dy, _ = arrays(4, 9, 50)
    expected = compute(x, weight, dy)
    transposed = np.ascontiguousarray(weight.T).T
    read_only = weight.copy()
    read_only.flags.writeable = False
    for other in (transposed, read_only):
        for ours, theirs in zip(compute(x[::-1].copy()[::-1], other, dy), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_empty_batch_is_no_error():
    x, weight, dy, bias = arrays(0, 4, 6)
    y, dx, dweight = compute(x, weight, dy)
    assert y.shape == (0, 4) and dx.shape == (0, 6) and not dweight.any() and dweight.shape == (4, 6)
    assert ops.linear(x, weight, bias, activation="relu").shape == (0, 4)


@pytest.mark.parametrize("shape", CORNERS[1::3], ids=str)
def test_pytorch_agrees(shape):
    torch = pytest.importorskip("torch")
    x, weight, dy, bias = arrays(*shape)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, weight, bias)]
    y = torch.nn.functional.linear(*tensors)
    y.backward(torch.from_numpy(dy))
    theirs = (y.detach().numpy(), tensors[0].grad.numpy(), tensors[1].grad.numpy())
    ours = (ops.linear(x, weight, bias), *compute(x, weight, dy)[1:])
    sizes = expect(abs(x), abs(weight), abs(dy))
    for mine, other, size, length in zip(ours, theirs, sizes, (shape[2], shape[1], shape[0]), strict=True):
        assert (abs(mine - other) <= 2 * gamma(length + 4) * (size + 10)).all()


# ------------------------------------------------------------------------------- the tiles themselves


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_height_of_a_tile(dtype):
    """All heights, a full panel, half a panel and one column, in both forms of the left matrix."""
    rng, depth = np.random.default_rng(0), 37
    panel = instructions.PANEL_BYTES // np.dtype(dtype).itemsize
    for rows in range(1, 2 * instructions.ROWS + 2):
        for columns in (1, panel // 2, panel, panel + 1, 2 * panel):
            a = rng.integers(-9, 10, (rows, depth)).astype(dtype)
            b = rng.integers(-9, 10, (depth, columns)).astype(dtype)
            start = rng.integers(-9, 10, (rows, 2 * panel)).astype(dtype)
            tile = np.full((rows, instructions.STRIDE), np.nan, dtype)
            tile[:, :depth] = a
            packed = np.zeros((2, depth, panel), dtype)
            for p in range(2):
                part = b[:, p * panel : (p + 1) * panel]
                packed[p, :, : part.shape[1]] = part
            expected = start[:, :columns] + a @ b
            c = start.copy()
            matrix.multiply_block(c.reshape(-1), 2 * panel, tile.reshape(-1), rows, packed.reshape(-1), 0, panel,
                                  depth * panel, columns, depth)
            np.testing.assert_array_equal(c[:, :columns], expected)
            c = start.copy()
            matrix.multiply_transposed_block(c.reshape(-1), 2 * panel, np.ascontiguousarray(a.T).reshape(-1), 0,
                                             rows, rows, packed.reshape(-1), panel, depth * panel, columns, depth)
            np.testing.assert_array_equal(c[:, :columns], expected)


PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_convolution, test_linear
from cases.convolution import CORNERS
from zfcore.kernels import instructions
assert instructions.VECTOR_BYTES == int(sys.argv[3]), instructions.VECTOR_BYTES
for case in (CORNERS[2], CORNERS[3], CORNERS[5], CORNERS[13]):
    test_convolution.check_exact(case)
for shape in test_linear.CORNERS[4:10]:
    test_linear.check_exact(shape)
    test_linear.check_adjoint(shape)
print("exact")
"""


@pytest.mark.parametrize("name, features, width", [("x86-64", "+sse2", 16), ("haswell", "+avx,+avx2,+fma", 32)])
def test_smaller_instruction_sets(name, features, width, tmp_path):
    """The widths that this machine would not choose, compiled and run here."""
    chosen = instructions.llvmlite.binding.get_host_cpu_features()
    if not all(chosen.get(feature[1:]) for feature in features.split(",")):
        pytest.skip("this machine cannot run them")
    here = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(here.parent), str(here), str(width)],
                         capture_output=True, text=True, timeout=300, check=False,
                         env={**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features,
                              "ZFCORE_CACHE_DIR": str(tmp_path)})
    assert run.stdout.strip() == "exact", run.stderr[-2000:]


# ----------------------------------------------------------------------------------------- bad input


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


GIANT = np.broadcast_to(np.float32(0), (2**16, 2**15))
X, W = zeros(2, 4), zeros(3, 4)
BAD = [
    (ValueError, "x.shape", lambda: ops.linear(zeros(4), W)),
    (ValueError, "weight.shape", lambda: ops.linear(X, zeros(3, 4, 1))),
    (ValueError, "x.shape", lambda: ops.linear(zeros(2, 0), zeros(3, 0))),
    (ValueError, "weight.shape", lambda: ops.linear(X, zeros(0, 4))),
    (ValueError, "weight.shape", lambda: ops.linear(X, zeros(4, 3))),
    (ValueError, "bias.shape", lambda: ops.linear(X, W, zeros(4))),
    (ValueError, "bias.shape", lambda: ops.linear(X, W, zeros(3, 1))),
    (TypeError, "bias.dtype", lambda: ops.linear(X, W, np.zeros(3, np.int64))),
    (ValueError, "activation", lambda: ops.linear(X, W, activation="softmax")),
    (TypeError, "x.dtype", lambda: ops.linear(X.astype(np.int64), W)),
    (TypeError, "x is", lambda: ops.linear([[1.0]], W)),
    (TypeError, "dtypes", lambda: ops.linear(X, W.astype(np.float64))),
    (TypeError, "dtypes", lambda: ops.linear(X, W, zeros(3, dtype=np.float64))),
    (ValueError, "weight.shape", lambda: ops.linear(zeros(1, 2**15), GIANT)),
    (ValueError, "output", lambda: ops.linear(GIANT[:, :1], GIANT[:, :1])),
    (ValueError, "dy.shape", lambda: ops.linear_input_gradient(zeros(2, 4), W)),
    (ValueError, "dy.shape", lambda: ops.linear_input_gradient(zeros(3), W)),
    (TypeError, "dtypes", lambda: ops.linear_input_gradient(zeros(2, 3, dtype=np.float64), W)),
    (ValueError, "dy.shape", lambda: ops.linear_weight_gradient(zeros(3, 3), X)),
    (ValueError, "x.shape", lambda: ops.linear_weight_gradient(zeros(2, 3), zeros(2, 2, 2))),
    (ValueError, "gradient", lambda: ops.linear_weight_gradient(GIANT[:1], np.broadcast_to(X[:1, :1], (1, 2**16)))),
]


@pytest.mark.parametrize("error, argument, call", BAD, ids=[f"{i}-{bad[1]}" for i, bad in enumerate(BAD)])
def test_bad_input_is_named(error, argument, call, monkeypatch):
    """The error says operation, argument and what is allowed, before anything is allocated."""
    def refuse(*_):
        raise AssertionError("allocated before the checks")
    monkeypatch.setattr(backend, "empty", refuse)
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("linear") and argument in message and "; allowed: " in message


# ------------------------------------------------------------------- these tests can fail: they must


@pytest.mark.parametrize("name", ["linear_forward", "linear_input_gradient", "linear_weight_gradient"])
def test_a_fault_is_found(name, monkeypatch):
    launcher = getattr(backend, name)

    def last_product_forgotten(out, first, second, *others):
        first = first.copy()
        first[-1 if name == "linear_weight_gradient" else slice(None), -1] = 0
        launcher(out, first, second, *others)
    monkeypatch.setattr(backend, name, last_product_forgotten)
    for check in (check_exact, check_adjoint):
        with pytest.raises(AssertionError):
            check((4, 6, 20))


def test_another_kernel_for_one_row_is_found(monkeypatch):
    """A matrix product that takes another way for a single row, as BLAS does, breaks the promise."""
    launcher = backend.linear_forward

    def run(y, x, weight, bias, relu):
        launcher(y, x, weight, bias, relu)
        if x.shape[0] == 1:
            y[:] = x @ weight[:, ::-1].T[::-1] + bias
    monkeypatch.setattr(backend, "linear_forward", run)
    with pytest.raises(AssertionError):
        check_batch((9, 10, 700))
