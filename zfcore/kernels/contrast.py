"""Local contrast normalisation over space: sums over windows, each map by itself.

An item is a band of an image's rows. A sum over a window adds whole rows first, then cells of the sum, so that
both loops run over a row's contiguous numbers. What one pass needs of another lies in a ring of the last few
rows, in the second-level cache: the passes follow each other row by row, and nothing goes to memory but the result.

`bounds` (N, 4) says for each image which rows [top, bottom) and columns [left, right) lie inside the map. Every
sum adds only cells inside, from 0 on and in ascending order: it depends on the window's cells alone, not on the
crop or the band that they lie in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .normalization import POWERS, inverse_power
from .threads import parallel

PIECE = 1024  # numbers of a row whose intermediate ones stay in the first-level cache
BAND = 32  # rows of an item forward; those of its neighbours within reach are computed again
GRADIENT_BAND = 64  # the gradient reaches three times as far

# ------------------------------------------------------------------------------------------------
# kernels: arrays are flat, a row is `width` numbers, a window's first cell is `start` (<= 0) from its own


@kernel
def _workspace(size, like):
    """Uninitialised numbers from the start of a cache line on: vectors across two lines take twice as long."""
    raw = np.empty(size + 64 // like.itemsize, like.dtype)
    first = (-raw.ctypes.data) % 64 // like.itemsize
    return raw[first:first + size]


@kernel
def _add_rows(line, source, place, width, rows, first, last, squared):
    """line = rows first .. last - 1, or their squares; row r of the source begins at place + r % rows * width."""
    size, zero = line.size, line.dtype.type(0)
    if last - first == 5:
        i = place + first % rows * width
        a = source[i:i + size]
        i = place + (first + 1) % rows * width
        b = source[i:i + size]
        i = place + (first + 2) % rows * width
        c = source[i:i + size]
        i = place + (first + 3) % rows * width
        d = source[i:i + size]
        i = place + (first + 4) % rows * width
        e = source[i:i + size]
        if squared:
            for i in range(size):
                line[i] = a[i] * a[i] + b[i] * b[i] + c[i] * c[i] + d[i] * d[i] + e[i] * e[i]
        else:
            for i in range(size):
                line[i] = zero + a[i] + b[i] + c[i] + d[i] + e[i]
        return
    line[:] = 0
    for r in range(first, last):
        i = place + r % rows * width
        a = source[i:i + size]
        if squared:
            for i in range(size):
                line[i] += a[i] * a[i]
        else:
            for i in range(size):
                line[i] += a[i]


@kernel
def _add_cells(sums, line, begin, channels, size):
    """sums[i] = the `size` numbers of the line from begin + i on, `channels` apart."""
    count = sums.size
    a = line[begin:begin + count]
    if size == 5:
        b, c = line[begin + channels:begin + channels + count], line[begin + 2 * channels:begin + 2 * channels + count]
        d = line[begin + 3 * channels:begin + 3 * channels + count]
        e = line[begin + 4 * channels:begin + 4 * channels + count]
        for i in range(count):
            sums[i] = a[i] + b[i] + c[i] + d[i] + e[i]
        return
    for i in range(count):
        sums[i] = a[i]
    for t in range(1, size):
        a = line[begin + t * channels:begin + t * channels + count]
        for i in range(count):
            sums[i] += a[i]


@kernel
def _box_line(line, source, place, width, rows, row, start, size, pad, bounds, squared):
    """Sum the window's rows: the line holds a row's columns with `pad` numbers (zeros) at either end."""
    first, last = max(row + start, bounds[0]), min(row + start + size, bounds[1])
    _add_rows(line[pad + bounds[2]:pad + bounds[3]], source, place + bounds[2], width, rows, first, last, squared)
    return line.dtype.type(last - first)


@kernel
def _difference_row(d, place, line, sums, x, image, rows, width, row, start, size, channels, pad, bounds, wide):
    """d from `place` on = a row of x less its local mean, 0 outside the map."""
    left, right = bounds[2], bounds[3]
    d[place:place + left] = 0
    d[place + right:place + width] = 0
    high = _box_line(line, x, image, width, rows, row, start, size, pad, bounds, False)
    for i in range(left, right, PIECE):
        count = min(PIECE, right - i)
        _add_cells(sums[:count], line, pad + i + start * channels, channels, size)
        out, cells = d[place + i:place + i + count], wide[i:i + count]
        given = x[image + row * width + i:image + row * width + i + count]
        for j in range(count):
            out[j] = given[j] - sums[j] / (high * cells[j])


@kernel
def _window_widths(wide, channels, start, size, bounds):
    """Columns of the map in each cell's window, for every number of a row."""
    for i in range(wide.size):
        j = i // channels * channels
        first, last = max(j + start * channels, bounds[2]), min(j + (start + size) * channels, bounds[3])
        wide[i] = (last - first) // channels


