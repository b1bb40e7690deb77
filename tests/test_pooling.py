"""Pooling: against loops and PyTorch with no tolerance, adjoints, crops, promises."""

from __future__ import annotations

import numpy as np
import pytest
from cases.pooling import CORNERS, Case
from hypothesis import given
from hypothesis import strategies as st
from reference import pooling as reference
from tolerance import check_gradient, close, gamma, inner, same_bits

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.geometry import Tile
from zfcore.kernels import threads

CASES = pytest.mark.parametrize("case", CORNERS, ids=[case.name for case in CORNERS])
DIVISORS = ("valid", "padded", "window")


def ties(shape, dtype=np.float32, seed=0):
    """Few different values, so that most windows hold their maximum more than once."""
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(dtype)


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check_max_pool(case: Case, x) -> None:
    """Values and switches of the loops, bit for bit."""
    y, switches = ops.max_pool(x, **case.settings)
    exact, places = reference.max_pool(x, **case.settings)
    same_bits(switches, places)
    same_bits(y, exact)


def check_unpool(case: Case, y, switches, overlap="sum") -> None:
    """The loops' sums in the loops' order, bit for bit."""
    x = ops.max_unpool(y, switches, case.input, overlap=overlap, **case.geometry)
    same_bits(x, reference.max_unpool(y, switches, case.input, overlap=overlap, **case.settings))


# ------------------------------------------------------------------------------ against the loops


@CASES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_pool(case, dtype):
    check_max_pool(case, ties(case.input, dtype))
    check_max_pool(case, normal(case.input, dtype))


@CASES
@pytest.mark.parametrize("overlap", ["sum", "last"])
def test_unpool(case, overlap):
    x = normal(case.input)
    y, switches = ops.max_pool(x, **case.settings)
    check_unpool(case, y, switches, overlap)
    check_unpool(case, normal(y.shape, seed=1), switches, overlap)


@CASES
@pytest.mark.parametrize("divisor", DIVISORS)
def test_average_pool(case, divisor):
    x = normal(case.input)
    bound = gamma(case.window[0] * case.window[1] + 1, x.dtype)
    y = ops.average_pool(x, divisor=divisor, **case.settings)
    close(y, reference.average_pool(x, divisor=divisor, **case.settings),
          bound * reference.average_pool(np.abs(x), divisor=divisor, **case.settings))
    dx = ops.average_pool_gradient(y, case.input, divisor=divisor, **case.settings)
    close(dx, reference.average_pool_gradient(y, case.input, divisor=divisor, **case.settings),
          bound * reference.average_pool_gradient(np.abs(y), case.input, divisor=divisor, **case.settings))


@pytest.mark.parametrize("shape", [(2, 5, 7, 37), (1, 1, 1, 1), (3, 2, 2, 16), (0, 3, 3, 4)])
def test_whole_maps(shape):
    for x in (ties(shape), normal(shape)):
        values, positions = ops.map_maximum(x)
        exact, places = reference.map_maximum(x)
        same_bits(values, exact)
        same_bits(positions, places)
        same_bits(ops.global_max_pool(x)[1], places)
        back = ops.global_max_pool_gradient(values, positions, shape)
        np.testing.assert_array_equal(back, np.where(np.arange(shape[1] * shape[2])[:, None] == places[:, None],
                                                     values[:, None], 0).reshape(shape))
    cells = shape[1] * shape[2]
    mean = ops.global_average_pool(x)
    close(mean, x.astype(np.float64).sum((1, 2)) / cells, gamma(cells + 1, x.dtype) * np.abs(x).sum((1, 2)) / cells)
    dx = ops.global_average_pool_gradient(mean, shape)
    same_bits(dx, np.broadcast_to(mean[:, None, None] / np.float32(cells), shape))


# ---------------------------------------------------------------------------- ties, NaN, infinity


def test_first_of_equals_wins_in_row_major_order():
    y, switches = ops.max_pool(np.zeros((1, 5, 5, 2), np.float32), window=3, stride=2)
    assert not y.any() and not switches.any()
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 2] = x[0, 2, 0] = 7
    assert ops.max_pool(x, window=3)[1].item() == 5


