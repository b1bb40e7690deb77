"""Convolution and its gradients against float64 loops, PyTorch and their own mathematics."""

from __future__ import annotations

import numpy as np
import pytest
from cases.convolution import CORNERS, Case
from hypothesis import given
from hypothesis import strategies as st
from reference import convolution as reference

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.kernels import convolution as convolutions
from zfcore.kernels import threads, zeros

UNIT = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"
IDENTIFIERS = [case.name for case in CORNERS]


def gamma(length: int, dtype=np.float32) -> float:
    """The bound of a sum's relative rounding error: n u / (1 - n u)."""
    unit = UNIT[np.dtype(dtype)]
    return length * unit / (1 - length * unit)


def lengths(case: Case) -> dict[str, int]:
    """How many products each output of the three operations sums at most."""
    n, p, q, k = reference.output_shape(case.input, case.weight, case.stride, case.padding, case.dilation)
    taps = case.weight[1] * case.weight[2]
    return {FORWARD: taps * case.weight[3], INPUT: taps * k // case.groups, WEIGHT: max(n * p * q, 1)}


def arrays(case: Case, dtype=np.float32, limit: int | None = None, seed: int = 0):
    """x, weight, dy, bias: small integers up to `limit`, or normal numbers."""
    rng = np.random.default_rng(seed)
    output = reference.output_shape(case.input, case.weight, case.stride, case.padding, case.dilation)
    shapes = (case.input, case.weight, output, case.weight[:1])
    if limit is None:
        return [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return [rng.integers(-limit, limit + 1, shape).astype(dtype) for shape in shapes]


def compute(case: Case, x, weight, dy):
    """The three operations under test."""
    return {FORWARD: ops.convolution(x, weight, **case.settings),
            INPUT: ops.convolution_input_gradient(dy, weight, x.shape, **case.settings),
            WEIGHT: ops.convolution_weight_gradient(dy, x, weight.shape, **case.settings)}


def expect(case: Case, x, weight, dy):
    """The same by the loops."""
    return {FORWARD: reference.convolution(x, weight, None, **case.settings),
            INPUT: reference.input_gradient(dy, weight, x.shape, **case.settings),
            WEIGHT: reference.weight_gradient(dy, x, weight.shape, **case.settings)}


def check_exact(case: Case, dtype=np.float32, seed: int = 0) -> None:
    """Integers whose sums are exact in float32: every bit must be the loop's."""
    limit = max(1, int(np.sqrt(2**24 / max(lengths(case).values()))))
    x, weight, dy, _ = arrays(case, dtype, min(limit, 100), seed)
    ours, theirs = compute(case, x, weight, dy), expect(case, x, weight, dy)
    for name in ours:
        assert ours[name].dtype == dtype and ours[name].shape == theirs[name].shape, (case.name, name)
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{case.name}: {name}")


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh arrays hold NaN, so that an element nobody writes shows."""
    monkeypatch.setattr(backend, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))


@pytest.fixture(params=["slide", "patches"])
def either(request, monkeypatch):
    """Few channels slide over padded rows; with RUN = 0 their patches are gathered like others'."""
    if request.param == "patches":
        monkeypatch.setattr(convolutions, "RUN", 0)


# ------------------------------------------------------------------------------ against the loops


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", CORNERS, ids=IDENTIFIERS)
def test_integers_are_exact(case):
    check_exact(case)


@pytest.mark.parametrize("case", CORNERS[1::3], ids=IDENTIFIERS[1::3])
def test_integers_are_exact_in_float64(case):
    check_exact(case, np.float64)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", CORNERS, ids=IDENTIFIERS)
def test_rounding_stays_within_the_bound(case):
    x, weight, dy, _ = arrays(case)
    ours, theirs = compute(case, x, weight, dy), expect(case, x, weight, dy)
    sizes = expect(case, abs(x), abs(weight), abs(dy))
    for name, length in lengths(case).items():
        assert (abs(ours[name] - theirs[name]) <= gamma(length + 2) * sizes[name]).all(), name


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", CORNERS[::2], ids=IDENTIFIERS[::2])
def test_bias_and_relu(case):
    x, weight, _, bias = arrays(case, limit=3)
    y = reference.convolution(x, weight, bias, **case.settings)
    np.testing.assert_array_equal(ops.convolution(x, weight, bias, **case.settings), y)
    rectified = ops.convolution(x, weight, bias, activation="relu", **case.settings)
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))
    assert not np.signbit(rectified).any()


