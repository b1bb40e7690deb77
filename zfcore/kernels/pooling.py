"""Pooling: maxima with switches, their gradient and unpooling, averages, whole-map maxima.

Every kernel's item is one row of one image of its output; its inner loop runs over the channels,
which are contiguous, so it vectorises and every channel is computed alike wherever it lies.

`bounds` (N, 4) says for each image which rows [top, bottom) and columns [left, right) of the array
lie inside the map; all others are padding. For a whole map that is the array itself, for a crop
(`geometry.Tile`) its part of the map: one kernel serves both.
"""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .instructions import VECTOR_BYTES, streamed
from .pooling_instructions import average_cell, pool_cell, sum_cells, unpool_cell
from .threads import parallel
from .work import grain, streams

Pair = tuple[int, int]

# ------------------------------------------------------------------------------------------------
# kernels


@kernel(inline=True)
def later(best, code, value, own):
    """Best value and switch after one more tap: it wins if greater, or if it is the first NaN."""
    wins = (not (value <= best)) & (best == best)
    return value if wins else best, own if wins else code


@kernel(inline=True)
def first_tap(best, switch, cell, code):
    """The window's first cell wins for now."""
    for c in range(best.size):
        best[c] = cell[c]
        switch[c] = code


@kernel(inline=True)
def one_tap(best, switch, cell, code):
    """One more cell of the window."""
    for c in range(best.size):
        best[c], switch[c] = later(best[c], switch[c], cell[c], code)


@kernel
def max_pool_kernel(begin, end, y, switches, x, bounds, window_height, window_width, stride_vertical,
                    stride_horizontal, top, left, stream):
    """One output row; x is (N, H, W * C). Taps in row-major order, so the first of equals wins."""
    rows, columns, channels = y.shape[1:]
    for item in range(begin, end):
        n, p = item // rows, item % rows
        row = p * stride_vertical - top
        first_row, last_row = max(row, bounds[n, 0]), min(row + window_height, bounds[n, 1])
        first_bound, last_bound = bounds[n, 2], bounds[n, 3]
        for q in range(columns):
            column = q * stride_horizontal - left
            first_column, last_column = max(column, first_bound), min(column + window_width, last_bound)
            empty = first_row >= last_row or first_column >= last_column
            code = (first_row - row) * window_width + first_column - column
            begins = first_column * channels
            if channels >= VECTOR_BYTES // y.itemsize and not empty:
                place = (item * columns + q) * channels
                begins += (n * x.shape[1] + first_row) * x.shape[2]
                pool_cell(y, place, switches, place, x, begins, x.shape[2], channels, last_row - first_row,
                          last_column - first_column, code, window_width, channels, stream)
                continue
            best, switch = y[n, p, q], switches[n, p, q]
            if empty:
                best[:] = 0
                switch[:] = 0
                continue
            first_tap(best, switch, x[n, first_row, begins:begins + channels], np.uint8(code))
            for r in range(first_row, last_row):
                for s in range(first_column, last_column):
                    if r > first_row or s > first_column:
                        one_tap(best, switch, x[n, r, s * channels:(s + 1) * channels],
                                np.uint8((r - row) * window_width + s - column))
    streamed()


@kernel
def check_switches_kernel(begin, end, faults, switches, bounds, window_height, window_width, stride_vertical,
                          stride_horizontal, top, left):
    """One row of switches: faults[item] = 1 if any lies outside its window or outside the map."""
    rows, columns, channels = switches.shape[1:]
    area = window_height * window_width
    for item in range(begin, end):
        n, p = item // rows, item % rows
        row = p * stride_vertical - top
        first_row, last_row = max(row, bounds[n, 0]), min(row + window_height, bounds[n, 1])
        faults[item] = 0
        for q in range(columns):
            column = q * stride_horizontal - left
            first_column, last_column = max(column, bounds[n, 2]), min(column + window_width, bounds[n, 3])
            if first_row >= last_row or first_column >= last_column:
                continue  # wholly outside: no cell of the map is touched
            switch = switches[n, p, q]
            greatest = np.uint8(0)
            for c in range(channels):
                greatest = max(greatest, switch[c])
            fault = greatest >= area
            if (last_row - first_row) * (last_column - first_column) < area:
                for c in range(channels):
                    r, s = row + switch[c] // window_width, column + switch[c] % window_width
                    fault |= (r < first_row) | (r >= last_row) | (s < first_column) | (s >= last_column)
            if fault:
                faults[item] = 1


