"""Pointwise operations, dropout's counter-based generator, and concatenation on the channel axis.

Pointwise kernels see flat arrays; an item is one element. They cut out their piece first: an index
that starts at 0 vectorises, one that starts at `begin` might be negative as far as Numba knows. Zeros
have the array's type: a choice between a float32 and the plain number 0 would be made in float64.
Dropout's item is one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activation_instructions import rectify_forward, rectify_gradient, rectify_guided
from .compile import kernel
from .instructions import streamed
from .threads import parallel
from .work import PIECE, grain, streams

# ------------------------------------------------------------------------------------------------
# kernels


@kernel
def relu_kernel(begin, end, y, x, stream):
    """Negative values become 0; NaN stays."""
    if stream:
        begin += rectify_forward(y, begin, x, begin, x, begin, end - begin)
        streamed()
    out, given, zero = y[begin:end], x[begin:end], x.dtype.type(0)
    for i in range(out.size):
        value = given[i]
        out[i] = zero if value <= zero else value


@kernel
def relu_gradient_kernel(begin, end, dx, dy, y, stream):
    """The signal passes where the output was positive."""
    if stream:
        begin += rectify_gradient(dx, begin, dy, begin, y, begin, end - begin)
        streamed()
    out, signal, mask, zero = dx[begin:end], dy[begin:end], y[begin:end], dy.dtype.type(0)
    for i in range(out.size):
        value = signal[i]
        out[i] = value if mask[i] > zero else zero


@kernel
def relu_guided_kernel(begin, end, dx, dy, y, stream):
    """The positive signal passes where the output was positive."""
    if stream:
        begin += rectify_guided(dx, begin, dy, begin, y, begin, end - begin)
        streamed()
    out, signal, mask, zero = dx[begin:end], dy[begin:end], y[begin:end], dy.dtype.type(0)
    for i in range(out.size):
        value = signal[i]
        out[i] = value if (mask[i] > zero) & (not (value <= zero)) else zero


@kernel
def add_kernel(begin, end, y, a, b):
    """The sum of two arrays; y may be a."""
    out, left, right = y[begin:end], a[begin:end], b[begin:end]
    for i in range(out.size):
        out[i] = left[i] + right[i]


@kernel
def dropout_kernel(begin, end, y, x, first, threshold, scale, seed_low, seed_high, step_low, step_high):
    """One image: Philox4x32-10 (Salmon et al. 2011) gives four words for four neighbouring elements.

    Counter (element // 4, first + image, step low, step high), key (seed low, seed high).
    An element is kept where its word is at least `threshold`.
    """
    elements = x.shape[1]
    mask = np.uint64(0xFFFFFFFF)
    words, zero = np.empty(4, np.uint64), x.dtype.type(0)
    for n in range(begin, end):
        for i in range(0, elements, 4):
            a, b, c, d = np.uint64(i // 4), np.uint64(first + n) & mask, np.uint64(step_low), np.uint64(step_high)
            key, other = np.uint64(seed_low), np.uint64(seed_high)
            for _ in range(10):
                left, right = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
                a, b, c, d = (right >> np.uint64(32)) ^ b ^ key, right & mask, \
                    (left >> np.uint64(32)) ^ d ^ other, left & mask
                key, other = (key + np.uint64(0x9E3779B9)) & mask, (other + np.uint64(0xBB67AE85)) & mask
            words[0], words[1], words[2], words[3] = a, b, c, d
            for j in range(i, min(i + 4, elements)):
                y[n, j] = x[n, j] * scale if words[j - i] >= np.uint64(threshold) else zero


@kernel
def copy_columns_kernel(begin, end, target, source, target_column, source_column, width):
    """One row: `width` columns of source go to target."""
    for i in range(begin, end):
        to = target[i, target_column:target_column + width]
        given = source[i, source_column:source_column + width]
        for c in range(width):
            to[c] = given[c]


# ------------------------------------------------------------------------------------------------
# launchers


def _rectify(kernel_: Any, out: np.ndarray, *inputs: np.ndarray) -> None:
    """Pieces begin at lines of the cache where the array does."""
    flat = [array.reshape(-1) for array in (out, *inputs)]
    parallel(kernel_, out.size, *flat, streams(*flat), grain=PIECE)


def relu(y: np.ndarray, x: np.ndarray) -> None:
    """Fill y with x rectified."""
    _rectify(relu_kernel, y, x)


def relu_gradient(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """Fill dx with dy where y > 0."""
    _rectify(relu_gradient_kernel, dx, dy, y)


def relu_guided(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """Fill dx with max(dy, 0) where y > 0."""
    _rectify(relu_guided_kernel, dx, dy, y)


def add(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Fill y with a + b; y may be a."""
    parallel(add_kernel, a.size, y.reshape(-1), a.reshape(-1), b.reshape(-1), grain=PIECE)


def dropout(y: np.ndarray, x: np.ndarray, rate: float, seed: int, step: int, first: int) -> None:
    """Fill y (N, ...) with x, each element kept with probability 1 - rate and then scaled."""
    images = x.shape[0]
    elements = x.size // max(images, 1)
    scale = x.dtype.type(1 / (1 - rate))
    parallel(dropout_kernel, images, y.reshape(images, elements), x.reshape(images, elements), first,
             round(rate * 2**32), scale, seed & 0xFFFFFFFF, seed >> 32, step & 0xFFFFFFFF, step >> 32,
             grain=grain(elements * 8))


def copy_columns(target: np.ndarray, source: np.ndarray, target_column: int, source_column: int,
                 width: int) -> None:
    """Copy columns between two arrays of the same number of rows, both (rows, columns)."""
    parallel(copy_columns_kernel, target.shape[0], target, source, target_column, source_column, width,
             grain=grain(width))
