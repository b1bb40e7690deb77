"""Convolution and its two gradients as matrix products over gathered patches, and channel sums.

One kernel, `_convolve`, serves the forward pass and the input gradient. An item of work is a block of
consecutive cells of one image's output map times a block of filters. The patches of these cells are
gathered into a tile that stays in the second-level cache, DEPTH numbers of each at a time, and
multiplied by packed filters (matrix.py). The input gradient of a convolution with a stride is one such
pass for each phase of the stride, so no product with an inserted zero is ever computed.

An output's sum runs over filter rows, filter columns and channels in this order, cut every DEPTH numbers:
its bits depend on the filters' shape, never on the batch, the place in the map, a crop or the threads.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np

from .compile import kernel
from .depthwise import depthwise_forward, depthwise_input_gradient, depthwise_weight_gradient
from .matrix import (
    DEPTH,
    PANEL_BYTES,
    ROWS,
    STRIDE,
    aligned,
    copy,
    flat,
    move,
    multiply_block,
    multiply_transposed_block,
    zero,
)
from .memory import empty
from .threads import parallel

BLOCK = 98 // ROWS * ROWS  # output cells of an item
FILTERS = 512  # columns of an item's product, so that its sums stay in the second-level cache
PIXELS = 128  # cells of a map that a weight gradient multiplies before it adds to its sums
WEIGHT_BYTES = 512  # of a filter, that an item of the weight gradient computes
GRAIN = 2e7  # multiply-adds below which items share one call


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


class Places(NamedTuple):
    """Where a product's row goes: `strips` rows of the output, starting at a multiple of the stride."""

    height: int
    row: int
    channels: int
    stride_rows: int
    stride_columns: int
    top: int
    left: int
    strips: int


class Sizes(NamedTuple):
    """The products of one pass: cells of each image, depth of the sums and columns, for each group."""

    images: int
    groups: int
    cells: int
    depth: int
    columns: int


# ---------------------------------------------------------------------------------------- kernels


@kernel
def _gather(tile, source, image, channel, patches, cell, cells, first, last):
    """Copy numbers `first` to `last` of the patches of `cells` consecutive output cells, a row each.

    Writes go from left to right and may run on past a run's end; what follows overwrites that.
    """
    run, runs, limit = patches.run, patches.runs, patches.row
    which, head = first // run, first % run
    low_line, low_along = which // runs, which % runs
    high_line = (last - 1) // run // runs
    reach = (runs - 1) * patches.step + run
    row, column = cell // patches.columns, cell % patches.columns
    for t in range(cells):
        top = row * patches.stride_rows - patches.top
        left = (column * patches.stride_columns - patches.left) * patches.channels + channel
        inside = (top + low_line * patches.dilation >= 0 and left >= 0 and left + reach <= limit
                  and top + high_line * patches.dilation < patches.height)
        line, along, skip = low_line, low_along, head
        at, remaining = t * STRIDE, last - first
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
        column += 1
        if column == patches.columns:
            column = 0
            row += 1


