"""Three products of split factors: nearly float32's errors, float32's infinities and NaNs, bits of their own terms."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops

from .test_tensor_cores import gamma

emulated, numba = backends.get("emulated"), backends.get("numba")
LARGEST = np.finfo(np.float32).max
WHICH = ("forward", "input gradient", "weight gradient", "linear", "linear's input gradient",
         "linear's weight gradient")
every = pytest.mark.parametrize("which", WHICH)


def arguments(which, seed=0):
    """Two arrays of normal numbers, more than a tile of rows and of terms, and how many terms and pieces a sum has."""
    shapes, count = {
        "forward": (((2, 9, 10, 20), (12, 3, 3, 20)), (180, 1)),
        "input gradient": (((2, 9, 10, 12), (12, 3, 3, 20)), (108, 1)),
        "weight gradient": (((2, 9, 10, 12), (2, 9, 10, 20)), (180, 2)),
        "linear": (((130, 700), (9, 700)), (700, 3)),
        "linear's input gradient": (((130, 700), (700, 9)), (700, 3)),
        "linear's weight gradient": (((700, 12), (700, 20)), (700, 3)),
    }[which]
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes], count


def run(which, first, second, precision="float32", backend=emulated):
    """One of the six kinds of sums of products, of two arrays."""
    to = {"precision": precision, "backend": backend}
    if which == "forward":
        return ops.convolution(first, second, padding=1, **to)
    if which == "input gradient":
        return ops.convolution_input_gradient(first, second, (2, 9, 10, 20), padding=1, **to)
    if which == "weight gradient":
        return ops.convolution_weight_gradient(first, second, (12, 3, 3, 20), padding=1, **to)
    return {"linear": ops.linear, "linear's input gradient": ops.linear_input_gradient,
            "linear's weight gradient": ops.linear_weight_gradient}[which](first, second, **to)


def exact(which, first, second):
    """Sums in float64, and those of the products' sizes."""
    wide = first.astype(np.float64), second.astype(np.float64)
    return run(which, *wide, backend=numba), run(which, *map(np.abs, wide), backend=numba)


