"""Matrix products in registers: what convolution and linear layers are made of.

The products here are emitted as vector instructions, because no loop that a compiler vectorises by
itself keeps a whole tile of sums in registers. A tile is at most ROWS rows by one panel of columns; a
panel is two vector registers wide. With AVX-512 that is 14 x 2 x 16 floats: 28 of the 32 registers
hold sums, two hold a row of the right matrix, and each number of the left matrix is broadcast.

Every sum starts at zero, takes its products in order of depth, one fused multiply-add each, and is
added to the output at the end. So neither the height of a tile nor its place changes an element's
bits; only where the caller cuts the depth does, and callers cut it by a layer's sizes alone.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .compile import kernel
from .instructions import (
    AHEAD,
    PANEL_BYTES,
    PRESENT_PANELS,
    ROWS,
    STRIDE,
    VECTOR_BYTES,
    copy_vectors,
    multiply_columns,
    multiply_columns_narrow,
    multiply_present,
    multiply_rows,
    multiply_rows_narrow,
    prefetch,
    zero_vectors,
)
from .memory import empty


def aligned(size: int, dtype: Any) -> np.ndarray:
    """Uninitialised vector whose first element starts a cache line, with a panel of slack behind it."""
    itemsize = np.dtype(dtype).itemsize
    raw = empty((size + (64 + PANEL_BYTES) // itemsize,), dtype)
    start = -raw.ctypes.data % 64 // itemsize
    return raw[start:]


def flat(array: np.ndarray) -> np.ndarray:
    """One-dimensional, writable alias of a C-contiguous array: one type for all, so one compilation.

    A read-only array (a memory-mapped file, say) would be another type; kernels never write to inputs.
    """
    if array.flags.writeable:
        return array.reshape(-1)
    raw = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return np.ctypeslib.as_array(raw).view(array.dtype)


# ------------------------------------------------------------------------------------------ kernels


@kernel(inline=True)
def copy(target, target_start, source, source_start, count):
    """Copy numbers; up to a vector of the target after them is overwritten, no source after its end read."""
    if count <= 0:
        return
    if source_start + count + VECTOR_BYTES // source.itemsize <= source.size:
        copy_vectors(target, target_start, source, source_start, count)
    else:
        for i in range(count):
            target[target_start + i] = source[source_start + i]


@kernel(inline=True)
def zero(target, start, count):
    """Fill with zeros; up to a vector after them is overwritten too."""
    if count > 0:
        zero_vectors(target, start, target, start, count)


@kernel
def move(target, source):
    """Fill the target with the source's first numbers, and write nothing else."""
    for i in range(target.size):
        target[i] = source[i]


@kernel
def pack_rows(packed, packed_step, source, start, step, depth, columns):
    """Copy a block of `depth` rows of `columns` numbers, asking for the rows ahead of the copy."""
    line = 64 // source.itemsize
    for k in range(depth):
        place = start + k * step
        for ahead in range(place + AHEAD * step, place + AHEAD * step + columns, line):
            prefetch(source, ahead)
        copy(packed, k * packed_step, source, place, columns)


@kernel
def multiply_block(c, c_step, a, rows, b, b_start, b_step, panel_step, columns, depth):
    """c[rows x columns] += a[rows x depth] * b; a's rows lie STRIDE apart, b's b_step, its panels panel_step.

    The rows are cut into tiles of nearly equal height, so that none is left with a row or two.
    """
    panel = PANEL_BYTES // c.itemsize
    tiles = (rows + ROWS - 1) // ROWS
    for first in range(0, columns, panel):
        right = b_start + first // panel * panel_step
        row = 0
        for tile in range(tiles):
            height = rows // tiles + (1 if tile < rows % tiles else 0)
            if columns - first > panel // 2:
                multiply_rows(c, row * c_step + first, c_step, a, row * STRIDE, 0,
                              b, right, b_step, height, depth)
            else:
                multiply_rows_narrow(c, row * c_step + first, c_step, a, row * STRIDE, 0,
                                     b, right, b_step, height, depth)
            row += height


@kernel
def multiply_present_block(c, c_step, a, rows, b, b_start, panel_step, columns, depth):
    """`multiply_block` for rows of a that are mostly zeros, b finite; c has whole panels, b's rows a panel apart."""
    panel = PANEL_BYTES // c.itemsize
    panels = (columns + panel - 1) // panel
    parts = (panels + PRESENT_PANELS - 1) // PRESENT_PANELS
    for part in range(parts):
        first, last = panels * part // parts, panels * (part + 1) // parts
        for row in range(rows):
            multiply_present(c, row * c_step + first * panel, a, row * STRIDE, b, b_start + first * panel_step,
                             panel_step, last - first, depth)


@kernel
def multiply_transposed_block(c, c_step, a, a_start, a_step, rows, b, b_step, panel_step, columns, depth):
    """c[rows x columns] += a'[rows x depth] * b; a is stored depth by rows, b's rows lie b_step apart."""
    panel = PANEL_BYTES // c.itemsize
    tiles = (rows + ROWS - 1) // ROWS
    for first in range(0, columns, panel):
        right = first // panel * panel_step
        row = 0
        for tile in range(tiles):
            height = rows // tiles + (1 if tile < rows % tiles else 0)
            if columns - first > panel // 2:
                multiply_columns(c, row * c_step + first, c_step, a, a_start + row, a_step,
                                 b, right, b_step, height, depth)
            else:
                multiply_columns_narrow(c, row * c_step + first, c_step, a, a_start + row, a_step,
                                        b, right, b_step, height, depth)
            row += height