@kernel
def contrast_norm_kernel(begin, end, y, x, bounds, band, channels, size, alpha, beta, k, power, subtractive):
    """One band of rows of y = numerator * D^-beta, 0 outside the map; x and y are (N, H, W * C)."""
    rows, width = x.shape[1], x.shape[2]
    start, pad, bands = -(size // 2), size // 2 * channels, (rows + band - 1) // band
    after = size - 1 + start
    line, ring, wide = _workspace(width + 2 * pad, x), _workspace(size * width, x), _workspace(width, x)
    sums, base = _workspace(PIECE, x), _workspace(PIECE, x)
    x, y = x.reshape(x.size), y.reshape(y.size)
    for item in range(begin, end):
        n, first = item // bands, item % bands * band
        last, image = min(first + band, rows), n * rows * width
        inside = bounds[n] * np.array([1, 1, channels, channels])
        top, bottom, left, right = inside
        line[:] = 0
        _window_widths(wide, channels, start, size, inside)
        for t in range(first + start, last + after):
            if top <= t < bottom:
                _difference_row(ring, t % size * width, line, sums, x, image, rows, width, t, start, size, channels,
                                pad, inside, wide)
            row = t - after
            if row < first:
                continue
            place = image + row * width
            if row < top or row >= bottom:
                y[place:place + width] = 0
                continue
            y[place:place + left] = 0
            y[place + right:place + width] = 0
            _box_line(line, ring, 0, width, size, row, start, size, pad, inside, True)
            own = row % size * width
            for i in range(left, right, PIECE):
                count = min(PIECE, right - i)
                _add_cells(sums[:count], line, pad + i + start * channels, channels, size)
                for j in range(count):
                    base[j] = k + alpha * sums[j]
                inverse_power(sums[:count], base[:count], beta, power)
                cell = ring[own + i:own + i + count] if subtractive else x[place + i:place + i + count]
                out = y[place + i:place + i + count]
                for j in range(count):
                    out[j] = cell[j] * sums[j]


@kernel
def _terms_row(direct, terms, line, sums, base, scale, dy, x, ring, place, row, width, start, size, channels, pad,
               bounds, alpha, beta, k, power, subtractive):
    """A row of direct = g D^-beta and terms = -beta g numerator D^-beta / D, 0 outside the map."""
    left, right = bounds[2], bounds[3]
    terms[:left] = 0
    terms[right:] = 0
    _box_line(line, ring, 0, width, size, row, start, size, pad, bounds, True)
    own = row % size * width
    for i in range(left, right, PIECE):
        count = min(PIECE, right - i)
        _add_cells(sums[:count], line, pad + i + start * channels, channels, size)
        for j in range(count):
            base[j] = k + alpha * sums[j]
        inverse_power(scale[:count], base[:count], beta, power)
        cell = ring[own + i:own + i + count] if subtractive else x[place + i:place + i + count]
        signal, straight, term = dy[place + i:place + i + count], direct[i:i + count], terms[i:i + count]
        for j in range(count):
            value = signal[j] * scale[j]
            straight[j] = value
            term[j] = -beta * value * cell[j] / base[j]


@kernel
def _share_row(share, direct, line, sums, d, terms, row, width, start, size, channels, pad, bounds, wide, alpha,
               subtractive):
    """A row of the gradient by d, added to `direct`, and its share of each cell of d's own mean.

    The terms come from the windows that hold the cell: the mirror image of the window at `start`.
    """
    left, right, mirrored = bounds[2], bounds[3], 1 - size - start
    factor = 2 * alpha
    share[:left] = 0
    share[right:] = 0
    high = line.dtype.type(min(row + start + size, bounds[1]) - max(row + start, bounds[0]))
    _box_line(line, terms, 0, width, size, row, mirrored, size, pad, bounds, False)
    for i in range(left, right, PIECE):
        count = min(PIECE, right - i)
        _add_cells(sums[:count], line, pad + i + mirrored * channels, channels, size)
        straight, part, cell, cells = direct[i:i + count], share[i:i + count], d[i:i + count], wide[i:i + count]
        for j in range(count):
            difference = factor * cell[j] * sums[j]
            total = straight[j] + difference
            straight[j] = total
            part[j] = (total if subtractive else difference) / (high * cells[j])


@kernel
def contrast_norm_gradient_kernel(begin, end, dx, dy, x, bounds, band, channels, size, alpha, beta, k, power,
                                  subtractive, mean_is_constant):
    """One band of rows of dx = direct (divisive) + h - the shares of all means that the cell is part of, h by d.

    Row t of d makes row a of the terms ready, that row b of the shares, that row e of dx.
    """
    rows, width = x.shape[1], x.shape[2]
    before, after = size // 2, size - 1 - size // 2
    start, mirrored, pad, bands = -before, -after, before * channels, (rows + band - 1) // band
    line, wide, direct = _workspace(width + 2 * pad, x), _workspace(width, x), _workspace((size + 1) * width, x)
    ring, terms, share = _workspace(size * width, x), _workspace(size * width, x), _workspace(size * width, x)
    sums, base, scale = _workspace(PIECE, x), _workspace(PIECE, x), _workspace(PIECE, x)
    x, dy, dx = x.reshape(x.size), dy.reshape(dy.size), dx.reshape(dx.size)
    for item in range(begin, end):
        n, first = item // bands, item % bands * band
        last, image = min(first + band, rows), n * rows * width
        inside = bounds[n] * np.array([1, 1, channels, channels])
        top, bottom, left, right = inside
        line[:] = 0
        _window_widths(wide, channels, start, size, inside)
        for t in range(first - 2 * after - before, last + 2 * before + after):
            if top <= t < bottom:
                _difference_row(ring, t % size * width, line, sums, x, image, rows, width, t, start, size, channels,
                                pad, inside, wide)
            a = t - after
            if top <= a < bottom and a >= first - 2 * after:
                straight, term = a % (size + 1) * width, a % size * width
                _terms_row(direct[straight:straight + width], terms[term:term + width], line, sums, base, scale, dy, x,
                           ring, image + a * width, a, width, start, size, channels, pad, inside, alpha, beta, k, power,
                           subtractive)
            b = a - before
            if top <= b < bottom and b >= first - after:
                straight, own = b % (size + 1) * width, b % size * width
                _share_row(share[own:own + width], direct[straight:straight + width], line, sums,
                           ring[own:own + width], terms, b, width, start, size, channels, pad, inside, wide, alpha,
                           subtractive)
            e = b - before
            if e < first:
                continue
            out, straight = dx[image + e * width:image + (e + 1) * width], e % (size + 1) * width
            if e < top or e >= bottom:
                out[:] = 0
                continue
            out[:left] = 0
            out[right:] = 0
            if mean_is_constant:
                out[left:right] = direct[straight + left:straight + right]
                continue
            _box_line(line, share, 0, width, size, e, mirrored, size, pad, inside, False)
            for i in range(left, right, PIECE):
                count = min(PIECE, right - i)
                _add_cells(sums[:count], line, pad + i + mirrored * channels, channels, size)
                to, whole = out[i:i + count], direct[straight + i:straight + i + count]
                for j in range(count):
                    to[j] = whole[j] - sums[j]


# ------------------------------------------------------------------------------------------------
# launchers


def _bands(kernel_: Any, band: int, out: np.ndarray, inputs: tuple[np.ndarray, ...], bounds: np.ndarray, size: int,
           alpha: float, beta: float, k: float, *flags: bool) -> None:
    images, rows, columns, channels = out.shape
    if not out.size:
        return
    lines = [array.reshape(images, rows, columns * channels) for array in (out, *inputs)]
    number = out.dtype.type
    parallel(kernel_, images * -(-rows // band), *lines, bounds, band, channels, size, number(alpha), number(beta),
             number(k), POWERS.get(beta, 0), *flags)


def contrast_norm(y: np.ndarray, x: np.ndarray, bounds: np.ndarray, size: int, alpha: float, beta: float, k: float,
                  subtractive: bool) -> None:
    """Fill y from x (N, H, W, C)."""
    _bands(contrast_norm_kernel, BAND, y, (x,), bounds, size, alpha, beta, k, subtractive)


def contrast_norm_gradient(dx: np.ndarray, dy: np.ndarray, x: np.ndarray, bounds: np.ndarray, size: int, alpha: float,
                           beta: float, k: float, subtractive: bool, mean_is_constant: bool) -> None:
    """Fill dx from dy and x (N, H, W, C)."""
    _bands(contrast_norm_gradient_kernel, GRADIENT_BAND, dx, (dy, x), bounds, size, alpha, beta, k, subtractive,
           mean_is_constant)