def test_a_nan_passes_the_relu():
    x = np.array([[[[np.nan], [1.0], [-1.0]]]], np.float32)
    y = ops.convolution(x, np.ones((1, 1, 1, 1), np.float32), activation="relu")
    np.testing.assert_array_equal(y.ravel(), [np.nan, 1, 0])


@given(st.data())
def test_any_geometry(data):
    """Strides, pads, dilations and groups at random; sizes at which the loops are quick."""
    def draw(low, high):
        return data.draw(st.integers(low, high))
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    channels = data.draw(st.sampled_from([1, 2, 3, 5, 17, 33]))
    filters = data.draw(st.sampled_from([1, 2, 7, 16, 35]))
    window, stride, dilation = ((draw(1, 4), draw(1, 4)) for _ in range(3))
    padding = tuple(draw(0, 3) for _ in range(4))
    size = []
    for axis in range(2):
        least = max(1, dilation[axis] * (window[axis] - 1) + 1 - padding[2 * axis] - padding[2 * axis + 1])
        size.append(least + draw(0, 6))
    case = Case("drawn", (draw(1, 2), *size, channels * groups), (filters * groups, *window, channels),
                stride, padding, dilation, groups)
    check_exact(case, seed=draw(0, 5))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (700, 3), (2, 9, 11, 40), (1, 70, 40, 17)])
def test_channel_sum(shape):
    dy = np.random.default_rng(0).integers(-50, 51, shape).astype(np.float32)
    np.testing.assert_array_equal(ops.channel_sum(dy), dy.reshape(-1, shape[-1]).sum(0, dtype=np.float64))
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    error = abs(ops.channel_sum(noise) - noise.reshape(-1, shape[-1]).sum(0, dtype=np.float64))
    assert (error <= gamma(noise.size) * abs(noise).reshape(-1, shape[-1]).sum(0, dtype=np.float64)).all()


# ------------------------------------------------------------------------- mathematics of the three


@pytest.mark.parametrize("case", CORNERS, ids=IDENTIFIERS)
def test_gradients_are_adjoints(case):
    """<A x, dy> = <x, A' dy> = <weight, gradient>: exactly on integers, else within the bound."""
    for limit in (2, None):
        x, weight, dy, _ = arrays(case, limit=limit, seed=3)
        ours = {name: value.astype(np.float64) for name, value in compute(case, x, weight, dy).items()}
        products = [(ours[FORWARD] * dy).sum(), (ours[INPUT] * x).sum(), (ours[WEIGHT] * weight).sum()]
        if limit:
            assert products[0] == products[1] == products[2]
        else:
            size = (reference.convolution(abs(x), abs(weight), None, **case.settings) * abs(dy)).sum()
            bound = 2 * gamma(max(lengths(case).values()) + 2) * size
            assert abs(products[0] - products[1]) <= bound
            assert abs(products[0] - products[2]) <= bound


@pytest.mark.parametrize("case", CORNERS[1:18:4], ids=IDENTIFIERS[1:18:4])
def test_finite_differences(case):
    """Central differences of sum(y * dy) in float64; convolution has no kink."""
    x, weight, dy, _ = arrays(case, np.float64)
    ours, step, rng = compute(case, x, weight, dy), 6.9e-6, np.random.default_rng(5)
    size = (reference.convolution(abs(x), abs(weight), None, **case.settings) * abs(dy)).sum()
    for array, gradient in ((x, ours[INPUT]), (weight, ours[WEIGHT])):
        for place in rng.choice(array.size, min(6, array.size), replace=False):
            value, ends = array.flat[place], []
            for shift in (step, -step):
                array.flat[place] = value + shift
                ends.append((ops.convolution(x, weight, **case.settings) * dy).sum())
            array.flat[place] = value
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope - gradient.flat[place]) <= 2 * gamma(dy.size + 500, np.float64) * size / step


# ------------------------------------------------------------- promises: batch, place, threads, crops

