"""Normalisation across maps (response norm) and over the batch; `contrast.py` has that over space.

Kernels see x as (cells, C). All inner loops run over contiguous channels; every sum has a fixed order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .instructions import VECTOR_BYTES, streamed
from .normalization_instructions import scale_cells
from .threads import parallel
from .work import grain, streams

# Exponents with a closed form that vectorises; any other goes through pow.
POWERS = {0.5: 2, 0.75: 3, 1.0: 4}

# ------------------------------------------------------------------------------------------------
# kernels


@kernel
def inverse_power(out, base, beta, power):
    """out = base ** -beta, by square roots where `power` names a closed form.

    Two arrays: in place the loops' overlap tests would choose the scalar code.
    """
    one = base.dtype.type(1)
    if power == 3:
        for c in range(base.size):
            root = one / np.sqrt(base[c])
            out[c] = root * np.sqrt(root)
    elif power == 2:
        for c in range(base.size):
            out[c] = one / np.sqrt(base[c])
    elif power == 4:
        for c in range(base.size):
            out[c] = one / base[c]
    else:
        for c in range(base.size):
            out[c] = base[c] ** -beta


@kernel
def window_sum(out, padded, size):
    """out[f] = padded[f] + ... + padded[f + size - 1], in that order."""
    if size == 5:
        for f in range(out.size):
            out[f] = padded[f] + padded[f + 1] + padded[f + 2] + padded[f + 3] + padded[f + 4]
        return
    for f in range(out.size):
        out[f] = padded[f]
    for t in range(1, size):
        for f in range(out.size):
            out[f] += padded[f + t]


@kernel
def response_norm_kernel(begin, end, y, x, size, alpha, beta, k, power):
    """One cell: y_f = x_f D_f^-beta; squares lie in a row with zeros at both ends."""
    channels = x.shape[1]
    squares = np.zeros(channels + size - 1, x.dtype)
    base, scale = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    middle = squares[size // 2:size // 2 + channels]
    for i in range(begin, end):
        cell, out = x[i], y[i]
        for c in range(channels):
            middle[c] = cell[c] * cell[c]
        window_sum(base, squares, size)
        for c in range(channels):
            base[c] = k + alpha * base[c]
        inverse_power(scale, base, beta, power)
        for c in range(channels):
            out[c] = cell[c] * scale[c]


@kernel
def response_norm_gradient_kernel(begin, end, dx, dy, x, size, alpha, beta, k, power):
    """One cell: dx_f = g_f D_f^-beta - 2 a beta x_f * sum of g_j y_j / D_j over the j whose window holds f.

    That set is the window's mirror image; D is computed again from x.
    """
    channels = x.shape[1]
    squares = np.zeros(channels + size - 1, x.dtype)
    terms = np.zeros(channels + size - 1, x.dtype)
    base, scale = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    middle = squares[size // 2:size // 2 + channels]
    before = size - 1 - size // 2
    inner = terms[before:before + channels]
    factor = 2 * alpha * beta
    for i in range(begin, end):
        cell, signal, out = x[i], dy[i], dx[i]
        for c in range(channels):
            middle[c] = cell[c] * cell[c]
        window_sum(base, squares, size)
        for c in range(channels):
            base[c] = k + alpha * base[c]
        inverse_power(scale, base, beta, power)
        for c in range(channels):
            inner[c] = signal[c] * cell[c] * scale[c] / base[c]
        window_sum(base, terms, size)
        for c in range(channels):
            out[c] = signal[c] * scale[c] - factor * cell[c] * base[c]


@kernel
def scale_kernel(begin, end, y, x, mean, multiplier, bias, stream):
    """One cell: y = (x - mean) * multiplier + bias."""
    channels = x.shape[1]
    if channels >= VECTOR_BYTES // y.itemsize:
        scale_cells(y, begin * channels, x, begin * channels, mean, 0, multiplier, 0, bias, 0, end - begin, channels,
                    stream)
        streamed()
        return
    for i in range(begin, end):
        cell, out = x[i], y[i]
        for c in range(channels):
            out[c] = (cell[c] - mean[c]) * multiplier[c] + bias[c]


@kernel
def block_sums_kernel(begin, end, sums, a, b, mean, block):
    """One block of `block` cells, summed in order in float64: sums of a * (b - mean) and of a.

    Four cells in a pass: the sums stay in registers for so long.
    """
    cells, channels = a.shape
    for item in range(begin, end):
        products, plain = sums[item, 0], sums[item, 1]
        products[:] = 0
        plain[:] = 0
        i, last = item * block, min((item + 1) * block, cells)
        while i + 4 <= last:
            p, q, r, s = a[i], a[i + 1], a[i + 2], a[i + 3]
            t, u, v, w = b[i], b[i + 1], b[i + 2], b[i + 3]
            for c in range(channels):
                own, d, e, f, g = mean[c], np.float64(p[c]), np.float64(q[c]), np.float64(r[c]), np.float64(s[c])
                products[c] = products[c] + d * (np.float64(t[c]) - own) + e * (np.float64(u[c]) - own) + f * (
                    np.float64(v[c]) - own) + g * (np.float64(w[c]) - own)
                plain[c] = plain[c] + d + e + f + g
            i += 4
        while i < last:
            left, right = a[i], b[i]
            for c in range(channels):
                value = np.float64(left[c])
                products[c] += value * (np.float64(right[c]) - mean[c])
                plain[c] += value
            i += 1


@kernel
def block_moments_kernel(begin, end, sums, x, shift, block):
    """One block of `block` cells, summed in order in float64: sums of x - shift and of its square; four in a pass."""
    cells, channels = x.shape
    for item in range(begin, end):
        plain, squares = sums[item, 0], sums[item, 1]
        plain[:] = 0
        squares[:] = 0
        i, last = item * block, min((item + 1) * block, cells)
        while i + 4 <= last:
            p, q, r, s = x[i], x[i + 1], x[i + 2], x[i + 3]
            for c in range(channels):
                own = shift[c]
                d, e = np.float64(p[c]) - own, np.float64(q[c]) - own
                f, g = np.float64(r[c]) - own, np.float64(s[c]) - own
                plain[c] = plain[c] + d + e + f + g
                squares[c] = squares[c] + d * d + e * e + f * f + g * g
            i += 4
        while i < last:
            cell = x[i]
            for c in range(channels):
                value = np.float64(cell[c]) - shift[c]
                plain[c] += value
                squares[c] += value * value
            i += 1


@kernel
def batch_norm_gradient_kernel(begin, end, dx, dy, x, mean, constant, slope, multiplier):
    """One cell: dx = multiplier * (dy - constant - slope * (x - mean))."""
    channels = x.shape[1]
    for i in range(begin, end):
        signal, cell, out = dy[i], x[i], dx[i]
        for c in range(channels):
            out[c] = multiplier[c] * (signal[c] - constant[c] - slope[c] * (cell[c] - mean[c]))


# ------------------------------------------------------------------------------------------------
# launchers


def _cells(x: np.ndarray) -> np.ndarray:
    """x (..., C) as (cells, C)."""
    channels = x.shape[-1]
    return x.reshape(x.size // channels if channels else 0, channels)


def _numbers(x: np.ndarray, *values: float) -> list[Any]:
    """Settings in the array's own type, so that float32 stays float32."""
    return [x.dtype.type(value) for value in values]