@kernel(inline=True)
def one_window(cell, value, switch, code, last_wins):
    """Add a window's values where their switches point at this cell, or let them overwrite."""
    zero = cell.dtype.type(0)  # the plain number 0 would turn float32 into float64
    for c in range(cell.size):
        given, old = value[c], cell[c]
        hit = switch[c] == code
        cell[c] = (given if hit else old) if last_wins else old + (given if hit else zero)


@kernel
def max_unpool_kernel(begin, end, x, y, switches, bounds, window_height, window_width, stride_vertical,
                      stride_horizontal, top, left, last_wins, stream):
    """One row of the larger map, by gather: each cell visits the windows that cover it, in raster order.

    Every sum starts at +0: windows absent from a crop leave the same bits as windows of value 0.
    """
    rows, columns, channels = x.shape[1:]
    pooled_rows, pooled_columns = y.shape[1:3]
    for item in range(begin, end):
        n, r = item // rows, item % rows
        first_p = max(0, (r + top - window_height + stride_vertical) // stride_vertical)
        last_p = min(pooled_rows, (r + top) // stride_vertical + 1)
        high = last_p - first_p if bounds[n, 0] <= r < bounds[n, 1] else 0
        first_q, last_q = 0, 0
        for s in range(columns):
            while first_q * stride_horizontal + window_width <= s + left:
                first_q += 1
            while last_q < pooled_columns and last_q * stride_horizontal <= s + left:
                last_q += 1
            wide = last_q - first_q if bounds[n, 2] <= s < bounds[n, 3] else 0
            if high > 0 and wide > 0 and channels >= VECTOR_BYTES // x.itemsize:
                place = ((n * pooled_rows + first_p) * pooled_columns + first_q) * channels
                code = (r + top - first_p * stride_vertical) * window_width + s + left - first_q * stride_horizontal
                unpool_cell(x, (item * columns + s) * channels, y, place, switches, place, pooled_columns * channels,
                            channels, high, wide, code, stride_vertical * window_width, stride_horizontal, channels,
                            last_wins, stream)
                continue
            cell = x[n, r, s]
            cell[:] = 0
            for p in range(first_p, first_p + high):
                for q in range(first_q, first_q + wide):
                    code = (r + top - p * stride_vertical) * window_width + s + left - q * stride_horizontal
                    one_window(cell, y[n, p, q], switches[n, p, q], np.uint8(code), last_wins)
    streamed()


@kernel(inline=True)
def add_cells(total, line):
    """Add a row of cells, one after the other."""
    channels = total.size
    for i in range(0, line.size if channels else 0, max(channels, 1)):
        cell = line[i:i + channels]
        for c in range(channels):
            total[c] += cell[c]


@kernel
def average_pool_kernel(begin, end, y, x, bounds, counted, window_height, window_width, stride_vertical,
                        stride_horizontal, top, left):
    """One output row: the sum of the window's cells in the map over its cells inside `counted`.

    x is (N, H, W * C).
    """
    rows, columns, channels = y.shape[1:]
    for item in range(begin, end):
        n, p = item // rows, item % rows
        row = p * stride_vertical - top
        first_row, last_row = max(row, bounds[n, 0]), min(row + window_height, bounds[n, 1])
        height = min(row + window_height, counted[n, 1]) - max(row, counted[n, 0])
        for q in range(columns):
            column = q * stride_horizontal - left
            first_column, last_column = max(column, bounds[n, 2]), min(column + window_width, bounds[n, 3])
            width = min(column + window_width, counted[n, 3]) - max(column, counted[n, 2])
            total = y[n, p, q]
            begins, ends = first_column * channels, last_column * channels
            count = total.dtype.type(height * width)
            empty = first_row >= last_row or first_column >= last_column
            if channels >= VECTOR_BYTES // y.itemsize and not empty:
                begins += (n * x.shape[1] + first_row) * x.shape[2]
                average_cell(y, (item * columns + q) * channels, x, begins, x.shape[2], channels,
                             last_row - first_row, last_column - first_column, count, channels)
                continue
            total[:] = 0
            if empty:
                continue
            for r in range(first_row, last_row):
                add_cells(total, x[n, r, begins:ends])
            for c in range(channels):
                total[c] /= count


@kernel
def average_pool_gradient_kernel(begin, end, dx, dy, bounds, counted, window_height, window_width,
                                 stride_vertical, stride_horizontal, top, left):
    """One row of dx, by gather: each cell sums dy / count of the windows that cover it, in raster order."""
    rows, columns, channels = dx.shape[1:]
    pooled_rows, pooled_columns = dy.shape[1:3]
    for item in range(begin, end):
        n, r = item // rows, item % rows
        inside_row = bounds[n, 0] <= r < bounds[n, 1]
        first_p = max(0, (r + top - window_height + stride_vertical) // stride_vertical)
        last_p = min(pooled_rows, (r + top) // stride_vertical + 1)
        for s in range(columns):
            cell = dx[n, r, s]
            cell[:] = 0
            if not (inside_row and bounds[n, 2] <= s < bounds[n, 3]):
                continue
            first_q = max(0, (s + left - window_width + stride_horizontal) // stride_horizontal)
            last_q = min(pooled_columns, (s + left) // stride_horizontal + 1)
            for p in range(first_p, last_p):
                row = p * stride_vertical - top
                height = min(row + window_height, counted[n, 1]) - max(row, counted[n, 0])
                for q in range(first_q, last_q):
                    column = q * stride_horizontal - left
                    width = min(column + window_width, counted[n, 3]) - max(column, counted[n, 2])
                    count = cell.dtype.type(height * width)
                    signal = dy[n, p, q]
                    for c in range(channels):
                        cell[c] += signal[c] / count


@kernel
def global_average_pool_kernel(begin, end, y, x):
    """One image: x (N, cells * C) summed cell by cell, then divided."""
    channels = y.shape[1]
    cells = x.shape[1] // max(channels, 1)
    for n in range(begin, end):
        total = y[n]
        if channels >= VECTOR_BYTES // y.itemsize and cells > 0:
            sum_cells(y, n * channels, x, n * x.shape[1], cells, channels)
        else:
            total[:] = 0
            add_cells(total, x[n])
        count = total.dtype.type(cells)
        for c in range(channels):
            total[c] /= count


@kernel
def global_average_pool_gradient_kernel(begin, end, dx, dy):
    """One image: every cell of dx (N, cells, C) gets dy / cells."""
    cells, channels = dx.shape[1:]
    for n in range(begin, end):
        signal = dy[n]
        count = signal.dtype.type(cells)
        for i in range(cells):
            cell = dx[n, i]
            for c in range(channels):
                cell[c] = signal[c] / count


@kernel
def map_maximum_kernel(begin, end, values, positions, x):
    """One image: the greatest cell of every map of x (N, cells, C), the first of equals, the first NaN."""
    cells, channels = x.shape[1:]
    for n in range(begin, end):
        best, position = values[n], positions[n]
        best[:] = x[n, 0]
        position[:] = 0
        for i in range(1, cells):
            cell = x[n, i]
            where = np.int32(i)
            for c in range(channels):
                best[c], position[c] = later(best[c], position[c], cell[c], where)


@kernel
def global_max_pool_gradient_kernel(begin, end, dx, dy, positions):
    """One image: dx (N, cells, C) is zero but for dy at the recorded positions."""
    channels = dx.shape[2]
    for n in range(begin, end):
        dx[n] = 0
        for c in range(channels):
            dx[n, positions[n, c], c] = dy[n, c]


# ------------------------------------------------------------------------------------------------
# launchers: outputs, inputs, bounds, then (window, stride, top and left padding) as pairs


def _lines(x: np.ndarray) -> np.ndarray:
    """x (N, H, W, C) as (N, H, W * C): neighbouring cells are then one slice."""
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def max_pool(y: np.ndarray, switches: np.ndarray, x: np.ndarray, bounds: np.ndarray, window: Pair,
             stride: Pair, before: Pair) -> None:
    """Fill y and switches (N, P, Q, C) from x (N, H, W, C)."""
    work = y.shape[2] * y.shape[3] * window[0] * window[1]
    parallel(max_pool_kernel, y.shape[0] * y.shape[1], y, switches, _lines(x), bounds, *window, *stride, *before,
             streams(y, x), grain=grain(work))


def check_switches(switches: np.ndarray, bounds: np.ndarray, window: Pair, stride: Pair,
                   before: Pair) -> bool:
    """Whether every switch points at a cell inside its window and inside the map."""
    items = switches.shape[0] * switches.shape[1]
    faults = np.zeros(items, np.uint8)
    parallel(check_switches_kernel, items, faults, switches, bounds, *window, *stride, *before,
             grain=grain(switches.shape[2] * switches.shape[3] // 4))
    return not faults.any()


def max_unpool(x: np.ndarray, y: np.ndarray, switches: np.ndarray, bounds: np.ndarray, window: Pair,
               stride: Pair, before: Pair, last_wins: bool) -> None:
    """Fill x (N, H, W, C) with the values of y (N, P, Q, C) at their switches."""
    parallel(max_unpool_kernel, x.shape[0] * x.shape[1], x, y, switches, bounds, *window, *stride, *before,
             last_wins, streams(x, y), grain=grain(x.shape[2] * x.shape[3]))


def average_pool(y: np.ndarray, x: np.ndarray, bounds: np.ndarray, counted: np.ndarray, window: Pair,
                 stride: Pair, before: Pair) -> None:
    """Fill y (N, P, Q, C) from x (N, H, W, C)."""
    work = y.shape[2] * y.shape[3] * window[0] * window[1]
    parallel(average_pool_kernel, y.shape[0] * y.shape[1], y, _lines(x), bounds, counted, *window, *stride, *before,
             grain=grain(work))


def average_pool_gradient(dx: np.ndarray, dy: np.ndarray, bounds: np.ndarray, counted: np.ndarray,
                          window: Pair, stride: Pair, before: Pair) -> None:
    """Fill dx (N, H, W, C) from dy (N, P, Q, C)."""
    parallel(average_pool_gradient_kernel, dx.shape[0] * dx.shape[1], dx, dy, bounds, counted, *window, *stride,
             *before, grain=grain(dx.shape[2] * dx.shape[3]))


def _image(x: np.ndarray) -> int:
    """Elements of one image."""
    return x.shape[1] * x.shape[2] * x.shape[3]


def _cells(x: np.ndarray) -> np.ndarray:
    """x (N, H, W, C) as (N, H * W, C)."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def global_average_pool(y: np.ndarray, x: np.ndarray) -> None:
    """Fill y (N, C) from x (N, H, W, C)."""
    parallel(global_average_pool_kernel, x.shape[0], y, x.reshape(x.shape[0], _image(x)), grain=grain(_image(x)))


def global_average_pool_gradient(dx: np.ndarray, dy: np.ndarray) -> None:
    """Fill dx (N, H, W, C) from dy (N, C)."""
    parallel(global_average_pool_gradient_kernel, dx.shape[0], _cells(dx), dy, grain=grain(_image(dx)))


def map_maximum(values: np.ndarray, positions: np.ndarray, x: np.ndarray) -> None:
    """Fill values and positions (N, C) from x (N, H, W, C)."""
    parallel(map_maximum_kernel, x.shape[0], values, positions, _cells(x), grain=grain(_image(x)))


def global_max_pool_gradient(dx: np.ndarray, dy: np.ndarray, positions: np.ndarray) -> None:
    """Fill dx (N, H, W, C) from dy and positions (N, C)."""
    parallel(global_max_pool_gradient_kernel, dx.shape[0], _cells(dx), dy, positions, grain=grain(_image(dx)))


def _window_starts(shape: tuple[int, ...], stride: Pair, before: Pair) -> tuple[np.ndarray, np.ndarray]:
    """First row (P, 1, 1) and first column (Q, 1) of each window, for arrays (N, P, Q, C)."""
    rows = np.arange(shape[1], dtype=np.int64)[:, None, None] * stride[0] - before[0]
    columns = np.arange(shape[2], dtype=np.int64)[:, None] * stride[1] - before[1]
    return rows, columns


def switches_to_flat(flat: np.ndarray, switches: np.ndarray, width: int, window: Pair, stride: Pair,
                     before: Pair) -> None:
    """Fill flat (int64) with row * width + column; done at an interop edge, so plain NumPy."""
    rows, columns = _window_starts(switches.shape, stride, before)
    row, column = np.divmod(switches.astype(np.int64), window[1])
    np.add((rows + row) * width, columns + column, out=flat)


def switches_from_flat(switches: np.ndarray, flat: np.ndarray, width: int, window: Pair, stride: Pair,
                       before: Pair) -> bool:
    """Fill switches from flat indices; False if one lies outside its window."""
    rows, columns = _window_starts(flat.shape, stride, before)
    row, column = np.divmod(flat, width)
    row, column = row - rows, column - columns
    switches[...] = row * window[1] + column
    return bool(((row >= 0) & (row < window[0]) & (column >= 0) & (column < window[1])).all())
