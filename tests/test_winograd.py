"""Winograd's algorithm: exact where it can be, within its bound elsewhere, and the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from cases.convolution import ZFNET, Case
from hypothesis import given
from hypothesis import strategies as st
from reference import convolution as reference

import zfcore
from zfcore import ops
from zfcore.kernels import threads, transform, winograd, winograd_weights
from zfcore.layers import Convolution, MaxPool

FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"

CASES = [
    Case("3x3 padded", (2, 13, 11, 32), (40, 3, 3, 32), padding=(1, 1, 1, 1)),
    Case("3x3, channels that fill no vector", (2, 9, 14, 5), (7, 3, 3, 5), padding=(0, 2, 1, 0)),
    Case("3x3, sums in two pieces", (1, 8, 8, 272), (33, 3, 3, 272), padding=(1, 1, 1, 1)),
    Case("3x3, many filters", (1, 6, 7, 16), (300, 3, 3, 16)),
    Case("3x3, two groups", (2, 10, 9, 32), (48, 3, 3, 16), padding=(1, 1, 1, 1), groups=2),
    Case("3x3, one output cell", (3, 3, 3, 16), (16, 3, 3, 16)),
    Case("3x3, padding beyond the window", (1, 4, 5, 3), (4, 3, 3, 3), padding=(5, 4, 3, 6)),
    Case("5x5 s2", (2, 19, 22, 16), (24, 5, 5, 16), (2, 2)),
    Case("5x5 s2, odd pads, two groups", (2, 18, 15, 24), (10, 5, 5, 12), (2, 2), (3, 1, 1, 2), groups=2),
    Case("6x6 s2", (1, 16, 17, 9), (35, 6, 6, 9), (2, 2), (2, 2, 1, 1)),
    Case("5x6 s2", (1, 16, 17, 9), (35, 5, 6, 9), (2, 2), (2, 2, 1, 1)),
]
LONG = [
    Case("5x5", (2, 11, 12, 16), (40, 5, 5, 16), padding=(2, 2, 2, 2)),
    Case("5x5, two groups, no padding", (2, 9, 8, 12), (10, 5, 5, 6), groups=2),
]


def identify(case: Case) -> str:
    return case.name


def arrays(case: Case, dtype=np.float32, limit: int | None = None, seed: int = 0):
    """x, weight, dy: small integers up to `limit`, or normal numbers."""
    rng = np.random.default_rng(seed)
    output = reference.output_shape(case.input, case.weight, case.stride, case.padding, case.dilation)
    shapes = (case.input, case.weight, output)
    if limit is None:
        return [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return [rng.integers(-limit, limit + 1, shape).astype(dtype) for shape in shapes]


def compute(case: Case, x, weight, dy, algorithm: str):
    settings = {**case.settings, "algorithm": algorithm}
    return {FORWARD: ops.convolution(x, weight, **settings),
            INPUT: ops.convolution_input_gradient(dy, weight, x.shape, **settings),
            WEIGHT: ops.convolution_weight_gradient(dy, x, weight.shape, **settings)}


def expect(case: Case, x, weight, dy):
    return {FORWARD: reference.convolution(x, weight, None, **case.settings),
            INPUT: reference.input_gradient(dy, weight, x.shape, **case.settings),
            WEIGHT: reference.weight_gradient(dy, x, weight.shape, **case.settings)}


# ------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_small_tiles_are_exact_on_integers(case):
    x, weight, dy = arrays(case, limit=3)
    ours, theirs = compute(case, x, weight, dy, "winograd_exact"), expect(case, x, weight, dy)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_matrices_compute_correlations():
    for scheme in transform.SCHEMES:
        output, filters, inputs = transform.matrices(scheme)
        rng = np.random.default_rng(scheme.number)
        d, g = rng.standard_normal(scheme.points), rng.standard_normal(scheme.taps)
        expected = [g @ d[i : i + scheme.taps] for i in range(scheme.tile)]
        np.testing.assert_allclose(output @ ((filters @ g) * (inputs @ d)), expected, rtol=1e-12)
        for exact in (output, inputs):  # the kernels' constants; G's thirds are rounded
            np.testing.assert_array_equal(exact, exact.astype(np.float32))


def test_adjoint_is_exact_on_integers():
    for case in CASES[::3]:
        x, weight, dy = (each.astype(np.float64) for each in arrays(case, limit=3))
        ours = compute(case, x, weight, dy, "winograd_exact")
        product = (ours[FORWARD] * dy).sum()
        assert product == (ours[INPUT] * x).sum() == (ours[WEIGHT] * weight).sum(), case.name


# ------------------------------------------------------------------------------------- the bound


def gamma(length: float, unit: float) -> float:
    return length * unit / (1 - length * unit)


def sizes(x, weight, dy, case: Case, scheme: transform.Scheme):
    """|A'| ((|G| |g| |G'|) * (|B'| |d| |B|)) |A| and its adjoints: what each result's terms add up to.

    A loop over tiles and phases in float64, written from docs/performance.md.
    """
    output, filters, inputs = (np.abs(matrix) for matrix in transform.matrices(scheme))
    x, weight, dy = np.abs(x.astype(float)), np.abs(weight.astype(float)), np.abs(dy.astype(float))
    n, m, r, stride = scheme.points, scheme.tile, scheme.taps, case.stride[0]
    images, rows, columns, _ = dy.shape
    down, across = -(-rows // m), -(-columns // m)
    reach = ((down * m + r) * stride, (across * m + r) * stride)
    wide = np.zeros((images, reach[0] + x.shape[1], reach[1] + x.shape[2], x.shape[3]))
    wide[:, case.padding[0] : case.padding[0] + x.shape[1], case.padding[2] : case.padding[2] + x.shape[2]] = x
    taps = np.zeros((weight.shape[0], r * stride, r * stride, weight.shape[3]))
    taps[:, : weight.shape[1], : weight.shape[2]] = weight
    signal = np.zeros((images, down * m, across * m, dy.shape[3]))
    signal[:, :rows, :columns] = dy
    y, dweight = np.zeros(signal.shape), np.zeros(taps.shape)
    dx = np.zeros(wide.shape)
    k, c = weight.shape[0] // case.groups, weight.shape[3]
    for v in range(stride):
        for h in range(stride):
            u = np.einsum("ar,krsc,bs->abkc", filters, taps[:, v::stride, h::stride], filters)
            for i in range(0, down * m, m):
                for j in range(0, across * m, m):
                    cells = np.s_[:, i * stride + v : (i + n) * stride + v : stride,
                                  j * stride + h : (j + n) * stride + h : stride]
                    d = np.einsum("ai,nijc,bj->nabc", inputs, wide[cells], inputs)
                    s = np.einsum("ia,nijk,jb->nabk", output, signal[:, i : i + m, j : j + m], output)
                    for g in range(case.groups):
                        one, many = np.s_[..., g * c : (g + 1) * c], np.s_[..., g * k : (g + 1) * k]
                        part = u[:, :, g * k : (g + 1) * k]
                        products = np.einsum("nabc,abkc->nabk", d[one], part)
                        y[:, i : i + m, j : j + m][many] += np.einsum("ia,nabk,jb->nijk", output, products, output)
                        products = np.einsum("nabk,nabc->abkc", s[many], d[one])
                        dweight[g * k : (g + 1) * k, v::stride, h::stride] += np.einsum(
                            "ar,abkc,bs->krsc", filters, products, filters)
    # The input gradient is a forward pass of its own: tiles of dx, mirrored filters, one phase each.
    top, left = case.padding[0] // stride, case.padding[2] // stride
    dx = np.zeros(x.shape)
    edge = np.zeros((images, rows + 4 * reach[0], columns + 4 * reach[1], dy.shape[3]))
    edge[:, reach[0] : reach[0] + rows, reach[1] : reach[1] + columns] = dy
    for v in range(stride):
        for h in range(stride):
            mirrored = taps[:, v::stride, h::stride][:, ::-1, ::-1]
            u = np.einsum("ar,krsc,bs->abkc", filters, mirrored, filters)
            for i in range(0, (x.shape[1] - 1 + case.padding[0]) // stride - top + 1, m):
                for j in range(0, (x.shape[2] - 1 + case.padding[2]) // stride - left + 1, m):
                    a, b = reach[0] + i + top - r + 1, reach[1] + j + left - r + 1
                    d = np.einsum("ai,nijk,bj->nabk", inputs, edge[:, a : a + n, b : b + n], inputs)
                    for g in range(case.groups):
                        many = np.s_[..., g * k : (g + 1) * k]
                        products = np.einsum("nabk,abkc->nabc", d[many], u[:, :, g * k : (g + 1) * k])
                        cells = np.einsum("ia,nabc,jb->nijc", output, products, output)
                        for p in range(m):
                            for q in range(m):
                                row = (i + p + top) * stride + v - case.padding[0]
                                column = (j + q + left) * stride + h - case.padding[2]
                                if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                                    dx[:, row, column, g * c : (g + 1) * c] = cells[:, p, q]
    return {FORWARD: y[:, :rows, :columns], INPUT: dx,
            WEIGHT: dweight[:, : weight.shape[1], : weight.shape[2]]}


def check_bound(case: Case, algorithm: str, scheme: transform.Scheme, dtype) -> None:
    x, weight, dy = arrays(case, dtype)
    ours = compute(case, x, weight, dy, algorithm)
    theirs = expect(case, x.astype(np.float64), weight.astype(np.float64), dy.astype(np.float64))
    magnitudes = sizes(x, weight, dy, case, scheme)
    phases = case.stride[0] ** 2
    tiles = case.input[0] * np.prod([-(-size // scheme.tile) for size in dy.shape[1:3]])
    lengths = {FORWARD: phases * case.weight[3], INPUT: case.weight[0] // case.groups, WEIGHT: tiles}
    unit = 2.0**-24 if dtype == np.float32 else 2.0**-53
    for name in ours:
        error = np.abs(ours[name] - theirs[name])
        floor = 0 if dtype == np.float32 else 1e-13 * np.abs(theirs[name]).max()  # the loops round as well
        assert (error <= gamma(lengths[name] * 17 / 16 + 80, unit) * magnitudes[name] + floor).all(), name


@pytest.mark.parametrize("case", [*CASES, *LONG], ids=identify)
def test_rounding_stays_within_the_bound(case):
    check_bound(case, "winograd", transform.LONG if case in LONG else transform.LARGE, np.float32)
    if case in CASES:
        check_bound(case, "winograd_exact", transform.EXACT, np.float32)


@pytest.mark.parametrize("case", [*CASES[::4], LONG[1]], ids=identify)
def test_float64_is_as_good(case):
    check_bound(case, "winograd", transform.LONG if case in LONG else transform.LARGE, np.float64)


def test_errors_are_a_few_times_the_direct_ones():
    """On a layer of ZFNet's depth: a bound may be far away, a typical error must not be."""
    case = Case("conv3", (1, 13, 13, 256), (32, 3, 3, 256), padding=(1, 1, 1, 1))
    x, weight, dy = arrays(case)
    exact = expect(case, x, weight, dy)
    spread = {name: np.sqrt(np.mean(value**2)) for name, value in exact.items()}
    for algorithm, limit in (("winograd", 4e-6), ("winograd_exact", 1e-6)):
        for name, value in compute(case, x, weight, dy, algorithm).items():
            assert np.sqrt(np.mean((value - exact[name]) ** 2)) < limit * spread[name], (algorithm, name)


# ------------------------------------------------------------------- promises: batch, place, threads


@pytest.mark.parametrize("case", [CASES[0], CASES[4], CASES[7], LONG[0]], ids=identify)
def test_an_image_does_not_depend_on_its_batch(case):
    case = case._replace(input=(9, *case.input[1:]))
    x, weight, dy = arrays(case)
    whole = compute(case, x, weight, dy, "winograd")
    for some in ([3], [8, 0], [2, 2, 1, 7]):
        part = compute(case, x[some], weight, dy[some], "winograd")
        np.testing.assert_array_equal(part[FORWARD], whole[FORWARD][some])
        np.testing.assert_array_equal(part[INPUT], whole[INPUT][some])


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[8], LONG[0]], ids=identify)
def test_results_do_not_depend_on_the_threads(case, monkeypatch):
    x, weight, dy = arrays(case._replace(input=(3, *case.input[1:])))
    results = []
    for count in (1, 2, 5, 2):
        monkeypatch.setattr(threads, "_threads", count)
        results.append(compute(case, x, weight, dy, "winograd"))
    for other in results[1:]:
        for name, value in other.items():
            np.testing.assert_array_equal(value, results[0][name], err_msg=name)