def response_norm(y: np.ndarray, x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> None:
    """Fill y from x (..., C)."""
    cells = _cells(x)
    parallel(response_norm_kernel, len(cells), _cells(y), cells, size, *_numbers(x, alpha, beta, k),
             POWERS.get(beta, 0), grain=grain(4 * x.shape[-1]))


def response_norm_gradient(dx: np.ndarray, dy: np.ndarray, x: np.ndarray, size: int, alpha: float,
                           beta: float, k: float) -> None:
    """Fill dx from dy and x (..., C)."""
    cells = _cells(x)
    parallel(response_norm_gradient_kernel, len(cells), _cells(dx), _cells(dy), cells, size,
             *_numbers(x, alpha, beta, k), POWERS.get(beta, 0), grain=grain(4 * x.shape[-1]))


def _inverse_deviation(variance: np.ndarray, epsilon: float) -> np.ndarray:
    return 1 / np.sqrt(variance.astype(np.float64) + epsilon)


def batch_norm(y: np.ndarray, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray,
               variance: np.ndarray, epsilon: float) -> None:
    """Fill y = (x - mean) * scale / sqrt(variance + epsilon) + bias."""
    multiplier = (scale * _inverse_deviation(variance, epsilon)).astype(x.dtype)
    cells = _cells(x)
    parallel(scale_kernel, len(cells), _cells(y), cells, mean, multiplier, bias, streams(y, x),
             grain=grain(x.shape[-1]))


def batch_norm_gradient(dx: np.ndarray, dy: np.ndarray, scale: np.ndarray, variance: np.ndarray,
                        epsilon: float) -> None:
    """Fill dx = dy * scale / sqrt(variance + epsilon)."""
    zero = np.zeros(dy.shape[-1], dy.dtype)
    batch_norm(dx, dy, scale, zero, zero, variance, epsilon)


def _in_order(parts: np.ndarray) -> np.ndarray:
    """The sum over the first axis, one part after the other."""
    total = np.zeros(parts.shape[1:])
    for part in parts:
        total += part
    return total


def _sums(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Sums over all cells of a * (b - mean) and of a, per channel, float64; blocks cut by size."""
    a, b = _cells(a), _cells(b)
    block = grain(a.shape[1])
    sums = np.empty((-(-len(a) // block), 2, a.shape[1]))
    parallel(block_sums_kernel, len(sums), sums, a, b, mean, block)
    return _in_order(sums)


def batch_statistics(mean: np.ndarray, variance: np.ndarray, x: np.ndarray) -> None:
    """Fill the mean and the (biased) variance of every channel of x (..., C), in one pass.

    The first cell is subtracted from all: the squares, in float64, then hold what cancels between them however far
    the mean is from 0, unless that cell is a million deviations away from the others.
    """
    cells = _cells(x)
    block = grain(x.shape[-1])
    sums = np.empty((-(-len(cells) // block), 2, x.shape[-1]))
    shift = cells[0].astype(np.float64)
    parallel(block_moments_kernel, len(sums), sums, cells, shift, block)
    plain, squares = _in_order(sums) / len(cells)
    mean[:] = shift + plain
    variance[:] = np.maximum(squares - plain**2, 0)  # a NaN stays


def batch_norm_parameter_gradients(dscale: np.ndarray, dbias: np.ndarray, dy: np.ndarray, x: np.ndarray,
                                   mean: np.ndarray, variance: np.ndarray, epsilon: float) -> None:
    """Fill dscale and dbias (C,)."""
    products, plain = _sums(dy, x, mean.astype(np.float64))
    dscale[:] = products * _inverse_deviation(variance, epsilon)
    dbias[:] = plain


def batch_norm_training_gradient(dx: np.ndarray, dscale: np.ndarray, dbias: np.ndarray, dy: np.ndarray,
                                 x: np.ndarray, mean: np.ndarray, variance: np.ndarray, scale: np.ndarray,
                                 epsilon: float) -> None:
    """Fill dx, dscale and dbias where mean and variance are x's own."""
    products, plain = _sums(dy, x, mean.astype(np.float64))
    inverse = _inverse_deviation(variance, epsilon)
    dscale[:] = products * inverse
    dbias[:] = plain
    cells = _cells(x)
    constant, slope = plain / len(cells), products * inverse**2 / len(cells)
    parallel(batch_norm_gradient_kernel, len(cells), _cells(dx), _cells(dy), cells, mean, constant.astype(x.dtype),
             slope.astype(x.dtype), (scale * inverse).astype(x.dtype), grain=grain(x.shape[-1]))