@kernel
def _convolve(begin, end, out, source, packed, bias, patches, places, sizes, relu):
    """Items: image, group, block of cells, block of columns; see the head of this file."""
    panel = PANEL_BYTES // out.itemsize
    columns, depth, channels = sizes.columns, sizes.depth, patches.channels // sizes.groups
    panels = (columns + panel - 1) // panel
    blocks = (sizes.cells + BLOCK - 1) // BLOCK
    parts = (columns + FILTERS - 1) // FILTERS
    chunks = (depth + DEPTH - 1) // DEPTH
    chunk = (depth + chunks - 1) // chunks
    c_step = min(panels * panel, FILTERS)
    floor = out.dtype.type(0 if relu else -np.inf)
    tile = np.empty(BLOCK * STRIDE, out.dtype)
    sums = np.empty(BLOCK * c_step, out.dtype)
    for item in range(begin, end):
        part, block = item % parts, item // parts % blocks
        group, image = item // (parts * blocks) % sizes.groups, item // (parts * blocks * sizes.groups)
        cell = sizes.cells * block // blocks
        cells = sizes.cells * (block + 1) // blocks - cell
        low = part * FILTERS
        width = min(FILTERS, columns - low)
        sums[: cells * c_step] = 0
        for first in range(0, depth, chunk):
            last = min(first + chunk, depth)
            _gather(tile, source, image * patches.height * patches.row, group * channels, patches,
                    cell, cells, first, last)
            start = ((group * panels + low // panel) * depth + first) * panel
            multiply_block(sums, c_step, tile, cells, packed, start, panel, depth * panel, width, last - first)
        strip = width // places.strips
        for t in range(cells):
            row, column = (cell + t) // patches.columns, (cell + t) % patches.columns
            left = (column * places.stride_columns + places.left) * places.channels + group * columns + low
            before, after = max(-left, 0), min(strip, places.row - left)
            for s in range(places.strips):
                y = row * places.stride_rows + places.top + s
                if y < 0 or y >= places.height:
                    continue
                place = (image * places.height + y) * places.row + left
                at, shift = t * c_step + s * strip, group * columns + low
                target, numbers = out[place + before : place + after], sums[at + before : at + after]
                offsets = bias[shift + before : shift + after]
                for i in range(target.size):
                    value = numbers[i] + offsets[i]
                    target[i] = floor if value <= floor else value  # a NaN stays


@kernel
def _pack_filters(begin, end, packed, weight, filters, depth):
    """Panels for the forward pass: [group][panel][depth][filter]; an item is a group's panel."""
    panel = PANEL_BYTES // weight.itemsize
    panels = (filters + panel - 1) // panel
    for item in range(begin, end):
        group, low = item // panels, item % panels * panel
        count = min(panel, filters - low)
        for first in range(0, depth, 16):  # a cache line of each filter at a time
            last = min(first + 16, depth)
            for f in range(count):
                start, place = (group * filters + low + f) * depth, item * depth * panel + f
                numbers, target = weight[start + first : start + last], packed[place + first * panel :]
                for k in range(numbers.size):
                    target[k * panel] = numbers[k]
            for k in range(first, last):
                place = (item * depth + k) * panel
                packed[place + count : place + panel] = 0


@kernel
def _pack_phase(begin, end, packed, weight, shape, groups, row, rows, row_step, column, columns,
                column_step):
    """Panels for one phase of the input gradient: [group][panel][row, column, filter][channel].

    Its rows of the filter are row, row + row_step, ...; they are stored last first, because the source
    cells that they meet come in that order.
    """
    filters, height, width, channels = shape
    filters //= groups
    panel = PANEL_BYTES // weight.itemsize
    panels = (channels + panel - 1) // panel
    for item in range(begin, end):
        group, low = item // panels, item % panels * panel
        count = min(panel, channels - low)
        place = item * rows * columns * filters * panel
        for r in range(rows - 1, -1, -1):
            for s in range(columns - 1, -1, -1):
                tap = (row + r * row_step) * width + column + s * column_step
                for f in range(group * filters, (group + 1) * filters):
                    start = (f * height * width + tap) * channels + low
                    copy(packed, place, weight, start, count)
                    packed[place + count : place + panel] = 0
                    place += panel


@kernel
def _weight_gradient(begin, end, partial, dy, x, patches, sizes, parts):
    """Items: part of the batch, group, block of filters, block of weights.

    A part is a range of blocks of cells; each item adds the products dy' * patches of its cells, block
    by block in order, to sums in the second-level cache and writes them once.
    """
    panel = PANEL_BYTES // x.itemsize
    filters, depth, channels = sizes.columns, sizes.depth, patches.channels // sizes.groups
    filter_blocks = (filters + FILTERS - 1) // FILTERS
    width = WEIGHT_BYTES // x.itemsize
    weight_blocks = (depth + width - 1) // width
    blocks = (sizes.cells + PIXELS - 1) // PIXELS
    total = sizes.images * blocks
    tile = np.empty(PIXELS * STRIDE, x.dtype)
    sums = np.empty(min(filters, FILTERS) * width, x.dtype)
    for item in range(begin, end):
        first = item % weight_blocks * width
        last = min(first + width, depth)
        low = item // weight_blocks % filter_blocks * FILTERS
        rows = min(FILTERS, filters - low)
        group = item // (weight_blocks * filter_blocks) % sizes.groups
        part = item // (weight_blocks * filter_blocks * sizes.groups)
        sums[: rows * width] = 0
        for block in range(total * part // parts, total * (part + 1) // parts):
            image, cell = block // blocks, sizes.cells * (block % blocks) // blocks
            cells = sizes.cells * (block % blocks + 1) // blocks - cell
            _gather(tile, x, image * patches.height * patches.row, group * channels, patches,
                    cell, cells, first, last)
            start = (image * sizes.cells + cell) * sizes.groups * filters + group * filters + low
            multiply_transposed_block(sums, width, dy, start, sizes.groups * filters, rows,
                                      tile, STRIDE, panel, last - first, cells)
        for f in range(rows):
            place = ((part * sizes.groups + group) * filters + low + f) * depth
            move(partial[place + first : place + last], sums[f * width :])


@kernel
def _add_parts(begin, end, out, partial, parts, block):
    """Items: blocks of the output; its parts are added in their order."""
    for item in range(begin, end):
        first, last = item * block, min((item + 1) * block, out.size)
        target = out[first:last]
        move(target, partial[first:last])
        for part in range(1, parts):
            numbers = partial[part * out.size + first : part * out.size + last]
            for i in range(target.size):
                target[i] += numbers[i]


@kernel
def _channel_sums(begin, end, partial, dy, rows, channels, block):
    """Items: blocks of rows, each with its own sums."""
    for item in range(begin, end):
        sums = partial[item * channels : (item + 1) * channels]
        sums[:] = 0
        for row in range(item * block, min((item + 1) * block, rows)):
            numbers = dy[row * channels : (row + 1) * channels]
            for c in range(sums.size):
                sums[c] += numbers[c]


# -------------------------------------------------------------------------------------- launchers


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _panels(columns: int, itemsize: int) -> int:
    return _ceil(columns, PANEL_BYTES // itemsize)


def _patches(source: np.ndarray, groups: int, window: int, columns: int, stride: tuple[int, int],
             top: int, left: int, dilation: tuple[int, int]) -> Patches:
    """Patches of `window` columns; where they may be, rows of a patch are read as one run."""
    _, height, width, channels = source.shape
    one_run = groups == 1 and (dilation[1] == 1 or window == 1)
    return Patches(height, width * channels, channels, columns, stride[0], stride[1], top, left, dilation[0],
                   1 if one_run else window, window * channels if one_run else channels // groups,
                   dilation[1] * channels)


def _run(out: np.ndarray, source: np.ndarray, packed: np.ndarray, bias: np.ndarray, patches: Patches,
         places: Places, sizes: Sizes, relu: bool) -> None:
    """Launch `_convolve` over all items."""
    blocks, parts = _ceil(sizes.cells, BLOCK), _ceil(sizes.columns, FILTERS)
    work = min(BLOCK, sizes.cells) * sizes.depth * min(sizes.columns, FILTERS)
    parallel(_convolve, sizes.images * sizes.groups * blocks * parts, flat(out), flat(source), packed,
             flat(bias), patches, places, sizes, int(relu), grain=max(1, int(GRAIN / work)))


def _is_depthwise(weight_shape: tuple[int, ...], groups: int) -> bool:
    return weight_shape[0] == groups and weight_shape[3] == 1 and groups > 1


def convolution_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None,
                        stride: Any, padding: Any, dilation: Any, groups: int, relu: bool) -> None:
    """y = activation(x convolved with weight + bias)."""
    filters, height, width, channels = weight.shape
    if bias is None:
        bias = np.zeros(filters, weight.dtype)
    if _is_depthwise(weight.shape, groups):
        depthwise_forward(y, x, weight, bias, stride, padding, dilation, relu)
        return
    images, rows, columns, _ = y.shape
    sizes = Sizes(images, groups, rows * columns, height * width * channels, filters // groups)
    panels = groups * _panels(sizes.columns, x.itemsize)
    packed = aligned(panels * sizes.depth * PANEL_BYTES // x.itemsize, x.dtype)
    if images:
        parallel(_pack_filters, panels, packed, flat(weight), sizes.columns, sizes.depth)
    patches = _patches(x, groups, width, columns, stride, padding[0], padding[2], dilation)
    _run(y, x, packed, bias, patches, Places(rows, columns * filters, filters, 1, 1, 0, 0, 1), sizes, relu)


class Phase(NamedTuple):
    """One axis of the input cells whose padded position is `phase` modulo the stride.

    Taps `tap`, `tap + tap_step`, ... of the filter hit them: `taps` of them. Cell i of `cells` is input
    cell i * stride + start; it meets cells i - before, i - before + spread, ... of the output.
    """

    start: int
    cells: int
    tap: int
    tap_step: int
    taps: int
    before: int
    spread: int


def _phases(size: int, window: int, stride: int, pad: int, dilation: int) -> list[Phase]:
    """The phases of one axis: padded position = stride * output + dilation * tap."""
    common = gcd(stride, dilation)
    phases = []
    for phase in range(stride):
        first = _ceil(max(pad - phase, 0), stride)  # the first output-like position inside the input
        start = first * stride + phase - pad
        cells = max(_ceil(size - start, stride), 0)
        taps = [tap for tap in range(window) if (phase - tap * dilation) % stride == 0]
        if not cells:
            continue
        if not taps:
            phases.append(Phase(start, cells, 0, 1, 0, 0, 1))
            continue
        spread = dilation // common
        last = (phase - taps[-1] * dilation) // stride  # the last tap meets the first output cell
        phases.append(Phase(start, cells, taps[0], stride // common, len(taps), -(first + last), spread))
    return phases


def convolution_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any,
                               dilation: Any, groups: int) -> None:
    """dx = adjoint of the convolution applied to dy.

    Where a phase would leave most of a panel empty (three channels of an image, say), all phases are
    columns of one product instead: a filter is then padded to a multiple of the stride.
    """
    if _is_depthwise(weight.shape, groups):
        depthwise_input_gradient(dx, dy, weight, stride, padding, dilation)
        return
    if not dx.shape[0]:
        return
    filters, height, width, channels = weight.shape
    half = PANEL_BYTES // 2 // dx.itemsize

    def cost(columns: int) -> int:
        return _ceil(columns, half) * half

    together = _ceil(height, stride[0]) * _ceil(width, stride[1]) * cost(stride[0] * stride[1] * channels)
    if groups == 1 and tuple(dilation) == (1, 1) and together < height * width * cost(channels):
        _all_phases(dx, dy, weight, stride, padding)
        return
    images, rows, columns, _ = dx.shape
    bias = np.zeros(groups * channels, dx.dtype)
    panels = groups * _panels(channels, dx.itemsize)
    vertical = _phases(rows, height, stride[0], padding[0], dilation[0])
    horizontal = _phases(columns, width, stride[1], padding[2], dilation[1])
    if any(not phase.taps for phase in (*vertical, *horizontal)):
        dx[:] = 0  # cells that no window touches
    for v in vertical:
        for h in horizontal:
            if not v.taps or not h.taps:
                continue
            depth = v.taps * h.taps * (filters // groups)
            sizes = Sizes(images, groups, v.cells * h.cells, depth, channels)
            packed = aligned(panels * depth * PANEL_BYTES // dx.itemsize, dx.dtype)
            parallel(_pack_phase, panels, packed, flat(weight), weight.shape, groups,
                     v.tap, v.taps, v.tap_step, h.tap, h.taps, h.tap_step)
            patches = _patches(dy, groups, h.taps, h.cells, (1, 1), v.before, h.before, (v.spread, h.spread))
            places = Places(rows, columns * groups * channels, groups * channels, stride[0], stride[1],
                            v.start, h.start, 1)
            _run(dx, dy, packed, bias, patches, places, sizes, False)


def _all_phases(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any) -> None:
    """The input gradient with (phase row, phase column, channel) as the product's columns.

    Each product row is a stride x stride block of input cells; blocks start at multiples of the stride
    in the padded input, so that a crop aligned to the stride has the same blocks.
    """
    filters, height, width, channels = weight.shape
    images, rows, columns, _ = dx.shape
    tall, wide = _ceil(height, stride[0]), _ceil(width, stride[1])
    whole = np.zeros((filters, tall * stride[0], wide * stride[1], channels), weight.dtype)
    whole[:, :height, :width] = weight
    blocks = whole.reshape(filters, tall, stride[0], wide, stride[1], channels)[:, ::-1, :, ::-1]
    matrix = blocks.transpose(1, 3, 0, 2, 4, 5).reshape(tall * wide * filters, -1)
    panel = PANEL_BYTES // dx.itemsize
    panels = _panels(matrix.shape[1], dx.itemsize)
    packed = aligned(panels * matrix.shape[0] * panel, dx.dtype)
    view = packed[: panels * matrix.shape[0] * panel].reshape(panels, matrix.shape[0], panel)
    for i in range(panels):
        part = matrix[:, i * panel : (i + 1) * panel]
        view[i, :, : part.shape[1]] = part
        view[i, :, part.shape[1] :] = 0
    top, left = padding[0] // stride[0], padding[2] // stride[1]  # the first block with an input cell
    down = (rows - 1 + padding[0]) // stride[0] - top + 1
    across = (columns - 1 + padding[2]) // stride[1] - left + 1
    sizes = Sizes(images, 1, down * across, matrix.shape[0], matrix.shape[1])
    patches = _patches(dy, 1, wide, across, (1, 1), tall - 1 - top, wide - 1 - left, (1, 1))
    places = Places(rows, columns * channels, channels, stride[0], stride[1], top * stride[0] - padding[0],
                    left * stride[1] - padding[2], stride[0])
    _run(dx, dy, packed, np.zeros(matrix.shape[1], dx.dtype), patches, places, sizes, False)


def convolution_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray, stride: Any, padding: Any,
                                dilation: Any, groups: int) -> None:
    """dweight = sum over images and cells of dy times the patches of x.

    Where the filters alone give too few items, the batch is cut into parts (by sizes, never by
    threads) whose sums are added in order.
    """
    if _is_depthwise(dweight.shape, groups):
        depthwise_weight_gradient(dweight, dy, x, stride, padding, dilation)
        return
    filters, height, width, channels = dweight.shape
    images, rows, columns, _ = dy.shape
    sizes = Sizes(images, groups, rows * columns, height * width * channels, filters // groups)
    items = groups * _ceil(sizes.columns, FILTERS) * _ceil(sizes.depth, WEIGHT_BYTES // x.itemsize)
    parts = max(1, min(_ceil(32, items), images * _ceil(sizes.cells, PIXELS)))
    out = flat(dweight)
    partial = out if parts == 1 else empty((parts * dweight.size,), x.dtype)
    patches = _patches(x, groups, width, columns, stride, padding[0], padding[2], dilation)
    parallel(_weight_gradient, parts * items, partial, flat(dy), flat(x), patches, sizes, parts)
    if parts > 1:
        parallel(_add_parts, _ceil(dweight.size, 1 << 14), out, partial, parts, 1 << 14)


def channel_sum(sums: np.ndarray, dy: np.ndarray) -> None:
    """sums[c] = sum over rows of dy[:, c]: blocks of rows first, then the blocks in order."""
    rows, channels = dy.shape
    block = 512
    parts = max(1, _ceil(rows, block))
    partial = np.empty(parts * channels, dy.dtype)
    parallel(_channel_sums, parts, partial, flat(dy), rows, channels, block, grain=4)
    parallel(_add_parts, 1, flat(sums), partial, parts, channels)