@pytest.mark.parametrize("constant, module", [("TILES", winograd), ("ITEMS", winograd)])
def test_how_work_is_cut_changes_nothing(constant, module, monkeypatch):
    case = CASES[3]._replace(input=(5, 9, 13, 16))
    x, weight, dy = arrays(case)
    whole = compute(case, x, weight, dy, "winograd")
    for value in (1, 5, 17):
        monkeypatch.setattr(module, constant, value)
        part = compute(case, x, weight, dy, "winograd")
        np.testing.assert_array_equal(part[FORWARD], whole[FORWARD])
        np.testing.assert_array_equal(part[INPUT], whole[INPUT])


def test_bias_relu_and_nan():
    case = CASES[0]
    x, weight, _ = arrays(case)
    bias = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    plain = ops.convolution(x, weight, None, **case.settings, algorithm="winograd")
    y = ops.convolution(x, weight, bias, **case.settings, activation="relu", algorithm="winograd")
    np.testing.assert_array_equal(y, np.maximum(plain + bias, 0))
    x[0, 5, 5, 3] = np.nan
    y = ops.convolution(x, weight, bias, **case.settings, activation="relu", algorithm="winograd")
    assert np.isnan(y[0, 4:7, 4:7]).all() and not np.isnan(y[1]).any()


