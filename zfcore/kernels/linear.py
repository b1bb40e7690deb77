"""Fully connected layers: three matrix products that read the weights once and never copy them whole.

For small batches the weights' way from memory is the cost. The forward product takes dot products along
the depth, in which both matrices are consecutive; the gradients take tiles of matrix.py over blocks that
are packed in the second-level cache.
"""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .instructions import (
    DOT_COLUMNS,
    DOT_ROWS,
    PANEL_BYTES,
    ROWS,
    STREAMS,
    STRIDE,
    VECTOR_BYTES,
    add_rows,
    dot_rows,
    sum_lanes,
)
from .matrix import aligned, copy, flat, move, multiply_block, multiply_transposed_block, pack_rows
from .threads import parallel
from .work import PIECE

BATCH = 98 // ROWS * ROWS  # rows of the batch whose sums stay in the second-level cache
VECTORS = 32  # of a row that a dot product multiplies before it adds to its totals
WIDTH = 512  # columns of an item of the gradients
HEIGHT = 128  # rows of an item of the weight gradient
CHUNK = 128  # depth of a packed block
FEW = 4  # rows of a batch whose input gradient is made in the order of the weights
GRAIN = 2e6  # multiply-adds below which items share one call

# ---------------------------------------------------------------------------------------- kernels


@kernel
def _pack_rows(begin, end, packed, x, rows, inputs):
    """Cut x into [piece of the depth][row], pieces VECTORS long and a vector apart: an item is a piece.

    Rows of many layers are a multiple of 4 KiB long, and the first-level cache keeps few numbers
    whose addresses differ by that: with the weights' rows, x's would not fit.
    """
    lanes = VECTOR_BYTES // x.itemsize
    for item in range(begin, end):
        first = item * VECTORS * lanes
        for row in range(rows):
            copy(packed, (item * rows + row) * (VECTORS + 1) * lanes, x, row * inputs + first,
                 min(VECTORS * lanes, inputs - first))


