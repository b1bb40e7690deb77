"""Convolution on emulated tensor cores, and on storage of 16 bits: exact on integers, near float64 else."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .launch import run
from .storage import BFLOAT16, FLOAT16, STORAGES, stored, wide
from .test_convolution import CASES, integers

emulated = backends.get("emulated")

# Beyond the others' cases: more than one tile of cells, of filters and of channels, groups on vectors.
MORE = [
    ((2, 9, 10, 8), 68, (3, 3), 1, 1, 1, 1),
    ((1, 8, 8, 72), 8, (1, 3), 2, 1, 1, 1),
    ((1, 6, 6, 16), 136, (2, 2), 1, 0, 1, 2),
]
# For 16 bits: pairs of results that are no pairs of addresses, parts of eight terms, asymmetry, dilation.
FEW = [CASES[1], CASES[4], CASES[7], CASES[10], CASES[13], *MORE, ((2, 9, 8, 4), 12, (3, 3), 2, 1, 1, 1)]
PLAIN, TF32, TF32X3 = 0, 1, 4
EVERY = [(None, TF32, np.float32), (None, TF32X3, np.float32), *STORAGES]
every_storage = pytest.mark.parametrize("storage", EVERY, ids=["tf32", "tf32x3", "float16", "bfloat16"])


def settings(stride, padding, dilation, groups):
    """As the public functions hand them to a launcher."""
    pairs = [value if isinstance(value, tuple) else (value, value) for value in (stride, dilation)]
    pads = padding if isinstance(padding, tuple) else (padding, padding)
    return pairs[0], pads if len(pads) == 4 else (pads[0], pads[0], pads[1], pads[1]), pairs[1], groups


def weight_gradient(dy, x, shape, given, precision):
    dweight = emulated.empty(shape, np.float32)
    workspace = emulated.empty(emulated.extension.weight_gradient_workspace(dweight, dy, x, *given), np.float32)
    run("convolution_weight_gradient", dweight, workspace, dy, x, *given, precision)
    return dweight


@pytest.mark.parametrize("precision", [TF32, TF32X3], ids=["tf32", "tf32x3"])
@pytest.mark.parametrize(("shape", "filters", "window", "stride", "padding", "dilation", "groups"), CASES + MORE)
def test_exact_on_integers(shape, filters, window, stride, padding, dilation, groups, precision):
    """Small integers are tf32 numbers, and float32 sums of their products are exact."""
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    given = settings(stride, padding, dilation, groups)
    x = integers(shape, np.float32, 0)
    weight, bias = integers((filters, *window, shape[3] // groups), np.float32, 1), integers(filters, np.float32, 2)
    expected = ops.convolution(x, weight, bias, **options, activation="relu")
    y = emulated.empty(expected.shape, np.float32)
    run("convolution_forward", y, x, weight, bias, *given, True, precision)
    np.testing.assert_array_equal(y, expected)

    dy = integers(y.shape, np.float32, 3)
    dx = emulated.empty(shape, np.float32)
    run("convolution_input_gradient", dx, dy, weight, *given, precision)
    np.testing.assert_array_equal(dx, ops.convolution_input_gradient(dy, weight, shape, **options))
    np.testing.assert_array_equal(weight_gradient(dy, x, weight.shape, given, precision),
                                  ops.convolution_weight_gradient(dy, x, weight.shape, **options))


@pytest.mark.parametrize("tensor", [True, False], ids=["tensor", "plain"])
@pytest.mark.parametrize("storage", STORAGES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "filters", "window", "stride", "padding", "dilation", "groups"), FEW)
def test_sixteen_bits_exact_on_integers(shape, filters, window, stride, padding, dilation, groups, storage, tensor):
    """Sums of integers are exact in float32: results are theirs, rounded once, on tensor cores and without."""
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    given = settings(stride, padding, dilation, groups)
    precision = storage[1] if tensor else PLAIN
    x, weight = integers(shape, np.float32, 0), integers((filters, *window, shape[3] // groups), np.float32, 1)
    bias = integers(filters, np.float32, 2)
    expected = ops.convolution(x, weight, bias, **options, activation="relu")
    y = emulated.empty(expected.shape, storage[2])
    run("convolution_forward", y, stored(x, storage), stored(weight, storage), bias, *given, True, precision)
    np.testing.assert_array_equal(y, stored(expected, storage))

    dy = integers(y.shape, np.float32, 3)
    dx = emulated.empty(shape, storage[2])
    run("convolution_input_gradient", dx, stored(dy, storage), stored(weight, storage), *given, precision)
    expected = ops.convolution_input_gradient(dy, weight, shape, **options)
    np.testing.assert_array_equal(dx, stored(expected, storage))
    # The weights' gradient stays in float32.
    np.testing.assert_array_equal(
        weight_gradient(stored(dy, storage), stored(x, storage), weight.shape, given, precision),
        ops.convolution_weight_gradient(dy, x, weight.shape, **options))


def gamma(terms, unit):
    return terms * unit / (1 - terms * unit)


def normals():
    generator = np.random.default_rng(0)
    return (generator.standard_normal((1, 6, 7, 12)).astype(np.float32),
            generator.standard_normal((9, 3, 3, 12)).astype(np.float32))


def test_rounding_bound():
    """|y - y64| <= (2 * 2^-11 + 2^-22 + gamma(K + 2)) * (|x| conv |w|): both factors rounded, sums in float32."""
    x, weight = normals()
    exact = ops.convolution(x.astype(np.float64), weight.astype(np.float64), padding=1)
    size = ops.convolution(abs(x).astype(np.float64), abs(weight).astype(np.float64), padding=1)
    y = emulated.empty(exact.shape, np.float32)
    run("convolution_forward", y, x, weight, None, *settings(1, 1, 1, 1), False, TF32)
    bound = (2 * 2.0**-11 + 2.0**-22 + gamma(weight[0].size + 2, 2.0**-23)) * size
    assert (abs(y - exact) <= bound).all()
    assert (abs(y - exact) > 2.0**-20 * size).any()  # it is tf32 indeed


@pytest.mark.parametrize("storage", STORAGES, ids=["float16", "bfloat16"])
def test_rounding_bound_of_sixteen_bits(storage):
    """|y - y64| <= e + u (|y64| + e) + step / 2, e = gamma(K + 2) * (|x| conv |w|): products are exact, sums in
    float32, the result rounded once (by half a step of the smallest numbers, at least)."""
    name, precision, dtype, unit, step = storage
    x, weight = (stored(array, storage) for array in normals())
    wide_x, wide_weight = wide(x).astype(np.float64), wide(weight).astype(np.float64)
    exact = ops.convolution(wide_x, wide_weight, padding=1)
    error = gamma(weight[0].size + 2, 2.0**-23) * ops.convolution(abs(wide_x), abs(wide_weight), padding=1)
    y = emulated.empty(exact.shape, dtype)
    run("convolution_forward", y, x, weight, None, *settings(1, 1, 1, 1), False, precision)
    bound = error + unit * (abs(exact) + error) + step / 2
    assert (abs(wide(y) - exact) <= bound).all()
    assert (abs(wide(y) - exact) > bound / 4).any()

    dy = stored(np.random.default_rng(1).standard_normal(y.shape), storage)
    wide_dy = wide(dy).astype(np.float64)
    exact = ops.convolution_weight_gradient(wide_dy, wide_x, weight.shape, padding=1)
    size = ops.convolution_weight_gradient(abs(wide_dy), abs(wide_x), weight.shape, padding=1)
    got = weight_gradient(dy, x, weight.shape, settings(1, 1, 1, 1), precision)
    assert (abs(got - exact) <= gamma(6 * 7 + 2, 2.0**-23) * size).all()


def test_a_precision_of_other_arrays_is_refused():
    x = np.ones((1, 2, 2, 4))
    for dtype, number in ((np.float64, TF32), (np.float16, TF32), (np.float16, TF32X3), (np.float64, TF32X3),
                          (np.float32, FLOAT16[1]), (np.float16, BFLOAT16[1])):
        given = x.astype(dtype)
        weight = np.ones((4, 1, 1, 4), dtype)
        with pytest.raises(ValueError, match="tf32 and tf32x3 are precisions of float32 arrays"):
            run("convolution_forward", given.copy(), given, weight, None, *settings(1, 0, 1, 1), False, number)


@every_storage
def test_a_first_layer(storage):
    """Three channels, padded to four so that all copies are of four: the results of three."""
    x, weight = integers((2, 12, 11, 3), np.float32, 0), integers((10, 5, 5, 3), np.float32, 1)
    expected = ops.convolution(x, weight, stride=2, padding=1)
    padded = []
    for array in (x, weight):
        given = stored(array, storage) if storage[0] else array
        padded.append(emulated.empty((*array.shape[:3], 4), storage[2]))
        run("pad_channels", padded[-1].reshape(-1, 4), given.reshape(-1, 3))
        assert not padded[-1][..., 3].any()
        np.testing.assert_array_equal(padded[-1][..., :3], given)
    y = emulated.empty(expected.shape, storage[2])
    run("convolution_forward", y, *padded, None, *settings(2, 1, 1, 1), False, storage[1])
    np.testing.assert_array_equal(y, stored(expected, storage) if storage[0] else expected)


@every_storage
def test_what_lies_beyond_a_window_stays_out(storage):
    """A step has more terms than this window: a NaN that the rest of it would reach is not even multiplied by 0."""
    x, dy = integers((1, 9, 9, 4), np.float32, 0), integers((1, 9, 9, 8), np.float32, 1)
    x[0, 5, 4] = dy[0, 5, 4] = np.nan
    weight = integers((8, 1, 1, 4), np.float32, 2)
    expected = (ops.convolution(x, weight, algorithm="direct"),
                ops.convolution_input_gradient(dy, weight, x.shape, algorithm="direct"))
    assert all(np.isnan(array).any(-1).sum() == 1 for array in expected)
    x, dy, weight = (stored(array, storage) if storage[0] else array for array in (x, dy, weight))
    for precision in (storage[1], PLAIN):
        y, dx = emulated.empty(dy.shape, storage[2]), emulated.empty(x.shape, storage[2])
        run("convolution_forward", y, x, weight, None, *settings(1, 0, 1, 1), False, precision)
        run("convolution_input_gradient", dx, dy, weight, *settings(1, 0, 1, 1), precision)
        for got, wanted in zip((y, dx), expected, strict=True):
            np.testing.assert_array_equal(got, stored(wanted, storage) if storage[0] else wanted)
