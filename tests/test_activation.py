"""ReLU under the three rules, add, concat and split, dropout's generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import activation as reference
from tolerance import check_gradient, inner, same_bits

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.kernels import threads

SHAPES = [(2, 3, 5, 7), (1,), (33,), (0, 4), (2, 70000)]
RULES = ["gradient", "deconvnet", "guided"]


def normal(shape, dtype=np.float32, seed=0):
    """Normal numbers with zeros of both signs among them."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    x[np.abs(x) < 0.1] = 0
    x[np.abs(x - 0.3) < 0.1] = -0.0
    return x


@pytest.fixture
def any_threads():
    yield
    threads.set_num_threads(None)


# ------------------------------------------------------------------------------------------ ReLU


def check_rule(dy, y, rule) -> None:
    np.testing.assert_array_equal(ops.relu_backward(dy, y, rule=rule), reference.relu_backward(dy, y, rule))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu(shape, dtype):
    x, dy = normal(shape, dtype), normal(shape, dtype, 1)
    y = ops.relu(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, reference.relu(x))
    if x.size < 1000:
        for rule in RULES:
            check_rule(dy, y, rule)
            check_rule(dy, x, rule)  # its input gives the same mask
    same_bits(ops.relu_backward(dy, None, rule="deconvnet"), ops.relu(dy))


def test_relu_and_nan():
    """NaN goes up; a NaN output lets nothing down, a NaN signal passes where the mask is open."""
    x = np.array([np.nan, -np.inf, np.inf, 1, -1], np.float32)
    y = ops.relu(x)
    np.testing.assert_array_equal(y, np.array([np.nan, 0, np.inf, 1, 0], np.float32))
    ones, nans = np.ones(5, np.float32), np.full(5, np.nan, np.float32)
    for rule in ("gradient", "guided"):
        np.testing.assert_array_equal(ops.relu_backward(ones, y, rule=rule), [0, 0, 1, 1, 0])
        np.testing.assert_array_equal(np.isnan(ops.relu_backward(nans, y, rule=rule)), [0, 0, 1, 1, 0])


def test_relu_finite_differences():
    x = normal((3, 4, 5), np.float64)
    x[np.abs(x) < 1e-3] = 0.5  # away from the kink
    check_gradient(ops.relu, lambda dy: ops.relu_backward(dy, ops.relu(x)), x)


def test_pytorch_relu():
    torch = pytest.importorskip("torch")
    x, dy = normal((3, 50)), normal((3, 50), seed=1)
    tensor = torch.from_numpy(x).requires_grad_()
    gradient, = torch.autograd.grad(torch.relu(tensor), tensor, torch.from_numpy(dy))
    np.testing.assert_array_equal(ops.relu_backward(dy, ops.relu(x)), gradient.numpy())


def test_bad_relu():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="relu: x.dtype is .*allowed"):
        ops.relu(x.astype(np.int64))
    with pytest.raises(ValueError, match="rule is 'saliency'.*'deconvnet'"):
        ops.relu_backward(x, x, rule="saliency")
    for rule in RULES:
        with pytest.raises(ValueError, match="relu_backward: y.shape is"):
            ops.relu_backward(x, x[:1], rule=rule)
        with pytest.raises(TypeError, match="relu_backward: dtypes is"):
            ops.relu_backward(x, x.astype(np.float64), rule=rule)
    for rule in ("gradient", "guided"):
        with pytest.raises(TypeError, match="relu_backward: y.dtype is"):
            ops.relu_backward(x, None, rule=rule)


@pytest.mark.parametrize("rule", RULES)
def test_a_wrong_rule_is_noticed(monkeypatch, rule):
    """Each rule's launcher exchanged for each of the others."""
    dy, y = normal((50,)), ops.relu(normal((50,), seed=1))
    launchers = {"gradient": backend.relu_gradient, "guided": backend.relu_guided,
                 "deconvnet": lambda dx, dy, y: backend.relu(dx, dy)}
    for other in set(RULES) - {rule}:
        check_rule(dy, y, rule)
        wrong = np.empty_like(dy)
        launchers[other](wrong, dy, y)
        with monkeypatch.context() as patch:
            name = {"gradient": "relu_gradient", "guided": "relu_guided", "deconvnet": "relu"}[rule]
            patch.setattr(backend, name, lambda dx, *_, wrong=wrong: dx.__setitem__(slice(None), wrong))
            with pytest.raises(AssertionError):
                check_rule(dy, y, rule)


# ------------------------------------------------------------------------------ add, concat, split


def test_add():
    arrays = [normal((3, 4, 5), seed=seed) for seed in range(4)]
    same_bits(ops.add(*arrays), ((arrays[0] + arrays[1]) + arrays[2]) + arrays[3])
    alone = ops.add(arrays[0])
    same_bits(alone, arrays[0])
    assert alone is not arrays[0] and not np.shares_memory(alone, arrays[0])
    same_bits(arrays[1], normal((3, 4, 5), seed=1))  # inputs are left alone
    assert ops.add(arrays[0][:0], arrays[1][:0]).shape == (0, 4, 5)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(-3, 2), st.integers(0, 3))
def test_concat_and_split(sizes, axis, rows):
    def shape(size):
        sides = [rows, 2, 3]
        sides[axis] = size
        return sides
    arrays = [normal(shape(size), seed=i) for i, size in enumerate(sizes)]
    joined = ops.concat(*arrays, axis=axis)
    same_bits(joined, np.concatenate(arrays, axis))
    for part, array in zip(ops.split(joined, sizes, axis=axis), arrays, strict=True):
        same_bits(part, array)