@pytest.mark.parametrize("window", [2, 3, 4])
def test_first_nan_wins(window):
    """At every place of a window: one NaN, and a NaN followed by another of different bits."""
    area = window * window
    x = np.tile(normal((1, window, window, 1)), (area * 2, 1, 1, 20))
    other = np.array(0x7FC00001, np.uint32).view(np.float32)
    for i in range(area):
        x[i].reshape(area, 20)[i] = np.nan
        x[area + i].reshape(area, 20)[i] = other
        x[area + i].reshape(area, 20)[i + 1:] = np.nan
    y, switches = ops.max_pool(x, window=window)
    assert np.isnan(y).all()
    np.testing.assert_array_equal(switches[:, 0, 0, 0], list(range(area)) * 2)
    assert (switches == switches[..., :1]).all()
    assert (y[area:].view(np.uint32) == 0x7FC00001).all()
    values, positions = ops.map_maximum(x)
    np.testing.assert_array_equal(positions[:, 0], list(range(area)) * 2)
    same_bits(values, y[:, 0, 0])


@pytest.mark.parametrize("padding", [0, 1])
def test_windows_of_minus_infinity(padding):
    """Padding never wins, not even over -inf, and the switch points into the map."""
    x = np.full((2, 6, 6, 19), -np.inf, np.float32)
    y, switches = ops.max_pool(x, window=3, stride=2, padding=padding)
    assert np.isneginf(y).all()
    x = ops.max_unpool(np.ones_like(y), switches, x.shape, window=3, stride=2, padding=padding)
    assert x.sum() == y.size
    case = Case("", x.shape, (3, 3), (2, 2), (padding,) * 4)
    check_max_pool(case, np.full(case.input, -np.inf, np.float32))


def test_negative_maps_keep_the_padding_out():
    x = -1 - np.abs(normal((1, 4, 4, 3)))
    assert ops.max_pool(x, window=3, stride=1, padding=1)[0].max() <= -1


def test_infinite_and_nan_signals_go_to_their_own_cell():
    x = normal((1, 7, 7, 17))
    y, switches = ops.max_pool(x, window=3, stride=2)
    for value in (np.inf, np.nan):
        signal = np.zeros_like(y)
        signal[0, 1, 1, 3] = value
        assert np.count_nonzero(ops.max_unpool(signal, switches, x.shape, window=3, stride=2)) == 1


# ------------------------------------------------------------------------------------- adjoints


@CASES
def test_unpool_is_the_adjoint(case):
    """On integers both inner products are exact, so they are equal."""
    x = np.random.default_rng(0).integers(-9, 10, case.input).astype(np.float32)
    y, switches = ops.max_pool(x, **case.settings)
    signal = np.random.default_rng(1).integers(-9, 10, y.shape).astype(np.float32)
    assert inner(y, signal) == inner(x, ops.max_unpool(signal, switches, case.input, **case.geometry))


@CASES
@pytest.mark.parametrize("divisor", DIVISORS)
def test_average_pool_adjoint(case, divisor):
    x = normal(case.input)
    y = ops.average_pool(x, divisor=divisor, **case.settings)
    dy = normal(y.shape, seed=1)
    back = ops.average_pool_gradient(dy, case.input, divisor=divisor, **case.settings)
    bound = 2 * gamma(case.window[0] * case.window[1] + 1, x.dtype)
    absolute = inner(reference.average_pool(np.abs(x), divisor=divisor, **case.settings), np.abs(dy))
    assert abs(inner(y, dy) - inner(x, back)) <= bound * absolute


@pytest.mark.parametrize("name", ["3x3 s2 padded, ceil", "3x3 s1: nine windows on a cell", "four different sides"])
def test_finite_differences(name):
    case = next(case for case in CORNERS if case.name == name)
    # A permutation of well separated values: no maximum is within a step of another, so no kinks.
    x = np.random.default_rng(0).permutation(np.prod(case.input)).reshape(case.input) * 0.1
    _, switches = ops.max_pool(x, **case.settings)
    check_gradient(lambda v: ops.max_pool(v, **case.settings)[0],
                   lambda dy: ops.max_unpool(dy, switches, case.input, **case.geometry), x)
    for divisor in DIVISORS:
        check_gradient(lambda v, d=divisor: ops.average_pool(v, divisor=d, **case.settings),
                       lambda dy, d=divisor: ops.average_pool_gradient(dy, case.input, divisor=d, **case.settings), x)


# ---------------------------------------------------------------------------------- properties


