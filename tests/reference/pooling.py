"""Pooling by loops over output cells and taps; knows nothing of the package."""

from __future__ import annotations

import math

import numpy as np


def starts(size, window, stride, before, after, ceil_mode=False):
    """First cell of each window (negative in the padding), found by sliding."""
    found = []
    start = -before
    while start + window <= size + after:
        found.append(start)
        start += stride
    hangs_over = not found or found[-1] + window < size + after
    if ceil_mode and hangs_over and start < size:
        found.append(start)
    return found


def windows(shape, window, stride, padding, ceil_mode=False):
    """Every (p, q, first row, first column) in raster order."""
    rows = starts(shape[1], window[0], stride[0], padding[0], padding[1], ceil_mode)
    columns = starts(shape[2], window[1], stride[1], padding[2], padding[3], ceil_mode)
    return [(p, q, row, column) for p, row in enumerate(rows) for q, column in enumerate(columns)], \
        (shape[0], len(rows), len(columns), shape[3])


def max_pool(x, window, stride, padding=(0, 0, 0, 0), ceil_mode=False):
    """(y, switches): the first greatest cell inside the map, or the first NaN."""
    slides, shape = windows(x.shape, window, stride, padding, ceil_mode)
    y, switches = np.zeros(shape, x.dtype), np.zeros(shape, np.uint8)
    for p, q, row, column in slides:
        for n in range(x.shape[0]):
            for c in range(x.shape[3]):
                best = None
                for r in range(window[0]):
                    for s in range(window[1]):
                        if not (0 <= row + r < x.shape[1] and 0 <= column + s < x.shape[2]):
                            continue
                        value = x[n, row + r, column + s, c]
                        first_nan = math.isnan(value) and not math.isnan(best if best is not None else 0.0)
                        if best is None or value > best or first_nan:
                            best = value
                            switches[n, p, q, c] = r * window[1] + s
                y[n, p, q, c] = best
    return y, switches


def max_unpool(y, switches, shape, window, stride, padding=(0, 0, 0, 0), ceil_mode=False, overlap="sum"):
    """Scatter in raster order, in y's own precision: the order is part of the definition."""
    slides, _ = windows(shape, window, stride, padding, ceil_mode)
    x = np.zeros(shape, y.dtype)
    for p, q, row, column in slides:
        for n in range(shape[0]):
            for c in range(shape[3]):
                r, s = divmod(int(switches[n, p, q, c]), window[1])
                place = n, row + r, column + s, c
                x[place] = x[place] + y[n, p, q, c] if overlap == "sum" else y[n, p, q, c]
    return x


def flat(switches, shape, window, stride, padding=(0, 0, 0, 0), ceil_mode=False):
    """row * width + column of every switch."""
    slides, _ = windows(shape, window, stride, padding, ceil_mode)
    indices = np.zeros(switches.shape, np.int64)
    for p, q, row, column in slides:
        r, s = np.divmod(switches[:, p, q].astype(np.int64), window[1])
        indices[:, p, q] = (row + r) * shape[2] + column + s
    return indices


def _divisor(shape, window, padding, row, column, divisor):
    """How many cells of a window count."""
    count = 0
    for r in range(row, row + window[0]):
        for s in range(column, column + window[1]):
            valid = 0 <= r < shape[1] and 0 <= s < shape[2]
            padded = r < shape[1] + padding[1] and s < shape[2] + padding[3]
            count += {"valid": valid, "padded": padded, "window": True}[divisor]
    return count


def average_pool(x, window, stride, padding=(0, 0, 0, 0), ceil_mode=False, divisor="valid"):
    """Mean of each window's cells inside the map, over the chosen count; float64."""
    slides, shape = windows(x.shape, window, stride, padding, ceil_mode)
    y = np.zeros(shape)
    for p, q, row, column in slides:
        for r in range(max(row, 0), min(row + window[0], x.shape[1])):
            for s in range(max(column, 0), min(column + window[1], x.shape[2])):
                y[:, p, q] += x[:, r, s].astype(np.float64)
        y[:, p, q] /= _divisor(x.shape, window, padding, row, column, divisor)
    return y


def average_pool_gradient(dy, shape, window, stride, padding=(0, 0, 0, 0), ceil_mode=False, divisor="valid"):
    """The adjoint, scattered; float64."""
    slides, _ = windows(shape, window, stride, padding, ceil_mode)
    dx = np.zeros(shape)
    for p, q, row, column in slides:
        share = dy[:, p, q].astype(np.float64) / _divisor(shape, window, padding, row, column, divisor)
        for r in range(max(row, 0), min(row + window[0], shape[1])):
            for s in range(max(column, 0), min(column + window[1], shape[2])):
                dx[:, r, s] += share
    return dx


def map_maximum(x):
    """(values, positions) of every map, the first of equals, the first NaN."""
    values, positions = np.zeros((x.shape[0], x.shape[3]), x.dtype), np.zeros((x.shape[0], x.shape[3]), np.int32)
    for n in range(x.shape[0]):
        for c in range(x.shape[3]):
            plane = [float(value) for value in x[n, :, :, c].reshape(-1)]
            nans = [i for i, value in enumerate(plane) if math.isnan(value)]
            positions[n, c] = nans[0] if nans else plane.index(max(plane))
            values[n, c] = plane[positions[n, c]]
    return values, positions