BITWISE = [CORNERS[i] for i in (1, 3, 5, 9, 11, 13, 15, 20, 21, 23)]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", BITWISE, ids=lambda case: case.name)
def test_an_image_does_not_depend_on_its_batch(case):
    case = case._replace(input=(5, *case.input[1:]))
    x, weight, dy, bias = arrays(case)
    y = ops.convolution(x, weight, bias, **case.settings)
    dx = ops.convolution_input_gradient(dy, weight, x.shape, **case.settings)
    for some in ([3], [4, 0], [2, 2, 1]):
        np.testing.assert_array_equal(ops.convolution(x[some], weight, bias, **case.settings), y[some])
        part = ops.convolution_input_gradient(dy[some], weight, x[some].shape, **case.settings)
        np.testing.assert_array_equal(part, dx[some])


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", BITWISE, ids=lambda case: case.name)
def test_results_do_not_depend_on_the_threads(case, monkeypatch):
    from zfcore.kernels import convolution as kernels
    monkeypatch.setattr(kernels, "GRAIN", 1)  # small cases, and still a piece of work for each thread
    x, weight, dy, _ = arrays(case)
    results = []
    for count in (1, 2, 5, 2):
        monkeypatch.setattr(threads, "_threads", count)
        results.append({**compute(case, x, weight, dy), "sum": ops.channel_sum(dy)})
    for other in results[1:]:
        for name, value in other.items():
            np.testing.assert_array_equal(value, results[0][name], err_msg=name)


@pytest.mark.parametrize("case", [case for case in CORNERS if case.name in ("bands of rows", "tall and thin")],
                         ids=lambda case: case.name)
def test_bands_of_padded_rows_do_not_change_their_cells(case, monkeypatch):
    """Where filters slide, too; the weight gradient's sums are over parts of the batch, cut at bands."""
    from zfcore.kernels import sliding
    x, weight, dy, bias = arrays(case)
    y = ops.convolution(x, weight, bias, **case.settings)
    dx = ops.convolution_input_gradient(dy, weight, x.shape, **case.settings)
    for most in (0, 1000, 4000):
        monkeypatch.setattr(sliding, "TILE_BYTES", most)
        np.testing.assert_array_equal(ops.convolution(x, weight, bias, **case.settings), y)
        np.testing.assert_array_equal(ops.convolution_input_gradient(dy, weight, x.shape, **case.settings), dx)
        check_exact(case)


def test_a_band_does_not_change_its_cells(monkeypatch):
    """Where whole patches are added, the rows may be cut anywhere."""
    from zfcore.kernels import convolution as kernels
    case = next(case for case in CORNERS if case.name == "bands of rows")
    x, weight, dy, _ = arrays(case)
    dx = ops.convolution_input_gradient(dy, weight, x.shape, **case.settings)
    for band in (1, 7, 1000):
        monkeypatch.setattr(kernels, "BAND", band)
        other = ops.convolution_input_gradient(dy, weight, x.shape, **case.settings)
        np.testing.assert_array_equal(other, dx)


def crop_bounds(case: Case, first: int, last: int, axis: int) -> tuple[int, int]:
    """The input cells that output cells first to last - 1 touch; they may lie outside the map."""
    start = first * case.stride[axis] - case.padding[2 * axis]
    return start, (last - 1 - first) * case.stride[axis] + case.dilation[axis] * (case.weight[1 + axis] - 1) + 1


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("rows, columns", [((0, 3), (0, 2)), ((1, 4), (2, 5)), ((2, 5), (1, 5)), ((3, 5), (4, 5))])
@pytest.mark.parametrize("window, stride, padding, channels, filters", [
    (3, 1, 1, 40, 35), (7, 2, 1, 3, 24), (5, 2, 0, 70, 33), (3, 2, 1, 5, 18), (2, 3, 0, 4, 3)])
