"""Fused chains on the emulated CUDA kernels: the bits of their single operations, on random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends
from zfcore.geometry import output_size

from .launch import run
from .storage import STORAGES, stored, wide
from .test_tensor_cores import settings

emulated = backends.get("emulated")

# x, filters, window, stride, padding, dilation, groups of the convolution; window, stride, before of the pooling
CASES = [
    ((2, 13, 12, 3), 66, (3, 3), 1, 1, 1, 1, (3, 3), (2, 2), (0, 0)),
    ((1, 15, 11, 4), 6, (5, 3), 2, (2, 1, 0, 2), 1, 2, (2, 3), (2, 2), (1, 1)),
    ((1, 10, 9, 6), 6, (3, 2), 1, 1, (2, 3), 3, (2, 2), (3, 1), (0, 1)),
    ((1, 9, 9, 2), 3, (1, 1), 1, 0, 1, 1, (8, 8), (1, 1), (3, 3)),
    ((0, 6, 6, 2), 3, (3, 3), 1, 1, 1, 1, (2, 2), (2, 2), (0, 0)),
]
# For tensor cores: vectors of filters and of channels, more than one tile of each and of cells, parts of a step that
# are half of 16 bytes, groups of whole parts, a window larger than its stride and one smaller.
VECTORS = [
    ((2, 12, 13, 8), 72, (3, 3), 1, 1, 1, 1, (3, 3), (2, 2), (0, 0)),
    ((1, 11, 9, 68), 8, (2, 3), (1, 2), 0, (2, 1), 1, (2, 2), (2, 2), (0, 0)),
    ((2, 9, 10, 32), 32, (3, 3), 1, (1, 1, 0, 2), 1, 2, (3, 2), (2, 3), (1, 0)),
    ((1, 7, 8, 12), 12, (3, 2), 2, 1, 1, 1, (2, 2), (1, 1), (1, 1)),
    ((1, 6, 7, 18), 22, (2, 2), 1, 0, 1, 2, (2, 2), (2, 2), (0, 0)),
]
# Few channels, filters in whole products: images. Several patches a block, tiles that end before the image does, phases
# without a tap, dilation, tiles of 96 filters, as many filters as leave one line of cells to a warp.
IMAGES = [
    ((2, 37, 35, 3), 32, (5, 4), 2, (2, 1, 0, 2), 1, 1, (3, 3), (2, 2), (0, 0)),
    ((1, 13, 20, 1), 16, (2, 3), 3, 0, (1, 2), 1, (2, 2), (2, 2), (0, 0)),
    ((1, 18, 10, 8), 80, (3, 3), 1, 1, 2, 1, (3, 2), (1, 1), (1, 0)),
    ((1, 9, 17, 2), 176, (3, 3), (1, 2), 1, 1, 1, (2, 2), (2, 2), (0, 0)),
]
# The arrays' kind, and the number of the precision.
ARRAYS = {"float32": (np.float32, 0), "float64": (np.float64, 0), "float16": (STORAGES[0], 0),
          "bfloat16": (STORAGES[1], 0)}
TENSOR = {"tf32": (np.float32, 1), "tf32x3": (np.float32, 4), "float16 products": (STORAGES[0], 2),
          "bfloat16 products": (STORAGES[1], 3)}
GIVEN = [pytest.param(case, *given, id=f"{number}-{name}")
         for arrays, cases in (({**ARRAYS, **TENSOR}, CASES), (TENSOR, VECTORS + IMAGES))
         for name, given in arrays.items() for number, case in enumerate(cases, 0 if cases is CASES else len(CASES))]


def normal(shape, kind, seed):
    values = np.random.default_rng(seed).standard_normal(shape)
    return stored(values, kind) if isinstance(kind, tuple) else values.astype(kind)


def spoil(array):
    """One NaN, no more: most results shall be numbers."""
    array.reshape(-1)[7:8] = np.nan if array.dtype != np.uint16 else 0x7FC0


def chain(case, kind):
    """Inputs and sizes of a case."""
    shape, filters, window, stride, padding, dilation, groups, pool, pool_stride, before = case
    given = settings(stride, padding, dilation, groups)
    steps, pads, gaps, _ = given
    between = [output_size(shape[1 + axis], window[axis], steps[axis], *pads[2 * axis:2 * axis + 2], gaps[axis])
               for axis in (0, 1)]
    pooled = [(between[axis] + before[axis] - pool[axis]) // pool_stride[axis] + 2 for axis in (0, 1)]
    x, weight = normal(shape, kind, 0), normal((filters, *window, shape[3] // groups), kind, 1)
    bias = normal(filters, kind if kind == np.float64 else np.float32, 2)
    return (x, weight, bias, given, (shape[0], *between, filters), (shape[0], *pooled, filters),
            (pool, pool_stride, before))


@pytest.mark.parametrize(("case", "kind", "precision"), GIVEN)
def test_convolution_and_pooling(case, kind, precision):
    """The last window of each axis lies wholly in the padding where the first does not: it gives 0."""
    x, weight, bias, given, between, pooled, windows = chain(case, kind)
    spoil(x)
    expected, expected_switches = emulated.empty(pooled, x.dtype), emulated.empty(pooled, np.uint8)
    for rectified in (True, False):
        maps = emulated.empty(between, x.dtype)
        run("convolution_forward", maps, x, weight, bias, *given, rectified, precision)
        run("max_pool", expected, expected_switches, maps, None, *windows)
        y, switches = emulated.empty(pooled, x.dtype), emulated.empty(pooled, np.uint8)
        run("convolution_pool", y, switches, x, weight, bias, None, between[1:3], *given, rectified, *windows,
            precision)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(switches, expected_switches)
        assert not y.size or np.isnan(wide(y) if y.dtype == np.uint16 else y).mean() < 0.7


@pytest.mark.parametrize(("case", "kind", "precision"), GIVEN)
def test_unpooling_and_filtering(case, kind, precision):
    x, weight, _, given, between, pooled, windows = chain(case, kind)
    switches = np.random.default_rng(4).integers(0, windows[0][0] * windows[0][1], pooled).astype(np.uint8)
    y = normal(pooled, kind, 3)
    spoil(y)
    for last_wins, rectified in ((False, True), (True, True), (False, False)):
        maps, expected, dx = (emulated.empty(shape, x.dtype) for shape in (between, x.shape, x.shape))
        run("max_unpool", maps, y, switches, None, *windows, last_wins)
        if rectified:
            run("relu", maps, maps)
        run("convolution_input_gradient", expected, maps, weight, *given, precision)
        run("unpool_filter", dx, y, switches, weight, None, *windows, last_wins, rectified, between[1:3], *given,
            precision)
        np.testing.assert_array_equal(dx, expected)
        assert not dx.size or np.isnan(wide(dx) if dx.dtype == np.uint16 else dx).mean() < 0.7


@pytest.mark.parametrize(("case", "kind", "precision"),
                         [(CASES[0], np.float32, 0), *((case, *given) for case in (CASES[0], VECTORS[0], IMAGES[0])
                                                       for given in TENSOR.values())])
def test_crops(case, kind, precision):
    """Cells outside an image's bounds win no window, and receive nothing."""
    x, weight, bias, given, between, pooled, windows = chain(case, kind)
    bounds = np.array([[2, 9, 0, 12], [0, min(between[1:3]), 3, 4]], np.int32)
    maps, y, expected = (emulated.empty(shape, x.dtype) for shape in (between, pooled, pooled))
    switches, expected_switches = emulated.empty(pooled, np.uint8), emulated.empty(pooled, np.uint8)
    run("convolution_forward", maps, x, weight, bias, *given, True, precision)
    run("max_pool", expected, expected_switches, maps, bounds, *windows)
    run("convolution_pool", y, switches, x, weight, bias, bounds, between[1:3], *given, True, *windows,
        precision)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(switches, expected_switches)

    dx, expected = emulated.empty(x.shape, x.dtype), emulated.empty(x.shape, x.dtype)
    switches = np.random.default_rng(4).integers(0, 9, pooled).astype(np.uint8)  # many point outside
    run("max_unpool", maps, y, switches, bounds, *windows, False)
    run("relu", maps, maps)
    run("convolution_input_gradient", expected, maps, weight, *given, precision)
    run("unpool_filter", dx, y, switches, weight, bounds, *windows, False, True, between[1:3], *given, precision)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("case", [VECTORS[0], IMAGES[0]])
