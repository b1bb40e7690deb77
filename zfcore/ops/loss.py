"""Softmax and the cross-entropy loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks

__all__ = ["softmax", "softmax_cross_entropy", "softmax_cross_entropy_gradient", "softmax_gradient"]


def _scores(where: str, argument: str, x: Any) -> None:
    checks.floats(where, argument, x, 2)
    checks.require(x.shape[1] > 0, where, f"{argument}.shape", tuple(x.shape), "at least one class")


def _no_empty_row(where: str, argument: str, x: Any) -> None:
    """A row that is -inf everywhere has no distribution."""
    suspects = x[:, 0] == -np.inf
    if suspects.any():
        empty = suspects & (x.max(axis=1) == -np.inf)
        if empty.any():
            row = int(empty.argmax())
            checks.fail(where, f"{argument}[{row}]", "all -inf", "at least one score above -inf in each row")


def check_labels(where: str, labels: Any, shape: tuple[int, ...], trusted: bool = False) -> None:
    """Require one class, an integer, for each row of scores of this shape; the classes of trusted ones are not read."""
    dtype = getattr(labels, "dtype", None)
    if dtype is None or dtype.kind not in "iu":
        checks.fail(where, "labels.dtype", dtype or type(labels).__name__, "an array of integers", TypeError)
    checks.shape(where, "labels", labels, shape[:1])
    if not trusted and labels.size and (labels.min() < 0 or labels.max() >= shape[1]):
        worst = labels.min() if labels.min() < 0 else labels.max()
        checks.fail(where, "labels", int(worst), f"a class from 0 to {shape[1] - 1}", IndexError)


def softmax(x: Any, *, axis: int = -1, backend: Any = None) -> Any:
    """Softmax of every row of x (N, C); scores of any size, a row of -inf alone is refused.

    Parameters
    ----------
    x : (N, C)
    axis : the last one, as -1 or 1
    """
    where = "softmax"
    backend = backend or backends.of(x)
    _scores(where, "x", x)
    checks.one_of(where, "axis", axis, (-1, 1))
    _no_empty_row(where, "x", x)
    x = backend.asarray(x)
    y = backend.empty(x.shape, x.dtype)
    backend.softmax(y, x)
    return y


def softmax_gradient(dy: Any, y: Any, *, backend: Any = None) -> Any:
    """dx = y * (dy - sum(dy * y)) for y = softmax(x), both (N, C).

    Parameters
    ----------
    dy : (N, C), the signal
    y : (N, C), what `softmax` gave
    """
    where = "softmax_gradient"
    backend = backend or backends.of(dy)
    _scores(where, "dy", dy)
    checks.floats(where, "y", y, 2)
    checks.shape(where, "y", y, dy.shape)
    checks.same_dtype(where, dy=dy, y=y)
    dy, y = backend.asarray(dy), backend.asarray(y)
    dx = backend.empty(dy.shape, dy.dtype)
    backend.softmax_gradient(dx, dy, y)
    return dx


def softmax_cross_entropy(logits: Any, labels: Any, *, trusted: bool = False, backend: Any = None) -> tuple[Any, Any]:
    """Cross-entropy of every row against its label.

    Parameters
    ----------
    logits : (N, C)
    labels : integers (N,), 0 <= label < C
    trusted : labels and scores are not looked at first, so that nothing waits for a device

    Returns
    -------
    loss : (N,), -log of the label's probability, exact also where that underflows
    probabilities : (N, C)

    Raises
    ------
    IndexError
        for a label that is no class
    ValueError
        for a row of -inf alone
    """
    where = "softmax_cross_entropy"
    backend = backend or backends.of(logits)
    _scores(where, "logits", logits)
    check_labels(where, labels, logits.shape, trusted)
    if not trusted:
        _no_empty_row(where, "logits", logits)
    logits, labels = backend.asarray(logits), backend.asarray(labels, np.int64)
    loss = backend.empty(logits.shape[:1], logits.dtype)
    probabilities = backend.empty(logits.shape, logits.dtype)
    backend.softmax_cross_entropy(loss, probabilities, logits, labels)
    return loss, probabilities


def softmax_cross_entropy_gradient(probabilities: Any, labels: Any, *, trusted: bool = False,
                                   backend: Any = None) -> Any:
    """Gradient of the mean loss by the logits: (probabilities - one at the label) / N.

    Parameters
    ----------
    probabilities : (N, C), from `softmax_cross_entropy`
    labels : integers (N,)
    trusted : they are not looked at first, so that nothing waits for a device
    """
    where = "softmax_cross_entropy_gradient"
    backend = backend or backends.of(probabilities)
    _scores(where, "probabilities", probabilities)
    check_labels(where, labels, probabilities.shape, trusted)
    probabilities, labels = backend.asarray(probabilities), backend.asarray(labels, np.int64)
    dx = backend.empty(probabilities.shape, probabilities.dtype)
    backend.softmax_cross_entropy_gradient(dx, probabilities, labels)
    return dx
