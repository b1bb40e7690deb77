"""Convolutions of few channels: filters slide over padded rows, and no patch is gathered.

Where a row of a patch is a short run of numbers (few channels), gathering patches takes longer than the
products made of them. So an item of work, a band of one image's output rows, copies the rows that it sees,
with their padding, to a tile in the first- or second-level cache. There a patch's rows are runs of consecutive
numbers, from one cell to the next `stride * channels` apart: all that a product in registers asks for.

An output's sum runs over filter rows, filter columns and channels in this order, in one go. The choice of this
algorithm looks at filters alone, so its bits depend neither on the batch nor on the place in a map or crop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compile import kernel
from .instructions import PANEL_BYTES, ROWS, VECTOR_BYTES
from .matrix import copy, zero
from .sliding_instructions import (
    multiply_lines,
    multiply_lines_narrow,
    slide_half,
    slide_panel,
    slide_three_halves,
)

TILE_BYTES = 1 << 16  # of padded rows that an item works on


@kernel
def _copy_rows(tile, source, image, patches, top, lines, width):
    """The padded rows `top` to `top + lines` of an image, `width` numbers of each from the patches' left on.

    Writes go from left to right and may run on past a row's end; what follows overwrites that.
    """
    start = -patches.left * patches.channels
    before = min(max(-start, 0), width)
    middle = max(min(start + width, patches.row) - start - before, 0)
    for line in range(lines):
        y, at = top + line, line * width
        if y < 0 or y >= patches.height:
            zero(tile, at, width)
            continue
        zero(tile, at, before)
        copy(tile, at + before, source, image + y * patches.row + start + before, middle)
        zero(tile, at + before + middle, width - before - middle)


@kernel
def slide(begin, end, out, source, packed, bias, patches, places, sizes, relu, band):
    """Items: image, band of output rows; the filters are those of `_convolve`, and bias has a panel of slack."""
    panel, half = PANEL_BYTES // out.itemsize, VECTOR_BYTES // out.itemsize
    rows, lines = sizes.cells // patches.columns, sizes.depth // patches.run
    bands = (rows + band - 1) // band
    step = patches.stride_columns * patches.channels
    width = (patches.columns - 1) * step + patches.run
    tall = (band - 1) * patches.stride_rows + (lines - 1) * patches.dilation + 1
    tile = np.empty(tall * width + panel, out.dtype)
    floor = out.dtype.type(0 if relu else -np.inf)
    pieces = (patches.columns + ROWS - 1) // ROWS
    out_step = places.stride_columns * places.channels
    for item in range(begin, end):
        image, low = item // bands, rows * (item % bands) // bands
        high = rows * (item % bands + 1) // bands
        _copy_rows(tile, source, image * patches.height * patches.row, patches, low * patches.stride_rows - patches.top,
                   (high - 1 - low) * patches.stride_rows + (lines - 1) * patches.dilation + 1, width)
        for first in range(0, sizes.columns, panel):
            columns, start = min(panel, sizes.columns - first), first * sizes.depth
            for row in range(low, high):
                line = (image * places.height + row * places.stride_rows + places.top) * places.row
                line += places.left * places.channels + first
                for piece in range(pieces):
                    cell = patches.columns * piece // pieces
                    cells = patches.columns * (piece + 1) // pieces - cell
                    at, place = (row - low) * patches.stride_rows * width + cell * step, line + cell * out_step
                    if columns > half + half // 2:
                        slide_panel(out, place, out_step, tile, at, step, patches.dilation * width, packed, start,
                                    panel, bias, first, cells, lines, patches.run, columns, floor)
                    elif columns > half:
                        slide_three_halves(out, place, out_step, tile, at, step, patches.dilation * width, packed,
                                           start, panel, bias, first, cells, lines, patches.run, columns, floor)
                    else:
                        slide_half(out, place, out_step, tile, at, step, patches.dilation * width, packed, start,
                                   panel, bias, first, cells, lines, patches.run, columns, floor)


@kernel
def _multiply_lines_block(c, c_step, a, a_start, a_step, a_line, rows, b, b_start, b_step, b_line, columns, lines,
                          depth):
    """c[rows x columns] += a' * b over lines of depth; the rows are cut into tiles of nearly equal height."""
    panel = PANEL_BYTES // c.itemsize
    tiles = (rows + ROWS - 1) // ROWS
    for first in range(0, columns, panel):
        for tile in range(tiles):
            row, height = rows * tile // tiles, rows * (tile + 1) // tiles - rows * tile // tiles
            if columns - first > panel // 2:
                multiply_lines(c, row * c_step + first, c_step, a, a_start + row, a_step, a_line,
                               b, b_start + first, b_step, b_line, height, lines, depth)
            else:
                multiply_lines_narrow(c, row * c_step + first, c_step, a, a_start + row, a_step, a_line,
                                      b, b_start + first, b_step, b_line, height, lines, depth)


@kernel
def slide_weights(begin, end, partial, dy, x, patches, sizes, parts, band):
    """Items: parts of the batch; the products dy' * x of all their bands, in order, one filter row at a time.

    Vectors run along the filters where these fill them, else along the numbers of a run.
    """
    panel, half = PANEL_BYTES // x.itemsize, VECTOR_BYTES // x.itemsize
    filters, run, columns = sizes.columns, patches.run, patches.columns
    rows, lines = sizes.cells // columns, sizes.depth // run
    bands = (rows + band - 1) // band
    step = patches.stride_columns * patches.channels
    width = (columns - 1) * step + run
    tall = (band - 1) * patches.stride_rows + (lines - 1) * patches.dilation + 1
    tile = np.empty(tall * width + 2 * panel, x.dtype)
    along_filters = filters % half == 0
    c_step = filters if along_filters else (run + panel - 1) // panel * panel
    area = (run if along_filters else filters) * c_step
    sums = np.empty(lines * area, x.dtype)
    for part in range(begin, end):
        sums[:] = 0
        total = sizes.images * bands
        for unit in range(total * part // parts, total * (part + 1) // parts):
            image, low = unit // bands, rows * (unit % bands) // bands
            count = rows * (unit % bands + 1) // bands - low
            _copy_rows(tile, x, image * patches.height * patches.row, patches, low * patches.stride_rows - patches.top,
                       (count - 1) * patches.stride_rows + (lines - 1) * patches.dilation + 1, width)
            signal = (image * rows + low) * columns * filters
            for line in range(lines):
                at = line * patches.dilation * width
                if along_filters:
                    _multiply_lines_block(sums[line * area :], c_step, tile, at, step, patches.stride_rows * width, run,
                                      dy, signal, filters, columns * filters, filters, count, columns)
                else:
                    _multiply_lines_block(sums[line * area :], c_step, dy, signal, filters, columns * filters, filters,
                                      tile, at, step, patches.stride_rows * width, run, count, columns)
        for f in range(filters):
            for line in range(lines):
                target = partial[((part * filters + f) * lines + line) * run :]
                for i in range(run):
                    target[i] = sums[line * area + (i * c_step + f if along_filters else f * c_step + i)]


def rows_of_a_band(sizes: Any, patches: Any, itemsize: int) -> int:
    """Output rows of an item, so that the padded rows that it sees stay in a near cache."""
    width = (patches.columns - 1) * patches.stride_columns * patches.channels + patches.run
    lines = (sizes.depth // patches.run - 1) * patches.dilation + 1
    return max(1, (TILE_BYTES // (width * itemsize) - lines) // patches.stride_rows + 1)
