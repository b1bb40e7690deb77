"""Patches: what one output cell of a convolution sees, as a row of a matrix, and back again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compile import kernel
from .instructions import STRIDE, add_vectors
from .matrix import copy, zero


class Patches(NamedTuple):
    """How a patch is read: rows of `runs` runs of `run` consecutive numbers, `step` apart.

    Without dilation or groups a row of a patch is one run. The patch of output cell (row, column)
    starts at cell (row * stride_rows - top, column * stride_columns - left) of the source.
    """

    height: int
    row: int  # numbers in a row of the source
    channels: int
    columns: int  # output cells in a row
    stride_rows: int
    stride_columns: int
    top: int
    left: int
    dilation: int  # of the patch's rows
    runs: int
    run: int
    step: int


def patches_of(source: np.ndarray, groups: int, window: int, columns: int, stride: tuple[int, int],
               top: int, left: int, dilation: tuple[int, int]) -> Patches:
    """Patches of `window` columns; where they may be, rows of a patch are read as one run."""
    _, height, width, channels = source.shape
    one_run = groups == 1 and (dilation[1] == 1 or window == 1)
    return Patches(height, width * channels, channels, columns, stride[0], stride[1], top, left, dilation[0],
                   1 if one_run else window, window * channels if one_run else channels // groups,
                   dilation[1] * channels)


@kernel
def gather(tile, source, image, channel, patches, cell, cells, first, last, rows):
    """Copy numbers `first` to `last` of the patches of `cells` consecutive output cells; return how many cells count.

    A row each, and the cells in `rows`; cells of which all these numbers are padding are left out, unless `rows` is
    empty: then every cell counts. Writes go from left to right and may run on past a run's end; what follows
    overwrites that.
    """
    run, runs, limit = patches.run, patches.runs, patches.row
    which, head = first // run, first % run
    low_line, low_along = which // runs, which % runs
    high_line = (last - 1) // run // runs
    reach = (runs - 1) * patches.step + run
    row, column = cell // patches.columns, cell % patches.columns
    counted = 0
    for t in range(cells):
        top = row * patches.stride_rows - patches.top
        left = (column * patches.stride_columns - patches.left) * patches.channels + channel
        inside = (top + low_line * patches.dilation >= 0 and left >= 0 and left + reach <= limit
                  and top + high_line * patches.dilation < patches.height)
        line, along, skip = low_line, low_along, head
        at, remaining, present = counted * STRIDE, last - first, inside or rows.size == 0
        while remaining > 0:
            count = min(run - skip, remaining)
            y = top + line * patches.dilation
            start = left + along * patches.step + skip
            if inside:
                copy(tile, at, source, image + y * limit + start, count)
            else:
                # The run is clipped at the ends of the source's row; outside lie zeros.
                before = min(max(-start, 0), count)
                middle = max(min(start + count, limit) - start - before, 0)
                if y < 0 or y >= patches.height:
                    before, middle = count, 0
                present = present or middle > 0
                zero(tile, at, before)
                copy(tile, at + before, source, image + y * limit + start + before, middle)
                zero(tile, at + before + middle, count - before - middle)
            at += count
            remaining -= count
            skip = 0
            along += 1
            if along == runs:
                along = 0
                line += 1
        if present:
            if rows.size:
                rows[counted] = t
            counted += 1
        column += 1
        if column == patches.columns:
            column = 0
            row += 1
    return counted


@kernel
def scatter(target, image, channel, patches, low, high, sums, step, cell, cells, lines):
    """The adjoint: add whole patches of `cells` consecutive output cells to rows `low` to `high` of an image.

    The patches are rows of `sums`, `step` apart, of `lines` rows each; what lies outside is dropped.
    """
    for t in range(cells):
        row, column = (cell + t) // patches.columns, (cell + t) % patches.columns
        left = (column * patches.stride_columns - patches.left) * patches.channels + channel
        at = t * step
        for line in range(lines):
            y = row * patches.stride_rows - patches.top + line * patches.dilation
            for along in range(patches.runs):
                start = left + along * patches.step
                before, after = max(-start, 0), min(patches.run, patches.row - start)
                if low <= y < high and before < after:
                    place = image + y * patches.row + start
                    add_vectors(target, place + before, sums, at + before, after - before)
                at += patches.run
