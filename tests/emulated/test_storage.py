"""Pooling, pointwise operations and response norm on arrays of 16 bits: float32's results, rounded once."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .launch import run
from .storage import FLOAT16, STORAGES, stored, wide

emulated = backends.get("emulated")

storages = pytest.mark.parametrize("storage", STORAGES, ids=["float16", "bfloat16"])
channels = pytest.mark.parametrize("channels", [3, 8])  # one by one, and eight at once


def normal(shape, storage, seed=0):
    return stored(np.random.default_rng(seed).standard_normal(shape), storage)


def converted(x, dtype):
    """In pieces that the sanitizers' program records too."""
    pieces = []
    for begin in range(0, x.size, 16_000):
        piece = x[begin:begin + 16_000].copy()
        pieces.append(emulated.empty(piece.shape, dtype))
        run("convert", pieces[-1], piece)
    return np.concatenate(pieces)


@storages
def test_every_number_converts(storage):
    """All 65,536 to float32 and back; float32 numbers to the nearest, ties to even."""
    bits = np.arange(65536).astype(np.uint16)
    x = bits.view(storage[2])
    y = converted(x, np.float32)
    np.testing.assert_array_equal(y, wide(x))
    back = converted(y, storage[2])
    number = ~np.isnan(y)
    np.testing.assert_array_equal(back.view(np.uint16)[number], bits[number])
    assert np.isnan(wide(back[~number])).all()

    finite = y[np.isfinite(y)]
    middle = (finite[:-1].astype(np.float64) + finite[1:]) / 2  # halfway between neighbours: ties
    some = np.random.default_rng(0).standard_normal(4000) * 10.0 ** np.random.default_rng(1).integers(-9, 9, 4000)
    odd = np.concatenate([middle, some, [65519.9, 65520, -65520, 1e30, np.inf, np.nan, 0, -0.0]]).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(wide(converted(odd, storage[2])), wide(stored(odd, storage)))


@storages
@channels
def test_pooling(channels, storage):
    x = normal((2, 7, 9, channels), storage)
    expected, expected_switches = ops.max_pool(wide(x), window=3, stride=2, padding=1)
    y, switches = emulated.empty(expected.shape, storage[2]), emulated.empty(expected.shape, np.uint8)
    shape = ((3, 3), (2, 2), (1, 1))
    run("max_pool", y, switches, x, None, *shape)
    np.testing.assert_array_equal(wide(y), expected)
    np.testing.assert_array_equal(switches, expected_switches)
    for overlap in ("sum", "last"):
        dx = emulated.empty(x.shape, storage[2])
        run("max_unpool", dx, y, switches, None, *shape, overlap == "last")
        expected = ops.max_unpool(wide(y), switches, x.shape, window=3, stride=2, padding=1, overlap=overlap)
        np.testing.assert_array_equal(wide(dx), wide(stored(expected, storage)))
    run("average_pool", y, x, None, None, *shape)
    expected = ops.average_pool(wide(x), window=3, stride=2, padding=1, divisor="valid")
    np.testing.assert_array_equal(wide(y), wide(stored(expected, storage)))
    run("average_pool_gradient", dx, y, None, None, *shape)
    expected = ops.average_pool_gradient(wide(y), x.shape, window=3, stride=2, padding=1, divisor="valid")
    np.testing.assert_array_equal(wide(dx), wide(stored(expected, storage)))


@storages
def test_whole_maps(storage):
    x = normal((2, 5, 6, 9), storage)
    values, positions = emulated.empty((2, 9), storage[2]), emulated.empty((2, 9), np.int32)
    run("map_maximum", values, positions, x)
    for got, expected in zip((wide(values), positions), ops.map_maximum(wide(x)), strict=True):
        np.testing.assert_array_equal(got, expected)
    dx = emulated.empty(x.shape, storage[2])
    run("global_max_pool_gradient", dx, values, positions)
    np.testing.assert_array_equal(wide(dx), ops.global_max_pool_gradient(wide(values), positions, x.shape))
    run("global_average_pool", values, x)
    np.testing.assert_array_equal(wide(values), wide(stored(ops.global_average_pool(wide(x)), storage)))
    run("global_average_pool_gradient", dx, values)
    expected = ops.global_average_pool_gradient(wide(values), x.shape)
    np.testing.assert_array_equal(wide(dx), wide(stored(expected, storage)))