def test_empty_batch():
    x, weight = np.zeros((0, 9, 9, 16), np.float32), np.ones((16, 3, 3, 16), np.float32)
    y = ops.convolution(x, weight, algorithm="winograd")
    assert y.shape == (0, 7, 7, 16)
    assert ops.convolution_input_gradient(y, weight, x.shape, algorithm="winograd").shape == x.shape
    assert not ops.convolution_weight_gradient(y, x, weight.shape, algorithm="winograd").any()


@given(st.data())
def test_any_geometry(data):
    stride = data.draw(st.sampled_from([1, 2]))
    window = data.draw(st.sampled_from([3] if stride == 1 else [5, 6]))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    pads = tuple(data.draw(st.integers(0, 4)) for _ in range(4))
    size = [data.draw(st.integers(window, 18)) for _ in range(2)]
    channels, filters = (data.draw(st.integers(1, 20)) for _ in range(2))
    case = Case("drawn", (data.draw(st.integers(1, 3)), *size, channels * groups),
                (filters * groups, window, window, channels), (stride, stride), pads, groups=groups)
    x, weight, dy = arrays(case, limit=3)
    exact = compute(case, x, weight, dy, "direct")
    for name, value in compute(case, x, weight, dy, "winograd_exact").items():
        np.testing.assert_array_equal(value, exact[name], err_msg=f"{name} {case}")
    for name, value in compute(case, x, weight, dy, "winograd").items():
        np.testing.assert_allclose(value, exact[name], atol=2e-4 * max(1, np.abs(exact[name]).max()),
                                   err_msg=f"{name} {case}")