def test_a_crop_has_the_bits_of_the_whole(rows, columns, window, stride, padding, channels, filters):
    """A crop with zeros outside the map and no padding; upward, and downward from a crop's cells."""
    size = 4 * stride + window - 2 * padding
    case = Case("crop", (2, size, size, channels), (filters, window, window, channels), (stride, stride),
                (padding,) * 4)
    x, weight, dy, bias = arrays(case)
    (top, height), (left, width) = crop_bounds(case, *rows, 0), crop_bounds(case, *columns, 1)
    border = window + 2
    wide = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    tile = wide[:, border + top :, border + left :][:, :height, :width]
    y = ops.convolution(x, weight, bias, **case.settings)
    whole = y[:, rows[0] : rows[1], columns[0] : columns[1]]
    np.testing.assert_array_equal(ops.convolution(tile, weight, bias, stride=stride), whole)

    signal = np.zeros_like(dy)
    piece = np.ascontiguousarray(dy[:, rows[0] : rows[1], columns[0] : columns[1]])
    signal[:, rows[0] : rows[1], columns[0] : columns[1]] = piece
    dx = ops.convolution_input_gradient(signal, weight, x.shape, **case.settings)
    down = ops.convolution_input_gradient(piece, weight, tile.shape, stride=stride)
    inside = (slice(None), slice(max(top, 0), top + height), slice(max(left, 0), left + width))
    np.testing.assert_array_equal(down[:, max(-top, 0) : size - top, max(-left, 0) : size - left], dx[inside])
    outside = dx.copy()
    outside[inside] = 0
    assert not outside.any()


# --------------------------------------------------------------------------------- arrays as they come


def test_views_read_only_and_misaligned_arrays():
    case = CORNERS[12]
    x, weight, dy, bias = arrays(case)
    expected = compute(case, x, weight, dy)
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    misaligned = np.frombuffer(raw, x.dtype, offset=0).reshape(x.shape)
    misaligned[:] = x
    strided = np.zeros((*x.shape[:3], 2 * x.shape[3]), x.dtype)[..., ::2]
    strided[:] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    channels_first = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    for other in (misaligned, strided, read_only, channels_first, x[::-1].copy()[::-1]):
        before = other.copy()
        for name, value in compute(case, other, weight[...], dy).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        np.testing.assert_array_equal(other, before)
    reversed_weight = weight[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    for name, value in compute(case, x, reversed_weight, dy).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    shifted = ops.convolution(x, weight, np.repeat(bias, 2)[::2], **case.settings)
    np.testing.assert_array_equal(shifted, ops.convolution(x, weight, bias, **case.settings))


@pytest.mark.parametrize("case", [CORNERS[1], CORNERS[3], CORNERS[15]], ids=lambda case: case.name)
def test_an_empty_batch_is_no_error(case):
    case = case._replace(input=(0, *case.input[1:]))
    x, weight, dy, bias = arrays(case)
    ours = compute(case, x, weight, dy)
    assert ours[FORWARD].shape == dy.shape and ours[INPUT].shape == x.shape
    assert ours[WEIGHT].shape == weight.shape and not ours[WEIGHT].any()
    assert ops.convolution(x, weight, bias, activation="relu", **case.settings).shape == dy.shape
    np.testing.assert_array_equal(ops.channel_sum(dy), np.zeros(dy.shape[3]))


@pytest.mark.parametrize("case", CORNERS, ids=IDENTIFIERS)
def test_pytorch_agrees(case):
    torch = pytest.importorskip("torch")
    x, weight, dy, bias = arrays(case)
    top, bottom, left, right = case.padding
    tensor = torch.from_numpy(np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))).permute(0, 3, 1, 2)
    tensor.requires_grad_()
    filters = torch.from_numpy(weight).permute(0, 3, 1, 2).requires_grad_()
    offset = torch.from_numpy(bias).requires_grad_()
    y = torch.nn.functional.conv2d(tensor, filters, offset, case.stride, 0, case.dilation, case.groups)
    y.backward(torch.from_numpy(dy).permute(0, 3, 1, 2))
    _, _, height, width = tensor.shape
    theirs = {FORWARD: y.detach() - offset.detach()[:, None, None],
              INPUT: tensor.grad[:, :, top : height - bottom, left : width - right], WEIGHT: filters.grad}
    sizes = expect(case, abs(x), abs(weight), abs(dy))
    for name, value in compute(case, x, weight, dy).items():
        other = theirs[name].permute(0, 2, 3, 1).numpy()
        # Both are rounded; the bias was added and taken away again.
        bound = 2 * gamma(lengths(case)[name] + 4) * (sizes[name] + (abs(bias).max() if name == FORWARD else 0))
        assert (abs(value - other) <= bound).all(), name
    assert (abs(ops.channel_sum(dy) - offset.grad.numpy()) <= 2 * gamma(dy.size) * abs(dy).sum((0, 1, 2))).all()


