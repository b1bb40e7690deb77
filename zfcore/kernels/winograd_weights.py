"""The weight gradient by Winograd's algorithm: the adjoint of winograd.py's forward pass in its filters.

With y = A'[(G g) * (B' d)] for a tile of outputs, a signal dy at it gives dg = G'[(A dy) * (B' d)]: as many
products as the forward pass. At each point they form the matrix product (filters x tiles) times
(tiles x channels), so the sum over all tiles of all images is taken before the transform to taps.

An item of work is a block of filters times a block of channels of one phase, at all points: its sums
stay in the second-level cache while the tiles go by, some at a time. Each item transforms the inputs
and the signals that it reads; that is an eighth of its work, and nothing is ever written but gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial as bound
from typing import Any, NamedTuple

import numpy as np

from .compile import kernel
from .convolution import _add_parts
from .instructions import PANEL_BYTES, STRIDE, VECTOR_BYTES
from .matrix import flat, multiply_transposed_block
from .memory import empty
from .threads import parallel
from .transform import Scheme, transform_signal, transform_taps
from .winograd import (
    Plan,
    needed,
    phase_table,
    read_tile,
    winograd_forward,
    winograd_input_gradient,
    winograd_scheme,
)

FILTERS = 98  # of an item: seven tiles of matrix.py
CHANNELS = 96
TILES = 56  # multiplied before they are added to the sums
ITEMS = 16  # with fewer, the batch is cut into parts whose sums are added in order


@kernel
def _weight_gradient(begin, end, partial, dy, x, phases, ranges, plan, window, parts):
    """Items: part of the tiles, group, phase, block of filters, block of channels.

    The plan is the forward pass's: its output cells are the signal's.
    """
    lanes, n, m = VECTOR_BYTES // x.itemsize, plan.points, plan.tile
    squares, grid, taps = n * n, plan.rows * plan.columns, n - m + 1
    height, width = window
    filters, channels = plan.width, plan.depth
    inputs = phases[0, 0, 2]
    filter_blocks = (filters + FILTERS - 1) // FILTERS
    channel_blocks = (channels + CHANNELS - 1) // CHANNELS
    tiles = plan.images * grid
    wide = (FILTERS + lanes - 1) // lanes * lanes + 16
    step = TILES * STRIDE + 16
    s_step = FILTERS * (CHANNELS + 16) + 16
    d_step = TILES * wide + 16
    raw = np.empty(squares * step + 64, x.dtype)
    points = raw[(-raw.ctypes.data) % 64 // x.itemsize :]
    raw_sums = np.empty(squares * s_step + 64, x.dtype)
    sums = raw_sums[(-raw_sums.ctypes.data) % 64 // x.itemsize :]
    signals = np.empty(squares * d_step + wide, x.dtype)
    patch = np.empty(squares * (CHANNELS + lanes), x.dtype)
    cells = np.empty(m * m * wide, x.dtype)
    lines = np.empty(taps * taps * (CHANNELS + lanes), x.dtype)
    for item in range(begin, end):
        low_channel = item % channel_blocks * CHANNELS
        depth = min(CHANNELS, channels - low_channel)
        low_filter = item // channel_blocks % filter_blocks * FILTERS
        count = min(FILTERS, filters - low_filter)
        item_of = item // (channel_blocks * filter_blocks)
        p, group, part = item_of % inputs, item_of // inputs % plan.groups, item_of // (inputs * plan.groups)
        sums[:] = 0
        limit = tiles * (part + 1) // parts
        for first in range(tiles * part // parts, limit, TILES):
            some = min(TILES, limit - first)
            for t in range(some):
                image, tile = (first + t) // grid, (first + t) % grid
                row, column = tile // plan.columns * m, tile % plan.columns * m
                read_tile(points, t * STRIDE, step, x, patch, plan, image, group * channels + low_channel,
                          row * plan.in_stride + phases[0, p, 0] - plan.top,
                          column * plan.in_stride + phases[0, p, 1] - plan.left, depth, CHANNELS)
                for a in range(m):
                    for b in range(m):
                        inside = row + a < plan.out_height and column + b < plan.out_width
                        numbers = count if inside else 0
                        start = ((image * plan.out_height + row + a) * plan.out_width + column + b)
                        start = start * plan.out_channels + group * filters + low_filter
                        source, target = dy[start : start + numbers], cells[(a * m + b) * wide : (a * m + b + 1) * wide]
                        for k in range(numbers):
                            target[k] = source[k]
                        rest = target[numbers:]
                        for k in range(rest.size):
                            rest[k] = 0
                transform_signal(plan.scheme, signals, t * wide, n * d_step, d_step, cells, 0, m * wide, wide,
                                 (count + lanes - 1) // lanes)
            for point in range(squares):
                if ranges[point, 0] <= p and p < ranges[point, 1]:
                    multiply_transposed_block(sums[point * s_step :], CHANNELS + 16, signals, point * d_step, wide,
                                              count, points[point * step :], STRIDE, PANEL_BYTES // x.itemsize,
                                              depth, some)
        for k in range(count):
            transform_taps(plan.scheme, lines, 0, taps * CHANNELS, CHANNELS, sums, k * (CHANNELS + 16), n * s_step,
                           s_step, (depth + lanes - 1) // lanes)
            filter_start = (part * plan.groups * filters + group * filters + low_filter + k) * height
            for r in range(taps):
                y_tap = r * plan.in_stride + phases[0, p, 0]
                for s in range(taps):
                    x_tap = s * plan.in_stride + phases[0, p, 1]
                    if y_tap < height and x_tap < width:
                        start = ((filter_start + y_tap) * width + x_tap) * channels + low_channel
                        target, numbers = partial[start : start + depth], lines[(r * taps + s) * CHANNELS :]
                        for c in range(depth):
                            target[c] = numbers[c]


def winograd_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray, stride: int, padding: Any,
                             groups: int, scheme: Scheme) -> None:
    """dweight = sum over images and tiles; the batch is cut into parts by sizes, never by threads."""
    filters, height, width, channels = dweight.shape
    images, rows, columns, _ = dy.shape
    phases = phase_table(stride, 1)
    ranges = needed(scheme.points, (height, width), stride, scheme.points - 1)
    down, across = -(-rows // scheme.tile), -(-columns // scheme.tile)
    plan = Plan(scheme.number, scheme.tile, scheme.points, images, groups, down, across, x.shape[1],
                x.shape[2] * x.shape[3], x.shape[3], channels, stride, padding[0], padding[2], filters // groups,
                rows, columns, filters, 1, 0, 0)
    items = groups * int(phases[0, 0, 2]) * -(-(filters // groups) // FILTERS) * -(-channels // CHANNELS)
    parts = max(1, min(-(-ITEMS // items), images * down * across // TILES))
    out = flat(dweight)
    partial = out if parts == 1 else empty((parts * dweight.size,), x.dtype)
    parallel(_weight_gradient, parts * items, partial, flat(dy), flat(x), phases, ranges, plan, (height, width),
             parts)
    if parts > 1:
        parallel(_add_parts, -(-dweight.size // (1 << 14)), out, partial, parts, 1 << 14)


class Launchers(NamedTuple):
    """The three convolutions by one scheme; arguments as for the direct ones, but no dilation and one stride."""

    forward: Callable[..., None]
    input_gradient: Callable[..., None]
    weight_gradient: Callable[..., None]


def fast_convolution(algorithm: str, weight_shape: tuple[int, ...], stride: Any, dilation: Any, groups: int,
                     cells: tuple[int, int]) -> Launchers | None:
    """The launchers that `winograd_scheme` chooses, None for the direct ones."""
    scheme = winograd_scheme(algorithm, weight_shape, stride, dilation, groups, cells)
    if scheme is None:
        return None
    launchers = (winograd_forward, winograd_input_gradient, winograd_weight_gradient)
    return Launchers(*(bound(launcher, scheme=scheme) for launcher in launchers))