def test_split_is_the_adjoint_of_concat():
    a, b, dy = (np.random.default_rng(i).integers(-9, 9, (2, 3, c)).astype(np.float32) for i, c in enumerate((4, 5, 9)))
    down = ops.split(dy, (4, 5))
    assert inner(ops.concat(a, b), dy) == inner(a, down[0]) + inner(b, down[1])


def test_bad_joins():
    a = np.ones((2, 3, 4), np.float32)
    for axis in (3, -4, 10**9):
        with pytest.raises(ValueError, match=f"concat: axis is {axis}; allowed: from -3 to 2"):
            ops.concat(a, a, axis=axis)
        with pytest.raises(ValueError, match=f"split: axis is {axis}; allowed: from -3 to 2"):
            ops.split(a, (4,), axis=axis)
    with pytest.raises(TypeError, match="concat: axis is 1.0"):
        ops.concat(a, a, axis=1.0)
    for call in (ops.concat, ops.add):
        with pytest.raises(ValueError, match="arrays is .*at least one"):
            call()
        with pytest.raises(ValueError, match=r"arrays\[1\].shape is"):
            call(a, a[:1])
        with pytest.raises(ValueError, match=r"arrays\[1\].shape is"):
            call(a, a[0])
        with pytest.raises(TypeError, match="dtypes is"):
            call(a, a.astype(np.float64))
        with pytest.raises(TypeError, match=r"arrays\[0\].dtype is"):
            call(a.astype(np.int32), a)
    for sizes in ((1, 2), (5,), ()):
        with pytest.raises(ValueError, match="split: sizes is"):
            ops.split(a, sizes)
    with pytest.raises(ValueError, match="split: sizes is -1"):
        ops.split(a, (5, -1))


# ---------------------------------------------------------------------------------------- dropout


def check_mask(shape, rate, **counter) -> None:
    """Every element: 0, or itself times the scale, as the generator in plain integers says."""
    x = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    kept = reference.dropout_mask(shape, rate, **counter)
    same_bits(ops.dropout(x, rate, **counter), np.where(kept, x * np.float32(1 / (1 - rate)), np.float32(0)))


def test_the_reference_generator():
    """Known answers of the authors' own test file (Random123, kat_vectors)."""
    assert reference.philox((0,) * 4, (0,) * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert reference.philox((2**32 - 1,) * 4, (2**32 - 1,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert reference.philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == \
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.mark.parametrize("shape", [(3, 10), (2, 3, 3, 5), (1, 1), (5,), (4, 64)])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.99])
def test_dropout(shape, rate):
    check_mask(shape, rate, seed=7, step=3)
    check_mask(shape, rate, seed=2**63 + 5, step=2**40 + 1, first=2**20)


def test_dropout_is_fair_and_scaled():
    x = np.ones((40, 5000), np.float32)
    for rate in (0.3, 0.5):
        y = ops.dropout(x, rate, seed=1, step=0)
        assert abs((y > 0).mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / x.size)
        assert abs(y.mean() - 1) < 0.01
        assert abs(np.corrcoef(y[0], y[1])[0, 1]) < 0.06


def test_dropout_of_an_image_depends_on_its_number_only(any_threads):
    x = normal((9, 1001))
    threads.set_num_threads(1)
    whole = ops.dropout(x, 0.5, seed=3, step=8)
    threads.set_num_threads(3)
    same_bits(ops.dropout(x, 0.5, seed=3, step=8), whole)
    for first in range(0, 9, 2):
        same_bits(ops.dropout(x[first:first + 2], 0.5, seed=3, step=8, first=first), whole[first:first + 2])
    for other in ({"seed": 4, "step": 8}, {"seed": 3, "step": 9}, {"seed": 3 + 2**32, "step": 8}):
        assert (ops.dropout(x, 0.5, **other) != whole).any()


def test_dropout_gradient_is_the_same_call():
    x = normal((4, 30), np.float64)
    check_gradient(lambda v: ops.dropout(v, 0.4, seed=1, step=2), lambda dy: ops.dropout(dy, 0.4, seed=1, step=2), x)


@pytest.mark.parametrize(("change", "argument", "error"), [
    ({"rate": 1.0}, "rate", ValueError), ({"rate": -0.1}, "rate", ValueError),
    ({"rate": float("nan")}, "rate", ValueError), ({"rate": "half"}, "rate", TypeError),
    ({"seed": -1}, "seed", ValueError), ({"seed": 2**64}, "seed", ValueError),
    ({"seed": 1.5}, "seed", TypeError), ({"step": -1}, "step", ValueError), ({"first": -1}, "first", ValueError),
])
def test_bad_dropout(change, argument, error):
    with pytest.raises(error, match=f"dropout: {argument} is .*allowed"):
        ops.dropout(np.ones((2, 3), np.float32), **{"rate": 0.5, "seed": 0, "step": 0, **change})


def test_a_wrong_mask_is_noticed(monkeypatch):
    original = backend.dropout
    monkeypatch.setattr(backend, "dropout",
                        lambda y, x, rate, seed, step, first: original(y, x, rate, seed, step + 1, first))
    with pytest.raises(AssertionError):
        check_mask((3, 10), 0.5, seed=7, step=3)