@st.composite
def poolings(draw):
    """Any legal pooling of a small map."""
    sizes, windows, strides, pads = [], [], [], []
    for _ in range(2):
        window = draw(st.integers(1, 5))
        before, after = draw(st.integers(0, window // 2)), draw(st.integers(0, window // 2))
        sizes.append(draw(st.integers(max(1, window - before - after), 9)))
        windows.append(window)
        strides.append(draw(st.integers(1, 4)))
        pads += [before, after]
    shape = (draw(st.integers(0, 2)), *sizes, draw(st.sampled_from([1, 3, 17])))
    return Case("drawn", shape, tuple(windows), tuple(strides), tuple(pads), draw(st.booleans()))


@given(poolings(), st.integers(0, 9))
def test_any_pooling(case, seed):
    x = ties(case.input, seed=seed)
    x[normal(case.input, seed=seed + 1) > 1.5] = np.nan
    x[normal(case.input, seed=seed + 2) > 1.5] = -np.inf
    check_max_pool(case, x)
    y, switches = ops.max_pool(x, **case.settings)
    signal = normal(y.shape, seed=seed)
    for overlap in ("sum", "last"):
        check_unpool(case, signal, switches, overlap)
    flat = ops.switches_to_flat(switches, case.input, **case.geometry)
    same_bits(flat, reference.flat(switches, case.input, **case.settings))
    same_bits(ops.switches_from_flat(flat, case.input, **case.geometry), switches)
    for divisor in DIVISORS:
        mean = ops.average_pool(np.nan_to_num(x, neginf=0), divisor=divisor, **case.settings)
        np.testing.assert_allclose(mean, reference.average_pool(np.nan_to_num(x, neginf=0), divisor=divisor,
                                                                **case.settings), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize(("window", "stride", "padding", "ceil_mode"),
                         [(3, 2, 0, True), (3, 2, 1, False), (2, 2, 0, False), (3, 1, 1, False), (5, 2, 2, True)])
def test_crops_equal_the_whole_map(window, stride, padding, ceil_mode):
    """A crop around each output cell, beyond the map's border too: same bits inside the map."""
    shape, cells = (1, 11, 10, 19), 3
    x = normal(shape)
    settings = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    y, switches = ops.max_pool(x, **settings)
    means = {d: ops.average_pool(x, divisor=d, **settings) for d in DIVISORS}
    side = (cells - 1) * stride + window
    first = [(p, q) for p in range(-2, y.shape[1]) for q in range(-2, y.shape[2])]
    origins = np.array(first, np.int32) * stride - padding
    tile = Tile(origins, shape[1:3])
    rows, columns = (np.add.outer(origins[:, axis], np.arange(side)) for axis in range(2))
    outside = ((rows < 0) | (rows >= shape[1]))[:, :, None] | ((columns < 0) | (columns >= shape[2]))[:, None]
    crops = x[0][np.clip(rows, 0, shape[1] - 1)[:, :, None], np.clip(columns, 0, shape[2] - 1)[:, None]]
    crops[outside] = 1e9  # what lies outside must not matter
    geometry = {"window": window, "stride": stride, "tile": tile}
    values, places = ops.max_pool(crops, **geometry)
    averages = {d: ops.average_pool(crops, divisor=d, padding=padding if d == "padded" else 0, **geometry)
                for d in DIVISORS}
    for n, (p, q) in enumerate(first):
        for i in range(cells):
            for j in range(cells):
                if 0 <= p + i < y.shape[1] and 0 <= q + j < y.shape[2]:
                    same_bits(values[n, i, j], y[0, p + i, q + j])
                    same_bits(places[n, i, j], switches[0, p + i, q + j])
                    for d in DIVISORS:
                        same_bits(averages[d][n, i, j], means[d][0, p + i, q + j])
                inside = ~outside[n, i * stride:i * stride + window, j * stride:j * stride + window]
                if not inside.any():
                    assert not values[n, i, j].any() and not places[n, i, j].any()

    # Down again: signals in the crop's cells only, everywhere else 0.
    for n, (p, q) in enumerate(first):
        region = slice(max(p, 0), max(p + cells, 0)), slice(max(q, 0), max(q + cells, 0))
        whole = np.zeros_like(y)
        whole[0][region] = normal(y.shape, seed=3)[0][region]
        signal = np.zeros((1, cells, cells, shape[3]), np.float32)
        inside = whole[0][region]
        signal[0, region[0].start - p:region[0].start - p + inside.shape[0],
               region[1].start - q:region[1].start - q + inside.shape[1]] = inside
        one = {"window": window, "stride": stride, "tile": Tile(origins[n:n + 1], shape[1:3])}
        downs = [(ops.max_unpool(signal, places[n:n + 1], crops[n:n + 1].shape, **one),
                  ops.max_unpool(whole, switches, shape, window=window, stride=stride, padding=padding))]
        for d in DIVISORS:
            downs.append((ops.average_pool_gradient(signal, crops[n:n + 1].shape, divisor=d,
                                                    padding=padding if d == "padded" else 0, **one),
                          ops.average_pool_gradient(whole, shape, divisor=d, **settings)))
        for down, expected in downs:
            tested = np.zeros(shape, np.float32)
            tested[0, rows[n][:, None].clip(0, shape[1] - 1), columns[n].clip(0, shape[2] - 1)] = 0
            for r, row in enumerate(rows[n]):
                for s, column in enumerate(columns[n]):
                    if outside[n, r, s]:
                        assert not down[0, r, s].any()
                    else:
                        tested[0, row, column] = down[0, r, s]
            same_bits(tested, expected)


# ------------------------------------------------------------------------------------- promises


def everything(x):
    """Every result that this file promises the bits of, for one batch."""
    geometry = {"window": 3, "stride": 2, "padding": 1}
    y, switches = ops.max_pool(x, ceil_mode=True, **geometry)
    signal = y * y - 1
    mean = ops.average_pool(x, divisor="padded", ceil_mode=True, **geometry)
    return [y, switches, ops.max_unpool(signal, switches, x.shape, **geometry),
            ops.max_unpool(signal, switches, x.shape, overlap="last", **geometry), mean,
            ops.average_pool_gradient(signal, x.shape, divisor="padded", ceil_mode=True, **geometry),
            ops.global_average_pool(x), *ops.map_maximum(x)]


@pytest.fixture
def any_threads():
    yield
    threads.set_num_threads(None)


def test_bits_do_not_depend_on_batch_position_or_threads(any_threads):
    x = normal((7, 23, 21, 99))
    threads.set_num_threads(1)
    expected = everything(x)
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        for a, b in zip(everything(x), expected, strict=True):
            same_bits(a, b)
        for a, b in zip(everything(x[2:5]), expected, strict=True):
            same_bits(a, b[2:5])
    for n in range(len(x)):
        for a, b in zip(everything(x[n:n + 1]), expected, strict=True):
            same_bits(a[0], b[n])
    for a, b in zip(everything(x[::-1]), expected, strict=True):
        same_bits(a, b[::-1])


@pytest.mark.parametrize("change", [
    lambda x: np.asfortranarray(x), lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 3, 1)), 1, 3),
    lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
], ids=["Fortran", "every second", "NCHW", "misaligned, read-only"])
def test_any_memory_layout(change):
    x = normal((2, 9, 8, 5))
    for a, b in zip(everything(change(x)), everything(x), strict=True):
        same_bits(a, b)


