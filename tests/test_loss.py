"""Softmax and cross-entropy: against float64 loops, extreme scores, bad rows and labels."""

from __future__ import annotations

import numpy as np
import pytest
from reference import loss as reference
from tolerance import check_gradient, close, gamma, same_bits, unit

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.kernels import threads


def scores(shape, dtype=np.float32, scale=3.0, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


def labels_for(shape, seed=0):
    return np.random.default_rng(seed).integers(0, shape[1], shape[0])


def check_softmax(x) -> None:
    """x - max is rounded once and exp turns that into a relative error; then exp's own and the division's."""
    exact = reference.softmax(x)
    distance = np.abs(x.astype(np.float64) - x.max(1, keepdims=True)) if x.size else 0
    close(ops.softmax(x), exact, exact * 2 * (gamma(8, x.dtype) + unit(x.dtype) * distance) + np.finfo(x.dtype).tiny)


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (3, 1000), (0, 4), (130, 17)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_loss(shape, dtype):
    x, labels = scores(shape, dtype), labels_for(shape)
    check_softmax(x)
    loss, probabilities = ops.softmax_cross_entropy(x, labels)
    assert loss.dtype == dtype
    same_bits(probabilities, ops.softmax(x))
    spread = np.ptp(x, axis=1) if x.size else np.zeros(0)
    close(loss, reference.cross_entropy(x, labels), 4 * unit(dtype) * (spread + 4 + np.log(shape[1])))
    close(ops.softmax_cross_entropy_gradient(probabilities, labels), reference.cross_entropy_gradient(x, labels),
          40 * unit(dtype) / max(shape[0], 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores(dtype):
    """No overflow, and a loss that a probability of 0 could not give."""
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [-np.inf, 2, -np.inf]], dtype)
    y = ops.softmax(x)
    np.testing.assert_array_equal(y[[0, 3]], [[1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(y[1:3], 1 / 3, rtol=4 * unit(dtype))
    loss, _ = ops.softmax_cross_entropy(x, np.array([1, 0, 2, 1]))
    np.testing.assert_allclose(loss, [2e4, np.log(3), np.log(3), 0], rtol=4 * unit(dtype))


def test_nan_stays_in_its_row():
    x = scores((3, 5))
    x[1, 2] = np.nan
    loss, y = ops.softmax_cross_entropy(x, np.array([0, 0, 0]))
    np.testing.assert_array_equal(np.isnan(y).all(1), [False, True, False])
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    assert not np.isnan(y[[0, 2]]).any()


def test_finite_differences():
    x, labels = scores((4, 6), np.float64), labels_for((4, 6))
    check_gradient(ops.softmax, lambda dy: ops.softmax_gradient(dy, ops.softmax(x)), x)
    _, probabilities = ops.softmax_cross_entropy(x, labels)
    check_gradient(lambda v: np.array([ops.softmax_cross_entropy(v, labels)[0].mean()]),
                   lambda dy: dy * ops.softmax_cross_entropy_gradient(probabilities, labels), x)


def test_bits_do_not_depend_on_batch_position_or_threads():
    x, dy, labels = scores((700, 501)), scores((700, 501), seed=1), labels_for((700, 501))

    def everything(part):
        loss, y = ops.softmax_cross_entropy(x[part], labels[part])
        return loss, y, ops.softmax_gradient(dy[part], y)

    try:
        threads.set_num_threads(1)
        expected = everything(slice(None))
        for count in (2, 3):
            threads.set_num_threads(count)
            for part in (slice(None), slice(5, 6), slice(100, 350), slice(None, None, -1)):
                for a, b in zip(everything(part), expected, strict=True):
                    same_bits(a, b[part])
    finally:
        threads.set_num_threads(None)


def test_any_kind_of_integer_labels():
    x = scores((3, 4))
    expected = ops.softmax_cross_entropy(x, np.array([3, 0, 1]))[0]
    for dtype in (np.uint8, np.int32, np.uint64):
        same_bits(ops.softmax_cross_entropy(x, np.array([3, 0, 1], dtype))[0], expected)


def test_pytorch():
    torch = pytest.importorskip("torch")
    x, labels = scores((20, 10), np.float64), labels_for((20, 10))
    tensor = torch.from_numpy(x).requires_grad_()
    loss = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels), reduction="none")
    ours, probabilities = ops.softmax_cross_entropy(x, labels)
    np.testing.assert_allclose(ours, loss.detach().numpy(), rtol=1e-13, atol=1e-14)
    gradient, = torch.autograd.grad(loss.mean(), tensor)
    np.testing.assert_allclose(ops.softmax_cross_entropy_gradient(probabilities, labels), gradient.numpy(), atol=1e-15)


X = scores((3, 4))


@pytest.mark.parametrize(("labels", "argument", "error"), [
    (np.array([0, 1]), "labels.shape", ValueError), (np.array([[0], [1], [2]]), "labels.shape", ValueError),
    (np.array([0, 1, 4]), "labels", IndexError), (np.array([0, -1, 2]), "labels", IndexError),
    (np.array([0, 2**32, 2]), "labels", IndexError), (np.array([0.0, 1, 2]), "labels.dtype", TypeError),
    ([0, 1, 2], "labels.dtype", TypeError), (np.array([True, False, True]), "labels.dtype", TypeError),
])
def test_bad_labels(labels, argument, error):
    with pytest.raises(error, match=f"softmax_cross_entropy: {argument} is .*allowed"):
        ops.softmax_cross_entropy(X, labels)
    with pytest.raises(error, match=f"softmax_cross_entropy_gradient: {argument} is .*allowed"):
        ops.softmax_cross_entropy_gradient(X, labels)


def test_bad_scores():
    with pytest.raises(ValueError, match=r"softmax: x\[1\] is 'all -inf'"):
        ops.softmax(np.array([[0, 1], [-np.inf, -np.inf]], np.float32))
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: logits\[0\] is 'all -inf'"):
        ops.softmax_cross_entropy(np.full((1, 2), -np.inf, np.float32), np.array([0]))
    for axis in (0, 2, -2, "last"):
        with pytest.raises(ValueError, match="softmax: axis is"):
            ops.softmax(X, axis=axis)
    with pytest.raises(ValueError, match="x.shape is .*2 dimensions"):
        ops.softmax(X[0])
    with pytest.raises(ValueError, match="x.shape is .*at least one class"):
        ops.softmax(X[:, :0])
    with pytest.raises(TypeError, match="x.dtype is"):
        ops.softmax(X.astype(np.int32))
    with pytest.raises(ValueError, match="y.shape is"):
        ops.softmax_gradient(X, X[:1])


def test_a_softmax_without_its_shift_is_noticed(monkeypatch):
    def plain(y, x):
        with np.errstate(over="ignore", invalid="ignore"):
            y[:] = np.exp(x) / np.exp(x).sum(1, keepdims=True)

    monkeypatch.setattr(backend, "softmax", plain)
    check_softmax(np.zeros((1, 3), np.float32))
    with pytest.raises(AssertionError):
        check_softmax(np.array([[1e4, -1e4, 0]], np.float32))