def bound(terms, pieces):
    """Of errors, in units of the sum of the products' sizes, as csrc/README.md derives it."""
    return (1 + 2.0**-8) * (2.0**-21 + gamma(24 + (-(-terms // 8) + pieces + 1) / 2, 2.0**-23))


@every
def test_rounding_bound(which):
    """A hundredth of tf32's errors at most, about float32's."""
    given, count = arguments(which)
    wanted, size = exact(which, *given)
    error = {name: abs(run(which, *given, name) - wanted) / size for name in ("float32", "tf32", "tf32x3")}
    assert (error["tf32x3"] <= bound(*count)).all()
    assert error["tf32x3"].max() < 0.01 * error["tf32"].max()
    assert error["tf32x3"].max() < 2 * error["float32"].max() + 2.0**-23
    assert error["tf32x3"].max() > 2.0**-26


def test_both_small_parts_count():
    """One term, one factor a tf32 number, the other of 24 bits: what its small part loses is its last bit at most."""
    whole, short = np.array([[1 + 2.0**-12 + 2.0**-23]], np.float32), np.array([[1.5]], np.float32)
    for x, weight in ((whole, short), (short, whole)):
        y = ops.linear(x, weight, precision="tf32x3", backend=emulated)
        assert abs(y - np.float64(x) * weight).item() <= 1.5 * (2.0**-23 + 2.0**-24)
        assert abs(ops.linear(x, weight, precision="tf32", backend=emulated) - np.float64(x) * weight).item() > 2.0**-13


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-104, 2.0**-122, 2.0**-140])
@every
def test_very_small_numbers(which, scale):
    """What a small part loses below the smallest tf32 number, and products below the smallest float32, come on top."""
    (first, second), (terms, pieces) = arguments(which)
    first = (first.astype(np.float64) * scale).astype(np.float32)
    wanted, size = exact(which, first, second)
    lost = 2.0**-136 * run(which, np.ones_like(first), abs(second)) + 2.0**-149 * (3 * terms + pieces + 1)
    assert (abs(run(which, first, second, "tf32x3") - wanted) <= bound(terms, pieces) * size + lost).all()


def same_class(one, other):
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(one), kind(other))


@every
def test_infinities_and_nans(which):
    """An infinite factor times positive, negative and zero ones, another infinite one, a NaN: as in float32."""
    (first, second), (terms, pieces) = arguments(which)
    for array, values in ((first, (np.inf, -np.inf, np.nan)), (second, (np.inf, -np.inf))):
        flat = array.reshape(-1)
        for i, value in enumerate(values):
            flat[flat.size // 5 * i + 3] = value
        flat[flat.size // 2:][:20] = 0  # and where both meet: inf times 0
    with np.errstate(invalid="ignore"):
        expected = run(which, first, second)
        got = run(which, first, second, "tf32x3")
        assert min(np.isfinite(expected).sum(), np.isinf(expected).sum(), np.isnan(expected).sum()) > 0
        same_class(got, expected)
        inside = np.isfinite(expected)
        wanted, size = exact(which, np.nan_to_num(first, posinf=0, neginf=0), np.nan_to_num(second, posinf=0, neginf=0))
    assert (abs(got - wanted)[inside] <= bound(terms, pieces) * size[inside]).all()


@every
def test_factors_too_large_for_tf32(which):
    """The nearest tf32 number of these is infinite: their sums are plain arithmetic's."""
    (first, second), (terms, pieces) = arguments(which)
    second *= np.float32(2.0**-30)
    for sign, where in ((1, 3), (-1, first.size // 2)):
        first.reshape(-1)[where] = sign * LARGEST
    expected, got = run(which, first, second), run(which, first, second, "tf32x3")
    assert np.isfinite(expected).all()
    wanted, size = exact(which, first, second)
    assert (abs(got - wanted) <= np.maximum(bound(terms, pieces), gamma(terms + pieces, 2.0**-24)) * size).all()
    if which in ("forward", "input gradient"):  # one sum of the same order
        touched = abs(expected) > 2.0**60
        assert touched.any()
        np.testing.assert_array_equal(got[touched], expected[touched])


@pytest.mark.parametrize("value", [np.inf, LARGEST])
def test_other_geometries(value):
    """Groups, a stride of two, a dilation: sums made again take the terms, and so the bits, of plain ones."""
    generator = np.random.default_rng(0)
    options = {"stride": 2, "padding": 1, "dilation": (1, 3), "groups": 2, "backend": emulated}
    x, weight, dy = (generator.standard_normal(shape).astype(np.float32)
                     for shape in ((2, 9, 12, 18), (24, 3, 3, 9), (2, 5, 4, 24)))
    x[0, 3, 4, 2] = x[1, 4, 6, 13] = dy[0, 2, 1, 4] = dy[1, 3, 2, 20] = value
    weight *= np.float32(2.0**-10)
    with np.errstate(invalid="ignore"):
        for run_it in (lambda to: ops.convolution(x, weight, precision=to, **options),
                       lambda to: ops.convolution_input_gradient(dy, weight, x.shape, precision=to, **options)):
            expected, got = run_it("float32"), run_it("tf32x3")
            touched = ~(abs(expected) < 2.0**60)
            assert 0 < touched.sum() < touched.size
            np.testing.assert_array_equal(got[touched], expected[touched])
            assert (abs(got - expected)[~touched] < 2.0**-24).all()
        same_class(*(ops.convolution_weight_gradient(dy, x, weight.shape, precision=to, **options)
                     for to in ("float32", "tf32x3")))


def test_products_near_the_largest_number():
    """The big parts' product overflows, the factors' does not."""
    x = np.full((1, 1), np.nextafter(np.float32(2.0**64), np.float32(0)))
    expected = x * x
    assert 0.99 * LARGEST < expected < np.inf
    to = {"precision": "tf32x3", "backend": emulated}
    np.testing.assert_array_equal(ops.linear(x, x, **to), expected)
    cell = x.reshape(1, 1, 1, 1)
    for y in (ops.convolution(cell, cell, **to), ops.convolution_input_gradient(cell, cell, (1, 1, 1, 1), **to),
              ops.convolution_weight_gradient(cell, cell, (1, 1, 1, 1), **to)):
        np.testing.assert_array_equal(y.reshape(1, 1), expected)


def test_sums_that_overflow():
    """Of finite products, in one direction and with a remedy that comes too late."""
    x = np.full((2, 40), LARGEST / 4, np.float32)
    x[1, 20:] *= -1
    weight = np.ones((1, 40), np.float32)
    with np.errstate(over="ignore"):
        for precision in ("float32", "tf32x3"):
            y = ops.linear(x, weight, precision=precision, backend=emulated)
            assert np.isposinf(y).all()


@pytest.mark.parametrize("which", ["forward", "input gradient"])
def test_an_image_has_bits_of_its_own(which):
    """Alone, at another place, beside one with infinities, under another schedule."""
    (first, second), _ = arguments(which)
    expected = run(which, first, second, "tf32x3")
    other = first[::-1].copy()
    other[0, 4:, :, 3] = np.inf
    with np.errstate(invalid="ignore"):
        for seed in (1, 2):
            emulated.extension.seed(seed)
            np.testing.assert_array_equal(run(which, other, second, "tf32x3")[1], expected[0])
    to = {"padding": 1, "precision": "tf32x3", "backend": emulated}
    alone = (ops.convolution(first[1:], second, **to) if which == "forward" else
             ops.convolution_input_gradient(first[1:], second, (1, 9, 10, 20), **to))
    np.testing.assert_array_equal(alone[0], expected[1])


@pytest.mark.parametrize("which", ["linear", "linear's input gradient"])
def test_a_row_has_bits_of_its_own(which):
    """Of one row or many, pieces in many blocks or one, also where some are not finite."""
    (first, second), _ = arguments(which)
    first[5, 7] = first[6, 500] = LARGEST  # one in each piece, times 0: the others' bits show
    second[(slice(None), [7, 500]) if which == "linear" else [7, 500]] = 0
    first[129, 3] = -np.inf
    expected = run(which, first, second, "tf32x3")
    assert np.isfinite(expected[:129]).all() and not np.isfinite(expected[129]).any()
    for begin, end in ((0, 1), (5, 6), (6, 7), (4, 100), (129, 130)):
        part = np.ascontiguousarray(first[begin:end])
        np.testing.assert_array_equal(run(which, part, second, "tf32x3"), expected[begin:end])
        bare = emulated.empty((end - begin, 9), np.float32)
        arrays = (part, second, None, False) if which == "linear" else (part, second)
        name = "linear_forward" if which == "linear" else "linear_input_gradient"
        emulated._launchers._run(name, bare, None, *arrays, 4)  # without a workspace
        np.testing.assert_array_equal(bare, expected[begin:end])


@pytest.mark.parametrize("value", [np.inf, LARGEST, np.nan])
def test_chains_have_the_bits_of_their_operations(value):
    """Also where sums are plain arithmetic's; the second tile of cells and of columns among them."""
    generator = np.random.default_rng(0)
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((2, 11, 13, 4), (68, 3, 3, 4)))
    x[1, 3, 4, 2] = weight[66, 1, 1, 0] = value
    pool, run = {"window": 3, "stride": 2, "backend": emulated}, {"padding": 1, "precision": "tf32x3"}
    fused = {"window": 3, "window_stride": 2, "backend": emulated, **run}
    with np.errstate(invalid="ignore", over="ignore"):
        maps = ops.convolution(x, weight, backend=emulated, **run)
        wanted, places = ops.max_pool(maps, **pool)
        y, switches = ops.convolution_pool(x, weight, **fused)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(switches, places)
        signal = generator.standard_normal(y.shape).astype(np.float32)
        signal[0, 2, 3, 5] = value
        unpooled = ops.relu(ops.max_unpool(signal, switches, maps.shape, **pool), backend=emulated)
        expected = ops.convolution_input_gradient(unpooled, weight, x.shape, backend=emulated, **run)
        dx = ops.unpool_filter(signal, switches, weight, x.shape, maps.shape[1:3], rectify=True, **fused)
    assert (np.isfinite(expected) if value == LARGEST else ~np.isfinite(expected)).any()
    np.testing.assert_array_equal(dx, expected)


def cut(values):
    """Float64 numbers cut off to float32, as tensor cores cut off what they add."""
    nearest = values.astype(np.float32)
    return np.where(abs(nearest) > abs(values), np.nextafter(nearest, np.float32(0)), nearest).astype(np.float64)


def parts_of(values):
    big = ((values.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return big.astype(np.float64), ((values - big).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def test_the_bound_holds_where_sums_are_cut_off():
    """The emulation rounds to the nearest; a model that cuts off keeps the bound by its sums of eight terms alone."""
    terms = 8192
    x, weight = (np.random.default_rng(seed).random((50, terms), np.float32) + 0.5 for seed in (0, 1))
    (x_big, x_small), (weight_big, weight_small) = parts_of(x), parts_of(weight)
    assert (abs(x_big + x_small - x) <= 2.0**-23 * x).all()
    products = np.stack((x_small * weight_big, x_big * weight_small, x_big * weight_big), -1).reshape(50, -1, 8, 3)
    total, drifting = np.zeros(50, np.float32), np.zeros(50)
    for step in range(terms // 8):
        one = np.zeros(50)
        for kind in range(3):
            for term in range(8):
                one = cut(one + products[:, step, term, kind])
                drifting = cut(drifting + products[:, step, term, kind])
        total += one.astype(np.float32)
    exact = (x.astype(np.float64) * weight).sum(1)
    assert (abs(total - exact) <= bound(terms, 0) * exact).all()
    assert (abs(drifting - exact) > 10 * abs(total - exact)).all()
