"""Softmax and cross-entropy; an item is one row of scores."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .instructions import VECTOR_BYTES
from .loss_instructions import GROUP, exponentials, greatest
from .threads import parallel
from .work import grain

# ------------------------------------------------------------------------------------------------
# kernels


@kernel
def softmax_kernel(begin, end, y, losses, x, labels):
    """One row: exp(x - max) over its sum; the loss is log of the sum minus the label's (x - max).

    The row is worked on in a copy of whole groups of vectors. Without labels (length 0) no loss is written.
    """
    classes = x.shape[1]
    group = GROUP * VECTOR_BYTES // x.itemsize
    groups = (classes + group - 1) // group
    row = np.empty(groups * group, x.dtype)
    for n in range(begin, end):
        scores, out = x[n], y[n]
        for c in range(classes):
            row[c] = scores[c]
        row[classes:] = -np.inf
        most = greatest(row, 0, groups)
        total = exponentials(row, 0, groups, most)
        share = x.dtype.type(1 / total)
        for c in range(classes):
            out[c] = row[c] * share
        if labels.size > 0:
            losses[n] = np.log(total) - (scores[labels[n]] - most)


@kernel
def softmax_gradient_kernel(begin, end, dx, dy, y):
    """One row: y * (dy - sum(dy * y)), the sum in order and in float64."""
    classes = y.shape[1]
    for n in range(begin, end):
        total = 0.0
        for c in range(classes):
            total += np.float64(dy[n, c]) * np.float64(y[n, c])
        for c in range(classes):
            dx[n, c] = y[n, c] * (dy[n, c] - total)


@kernel
def cross_entropy_gradient_kernel(begin, end, dx, y, labels):
    """One row: (y - one at the label) / rows."""
    rows, classes = y.shape
    for n in range(begin, end):
        for c in range(classes):
            dx[n, c] = y[n, c] / rows
        dx[n, labels[n]] = (y[n, labels[n]] - 1) / rows


# ------------------------------------------------------------------------------------------------
# launchers


def softmax(y: np.ndarray, x: np.ndarray) -> None:
    """Fill y (N, C) with the softmax of x."""
    parallel(softmax_kernel, x.shape[0], y, np.empty(0, x.dtype), x, np.empty(0, np.int64),
             grain=grain(x.shape[1] * 4))


def softmax_cross_entropy(losses: np.ndarray, y: np.ndarray, x: np.ndarray, labels: np.ndarray) -> None:
    """Fill losses (N,) and probabilities y (N, C) from scores x and labels (int64)."""
    parallel(softmax_kernel, x.shape[0], y, losses, x, labels, grain=grain(x.shape[1] * 4))


def softmax_gradient(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """Fill dx (N, C) from dy and the softmax y."""
    parallel(softmax_gradient_kernel, y.shape[0], dx, dy, y, grain=grain(y.shape[1]))


def softmax_cross_entropy_gradient(dx: np.ndarray, y: np.ndarray, labels: np.ndarray) -> None:
    """Fill dx (N, C), the gradient of the mean loss."""
    parallel(cross_entropy_gradient_kernel, y.shape[0], dx, y, labels, grain=grain(y.shape[1]))
