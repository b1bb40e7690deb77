"""Winograd's algorithm for convolutions and their input gradients: two to four times fewer products.

A map is cut into tiles of a fixed size, from its first cell on. Of each tile the input is transformed
(transform.py) to points; at each point the channels of many tiles, one a row, are multiplied with all
transformed filters (matrix.py); and the products are transformed to output cells. An item of work is a
block of tiles, of one image or of several: it does all three steps, so transformed inputs stay in the
second- and third-level caches and never become an array of their own.

A convolution of stride 2 is a sum of four of stride 1, one for each phase of the input's rows and
columns: with 5 taps, phase 0 has taps 0, 2, 4 and phase 1 has 1, 3. A filter of two taps is one of three
whose last tap is zero, and then its product at infinity is zero and is left out. So all phases share one
tile and one output transform, at the cost of algorithms made for each: 121 products instead of 400 for
4 x 4 outputs of ZFNet's second layer. The input gradient is the mirror image: four phases of the output
share one input transform, and short filters leave out the point 0, where their first tap is read.

An output's bits depend on its tile's inputs and on the filters: a tile's row in a block changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .compile import kernel
from .instructions import DEPTH, PANEL_BYTES, STRIDE, VECTOR_BYTES
from .kept import kept
from .matrix import aligned, flat, multiply_block
from .threads import parallel
from .transform import EXACT, LARGE, LONG, Scheme, transform_filter, transform_input, transform_output

TILES = 42  # tiles of an item
ITEMS = 8  # fewer blocks than this are cut by columns too
COLUMNS = 64  # of such a cut, at least
SLAB = 64  # columns whose outputs are in the first-level cache between the transform and their places
TRANSFORM, IMAGES = 8, 4  # see `winograd_scheme`
FEWEST = {3: 24, 5: 32}  # channels, and filters, by taps: with fewer, sliding.py is faster in all three directions
PHASES = {1: ((0, 0),), 2: ((0, 1), (0, 0), (1, 0), (1, 1))}  # ordered so that those of a point are neighbours


class Plan(NamedTuple):
    """Sizes of one pass, all integers.

    Tile (i, j) reads source cells (i * tile + a) * in_stride + phase - top, for a < points, and writes
    output cells (i * tile + a) * out_stride + phase - out_top, for a < tile; columns likewise.
    """

    scheme: int
    tile: int
    points: int
    images: int
    groups: int
    rows: int  # of tiles
    columns: int
    height: int  # of the source
    row: int
    channels: int
    depth: int  # channels of one group and phase
    in_stride: int
    top: int
    left: int
    width: int  # of the product, for one group and phase
    out_height: int
    out_width: int
    out_channels: int
    out_stride: int
    out_top: int
    out_left: int


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# ---------------------------------------------------------------------------------------- kernels


@kernel
def read_tile(points, place, step, source, patch, plan, image, channel, y, x, depth, chunk):
    """Transform one tile's input: to points[place], chunks of its channels `step` * number of points apart."""
    lanes = VECTOR_BYTES // source.itemsize
    n, stride = plan.points, plan.in_stride
    reach = (n - 1) * stride
    row, column = plan.row * stride, plan.channels * stride
    width = plan.row // plan.channels
    start = (image * plan.height + y) * plan.row + x * plan.channels + channel
    if y >= 0 and x >= 0 and y + reach < plan.height and x + reach < width and depth % lanes == 0:
        for c in range(0, depth, chunk):
            transform_input(plan.scheme, points, place, n * step, step, source, start + c, row, column,
                            min(chunk, depth - c) // lanes)
            place += n * n * step
        return
    padded = (depth + lanes - 1) // lanes * lanes
    for a in range(n):
        for b in range(n):
            target = patch[(a * n + b) * padded : (a * n + b + 1) * padded]
            inside = (y + a * stride >= 0 and y + a * stride < plan.height
                      and x + b * stride >= 0 and x + b * stride < width)
            count = depth if inside else 0
            cell = start + a * row + b * column
            numbers = source[cell : cell + count]
            for c in range(count):
                target[c] = numbers[c]
            rest = target[count:]
            for c in range(rest.size):
                rest[c] = 0
    for c in range(0, padded, chunk):
        transform_input(plan.scheme, points, place, n * step, step, patch, c, n * padded, padded,
                        min(chunk, padded - c) // lanes)
        place += n * n * step


@kernel
def _write_tile(out, sums, place, step, cells, bias, plan, image, group, first, last, offset, y, x, relu):
    """Transform the products of one tile, columns `first` to `last`, to its cells; add bias and rectify.

    Column `offset` of the products is channel 0 of the group.
    """
    lanes = VECTOR_BYTES // out.itemsize
    m, n = plan.tile, plan.points
    floor = out.dtype.type(0 if relu else -np.inf)
    for low in range(first, last, SLAB):
        count = min(SLAB, last - low)
        transform_output(plan.scheme, cells, 0, m * SLAB, SLAB, sums, place + low, n * step, step,
                         (count + lanes - 1) // lanes)
        channel = group * plan.width + low - offset
        offsets = bias[channel : channel + count]
        for a in range(m):
            row = y + a * plan.out_stride
            if row < 0 or row >= plan.out_height:
                continue
            for b in range(m):
                column = x + b * plan.out_stride
                if column < 0 or column >= plan.out_width:
                    continue
                start = ((image * plan.out_height + row) * plan.out_width + column) * plan.out_channels + channel
                target = out[start : start + count]
                numbers = cells[(a * m + b) * SLAB : (a * m + b) * SLAB + count]
                for i in range(target.size):
                    value = numbers[i] + offsets[i]
                    target[i] = floor if value <= floor else value  # a NaN stays


@kernel
def _winograd(begin, end, out, source, packed, bias, phases, ranges, plan, blocks, parts, relu):
    """Items: block of tiles, group, part of the columns; see the head of this file.

    `phases` holds the input's and the output's; `ranges` which of them each point needs.
    """
    panel, lanes = PANEL_BYTES // out.itemsize, VECTOR_BYTES // out.itemsize
    squares, grid = plan.points * plan.points, plan.rows * plan.columns
    tiles = plan.images * grid
    high = (tiles + blocks - 1) // blocks
    inputs, outputs = phases[0, 0, 2], phases[1, 0, 2]
    depth, pieces = plan.depth, (plan.depth + DEPTH - 1) // DEPTH
    chunk = (depth + pieces * lanes - 1) // (pieces * lanes) * lanes
    padded = (plan.width + panel - 1) // panel * panel
    panels, whole = outputs * padded // panel, inputs * depth
    wide = (panels + parts - 1) // parts * panel
    step, c_step = high * STRIDE + 16, wide + 16  # odd numbers of cache lines
    raw = np.empty(inputs * pieces * squares * step + 64, out.dtype)
    points = raw[(-raw.ctypes.data) % 64 // out.itemsize :]
    raw_sums = np.empty(squares * (high * c_step + 16) + 64, out.dtype)
    sums = raw_sums[(-raw_sums.ctypes.data) % 64 // out.itemsize :]
    s_step = high * c_step + 16
    patch = np.empty(squares * (depth + lanes), out.dtype)
    cells = np.empty(plan.tile * plan.tile * SLAB, out.dtype)
    for item in range(begin, end):
        part, group, block = item % parts, item // parts % plan.groups, item // (parts * plan.groups)
        start = tiles * block // blocks
        count = tiles * (block + 1) // blocks - start
        for t in range(count):
            image, tile = (start + t) // grid, (start + t) % grid
            for p in range(inputs):
                y = tile // plan.columns * plan.tile * plan.in_stride + phases[0, p, 0] - plan.top
                x = tile % plan.columns * plan.tile * plan.in_stride + phases[0, p, 1] - plan.left
                read_tile(points, p * pieces * squares * step + t * STRIDE, step, source, patch, plan, image,
                          group * depth, y, x, depth, chunk)
        low, limit = part * wide, min((part + 1) * wide, panels * panel)
        sums[:] = 0
        for point in range(squares):
            first = max(low, ranges[point, 2] * padded)
            last = min(limit, ranges[point, 3] * padded, (ranges[point, 3] - 1) * padded + plan.width)
            if first >= last:
                continue
            place = ((group * squares + point) * panels + first // panel) * whole * panel
            for p in range(ranges[point, 0], ranges[point, 1]):
                for piece in range(pieces):
                    c = piece * chunk
                    multiply_block(sums[point * s_step + first - low :], c_step,
                                   points[((p * pieces + piece) * squares + point) * step :], count,
                                   packed, place + (p * depth + c) * panel, panel, whole * panel,
                                   last - first, min(chunk, depth - c))
        for t in range(count):
            image, tile = (start + t) // grid, (start + t) % grid
            for p in range(outputs):
                y = tile // plan.columns * plan.tile * plan.out_stride + phases[1, p, 0] - plan.out_top
                x = tile % plan.columns * plan.tile * plan.out_stride + phases[1, p, 1] - plan.out_left
                first, last = max(low, p * padded), min(limit, p * padded + plan.width)
                if first < last:
                    _write_tile(out, sums, t * c_step, s_step, cells, bias, plan, image, group,
                                first - low, last - low, p * padded - low, y, x, relu)


@kernel
def _pack_forward(begin, end, packed, weight, shape, groups, phases, stride, scheme, taps, points):
    """Transformed filters for the forward pass: [group][point][panel][phase, channel][filter].

    An item is a panel of filters, gathered 16 channels at a time.
    """
    filters, height, width, channels = shape
    filters //= groups
    panel, inputs = PANEL_BYTES // weight.itemsize, phases[0, 0, 2]
    panels = (filters + panel - 1) // panel
    squares, whole = points * points, inputs * channels
    lines = np.empty(taps * taps * 16 * panel, weight.dtype)
    for item in range(begin, end):
        group, low = item // panels, item % panels * panel
        count = min(panel, filters - low)
        for p in range(inputs):
            for first in range(0, channels, 16):
                wide = min(16, channels - first)
                for r in range(taps):
                    for s in range(taps):
                        line = (r * taps + s) * 16 * panel
                        y, x = r * stride + phases[0, p, 0], s * stride + phases[0, p, 1]
                        if count < panel or y >= height or x >= width:
                            lines[line : line + 16 * panel] = 0
                        if y >= height or x >= width:
                            continue
                        for f in range(count):
                            place = (((group * filters + low + f) * height + y) * width + x) * channels + first
                            numbers, target = weight[place : place + wide], lines[line + f :]
                            for c in range(wide):
                                target[c * panel] = numbers[c]
                place = ((group * squares * panels + item % panels) * whole + p * channels + first) * panel
                step = panels * whole * panel
                transform_filter(scheme, packed, place, points * step, step, lines, 0, taps * 16 * panel,
                                 16 * panel, 2 * wide)


@kernel
def _pack_gradient(begin, end, packed, weight, shape, groups, phases, stride, scheme, taps, points):
    """Transformed, mirrored filters for the input gradient: [group][point][phase, panel][filter][channel]."""
    filters, height, width, channels = shape
    filters //= groups
    panel, outputs = PANEL_BYTES // weight.itemsize, phases[1, 0, 2]
    panels = (channels + panel - 1) // panel
    squares = points * points
    line = np.empty(taps * taps * panel, weight.dtype)
    step = outputs * panels * filters * panel
    for item in range(begin, end):
        group, p, low = item // (panels * outputs), item // panels % outputs, item % panels * panel
        count = min(panel, channels - low)
        for f in range(filters):
            for r in range(taps):
                for s in range(taps):
                    y, x = (taps - 1 - r) * stride + phases[1, p, 0], (taps - 1 - s) * stride + phases[1, p, 1]
                    target = line[(r * taps + s) * panel : (r * taps + s + 1) * panel]
                    some = count if y < height and x < width else 0
                    place = (((group * filters + f) * height + y) * width + x) * channels + low
                    numbers = weight[place : place + some]
                    for c in range(some):
                        target[c] = numbers[c]
                    rest = target[some:]
                    for c in range(rest.size):
                        rest[c] = 0
            place = (group * squares * outputs * panels + p * panels + item % panels) * filters * panel + f * panel
            transform_filter(scheme, packed, place, points * step, step, line, 0, taps * panel, panel, 2)


# -------------------------------------------------------------------------------------- launchers


def winograd_scheme(algorithm: str, weight_shape: tuple[int, ...], stride: Any, dilation: Any, groups: int,
                    cells: tuple[int, int]) -> Scheme | None:
    """The scheme for "winograd" or "winograd_exact", None where there is none; for "auto" where it pays.

    By filters and maps alone, never by the batch, so that an image's bits do not depend on its company.
    What pays is estimated in vector multiply-adds for each image, with filters transformed once for
    IMAGES of them; a transform's vector takes about TRANSFORM each.
    """
    filters, height, width, channels = weight_shape
    taps = _ceil(height, stride[0])
    if (tuple(stride) not in ((1, 1), (2, 2)) or tuple(dilation) != (1, 1) or _ceil(width, stride[1]) != taps
            or (taps == 5 and stride[0] == 2)):
        return None
    if algorithm == "winograd_exact":
        return EXACT if taps == 3 else None
    scheme = {3: LARGE, 5: LONG}.get(taps)
    if scheme is None or algorithm != "auto":
        return scheme
    filters //= groups
    if min(channels, filters) < FEWEST[taps]:
        return None
    points, phases = scheme.points**2, len(PHASES[stride[0]])
    tiles = _ceil(cells[0], scheme.tile) * _ceil(cells[1], scheme.tile)
    counts = needed(scheme.points, (height, width), stride[0], scheme.points - 1)
    products = int((counts[:, 1] - counts[:, 0]).sum()) * channels * filters
    transforms = points * (phases * channels + filters)
    filter_transform = points * phases * channels * filters / IMAGES
    fast = tiles * (products + TRANSFORM * transforms) + TRANSFORM * filter_transform
    return scheme if fast < 0.8 * cells[0] * cells[1] * height * width * channels * filters else None


@cache
def phase_table(inputs: int, outputs: int) -> np.ndarray:
    """(2, 4, 3): row and column of each phase of the input and of the output, and how many there are; for reading."""
    table = np.zeros((2, 4, 3), np.int64)
    for kind, stride in enumerate((inputs, outputs)):
        phases = PHASES[stride]
        table[kind, : len(phases), :2] = phases
        table[kind, :, 2] = len(phases)
    return table


@cache
def needed(points: int, window: tuple[int, int], stride: int, unread: int) -> np.ndarray:
    """(points ** 2, 2): first and last phase with a product at each point; for reading.

    Phases 1 of an odd window are one tap short, and give no product at the point `unread`.
    """
    table = np.zeros((points * points, 2), np.int64)
    for row in range(points):
        for column in range(points):
            short_row = stride == 2 and row == unread and window[0] % 2 == 1
            short_column = stride == 2 and column == unread and window[1] % 2 == 1
            table[row * points + column] = (int(short_column), len(PHASES[stride]) - (
                2 if short_row else int(short_column)))
    return table


def _transformed(pack: Any, weight: np.ndarray, panels: int, depth: int, groups: int, phases: np.ndarray, stride: int,
                 scheme: Scheme) -> np.ndarray:
    """The filters' transforms, in `panels` of `depth` rows at each point, by _pack_forward or _pack_gradient."""

    def transformed() -> np.ndarray:
        packed = aligned(scheme.points**2 * panels * depth * PANEL_BYTES // weight.itemsize, weight.dtype)
        parallel(pack, panels, packed, flat(weight), weight.shape, groups, phases, stride, scheme.number, scheme.taps,
                 scheme.points)
        return packed

    return kept(weight, (pack.__name__, scheme.number, stride, groups), transformed)


def _run(out: np.ndarray, source: np.ndarray, packed: np.ndarray, bias: np.ndarray, phases: np.ndarray,
         ranges: np.ndarray, plan: Plan, relu: bool) -> None:
    panel = PANEL_BYTES // out.itemsize
    blocks = _ceil(plan.images * plan.rows * plan.columns, TILES)
    panels = phases[1, 0, 2] * _ceil(plan.width, panel)
    parts = max(1, min(_ceil(ITEMS, blocks * plan.groups), panels * panel // COLUMNS))
    parallel(_winograd, blocks * plan.groups * parts, flat(out), flat(source), packed, flat(bias), phases, ranges,
             plan, blocks, parts, int(relu))


def winograd_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int,
                     padding: Any, groups: int, relu: bool, scheme: Scheme) -> None:
    """y = activation(x convolved with weight + bias); stride 1 or 2 in both directions."""
    images, rows, columns, filters = y.shape
    if not images:
        return
    _, height, width, channels = weight.shape
    if bias is None:
        bias = np.zeros(filters, weight.dtype)
    phases, panels = phase_table(stride, 1), _ceil(filters // groups, PANEL_BYTES // x.itemsize)
    depth = int(phases[0, 0, 2]) * channels
    packed = _transformed(_pack_forward, weight, groups * panels, depth, groups, phases, stride, scheme)
    ranges = np.ones((scheme.points**2, 4), np.int64) * (0, 0, 0, 1)
    ranges[:, :2] = needed(scheme.points, (height, width), stride, scheme.points - 1)
    plan = Plan(scheme.number, scheme.tile, scheme.points, images, groups, _ceil(rows, scheme.tile),
                _ceil(columns, scheme.tile), x.shape[1], x.shape[2] * x.shape[3], x.shape[3], channels, stride,
                padding[0], padding[2], filters // groups, rows, columns, filters, 1, 0, 0)
    _run(y, x, packed, bias, phases, ranges, plan, relu)


def winograd_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, stride: int, padding: Any,
                            groups: int, scheme: Scheme) -> None:
    """dx = adjoint of the convolution applied to dy."""
    images, rows, columns, total = dx.shape
    if not images:
        return
    filters, height, width, channels = weight.shape
    phases, panels = phase_table(1, stride), _ceil(channels, PANEL_BYTES // dx.itemsize)
    panels *= int(phases[1, 0, 2])
    depth = filters // groups
    packed = _transformed(_pack_gradient, weight, groups * panels, depth, groups, phases, stride, scheme)
    ranges = np.ones((scheme.points**2, 4), np.int64) * (0, 1, 0, 0)
    ranges[:, 2:] = needed(scheme.points, (height, width), stride, 0)
    top, left = padding[0] // stride, padding[2] // stride  # of the cells' blocks, as of the stride
    down, across = (rows - 1 + padding[0]) // stride - top + 1, (columns - 1 + padding[2]) // stride - left + 1
    plan = Plan(scheme.number, scheme.tile, scheme.points, images, groups, _ceil(down, scheme.tile),
                _ceil(across, scheme.tile), dy.shape[1], dy.shape[2] * dy.shape[3], dy.shape[3], depth, 1,
                scheme.taps - 1 - top, scheme.taps - 1 - left, channels, rows, columns, total, stride,
                padding[0] - top * stride, padding[2] - left * stride)
    _run(dx, dy, packed, np.zeros(total, dx.dtype), phases, ranges, plan, False)