@kernel
def _forward(begin, end, y, x, packed, weight, bias, rows, outputs, inputs, relu):
    """Items: DOT_COLUMNS rows of the weights, with the whole batch; x comes packed by `_pack_rows`.

    A sum: each lane of a vector, VECTORS at a time, then the lanes by halves, then the inputs that fill
    no vector, then the bias. A tile never mixes rows, so a row's bits do not depend on the batch.
    """
    lanes = VECTOR_BYTES // x.itemsize
    whole, row_step = inputs // lanes * lanes, (VECTORS + 1) * lanes
    totals = np.empty(BATCH * DOT_COLUMNS * lanes + lanes, x.dtype)
    totals = totals[(-totals.ctypes.data) % VECTOR_BYTES // x.itemsize :]
    for item in range(begin, end):
        output = item * DOT_COLUMNS
        count = min(DOT_COLUMNS, outputs - output)
        for low in range(0, rows, BATCH):
            high = min(low + BATCH, rows)
            totals[: (high - low) * DOT_COLUMNS * lanes] = 0
            for first in range(0, whole, VECTORS * lanes):
                vectors = min(VECTORS, (whole - first) // lanes)
                piece = first // (VECTORS * lanes) * rows
                for row in range(low, high, DOT_ROWS):
                    dot_rows(totals, (row - low) * DOT_COLUMNS * lanes, packed, (piece + row) * row_step, row_step,
                             weight, output * inputs + first, inputs, min(DOT_ROWS, high - row), count, vectors)
            for row in range(low, high):
                for o in range(count):
                    value = sum_lanes(totals, ((row - low) * DOT_COLUMNS + o) * lanes)
                    for i in range(whole, inputs):
                        value += x[row * inputs + i] * weight[(output + o) * inputs + i]
                    value += bias[output + o]
                    y[row * outputs + output + o] = 0 if relu and value <= 0 else value


@kernel
def _input_gradient(begin, end, dx, dy, weight, rows, outputs, inputs):
    """Items: WIDTH columns of the weights, with the whole batch; the depth is the layer's outputs."""
    panel = PANEL_BYTES // dy.itemsize
    step = WIDTH + 16  # an odd number of cache lines, lest the rows share the cache's sets
    tile = np.empty(BATCH * STRIDE, dy.dtype)
    sums = np.empty(min(BATCH, rows) * WIDTH, dy.dtype)
    raw = np.empty((CHUNK + 1) * step, dy.dtype)
    packed = raw[(-raw.ctypes.data) % 64 // dy.itemsize :]
    for item in range(begin, end):
        column = item * WIDTH
        columns = min(WIDTH, inputs - column)
        for low in range(0, rows, BATCH):
            count = min(BATCH, rows - low)
            sums[: count * WIDTH] = 0
            for first in range(0, outputs, CHUNK):
                depth = min(CHUNK, outputs - first)
                for row in range(count):
                    copy(tile, row * STRIDE, dy, (low + row) * outputs + first, depth)
                pack_rows(packed, step, weight, first * inputs + column, inputs, depth, columns)
                multiply_block(sums, WIDTH, tile, count, packed, 0, step, panel, columns, depth)
            for row in range(count):
                place = (low + row) * inputs + column
                move(dx[place : place + columns], sums[row * WIDTH :])


@kernel
def _input_gradient_parts(begin, end, parts, dy, weight, rows, outputs, inputs, step):
    """Items: CHUNK rows of the weights, in one stretch of memory, for a few rows of the batch.

    parts is [item][row][step]: the same sums as `_input_gradient` adds up, of CHUNK outputs each.
    """
    lanes = VECTOR_BYTES // dy.itemsize
    whole = inputs // lanes * lanes
    last = np.zeros(STREAMS * lanes, dy.dtype)  # the inputs that fill no vector, a vector for each weight row
    for item in range(begin, end):
        own = item * rows * step
        parts[own : own + rows * step] = 0
        for first in range(item * CHUNK, min((item + 1) * CHUNK, outputs), STREAMS):
            count = min(STREAMS, min((item + 1) * CHUNK, outputs) - first)
            if whole:
                add_rows(parts, own, step, dy, first, outputs, weight, first * inputs, inputs, rows, count,
                         whole // lanes)
            if whole < inputs:
                for o in range(count):
                    for i in range(whole, inputs):
                        last[o * lanes + i - whole] = weight[(first + o) * inputs + i]
                add_rows(parts, own + whole, step, dy, first, outputs, last, 0, lanes, rows, count, 1)


@kernel
def _add_parts(begin, end, dx, parts, count, rows, inputs, step):
    """Items: WIDTH columns of dx: the parts' sums, one after the other."""
    for item in range(begin, end):
        column = item * WIDTH
        columns = min(WIDTH, inputs - column)
        for row in range(rows):
            sums = dx[row * inputs + column : row * inputs + column + columns]
            sums[:] = 0
            for part in range(count):
                place = (part * rows + row) * step + column
                given = parts[place : place + columns]
                for i in range(columns):
                    sums[i] += given[i]


@kernel
def _weight_gradient(begin, end, dweight, dy, x, rows, outputs, inputs):
    """Items: HEIGHT x WIDTH blocks of dweight; the depth is the batch."""
    panel = PANEL_BYTES // dy.itemsize
    step = WIDTH + 16  # an odd number of cache lines, lest the rows share the cache's sets
    blocks = (inputs + WIDTH - 1) // WIDTH
    sums = np.empty(HEIGHT * WIDTH, dy.dtype)
    raw = np.empty((CHUNK + 1) * step, dy.dtype)
    packed = raw[(-raw.ctypes.data) % 64 // dy.itemsize :]
    for item in range(begin, end):
        output, column = item // blocks * HEIGHT, item % blocks * WIDTH
        count, columns = min(HEIGHT, outputs - output), min(WIDTH, inputs - column)
        sums[: count * WIDTH] = 0
        for first in range(0, rows, CHUNK):
            depth = min(CHUNK, rows - first)
            pack_rows(packed, step, x, first * inputs + column, inputs, depth, columns)
            multiply_transposed_block(sums, WIDTH, dy, first * outputs + output, outputs, count,
                                      packed, step, panel, columns, depth)
        for row in range(count):
            place = (output + row) * inputs + column
            move(dweight[place : place + columns], sums[row * WIDTH :])


# -------------------------------------------------------------------------------------- launchers


def linear_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None,
                   relu: bool) -> None:
    """y = activation(x weight' + bias)."""
    outputs, inputs = weight.shape
    if bias is None:
        bias = np.zeros(outputs, weight.dtype)
    rows = x.shape[0]
    if not rows:
        return
    work = max(rows, DOT_ROWS) * DOT_COLUMNS * inputs
    lanes = VECTOR_BYTES // x.itemsize
    pieces = -(-inputs // (VECTORS * lanes))
    packed = aligned(pieces * rows * (VECTORS + 1) * lanes, x.dtype)
    parallel(_pack_rows, pieces, packed, flat(x), rows, inputs, grain=max(1, int(GRAIN / (rows * lanes * VECTORS))))
    parallel(_forward, -(-outputs // DOT_COLUMNS), flat(y), flat(x), packed, flat(weight), flat(bias), rows,
             outputs, inputs, int(relu), grain=max(1, int(GRAIN / work)))


def linear_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray) -> None:
    """dx = dy weight.

    A few rows of a batch take the weights as they lie in memory, row after row; more of them block by block.
    Both add up the same sums in the same order.
    """
    outputs, inputs = weight.shape
    rows = dy.shape[0]
    if 0 < rows <= FEW:
        lanes = VECTOR_BYTES // dy.itemsize
        step, count = -(-inputs // lanes) * lanes, -(-outputs // CHUNK)
        parts = aligned(count * rows * step, dy.dtype)
        parallel(_input_gradient_parts, count, parts, flat(dy), flat(weight), rows, outputs, inputs, step)
        parallel(_add_parts, -(-inputs // WIDTH), flat(dx), parts, count, rows, inputs, step,
                 grain=max(1, PIECE // (count * rows * WIDTH)))
        return
    parallel(_input_gradient, -(-inputs // WIDTH) if dy.shape[0] else 0, flat(dx), flat(dy), flat(weight),
             dy.shape[0], outputs, inputs)


def linear_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dweight = dy' x."""
    outputs, inputs = dweight.shape
    parallel(_weight_gradient, -(-outputs // HEIGHT) * -(-inputs // WIDTH), flat(dweight), flat(dy), flat(x),
             x.shape[0], outputs, inputs)
