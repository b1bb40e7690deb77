"""The cases of the emulated kernels once more, on the device: the bits of Numba's kernels."""

from __future__ import annotations

import inspect
import os
from types import ModuleType

import numpy as np
import pytest
from emulated import test_convolution, test_normalization, test_pointwise, test_pooling

from zfcore import backends, ops
from zfcore.geometry import Tile

pytestmark = pytest.mark.gpu


def taken_from(module: ModuleType) -> dict[str, object]:
    """The module's tests that compare through `agree`, under names of this module."""
    prefix = module.__name__.rpartition("test_")[2]
    return {f"test_{prefix}_{name.removeprefix('test_')}": function for name, function in vars(module).items()
            if name.startswith("test_") and "agree" in inspect.signature(function).parameters}


for _module in (test_convolution, test_normalization, test_pointwise, test_pooling):
    globals().update(taken_from(_module))


def test_there_are_cases() -> None:
    assert sum(name.startswith("test_") for name in globals()) > 15


@pytest.mark.parametrize("channels", [3, 8])
def test_clear_outside(cuda, channels):
    tile = Tile(np.array([[-1, -2], [3, 4], [-9, 0]], np.int32), (6, 7))
    x = np.ones((3, 5, 5, channels), np.float32)
    there = ops.clear_outside(cuda.asarray(x), tile)
    np.testing.assert_array_equal(cuda.to_numpy(there), ops.clear_outside(x, tile))


@pytest.mark.parametrize("channels", [5, 16])
def test_bad_switches(cuda, channels):
    x = cuda.asarray(np.ones((2, 7, 7, channels), np.float32))
    y, switches = ops.max_pool(x, window=3, stride=2)
    switches[1, 2, 2, channels - 1] = 200
    with pytest.raises(IndexError):
        ops.max_unpool(y, switches, (2, 7, 7, channels), window=3, stride=2)


@pytest.mark.parametrize("precision", ["float32", "tf32", "tf32x3", "float16", "bfloat16"])
def test_a_row_of_a_linear_layer_is_its_own(cuda, precision):
    """Few rows have their pieces of terms in many blocks, many (too many for the stand-in) in one: the same bits."""
    generator = np.random.default_rng(0)
    most = 131 if os.environ.get("ZFCORE_STAND_IN") else 16500
    x, weight = (generator.standard_normal((rows, 584)).astype(np.float32) for rows in (most, 24))
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    given, other = cuda.asarray(x), cuda.asarray(np.ascontiguousarray(weight.T))
    y = cuda.to_numpy(ops.linear(given, cuda.asarray(weight), precision=precision))
    assert abs(y - exact).max() < {"float32": 1e-4, "tf32x3": 1e-4, "bfloat16": 0.8}.get(precision, 0.1)
    dx = cuda.to_numpy(ops.linear_input_gradient(given, other, precision=precision))
    for begin, end in ((0, 1), (130, 131), (64, 99)):
        part = cuda.asarray(x[begin:end])
        up = ops.linear(part, cuda.asarray(weight), precision=precision)
        np.testing.assert_array_equal(cuda.to_numpy(up), y[begin:end])
        down = ops.linear_input_gradient(part, other, precision=precision)
        np.testing.assert_array_equal(cuda.to_numpy(down), dx[begin:end])


# An image of three channels, whose window no product divides; one of eight, dilated; maps of vectors, and of none.
CHAINS = [((2, 37, 35, 3), (96, 7, 7), {"stride": 2, "padding": 1}, 3),
          ((2, 18, 17, 8), (80, 3, 3), {"dilation": 2}, 2),
          ((2, 13, 12, 32), (72, 3, 3), {"padding": 1}, 3),
          ((1, 11, 9, 66), (9, 3, 2), {"stride": (2, 1)}, 2)]


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "filters", "sizes", "window"), CHAINS)
def test_chains_have_the_bits_of_their_operations(cuda, shape, filters, sizes, window, precision):
    """Up and down; windows that share cells are read one after another, or the last one's value stays."""
    generator = np.random.default_rng(1)

    def normal(*size):
        array = cuda.asarray(generator.standard_normal(size).astype(np.float32))
        if precision == "bfloat16":
            return ops.Bfloat16.rounded(array, cuda)
        if precision != "float16":
            return array
        short = cuda.empty(size, np.float16)
        cuda.convert(short, array)
        return short

    def numbers(array):
        return cuda.to_numpy(array.bits if isinstance(array, ops.Bfloat16) else array)

    x, weight, bias = normal(*shape), normal(*filters, shape[3]), normal(filters[0])
    run, pool = {**sizes, "precision": precision}, {"window": window, "stride": 2}
    chain = {**run, "window": window, "window_stride": 2}
    for activation in ("relu", None):
        maps = ops.convolution(x, weight, bias, activation=activation, **run)
        expected, places = ops.max_pool(maps, **pool)
        y, switches = ops.convolution_pool(x, weight, bias, activation=activation, **chain)
        np.testing.assert_array_equal(numbers(y), numbers(expected))
        np.testing.assert_array_equal(cuda.to_numpy(switches), cuda.to_numpy(places))
    signal = normal(*y.shape)
    for overlap in ("sum", "last"):
        unpooled = ops.relu(ops.max_unpool(signal, switches, maps.shape, overlap=overlap, **pool))
        expected = ops.convolution_input_gradient(unpooled, weight, shape, **run)
        dx = ops.unpool_filter(signal, switches, weight, shape, maps.shape[1:3], overlap=overlap, rectify=True, **chain)
        np.testing.assert_array_equal(numbers(dx), numbers(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3, 3, 4), (1, 1), (7, 300), (300, 5)])
def test_updates(cuda, shape, dtype):
    """In place: SGD of both forms, Adam, filters renormalised."""
    generator = np.random.default_rng(0)
    given = [generator.standard_normal(shape).astype(dtype) for _ in range(4)]
    given[2] = np.abs(given[2])
    for change, tolerance in [
        (lambda a: ops.sgd_step(a[0], a[1], a[3], learning_rate=0.1, momentum=0.9, decay=1e-3), 0),
        (lambda a: ops.sgd_step(a[0], a[1], a[3], learning_rate=0.1, momentum=0.9, decay=1e-3,
                                rate_in_velocity=False), 0),
        (lambda a: ops.adam_step(a[0], a[1], a[2], a[3], step=3, learning_rate=0.1), 4),
        (lambda a: ops.renormalize_filters(a[0], 1.0), 2),
    ]:
        here = [array.copy() for array in given]
        there = [cuda.asarray(array) for array in given]
        change(here)
        change(there)
        for one, other in zip(there, here, strict=True):
            np.testing.assert_allclose(cuda.to_numpy(one), other, rtol=tolerance * np.finfo(dtype).eps)


def test_the_installed_kernels_say_what_they_are(cuda):
    assert backends.why_not("cuda") is None
    assert cuda.device_name()