@pytest.mark.parametrize(("kind", "precision"), TENSOR.values(), ids=list(TENSOR))
def test_an_image_does_not_depend_on_its_batch(case, kind, precision):
    x, weight, bias, given, between, pooled, windows = chain(case, kind)
    y, switches, dx = (emulated.empty(*shape) for shape in ((pooled, x.dtype), (pooled, np.uint8), (x.shape, x.dtype)))

    def both(part):
        run("convolution_pool", y[part], switches[part], x[part], weight, bias, None, between[1:3], *given, True,
            *windows, precision)
        run("unpool_filter", dx[part], y[part], switches[part], weight, None, *windows, False, True, between[1:3],
            *given, precision)
        return [array[1].copy() for array in (y, switches, dx)]

    for one, other in zip(both(slice(None)), both(slice(1, 2)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_windows_that_do_not_fit_are_refused():
    x, weight, bias, given, between, _, _ = chain(CASES[3], np.float32)
    y, switches = emulated.empty((1, 1, 1, 3), np.float32), emulated.empty((1, 1, 1, 3), np.uint8)
    with pytest.raises(ValueError, match="windows of at most 64 cells"):
        run("convolution_pool", y, switches, x, weight, bias, None, between[1:3], *given, True, (9, 9), (1, 1),
            (0, 0), 1)
    with pytest.raises(ValueError, match="does not fit the convolution"):
        run("convolution_pool", y[..., :2].copy(), switches[..., :2].copy(), x, weight, bias, None, between[1:3],
            *given, True, (2, 2), (1, 1), (0, 0), 0)
    with pytest.raises(ValueError, match="tf32 and tf32x3 are precisions of float32 arrays"):
        run("convolution_pool", y, switches, x, weight, bias, None, between[1:3], *given, True, (2, 2), (1, 1), (0, 0),
            2)
