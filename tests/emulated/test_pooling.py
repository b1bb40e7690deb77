"""Pooling on the emulated CUDA kernels: the same bits as Numba's."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from zfcore import backends, ops
from zfcore.geometry import Tile

# shape, window, stride, padding, ceil_mode: scalar and vector channels, ties, every kind of border.
CASES = [
    ((2, 7, 9, 8), 3, 2, 0, True),
    ((1, 7, 9, 3), 3, 2, 1, False),
    ((2, 6, 5, 4), 2, 2, 0, False),
    ((1, 8, 8, 16), (3, 2), (1, 2), (1, 1), True),
    ((1, 5, 6, 12), (2, 3), 3, (0, 1, 1, 0), True),
    ((1, 1, 1, 5), 1, 1, 0, False),
    ((3, 4, 4, 1), 4, 4, 0, False),
    ((1, 9, 3, 20), (5, 3), (2, 1), (2, 1), False),
    ((0, 6, 6, 4), 3, 2, 0, False),
    ((1, 17, 16, 2), 16, 1, 0, False),
    ((2, 3, 70, 36), 3, 2, 1, True),
]
DTYPES = (np.float32, np.float64)


def values(shape, dtype, seed=0):
    """Small integers, so that ties are common, with some NaN and infinities."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, shape).astype(dtype)
    where = rng.random(shape)
    x[where < 0.03] = np.nan
    x[(where > 0.03) & (where < 0.1)] = -np.inf
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "window", "stride", "padding", "ceil_mode"), CASES)
def test_max_pool_and_unpool(agree, shape, window, stride, padding, ceil_mode, dtype):
    options = {"window": window, "stride": stride, "padding": padding}
    y, switches = agree(ops.max_pool, values(shape, dtype), **options, ceil_mode=ceil_mode)
    signal = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    for overlap in ("sum", "last"):
        agree(ops.max_unpool, signal, switches, shape, **options, overlap=overlap)
    flat = agree(ops.switches_to_flat, switches, shape, **options)
    np.testing.assert_array_equal(agree(ops.switches_from_flat, flat, shape, **options), switches)
    agree(ops.pool_at, signal if shape == signal.shape else values(shape, dtype, 6), switches, **options)


def test_flat_indices_outside_their_windows():
    """Each border of a window, by one; the others are converted all the same, the bad ones to 0."""
    emulated = backends.get("emulated")
    windows = ((2, 3), (2, 3), (1, 1))  # of a map 3 x 6: window (1, 1) has rows 1 and 2, columns 2, 3 and 4
    for row, column, right in ((1, 2, True), (2, 4, True), (0, 3, False), (3, 3, False), (1, 1, False), (2, 5, False)):
        flat = np.tile(np.array([[0, 2], [7, 9]])[None, ..., None], (1, 1, 1, 2))
        flat[0, 1, 1, 0] = row * 6 + column
        switches = emulated.empty(flat.shape, np.uint8)
        assert emulated.switches_from_flat(switches, flat, 6, *windows) == right
        expected = [4, 3, 2, (row - 1) * 3 + column - 2 if right else 0]
        np.testing.assert_array_equal(switches[0, ..., 0].ravel(), expected)
        with pytest.raises(IndexError, match="flat is") if not right else contextlib.nullcontext():
            ops.switches_from_flat(flat, (1, 3, 6, 2), window=(2, 3), stride=(2, 3), padding=1, backend=emulated)
    for wrong in (-1, -2**40, 2**40):
        flat[0, 0, 0, 1] = wrong
        assert not emulated.switches_from_flat(switches, flat, 6, *windows)
        assert switches[0, 0, 0, 1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divisor", ["valid", "padded", "window"])
@pytest.mark.parametrize(("shape", "window", "stride", "padding", "ceil_mode"), CASES)
def test_average_pool(agree, shape, window, stride, padding, ceil_mode, divisor, dtype):
    options = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode, "divisor": divisor}
    x = np.random.default_rng(2).standard_normal(shape).astype(dtype)
    y = agree(ops.average_pool, x, **options)
    agree(ops.average_pool_gradient, y, shape, **options)


@pytest.mark.parametrize("channels", [3, 8])
def test_crops(agree, channels):
    """Crops that hang over every border of their map, one of them wholly outside."""
    origins = np.array([[-2, -3], [0, 0], [5, 6], [-20, 0], [3, -1]], np.int32)
    tile = Tile(origins, (11, 12))
    x = values((5, 9, 9, channels), np.float32)
    x[np.isnan(x)] = 0
    y, switches = agree(ops.max_pool, x, window=3, stride=2, tile=tile)
    for overlap in ("sum", "last"):
        agree(ops.max_unpool, y, switches, x.shape, window=3, stride=2, overlap=overlap, tile=tile)
    for divisor in ("valid", "padded", "window"):
        x[np.isinf(x)] = 1
        agree(ops.average_pool, x, window=3, stride=2, divisor=divisor, tile=tile)
        agree(ops.average_pool_gradient, np.ones_like(y), x.shape, window=3, stride=2, divisor=divisor, tile=tile)


@pytest.mark.parametrize("shape", [(2, 5, 7, 33), (1, 1, 1, 1), (3, 13, 13, 8), (0, 3, 3, 4), (1, 2, 3, 64)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_maps(agree, shape, dtype):
    x = values(shape, dtype, 3)
    y, positions = agree(ops.map_maximum, x)
    agree(ops.global_max_pool_gradient, y, positions, shape)
    x = np.random.default_rng(4).standard_normal(shape).astype(dtype)
    agree(ops.global_average_pool, x)
    agree(ops.global_average_pool_gradient, y, shape)


def test_unaligned_arrays(agree):
    """Channels divide, addresses do not: the scalar kernel takes over."""
    memory = np.arange(2 * 6 * 6 * 4 + 1, dtype=np.float32)
    agree(ops.max_pool, memory[1:].reshape(2, 6, 6, 4), window=3, stride=2)


@pytest.mark.parametrize("bad", [9, 255])
@pytest.mark.parametrize("channels", [5, 16])
def test_bad_switches(bad, channels):
    """A switch outside its window, in each of the two kernels."""
    emulated = backends.get("emulated")
    y, switches = ops.max_pool(np.ones((2, 7, 7, channels), np.float32), window=3, stride=2, backend=emulated)
    switches[1, 2, 2, channels - 1] = bad
    with pytest.raises(IndexError):
        ops.max_unpool(y, switches, (2, 7, 7, channels), window=3, stride=2, backend=emulated)


def test_switch_outside_the_map():
    emulated = backends.get("emulated")
    y, switches = ops.max_pool(np.ones((1, 6, 6, 16), np.float32), window=3, stride=2, padding=1, backend=emulated)
    switches[0, 0, 0, 3] = 0  # in the padding
    with pytest.raises(IndexError):
        ops.max_unpool(y, switches, (1, 6, 6, 16), window=3, stride=2, padding=1, backend=emulated)


def test_grids_beyond_limits(agree):
    """More rows than a grid's y axis has blocks, and more images than z."""
    x = np.random.default_rng(5).integers(-9, 9, (1, 131080, 1, 1)).astype(np.float32)
    agree(ops.max_pool, x, window=(2, 1), stride=(2, 1))
    agree(ops.average_pool, x.reshape(65540, 2, 1, 1), window=(2, 1))