# --------------------------------------------------------------------------------------- PyTorch


@CASES
def test_pytorch(case):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    top, bottom, left, right = case.padding
    if top != bottom or left != right or 0 in case.input:
        pytest.skip("PyTorch pads both sides alike and takes no empty maps")
    x = ties(case.input)
    tensor = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).requires_grad_()
    arguments = (case.window, case.stride, (top, left))
    theirs, indices = functional.max_pool2d(tensor, *arguments, ceil_mode=case.ceil_mode, return_indices=True)
    y, switches = ops.max_pool(x, **case.settings)
    np.testing.assert_array_equal(y, theirs.detach().numpy().transpose(0, 2, 3, 1))
    flat = np.ascontiguousarray(indices.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(ops.switches_to_flat(switches, case.input, **case.geometry), flat)
    same_bits(ops.switches_from_flat(flat, case.input, **case.geometry), switches)
    dy = np.random.default_rng(1).integers(-9, 10, y.shape).astype(np.float32)
    signal = torch.from_numpy(np.ascontiguousarray(dy.transpose(0, 3, 1, 2)))
    gradient, = torch.autograd.grad(theirs, tensor, signal)
    np.testing.assert_array_equal(ops.max_unpool(dy, switches, case.input, **case.geometry),
                                  gradient.numpy().transpose(0, 2, 3, 1))
    last = torch.zeros(tensor.shape).flatten(2)
    for i in range(indices[0, 0].numel()):  # max_unpool2d's definition, one window after the other
        last.scatter_(2, indices.flatten(2)[:, :, i:i + 1], signal.flatten(2)[:, :, i:i + 1])
    np.testing.assert_array_equal(ops.max_unpool(dy, switches, case.input, overlap="last", **case.geometry),
                                  last.reshape(tensor.shape).numpy().transpose(0, 2, 3, 1))
    for divisor, counted in (("valid", False), ("padded", True)):
        settings = {**case.settings, "divisor": divisor}
        theirs = functional.avg_pool2d(tensor, *arguments, ceil_mode=case.ceil_mode, count_include_pad=counted)
        np.testing.assert_allclose(ops.average_pool(x, **settings), theirs.detach().numpy().transpose(0, 2, 3, 1),
                                   rtol=1e-5, atol=1e-6)
        gradient, = torch.autograd.grad(theirs, tensor, signal)
        np.testing.assert_allclose(ops.average_pool_gradient(dy, case.input, **settings),
                                   gradient.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ the checks above can fail


def test_a_wrong_tie_rule_is_noticed(monkeypatch):
    """A launcher that lets the last of equals win: same values, other switches."""
    def last_of_equals(y, switches, x, bounds, window, stride, before):
        flipped, places = np.empty_like(y), np.empty_like(switches)
        original(flipped, places, np.ascontiguousarray(x[:, ::-1, ::-1]), bounds, window, stride, before)
        y[:], switches[:] = flipped[:, ::-1, ::-1], window[0] * window[1] - 1 - places[:, ::-1, ::-1]

    original = backend.max_pool
    monkeypatch.setattr(backend, "max_pool", last_of_equals)
    case = Case("", (1, 6, 6, 3), (2, 2), (2, 2))
    np.testing.assert_array_equal(ops.max_pool(ties(case.input), **case.settings)[0],
                                  reference.max_pool(ties(case.input), **case.settings)[0])
    with pytest.raises(AssertionError):
        check_max_pool(case, ties(case.input))


def test_a_shifted_pad_is_noticed(monkeypatch):
    case = next(case for case in CORNERS if case.name == "3x3 s2 padded")
    x = normal(case.input)
    y, switches = ops.max_pool(x, **case.settings)
    check_max_pool(case, x)
    check_unpool(case, y, switches)
    for name in ("max_pool", "max_unpool"):
        original = getattr(backend, name)
        with monkeypatch.context() as patch:
            patch.setattr(backend, name, lambda *arguments, f=original: f(
                *[(0, 0) if i == 6 else a for i, a in enumerate(arguments)]))  # top and left padding
            with pytest.raises(AssertionError):
                check_max_pool(case, x) if name == "max_pool" else check_unpool(case, y, switches)


def test_another_order_of_the_sums_is_noticed(monkeypatch):
    """Float32 sums of nine windows in reversed raster order have other bits."""
    def reversed_order(x, y, switches, bounds, window, stride, before, last_wins):
        case = Case("", x.shape, window, stride, (before[0], before[0], before[1], before[1]))
        slides, _ = reference.windows(x.shape, *case[2:5])
        x[:] = 0
        for p, q, row, column in reversed(slides):
            for c in range(x.shape[3]):
                r, s = divmod(int(switches[0, p, q, c]), window[1])
                x[0, row + r, column + s, c] += y[0, p, q, c]

    case = next(case for case in CORNERS if case.name == "3x3 s1: nine windows on a cell")
    x = np.zeros(case.input, np.float32)
    x[:, 2, 3] = 1
    y, switches = ops.max_pool(x, **case.settings)
    signal = normal(y.shape)
    check_unpool(case, signal, switches)
    monkeypatch.setattr(backend, "max_unpool", reversed_order)
    with pytest.raises(AssertionError):
        check_unpool(case, signal, switches)


def test_a_padding_that_wins_is_noticed(monkeypatch):
    """A launcher that reads the padding as zeros."""
    def zeros_win(y, switches, x, bounds, window, stride, before):
        original(y, switches, x, bounds, window, stride, before)
        y[:, 0] = np.maximum(y[:, 0], 0)

    case = next(case for case in CORNERS if case.name == "3x3 s2 padded")
    original = backend.max_pool
    monkeypatch.setattr(backend, "max_pool", zeros_win)
    with pytest.raises(AssertionError):
        check_max_pool(case, -1 - np.abs(normal(case.input)))
