"""Convolution and its two gradients as matrix products over gathered patches, and channel sums.

One kernel, `_convolve`, serves the forward pass and the input gradient. An item of work is a block of
consecutive cells of one image's output map times a block of filters. The patches of these cells are
gathered into a tile that stays in the second-level cache, DEPTH numbers of each at a time, and
multiplied by packed filters (matrix.py). The input gradient of a convolution with a stride is one such
pass for each phase of the stride, so no product with an inserted zero is ever computed; nor are most with
padding, of which there is more than of signal around a crop of a few cells. Where the input has few
channels (`_scatter`), patches are computed whole and added to the input's cells instead.

An output's sum runs over filter rows, filter columns and channels in this order, cut every DEPTH numbers:
its bits depend on the filters' shape, never on the batch, the place in the map, a crop or the threads.
Where a patch's rows are short (RUN), patches are not gathered: see sliding.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .compile import kernel
from .depthwise import depthwise_forward, depthwise_input_gradient, depthwise_weight_gradient
from .instructions import DEPTH, PANEL_BYTES, ROWS, STRIDE
from .kept import kept
from .matrix import aligned, copy, flat, move, multiply_block, multiply_present_block, multiply_transposed_block
from .memory import empty
from .patches import Patches, gather, patches_of, scatter
from .phases import phases_of
from .sliding import rows_of_a_band, slide, slide_weights
from .threads import parallel
from .zeros import is_finite, mostly_zeros

RUN = 128  # numbers in a row of a patch, up to which patches are not gathered
PARTS = 16  # of a batch, whose weight gradients are summed apart
BLOCK = 98 // ROWS * ROWS  # output cells of an item
FILTERS = 512  # columns of an item's product, so that its sums stay in the second-level cache
PIXELS = 128  # cells of a map that a weight gradient multiplies before it adds to its sums
WEIGHT_BYTES = 512  # of a filter, that an item of the weight gradient computes at least
SUMS_BYTES = 1 << 17  # of sums, for which an item of the weight gradient takes more weights than that
BAND = 64  # rows of dx that an item of `_scatter` owns
SCATTER = 20  # multiply-adds in the time that it takes to add a number of a patch
GRAIN = 2e7  # multiply-adds below which items share one call


class Places(NamedTuple):
    """Where results go: cell (row * stride_rows + top, column * stride_columns + left) of the output."""

    height: int
    row: int
    channels: int
    stride_rows: int
    stride_columns: int
    top: int
    left: int


class Sizes(NamedTuple):
    """The products of one pass: cells of each image, depth of the sums and columns, for each group."""

    images: int
    groups: int
    cells: int
    depth: int
    columns: int


# ---------------------------------------------------------------------------------------- kernels


@kernel
def _convolve(begin, end, out, source, packed, bias, patches, places, sizes, relu, finite, sparse):
    """Items: image, group, block of cells, block of columns; see the head of this file.

    Where filters are finite, cells that see only padding are left out of a piece of the depth.
    """
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
    some = np.empty(BLOCK * c_step, out.dtype)  # sums of the cells that a piece of the depth reaches
    rows = np.empty(BLOCK if finite else 0, np.int64)
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
            count = gather(tile, source, image * patches.height * patches.row, group * channels, patches,
                           cell, cells, first, last, rows)
            start = ((group * panels + low // panel) * depth + first) * panel
            product = sums if count == cells else some
            if count < cells:
                some[: count * c_step] = 0
            if sparse:
                multiply_present_block(product, c_step, tile, count, packed, start, depth * panel, width, last - first)
            else:
                multiply_block(product, c_step, tile, count, packed, start, panel, depth * panel, width, last - first)
            if count < cells:
                for t in range(count):
                    numbers, target = some[t * c_step :], sums[rows[t] * c_step : rows[t] * c_step + width]
                    for i in range(target.size):
                        target[i] += numbers[i]
        for t in range(cells):
            row, column = (cell + t) // patches.columns, (cell + t) % patches.columns
            y = row * places.stride_rows + places.top
            place = (image * places.height + y) * places.row + group * columns + low
            place += (column * places.stride_columns + places.left) * places.channels
            target, numbers = out[place : place + width], sums[t * c_step :]
            offsets = bias[group * columns + low :]
            for i in range(target.size):
                value = numbers[i] + offsets[i]
                target[i] = floor if value <= floor else value  # a NaN stays


@kernel
def _scatter(begin, end, dx, dy, packed, patches, sizes, lines, bands, sparse):
    """Items: image, band of the input's rows; the input gradient where channels are few.

    Each output cell's signal times all weights is a whole patch, which is added to the cells that the
    forward pass read it from. A cell of dx receives its patches in the order of the output's cells,
    whatever the band.
    """
    panel = PANEL_BYTES // dx.itemsize
    columns, depth, channels = sizes.columns, sizes.depth, patches.channels // sizes.groups
    panels = (columns + panel - 1) // panel
    chunks = (depth + DEPTH - 1) // DEPTH
    chunk = (depth + chunks - 1) // chunks
    rows = sizes.cells // patches.columns
    tile = np.empty(BLOCK * STRIDE, dx.dtype)
    sums = np.empty(BLOCK * panels * panel, dx.dtype)
    for item in range(begin, end):
        band, image = item % bands, item // bands
        low, high = patches.height * band // bands, patches.height * (band + 1) // bands
        base = image * patches.height * patches.row
        dx[base + low * patches.row : base + high * patches.row] = 0
        reach = low + patches.top - (lines - 1) * patches.dilation
        begin_cell = max((reach + patches.stride_rows - 1) // patches.stride_rows, 0) * patches.columns
        end_cell = min((high - 1 + patches.top) // patches.stride_rows + 1, rows) * patches.columns
        for group in range(sizes.groups):
            for cell in range(begin_cell, end_cell, BLOCK):
                cells = min(BLOCK, end_cell - cell)
                sums[: cells * panels * panel] = 0
                for first in range(0, depth, chunk):
                    count = min(chunk, depth - first)
                    for t in range(cells):
                        place = (image * sizes.cells + cell + t) * sizes.groups + group
                        copy(tile, t * STRIDE, dy, place * depth + first, count)
                    start = (group * panels * depth + first) * panel
                    if sparse:
                        multiply_present_block(sums, panels * panel, tile, cells, packed, start, depth * panel,
                                               columns, count)
                    else:
                        multiply_block(sums, panels * panel, tile, cells, packed, start, panel, depth * panel,
                                       columns, count)
                scatter(dx, base, group * channels, patches, low, high, sums, panels * panel, cell, cells, lines)


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
def _weight_gradient(begin, end, partial, dy, x, patches, sizes, parts, width):
    """Items: part of the batch, group, block of filters, block of weights.

    A part is a range of blocks of cells; each item adds the products dy' * patches of its cells, block
    by block in order, to sums in the second-level cache and writes them once.
    """
    panel = PANEL_BYTES // x.itemsize
    filters, depth, channels = sizes.columns, sizes.depth, patches.channels // sizes.groups
    filter_blocks = (filters + FILTERS - 1) // FILTERS
    weight_blocks = (depth + width - 1) // width
    blocks = (sizes.cells + PIXELS - 1) // PIXELS
    total = sizes.images * blocks
    tile = np.empty(PIXELS * STRIDE, x.dtype)
    sums = np.empty(min(filters, FILTERS) * width, x.dtype)
    everything = np.empty(0, np.int64)
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
            gather(tile, x, image * patches.height * patches.row, group * channels, patches,
                   cell, cells, first, last, everything)
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


def _is_short(patches: Patches, sizes: Sizes) -> bool:
    """Whether gathering patches would take long beside their products; decided by the filters alone."""
    return sizes.groups == 1 and patches.runs == 1 and patches.run <= RUN


def _run(out: np.ndarray, source: np.ndarray, packed: np.ndarray, bias: np.ndarray, patches: Patches,
         places: Places, sizes: Sizes, relu: bool, finite: Callable[[], bool] = bool,
         sparse: Callable[[], bool] = bool) -> None:
    """Launch `_convolve` over all items; or `slide`, which does not ask whether products may be left out.

    finite : whether all filters are; what is left out otherwise would be NaN
    sparse : whether the source's zeros are left out
    """
    if _is_short(patches, sizes):
        band = rows_of_a_band(sizes, patches, out.itemsize)
        bands = _ceil(sizes.cells // patches.columns, band)
        offsets = aligned(bias.size, bias.dtype)  # whole panels of it are read
        offsets[: bias.size] = bias
        parallel(slide, sizes.images * bands, flat(out), flat(source), packed, offsets, patches, places, sizes,
                 int(relu), band, grain=max(1, int(GRAIN / (sizes.cells // bands * sizes.depth * sizes.columns))))
        return
    blocks, parts = _ceil(sizes.cells, BLOCK), _ceil(sizes.columns, FILTERS)
    work = min(BLOCK, sizes.cells) * sizes.depth * min(sizes.columns, FILTERS)
    parallel(_convolve, sizes.images * sizes.groups * blocks * parts, flat(out), flat(source), packed,
             flat(bias), patches, places, sizes, int(relu), int(finite()), int(sparse()),
             grain=max(1, int(GRAIN / work)))


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
    if not images:
        return

    def panels() -> np.ndarray:
        count = groups * _panels(sizes.columns, x.itemsize)
        packed = aligned(count * sizes.depth * PANEL_BYTES // x.itemsize, x.dtype)
        parallel(_pack_filters, count, packed, flat(weight), sizes.columns, sizes.depth)
        return packed

    packed = kept(weight, ("panels", groups), panels)
    patches = patches_of(x, groups, width, columns, stride, padding[0], padding[2], dilation)
    _run(y, x, packed, bias, patches, Places(rows, columns * filters, filters, 1, 1, 0, 0), sizes, relu)


def convolution_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any,
                               dilation: Any, groups: int) -> None:
    """dx = adjoint of the convolution applied to dy.

    Where the channels would leave most of a panel empty (three of an image, say), whole patches are
    computed and added instead.
    """
    if _is_depthwise(weight.shape, groups):
        depthwise_input_gradient(dx, dy, weight, stride, padding, dilation)
        return
    if not dx.shape[0]:
        return
    filters, height, width, channels = weight.shape
    finite = cache(lambda: is_finite(weight))  # not asked for where `slide` runs
    sparse = cache(lambda: mostly_zeros(dy) and finite())
    half = PANEL_BYTES // 2 // dx.itemsize
    by_phase = filters // groups * height * width * _ceil(channels, half) * half
    patch = height * width * channels
    if filters // groups * _ceil(patch, half) * half + SCATTER * patch < by_phase:
        _by_patches(dx, dy, weight, stride, padding, dilation, groups, sparse())
        return
    images, rows, columns, _ = dx.shape
    bias = np.zeros(groups * channels, dx.dtype)
    vertical = phases_of(rows, height, stride[0], padding[0], dilation[0])
    horizontal = phases_of(columns, width, stride[1], padding[2], dilation[1])
    if any(not phase.taps for phase in (*vertical, *horizontal)):
        dx[:] = 0  # cells that no window touches
    for v in vertical:
        for h in horizontal:
            if not v.taps or not h.taps:
                continue
            sizes = Sizes(images, groups, v.cells * h.cells, v.taps * h.taps * (filters // groups), channels)
            packed = _phase_panels(weight, weight.shape, groups, (v.tap, v.taps, v.tap_step, h.tap, h.taps, h.tap_step))
            patches = patches_of(dy, groups, h.taps, h.cells, (1, 1), v.before, h.before, (v.spread, h.spread))
            places = Places(rows, columns * groups * channels, groups * channels, stride[0], stride[1],
                            v.start, h.start)
            _run(dx, dy, packed, bias, patches, places, sizes, False, finite, sparse)


def _phase_panels(weight: np.ndarray, shape: tuple[int, ...], groups: int, taps: tuple[int, ...]) -> np.ndarray:
    """Panels of `_pack_phase` for filters of this shape; `taps`: first, count and step of rows and of columns."""

    def panels() -> np.ndarray:
        count = groups * _panels(shape[3], weight.itemsize)
        depth = taps[1] * taps[4] * (shape[0] // groups)
        packed = aligned(count * depth * PANEL_BYTES // weight.itemsize, weight.dtype)
        parallel(_pack_phase, count, packed, flat(weight), shape, groups, *taps)
        return packed

    return kept(weight, ("phase", shape, groups, taps), panels)


def _by_patches(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: Any, padding: Any,
                dilation: Any, groups: int, sparse: bool) -> None:
    """The input gradient by `_scatter`; the packed weights are a matrix of filters by whole patches."""
    filters, height, width, channels = weight.shape
    images, rows, columns, _ = dy.shape
    sizes = Sizes(images, groups, rows * columns, filters // groups, height * width * channels)
    packed = _phase_panels(weight, (filters, 1, 1, sizes.columns), groups, (0, 1, 1, 0, 1, 1))
    patches = patches_of(dx, groups, width, columns, stride, padding[0], padding[2], dilation)
    bands = _ceil(dx.shape[1], BAND)
    parallel(_scatter, images * bands, flat(dx), flat(dy), packed, patches, sizes, height, bands,
             int(sparse))


def _weights_of_an_item(sizes: Sizes, itemsize: int) -> int:
    """Weights of a filter that an item of the weight gradient computes.

    As many as their sums leave room for: every block of weights reads the signals again, and those of
    first layers are large.
    """
    panel = PANEL_BYTES // itemsize
    room = SUMS_BYTES // (sizes.columns * itemsize) // panel * panel
    most = max(WEIGHT_BYTES // itemsize, min(room, DEPTH))
    return _ceil(_ceil(sizes.depth, _ceil(sizes.depth, most)), panel) * panel


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
    patches = patches_of(x, groups, width, columns, stride, padding[0], padding[2], dilation)
    out = flat(dweight)
    if _is_short(patches, sizes):
        band = rows_of_a_band(sizes, patches, x.itemsize)
        parts = max(1, min(PARTS, images * _ceil(rows, band)))
        partial = out if parts == 1 else empty((parts * dweight.size,), x.dtype)
        parallel(slide_weights, parts, partial, flat(dy), flat(x), patches, sizes, parts, band)
        _sum_parts(out, partial, parts)
        return
    share = _weights_of_an_item(sizes, x.itemsize)
    items = groups * _ceil(sizes.columns, FILTERS) * _ceil(sizes.depth, share)
    parts = max(1, min(_ceil(32, items), images * _ceil(sizes.cells, PIXELS)))
    partial = out if parts == 1 else empty((parts * dweight.size,), x.dtype)
    parallel(_weight_gradient, parts * items, partial, flat(dy), flat(x), patches, sizes, parts, share)
    _sum_parts(out, partial, parts)


def _sum_parts(out: np.ndarray, partial: np.ndarray, parts: int) -> None:
    """Add the parts of a sum in their order; a single one is the sum itself."""
    if parts > 1:
        parallel(_add_parts, _ceil(out.size, 1 << 14), out, partial, parts, 1 << 14)


def channel_sum(sums: np.ndarray, dy: np.ndarray) -> None:
    """sums[c] = sum over rows of dy[:, c]: blocks of rows first, then the blocks in order."""
    rows, channels = dy.shape
    block = 512
    parts = max(1, _ceil(rows, block))
    partial = np.empty(parts * channels, dy.dtype)
    parallel(_channel_sums, parts, partial, flat(dy), rows, channels, block, grain=4)
    parallel(_add_parts, 1, flat(sums), partial, parts, channels)
