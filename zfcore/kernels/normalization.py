"""Normalisation: across maps (response norm), over space (contrast norm), over the batch.

Response and batch norm see x as (cells, C); an item is one cell. Contrast norm's item is one row of
one image. All inner loops run over contiguous channels; every sum has a fixed order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .threads import parallel
from .work import grain

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


@kernel(inline=True)
def add_one(total, a, squared):
    """One more row, or its squares."""
    if squared:
        for c in range(total.size):
            total[c] += a[c] * a[c]
    else:
        for c in range(total.size):
            total[c] += a[c]


@kernel(inline=True)
def add_two(total, a, b, squared):
    """Two more rows in one pass, added one after the other."""
    if squared:
        for c in range(total.size):
            part = total[c] + a[c] * a[c]
            total[c] = part + b[c] * b[c]
    else:
        for c in range(total.size):
            part = total[c] + a[c]
            total[c] = part + b[c]


@kernel
def box_row(sums, line, source, n, row, start, size, bounds, squared):
    """sums[j] = the sum over rows row .. row + size - 1 and columns j + start .. j + start + size - 1.

    source is (N, H, W * C), sums (W, C), line (W * C). Only cells inside `bounds` count. Rows are added
    first, then columns, each in ascending order, so the result depends on the window's cells alone, not
    on the crop that they lie in.
    """
    columns, channels = sums.shape
    left, right = bounds[n, 2], bounds[n, 3]
    r, last = max(row, bounds[n, 0]), min(row + size, bounds[n, 1])
    line[:] = 0
    while r < last:
        segment = line[left * channels:right * channels]
        given = source[n, r, left * channels:right * channels]
        if r + 1 < last:
            add_two(segment, given, source[n, r + 1, left * channels:right * channels], squared)
        else:
            add_one(segment, given, squared)
        r += 2
    for j in range(columns):
        total = sums[j]
        total[:] = 0
        s, last = max(j + start, left), min(j + start + size, right)
        while s < last:
            given = line[s * channels:(s + 1) * channels]
            if s + 1 < last:
                add_two(total, given, line[(s + 1) * channels:(s + 2) * channels], False)
            else:
                add_one(total, given, False)
            s += 2


@kernel
def is_inside(bounds, n, i, j):
    """Whether cell (i, j) of image n lies in its map."""
    return bounds[n, 0] <= i < bounds[n, 1] and bounds[n, 2] <= j < bounds[n, 3]


@kernel
def window_cells(bounds, n, i, j, start, size):
    """Cells of the map in the window whose first cell is (i + start, j + start)."""
    height = min(i + start + size, bounds[n, 1]) - max(i + start, bounds[n, 0])
    width = min(j + start + size, bounds[n, 3]) - max(j + start, bounds[n, 2])
    return height * width


@kernel
def contrast_mean_kernel(begin, end, d, x, bounds, size, start):
    """One row of d = x - local mean, 0 outside the map."""
    rows, columns, channels = x.shape[1:]
    sums, line = np.empty((columns, channels), x.dtype), np.empty(columns * channels, x.dtype)
    lines = (x.shape[0], rows, columns * channels)
    for item in range(begin, end):
        n, i = item // rows, item % rows
        box_row(sums, line, x.reshape(lines), n, i + start, start, size, bounds, False)
        for j in range(columns):
            out, cell, total = d[n, i, j], x[n, i, j], sums[j]
            if not is_inside(bounds, n, i, j):
                out[:] = 0
                continue
            count = out.dtype.type(window_cells(bounds, n, i, j, start, size))
            for c in range(channels):
                out[c] = cell[c] - total[c] / count


@kernel
def contrast_norm_kernel(begin, end, y, numerator, d, bounds, size, start, alpha, beta, k, power):
    """One row of y = numerator * D^-beta, 0 outside the map."""
    rows, columns, channels = d.shape[1:]
    sums, line = np.empty((columns, channels), d.dtype), np.empty(columns * channels, d.dtype)
    scale = np.empty(channels, d.dtype)
    lines = (d.shape[0], rows, columns * channels)
    for item in range(begin, end):
        n, i = item // rows, item % rows
        box_row(sums, line, d.reshape(lines), n, i + start, start, size, bounds, True)
        for j in range(columns):
            out, cell, base = y[n, i, j], numerator[n, i, j], sums[j]
            if not is_inside(bounds, n, i, j):
                out[:] = 0
                continue
            for c in range(channels):
                base[c] = k + alpha * base[c]
            inverse_power(scale, base, beta, power)
            for c in range(channels):
                out[c] = cell[c] * scale[c]


@kernel
def contrast_terms_kernel(begin, end, direct, terms, dy, numerator, d, bounds, size, start, alpha, beta, k, power):
    """One row of direct = g D^-beta and terms = -beta g numerator D^-beta / D, 0 outside the map."""
    rows, columns, channels = d.shape[1:]
    sums, line = np.empty((columns, channels), d.dtype), np.empty(columns * channels, d.dtype)
    scale = np.empty(channels, d.dtype)
    lines = (d.shape[0], rows, columns * channels)
    for item in range(begin, end):
        n, i = item // rows, item % rows
        box_row(sums, line, d.reshape(lines), n, i + start, start, size, bounds, True)
        for j in range(columns):
            straight, term, base = direct[n, i, j], terms[n, i, j], sums[j]
            signal, cell = dy[n, i, j], numerator[n, i, j]
            if not is_inside(bounds, n, i, j):
                straight[:] = 0
                term[:] = 0
                continue
            for c in range(channels):
                base[c] = k + alpha * base[c]
            inverse_power(scale, base, beta, power)
            for c in range(channels):
                straight[c] = signal[c] * scale[c]
                term[c] = -beta * straight[c] * cell[c] / base[c]


@kernel
def contrast_difference_gradient_kernel(begin, end, h, share, direct, terms, d, bounds, size, start, alpha,
                                        subtractive):
    """One row of h, the gradient by d, and share = h / (cells of d's own mean).

    The terms come from the windows that hold the cell: the mirror image of the window at `start`.
    """
    rows, columns, channels = d.shape[1:]
    sums, line = np.empty((columns, channels), d.dtype), np.empty(columns * channels, d.dtype)
    mirrored = 1 - size - start
    factor = 2 * alpha
    lines = (d.shape[0], rows, columns * channels)
    for item in range(begin, end):
        n, i = item // rows, item % rows
        box_row(sums, line, terms.reshape(lines), n, i + mirrored, mirrored, size, bounds, False)
        for j in range(columns):
            out, part, straight, total, cell = h[n, i, j], share[n, i, j], direct[n, i, j], sums[j], d[n, i, j]
            if not is_inside(bounds, n, i, j):
                out[:] = 0
                part[:] = 0
                continue
            for c in range(channels):
                out[c] = factor * cell[c] * total[c]
            if subtractive:
                for c in range(channels):
                    out[c] += straight[c]
            count = out.dtype.type(window_cells(bounds, n, i, j, start, size))
            for c in range(channels):
                part[c] = out[c] / count


@kernel
def contrast_input_gradient_kernel(begin, end, dx, direct, h, share, bounds, size, start, subtractive,
                                   mean_is_constant):
    """One row of dx = direct (divisive) + h - the shares of all means that the cell is part of."""
    rows, columns, channels = dx.shape[1:]
    sums, line = np.empty((columns, channels), dx.dtype), np.empty(columns * channels, dx.dtype)
    mirrored = 1 - size - start
    lines = (dx.shape[0], rows, columns * channels)
    for item in range(begin, end):
        n, i = item // rows, item % rows
        if not mean_is_constant:
            box_row(sums, line, share.reshape(lines), n, i + mirrored, mirrored, size, bounds, False)
        for j in range(columns):
            out, straight, difference, total = dx[n, i, j], direct[n, i, j], h[n, i, j], sums[j]
            if not is_inside(bounds, n, i, j):
                out[:] = 0
                continue
            for c in range(channels):
                out[c] = difference[c] if subtractive else straight[c] + difference[c]
            if not mean_is_constant:
                for c in range(channels):
                    out[c] -= total[c]


@kernel
def scale_kernel(begin, end, y, x, mean, multiplier, bias):
    """One cell: y = (x - mean) * multiplier + bias."""
    channels = x.shape[1]
    for i in range(begin, end):
        cell, out = x[i], y[i]
        for c in range(channels):
            out[c] = (cell[c] - mean[c]) * multiplier[c] + bias[c]


@kernel
def block_sums_kernel(begin, end, sums, a, b, mean, block):
    """One block of `block` cells, summed in order in float64: sums of a * (b - mean) and of a."""
    cells, channels = a.shape
    for item in range(begin, end):
        products, plain = sums[item, 0], sums[item, 1]
        products[:] = 0
        plain[:] = 0
        for i in range(item * block, min((item + 1) * block, cells)):
            left, right = a[i], b[i]
            for c in range(channels):
                value = np.float64(left[c])
                products[c] += value * (np.float64(right[c]) - mean[c])
                plain[c] += value


@kernel
def block_totals_kernel(begin, end, sums, a, block):
    """One block of `block` cells, summed in order in float64."""
    cells, channels = a.shape
    for item in range(begin, end):
        plain = sums[item]
        plain[:] = 0
        for i in range(item * block, min((item + 1) * block, cells)):
            left = a[i]
            for c in range(channels):
                plain[c] += np.float64(left[c])


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


def _rows(kernel_: Any, out: np.ndarray, *arguments: Any) -> None:
    parallel(kernel_, out.shape[0] * out.shape[1], *arguments, grain=grain(8 * out.shape[2] * out.shape[3]))


def contrast_norm(y: np.ndarray, d: np.ndarray, x: np.ndarray, bounds: np.ndarray, size: int, alpha: float,
                  beta: float, k: float, subtractive: bool) -> None:
    """Fill y and the workspace d (x less its local mean), all of x's shape (N, H, W, C)."""
    start = -(size // 2)
    _rows(contrast_mean_kernel, x, d, x, bounds, size, start)
    _rows(contrast_norm_kernel, x, y, d if subtractive else x, d, bounds, size, start, *_numbers(x, alpha, beta, k),
          POWERS.get(beta, 0))


def contrast_norm_gradient(dx: np.ndarray, d: np.ndarray, h: np.ndarray, share: np.ndarray,
                           direct: np.ndarray, terms: np.ndarray, dy: np.ndarray, x: np.ndarray,
                           bounds: np.ndarray, size: int, alpha: float, beta: float, k: float,
                           subtractive: bool, mean_is_constant: bool) -> None:
    """Fill dx and the workspaces d, h, share, direct and terms, all of x's shape."""
    start = -(size // 2)
    numbers = _numbers(x, alpha, beta, k)
    _rows(contrast_mean_kernel, x, d, x, bounds, size, start)
    _rows(contrast_terms_kernel, x, direct, terms, dy, d if subtractive else x, d, bounds, size, start, *numbers,
          POWERS.get(beta, 0))
    _rows(contrast_difference_gradient_kernel, x, h, share, direct, terms, d, bounds, size, start, numbers[0],
          subtractive)
    _rows(contrast_input_gradient_kernel, x, dx, direct, h, share, bounds, size, start, subtractive,
          mean_is_constant)


def _inverse_deviation(variance: np.ndarray, epsilon: float) -> np.ndarray:
    return 1 / np.sqrt(variance.astype(np.float64) + epsilon)


def batch_norm(y: np.ndarray, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray,
               variance: np.ndarray, epsilon: float) -> None:
    """Fill y = (x - mean) * scale / sqrt(variance + epsilon) + bias."""
    multiplier = (scale * _inverse_deviation(variance, epsilon)).astype(x.dtype)
    cells = _cells(x)
    parallel(scale_kernel, len(cells), _cells(y), cells, mean, multiplier, bias, grain=grain(x.shape[-1]))


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
    """Fill the mean and the (biased) variance of every channel of x (..., C), in two passes."""
    cells = _cells(x)
    block = grain(x.shape[-1])
    sums = np.empty((-(-len(cells) // block), x.shape[-1]))
    parallel(block_totals_kernel, len(sums), sums, cells, block)
    exact = _in_order(sums) / len(cells)
    mean[:] = exact
    variance[:] = _sums(x, x, exact)[0] / len(cells)  # of x (x - mean): float64 holds what cancels


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