# ------------------------------------------------------------------- these tests can fail: they must


def wrong_pad(launcher, at):
    """The launcher with top and bottom padding exchanged."""
    def run(*arguments):
        pads = arguments[at]
        launcher(*arguments[:at], (pads[1], pads[0], *pads[2:]), *arguments[at + 1 :])
    return run


def wrong_taps(launcher, at):
    """The launcher with the weight's columns in the wrong order."""
    def run(*arguments):
        if at == 0:
            launcher(*arguments)
            arguments[0][:] = arguments[0][:, :, ::-1].copy()
        else:
            launcher(*arguments[:at], np.ascontiguousarray(arguments[at][:, :, ::-1]), *arguments[at + 1 :])
    return run


@pytest.mark.parametrize("name, fault", [
    ("convolution_forward", lambda launcher: wrong_pad(launcher, 5)),
    ("convolution_input_gradient", lambda launcher: wrong_pad(launcher, 4)),
    ("convolution_weight_gradient", lambda launcher: wrong_pad(launcher, 4)),
    ("convolution_forward", lambda launcher: wrong_taps(launcher, 2)),
    ("convolution_input_gradient", lambda launcher: wrong_taps(launcher, 2)),
    ("convolution_weight_gradient", lambda launcher: wrong_taps(launcher, 0)),
])
def test_a_fault_is_found(name, fault, monkeypatch):
    case = CORNERS[7]
    monkeypatch.setattr(backend, name, fault(getattr(backend, name)))
    for check in (check_exact, test_rounding_stays_within_the_bound, test_gradients_are_adjoints):
        with pytest.raises(AssertionError):
            check(case)


def test_a_sum_cut_by_position_is_found(monkeypatch):
    """Sums whose order depends on the cell's place fail the crop's test."""
    whole = backend.convolution_forward

    def run(y, x, weight, bias, *others):
        whole(y, x, weight, bias, *others)
        y[:, ::2] = np.nextafter(y[:, ::2], np.float32(9e9))
    monkeypatch.setattr(backend, "convolution_forward", run)
    with pytest.raises(AssertionError):
        test_a_crop_has_the_bits_of_the_whole((1, 4), (2, 5), 3, 1, 1, 4, 3)


def sparse(case: Case, dtype, share: float):
    """A signal of which `share` is not zero, with a NaN, and weights."""
    x, weight, dy, _ = arrays(case, dtype)
    dy *= np.random.default_rng(1).random(dy.shape) < share
    dy.reshape(-1)[dy.size // 2] = np.nan
    return x, weight, dy


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("case", CORNERS, ids=IDENTIFIERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leaving_zeros_out_changes_no_bit(case, dtype, monkeypatch):
    for share in (0, 0.1, 0.6):
        x, weight, dy = sparse(case, dtype, share)
        found = []
        for threshold, finite in ((0.0, lambda _: False), (0.0, zeros.is_finite), (2.0, zeros.is_finite)):
            monkeypatch.setattr(zeros, "PRESENT", threshold)
            monkeypatch.setattr(convolutions, "is_finite", finite)  # if they are not, padding is multiplied too
            found.append(ops.convolution_input_gradient(dy, weight, x.shape, **case.settings))
        assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_long_sums_and_wide_outputs_leave_zeros_out(monkeypatch):
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((300, 3, 3, 600)).astype(np.float32)
    dy = rng.standard_normal((2, 4, 4, 300)).astype(np.float32) * (rng.random((2, 4, 4, 300)) < 0.2)
    dense = ops.convolution_input_gradient(dy.astype(np.float32) + 0, weight, (2, 6, 6, 600))
    monkeypatch.setattr(zeros, "PRESENT", 0.0)
    assert dense.tobytes() == ops.convolution_input_gradient(dy.astype(np.float32), weight, (2, 6, 6, 600)).tobytes()


def test_zeros_meet_weights_that_are_not_finite():
    weight, dy = np.ones((40, 1, 1, 40), np.float32), np.zeros((1, 3, 3, 40), np.float32)
    weight[1] = np.inf
    assert np.isnan(ops.convolution_input_gradient(dy, weight, (1, 3, 3, 40))).all()
    weight[1] = 1
    assert not ops.convolution_input_gradient(dy, weight, (1, 3, 3, 40)).any()