@storages
@pytest.mark.parametrize("shape", [(2, 9, 17, 40), (130, 3), (0, 5)])
def test_channel_sums(shape, storage):
    """Sums are float32, and those of the numbers widened first."""
    x = normal(shape, storage)
    sums = ops.channel_sum(ops.Bfloat16(x) if x.dtype == np.uint16 else x, backend=emulated)
    assert sums.dtype == np.float32
    np.testing.assert_array_equal(sums, ops.channel_sum(wide(x), backend=emulated))
    np.testing.assert_allclose(sums, ops.channel_sum(wide(x)), rtol=3e-7)  # another order


@storages
@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (3, 101)])
def test_pointwise(shape, storage):
    a, b = normal(shape, storage), normal(shape, storage, 1)
    y = emulated.empty(shape, storage[2])
    run("relu", y, a)
    np.testing.assert_array_equal(wide(y), np.maximum(wide(a), 0))
    positive = y.copy()
    run("relu_gradient", y, b, positive)
    np.testing.assert_array_equal(wide(y), np.where(wide(positive) > 0, wide(b), 0))
    run("relu_guided", y, b, positive)
    np.testing.assert_array_equal(wide(y), np.where(wide(positive) > 0, np.maximum(wide(b), 0), 0))
    run("add", y, a, b)
    np.testing.assert_array_equal(wide(y), wide(stored(wide(a) + wide(b), storage)))
    run("dropout", y, a, round(0.3 * 2**32), 1 / 0.7, 5, 9, 0)
    np.testing.assert_array_equal(wide(y), wide(stored(ops.dropout(wide(a), 0.3, seed=5, step=9), storage)))


@storages
@pytest.mark.parametrize("widths", [(8, 16), (3, 5)])
def test_copies(widths, storage):
    """Bits are copied, whatever they mean."""
    source = np.random.default_rng(0).integers(0, 65536, (6, widths[0])).astype(np.uint16).view(storage[2])
    target = np.zeros((6, widths[1]), storage[2])
    run("copy_columns", target, source, 0, 0, widths[0])
    np.testing.assert_array_equal(target[:, :widths[0]].view(np.uint16), source.view(np.uint16))
    x = np.ones((1, 3, 4, widths[0]), storage[2])
    run("clear_outside", x, np.array([[1, 3, 0, 2]], np.int32))
    assert (x[0, 1:3, :2] == 1).all()
    assert np.count_nonzero(x) == 4 * widths[0]


@storages
@channels
def test_response_norm(channels, storage):
    x, dy = normal((2, 3, 3, channels), storage), normal((2, 3, 3, channels), storage, 1)
    setting = (3, 1e-2, 0.75, 2.0)
    y = emulated.empty(x.shape, storage[2])
    run("response_norm", y, x, *setting)
    options = dict(zip(("size", "alpha", "beta", "k"), setting, strict=True), alpha_is_divided_by_size=False)
    np.testing.assert_array_equal(wide(y), wide(stored(ops.response_norm(wide(x), **options), storage)))
    run("response_norm_gradient", y, dy, x, *setting)
    expected = ops.response_norm_gradient(wide(dy), wide(x), **options)
    np.testing.assert_array_equal(wide(y), wide(stored(expected, storage)))


def test_types_do_not_mix():
    with pytest.raises(ValueError, match="type does not fit"):
        run("relu", np.zeros(4, np.float32), np.ones(4, np.float16))
    with pytest.raises(ValueError, match="neither array is of float32"):
        run("convert", stored(np.ones(4), FLOAT16), np.ones(4, np.uint16))