# ----------------------------------------------------------------------------------- the choice


def test_auto_goes_by_sizes_alone():
    chosen = {case.name: winograd.winograd_scheme("auto", case.weight, case.stride, case.dilation, case.groups,
                                                  reference.output_shape(case.input, case.weight, case.stride,
                                                                         case.padding)[1:3]) for case in ZFNET}
    assert chosen == {"conv1": None, **dict.fromkeys(["conv2", "conv3", "conv4", "conv5"], transform.LARGE)}
    few = winograd.winograd_scheme("auto", (8, 3, 3, 8), (1, 1), (1, 1), 1, (50, 50))
    assert few is None
    small = winograd.winograd_scheme("auto", (20, 5, 5, 16), (1, 1), (1, 1), 1, (16, 16))
    assert small is None  # ConvNetJS's second layer


def test_auto_is_one_of_the_two():
    for channels, expected in ((8, "direct"), (96, "winograd")):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, 20, 20, channels), dtype=np.float32)
        weight = rng.standard_normal((channels, 3, 3, channels), dtype=np.float32)
        y = ops.convolution(x, weight, padding=1, algorithm="auto")
        np.testing.assert_array_equal(y, ops.convolution(x, weight, padding=1, algorithm=expected))


@pytest.mark.parametrize("algorithm", ["fast", "Winograd", None, 3])
def test_unknown_names_are_refused(algorithm):
    x, weight = np.zeros((1, 9, 9, 4), np.float32), np.zeros((4, 3, 3, 4), np.float32)
    calls = [lambda: ops.convolution(x, weight, algorithm=algorithm),
             lambda: ops.convolution_input_gradient(np.zeros((1, 7, 7, 4), np.float32), weight, x.shape,
                                                    algorithm=algorithm),
             lambda: ops.convolution_weight_gradient(np.zeros((1, 7, 7, 4), np.float32), x, weight.shape,
                                                     algorithm=algorithm)]
    for call in calls:
        with pytest.raises(ValueError, match="algorithm is .*; allowed: .*winograd"):
            call()


