"""Fully connected layers: three matrix products that read the weights once and never copy them whole.

For small batches the weights' way from memory is the cost. The forward product takes dot products along
the depth, in which both matrices are consecutive; the gradients take tiles of matrix.py over blocks that
are packed in the second-level cache.
"""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .instructions import (
    AHEAD,
    DOT_COLUMNS,
    DOT_ROWS,
    PANEL_BYTES,
    ROWS,
    STRIDE,
    VECTOR_BYTES,
    dot_rows,
    prefetch,
    sum_lanes,
)
from .kept import is_declared
from .matrix import aligned, copy, flat, move, multiply_block, multiply_transposed_block, pack_rows
from .threads import parallel
from .zeros import is_finite

BATCH = 98 // ROWS * ROWS  # rows of the batch whose sums stay in the second-level cache
VECTORS = 32  # of a row that a dot product multiplies before it adds to its totals
WIDTH = 512  # columns of an item of the gradients
HEIGHT = 128  # rows of an item of the weight gradient
CHUNK = 128  # depth of a packed block
FEW = 4  # rows of which those weights are left out that meet no signal of any,
PRESENT = 0.7  # where that share of the outputs has one, or less
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


@kernel(fastmath={"contract"})
def _input_gradient_of_few(begin, end, dx, dy, weight, rows, outputs, inputs):
    """`_input_gradient` of up to FEW rows, the same sums and bits where weights are finite.

    Weights are read where they lie, and those of outputs without a signal not at all.
    """
    line = 64 // dy.itemsize
    sums, some = np.empty(FEW * WIDTH, dy.dtype), np.empty(FEW * WIDTH, dy.dtype)
    present = np.empty(CHUNK, np.int64)
    for item in range(begin, end):
        column = item * WIDTH
        columns = min(WIDTH, inputs - column)
        sums[:] = 0
        for first in range(0, outputs, CHUNK):
            count = 0
            for k in range(first, min(first + CHUNK, outputs)):
                found = False
                for row in range(rows):
                    found = found or dy[row * outputs + k] != 0
                present[count] = k
                count += found
            some[: rows * WIDTH] = 0
            for j in range(count):
                if j + AHEAD < count:
                    ahead = present[j + AHEAD] * inputs + column
                    for place in range(ahead, ahead + columns, line):
                        prefetch(weight, place)
                start = present[j] * inputs + column
                numbers = weight[start : start + columns]
                for row in range(rows):
                    value, target = dy[row * outputs + present[j]], some[row * WIDTH : row * WIDTH + columns]
                    for i in range(target.size):
                        target[i] += value * numbers[i]
            for i in range(rows * WIDTH):
                sums[i] += some[i]
        for row in range(rows):
            place = row * inputs + column
            move(dx[place : place + columns], sums[row * WIDTH :])


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
    """dx = dy weight."""
    outputs, inputs = weight.shape
    rows, items = dy.shape[0], -(-inputs // WIDTH)
    if not rows:
        return
    few = (rows <= FEW and np.count_nonzero(dy.any(axis=0)) < PRESENT * outputs
           and is_declared(weight) and is_finite(weight))  # if not declared, to find out takes as long as the product
    parallel(_input_gradient_of_few if few else _input_gradient, items, flat(dx), flat(dy), flat(weight), rows,
             outputs, inputs)


def linear_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dweight = dy' x."""
    outputs, inputs = dweight.shape
    parallel(_weight_gradient, -(-outputs // HEIGHT) * -(-inputs // WIDTH), flat(dweight), flat(dy), flat(x),
             x.shape[0], outputs, inputs)