@pytest.mark.parametrize("window, settings", [
    (7, {}), (3, {"stride": 2}), (3, {"dilation": 2}), (5, {"stride": (1, 2)}), ((3, 5), {})])
def test_geometries_without_it_are_refused(window, settings):
    height, width = window if isinstance(window, tuple) else (window, window)
    x, weight = np.zeros((1, 20, 20, 4), np.float32), np.zeros((4, height, width, 4), np.float32)
    with pytest.raises(ValueError, match="convolution: algorithm is 'winograd'; allowed: 'direct' or 'auto', here"):
        ops.convolution(x, weight, algorithm="winograd", **settings)
    ops.convolution(x, weight, algorithm="auto", **settings)


# --------------------------------------------------------------------------------------- networks


def network(algorithm: str = "auto"):
    net = zfcore.Network("two", (40, 40, 3), algorithm=algorithm)
    net.add("conv1", Convolution(64, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(2))
    net.add("conv2", Convolution(64, 3, padding=1, activation="relu"))
    net.add("conv3", Convolution(64, 5, stride=2, activation="relu"))
    return net.initialize(0, "he")


def test_networks_choose_and_projections_stay_direct():
    x = np.random.default_rng(2).standard_normal((3, 40, 40, 3), dtype=np.float32)
    fast, direct = network(), network("direct")
    y, z = fast(x), direct(x)
    assert (y != z).any()  # it is not the same algorithm
    np.testing.assert_allclose(y, z, atol=1e-5 * z.max())
    np.testing.assert_array_equal(fast(x[1:2]), y[1:2])
    units = [(image, zfcore.Unit("conv3", 5, 2, 4)) for image in range(3)]
    for rule in ("deconvnet", "gradient"):
        crops = fast.project(x, units, rule=rule)
        np.testing.assert_array_equal(crops.values, z[:, 2, 4, 5])
        np.testing.assert_array_equal(crops.pixels, direct.project(x, units, rule=rule).pixels)
        wholes = fast.project(x, units, rule=rule, crop=False)
        cone = fast.cone("conv3")
        for image in range(3):
            tile = cone.extract(wholes.pixels, np.array([image]), crops.origins[image : image + 1])[0]
            np.testing.assert_array_equal(crops.pixels[image], tile)


def test_training_gradients_are_near_the_direct_ones():
    x = np.random.default_rng(2).standard_normal((4, 40, 40, 3), dtype=np.float32)
    gradients = []
    for net in (network(), network("direct")):
        forward = net.forward(x, cache=True)
        signal = np.random.default_rng(3).standard_normal(forward.output.shape).astype(np.float32)
        gradients.append(net.backward(forward, signal).gradients)
    for name, value in gradients[0].items():
        expected = gradients[1][name]
        assert np.abs(value - expected).max() < 1e-4 * np.abs(expected).max(), name


def test_network_refuses_other_names():
    with pytest.raises(ValueError, match="algorithm"):
        zfcore.Network("n", (8, 8, 1), algorithm="winograd!")


# --------------------------------------------------------------- these tests can fail: they must


@pytest.mark.parametrize("case", [CASES[7], CASES[8]], ids=identify)
def test_a_product_too_few_is_found(case, monkeypatch):
    """Phases that leave out another point than the one where they have no tap."""
    right = winograd.needed

    def wrong(points, window, stride, unread):
        return right(points, window, stride, 1)
    monkeypatch.setattr(winograd, "needed", wrong)
    monkeypatch.setattr(winograd_weights, "needed", wrong)
    x, weight, dy = arrays(case, limit=3)
    ours, theirs = compute(case, x, weight, dy, "winograd_exact"), expect(case, x, weight, dy)
    for name in ours:
        assert (ours[name] != theirs[name]).any(), name
