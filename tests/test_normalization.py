"""Normalisations: against loops within the rounding's bound, gradients, crops, promises, bad arguments."""

from __future__ import annotations

import numpy as np
import pytest
from cases.normalization import CONTRAST, RESPONSE
from hypothesis import given
from hypothesis import strategies as st
from reference import normalization as reference
from tolerance import check_gradient, close, gamma, inner, same_bits, unit

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.geometry import Tile
from zfcore.kernels import threads


def each(cases):
    return pytest.mark.parametrize(("shape", "settings"), [case[1:] for case in cases], ids=[case[0] for case in cases])


RESPONSES, CONTRASTS = each(RESPONSE), each(CONTRAST)
MODES = pytest.mark.parametrize("mode", ["divisive", "subtractive"])


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def response(settings):
    """Settings as the reference takes them: defaults filled in, alpha as it stands before the sum."""
    full = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "alpha_is_divided_by_size": False, **settings}
    divided = full.pop("alpha_is_divided_by_size")
    return {**full, "alpha": full["alpha"] / full["size"] if divided else full["alpha"]}


def contrast(settings):
    full = {"size": 9, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "alpha_is_divided_by_area": True, **settings}
    divided = full.pop("alpha_is_divided_by_area")
    return {**full, "alpha": full["alpha"] / full["size"] ** 2 if divided else full["alpha"]}


def check_response(x, settings) -> None:
    """Relative error at most beta gamma(n + 3) and a few roundings: all terms of D are positive."""
    exact, _ = reference.response_norm(x, **response(settings))
    full = response(settings)
    bound = full["beta"] * gamma(full["size"] + 3, x.dtype) + 6 * unit(x.dtype)
    y = ops.response_norm(x, **settings)
    assert y.dtype == x.dtype
    close(y, exact, bound * np.abs(exact))


def check_response_gradient(dy, x, settings) -> None:
    """Both terms with their own roundings; the sum may cancel, so the bound is on absolute values."""
    full = response(settings)
    exact = reference.response_norm_gradient(dy, x, **full)
    # The same chain with |dy| and |x| and a negative exponent's sign turned: the sum of absolute values.
    base = reference.response_norm(x, **full)[1]
    terms = np.abs(dy).astype(np.float64) * base ** -full["beta"]
    absolute = 2 * terms - reference.response_norm_gradient(np.abs(dy), np.abs(x), **full)
    bound = (full["beta"] + 1) * gamma(full["size"] + 3, x.dtype) + gamma(full["size"] + 10, x.dtype)
    close(ops.response_norm_gradient(dy, x, **settings), exact, bound * absolute)


# -------------------------------------------------------------------------------- response norm


@RESPONSES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_response_norm(shape, settings, dtype):
    x = normal(shape, dtype) * 3
    check_response(x, settings)
    check_response_gradient(normal(shape, dtype, 1), x, settings)


def test_response_norm_of_large_values():
    """The base reaches 1e6: roots and powers keep their relative error."""
    for beta in (0.5, 0.6, 0.75, 1.0):
        check_response(normal((1, 2, 2, 33)) * 1e3, {"size": 5, "alpha": 1.0, "beta": beta})


@given(st.integers(1, 9), st.integers(0, 30), st.floats(0, 3), st.sampled_from([0.5, 0.75, 1.0, 0.3]),
       st.floats(0.1, 4), st.booleans(), st.integers(0, 9))
def test_any_response_norm(size, more, alpha, beta, k, divided, seed):
    settings = {"size": size, "alpha": alpha, "beta": beta, "k": k, "alpha_is_divided_by_size": divided}
    x = normal((2, 2, size + more), seed=seed)
    check_response(x, settings)
    check_response_gradient(normal(x.shape, seed=seed + 1), x, settings)


@RESPONSES
def test_response_norm_finite_differences(shape, settings):
    if 0 in shape:
        pytest.skip("nothing to differ")
    x = normal(shape, np.float64)
    check_gradient(lambda v: ops.response_norm(v, **settings),
                   lambda dy: ops.response_norm_gradient(dy, x, **settings), x)


def test_even_windows_reach_one_map_further_back():
    x = np.zeros((1, 6), np.float64)
    x[0, 2] = 1.0
    x[0] += 1e-30
    y = ops.response_norm(x, size=4, alpha=1.0, beta=1.0, k=1.0) / x
    np.testing.assert_allclose(y[0], [1, 0.5, 0.5, 0.5, 0.5, 1])  # f - 2 .. f + 1 holds 2


def test_zeros_and_nan_stay_where_they_are():
    x = np.zeros((3, 9), np.float32)
    assert not ops.response_norm(x).any() and not ops.response_norm_gradient(x, x).any()
    x[1, 4] = np.nan
    nan = np.isnan(ops.response_norm(x))
    np.testing.assert_array_equal(nan[1], [False] * 2 + [True] * 5 + [False] * 2)
    assert not nan[[0, 2]].any()


# -------------------------------------------------------------------------------- contrast norm


def check_contrast(x, settings, mode) -> None:
    """Forward bound: d errs by gamma of its own sums, D by theirs and d's, y by both."""
    full = contrast(settings)
    exact, d, base = reference.contrast_norm(x, **full, mode=mode)
    area = full["size"] ** 2
    means = reference.contrast_norm(np.abs(x), **full)  # only for a bound on |x| + local mean of |x|
    size_d = 2 * np.abs(x) + np.abs(means[1])
    error_d = gamma(area + 3, x.dtype) * size_d
    # D is a sum over the window: bound its error by the largest of its neighbourhood.
    spread = full["alpha"] * area * (2 * np.abs(d) * error_d + error_d**2 + gamma(area + 4, x.dtype) * d**2).max(
        axis=(1, 2), keepdims=True, initial=0) + gamma(3, x.dtype) * base
    numerator = np.abs(d) if mode == "subtractive" else np.abs(x).astype(np.float64)
    relative = (1 + spread / base) ** (full["beta"] + 1) - 1 + gamma(8, x.dtype)
    bound = numerator * base ** -full["beta"] * relative + 2 * error_d * base ** -full["beta"] * (mode == "subtractive")
    y = ops.contrast_norm(x, mode=mode, **settings)
    assert y.dtype == x.dtype
    close(y, exact, bound)


@CONTRASTS
@MODES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contrast_norm(shape, settings, mode, dtype):
    x, dy = normal(shape, dtype) * 2, normal(shape, dtype, 1)
    check_contrast(x, settings, mode)
    full = contrast(settings)
    for constant in (False, True):
        exact = reference.contrast_norm_gradient(dy, x, **full, mode=mode, mean_is_constant=constant)
        dx = ops.contrast_norm_gradient(dy, x, mode=mode, mean_is_constant=constant, **settings)
        # Four nested sums over the window, each of at most area terms of this size.
        area = full["size"] ** 2
        scale = np.abs(dy).max(initial=0) * (1 + 4 * full["alpha"] * full["beta"] * area) * full["k"] ** -full["beta"]
        scale *= max(1, float(np.abs(x).max(initial=0)) ** 2)
        close(dx, exact, 4 * gamma(4 * area + 20, dtype) * scale)


@CONTRASTS
@MODES
def test_contrast_norm_finite_differences(shape, settings, mode):
    if 0 in shape:
        pytest.skip("nothing to differ")
    x = normal(shape, np.float64)
    settings = {**settings, "mode": mode}
    check_gradient(lambda v: ops.contrast_norm(v, **settings),
                   lambda dy: ops.contrast_norm_gradient(dy, x, **settings), x)


def test_a_constant_mean_is_not_the_gradient():
    """cuda-convnet's backward differs by some percent; ours is exact unless theirs is asked for."""
    x, dy = normal((1, 9, 9, 4), np.float64), normal((1, 9, 9, 4), np.float64, 1)
    settings = {"size": 5, "alpha": 0.5}
    exact = ops.contrast_norm_gradient(dy, x, **settings)
    theirs = ops.contrast_norm_gradient(dy, x, mean_is_constant=True, **settings)
    relative = np.linalg.norm(exact - theirs) / np.linalg.norm(exact)
    assert 1e-3 < relative < 0.1
    with pytest.raises(AssertionError):
        check_gradient(lambda v: ops.contrast_norm(v, **settings),
                       lambda dy: ops.contrast_norm_gradient(dy, x, mean_is_constant=True, **settings), x)


@MODES
def test_constant_patches_give_no_nan(mode):
    """d = 0 everywhere: y is x / k ** beta, or 0."""
    x = np.full((1, 6, 6, 3), 5, np.float32)
    y = ops.contrast_norm(x, size=3, k=1.0, mode=mode)
    np.testing.assert_array_equal(y, x if mode == "divisive" else 0)
    assert np.isfinite(ops.contrast_norm_gradient(x, x, size=3, mode=mode)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@MODES
def test_contrast_crops_equal_the_whole_map(size, mode):
    """Cells with both windows inside the crop, at the map's border too: the same bits, up and down."""
    shape = (1, 9, 8, 19)
    x = normal(shape)
    settings = {"size": size, "alpha": 0.7, "k": 1.0, "mode": mode}
    before, after = 2 * (size // 2), 2 * (size - 1 - size // 2)
    cells = 2
    side = cells + before + after
    whole = ops.contrast_norm(x, **settings)
    for row in range(-1, shape[1], 3):
        for column in range(-1, shape[2], 3):
            origin = row - before, column - before
            crop = np.full((1, side, side, shape[3]), 1e6, np.float32)
            here = [slice(max(o, 0), min(o + side, extent)) for o, extent in zip(origin, shape[1:3], strict=True)]
            inside = (0, *(slice(h.start - o, h.stop - o) for h, o in zip(here, origin, strict=True)))
            crop[inside] = x[0][tuple(here)]
            tile = Tile(np.array([origin], np.int32), shape[1:3])
            y = ops.contrast_norm(crop, tile=tile, **settings)
            outside = np.ones(crop.shape, bool)
            outside[inside] = False
            assert not y[outside].any()
            signal, full = np.zeros_like(crop), np.zeros(shape, np.float32)
            for i in range(cells):
                for j in range(cells):
                    if 0 <= row + i < shape[1] and 0 <= column + j < shape[2]:
                        same_bits(y[0, before + i, before + j], whole[0, row + i, column + j])
                        values = normal(shape[3:], seed=i * 2 + j)
                        signal[0, before + i, before + j] = full[0, row + i, column + j] = values
            for constant in (False, True):
                down = ops.contrast_norm_gradient(signal, crop, tile=tile, mean_is_constant=constant, **settings)
                expected = ops.contrast_norm_gradient(full, x, mean_is_constant=constant, **settings)
                assert not down[outside].any()
                placed = np.zeros(shape, np.float32)
                placed[0][tuple(here)] = down[inside]
                np.testing.assert_array_equal(placed, expected)


# ----------------------------------------------------------------------------------- batch norm


def vectors(channels, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=channels).astype(dtype) for _ in range(3)] + [rng.uniform(0.1, 2, channels).astype(dtype)]


@pytest.mark.parametrize("shape", [(3, 4, 5, 19), (7, 33), (1, 1, 1, 1), (2, 3, 3, 16)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm(shape, dtype):
    x, dy = normal(shape, dtype), normal(shape, dtype, 1)
    scale, bias, mean, variance = vectors(shape[-1], dtype)
    exact = reference.batch_norm(x, scale, bias, mean, variance, 1e-5)
    size = (np.abs(x) + np.abs(mean)) * np.abs(scale) / np.sqrt(variance) + np.abs(bias)
    close(ops.batch_norm(x, scale, bias, mean, variance), exact, gamma(5, dtype) * size)
    slope = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + 1e-5)
    close(ops.batch_norm_gradient(dy, scale, variance), dy * slope, gamma(4, dtype) * np.abs(dy * slope))
    dscale, dbias = ops.batch_norm_parameter_gradients(dy, x, mean, variance)
    normalised = (x.astype(np.float64) - mean) / np.sqrt(variance.astype(np.float64) + 1e-5)
    np.testing.assert_allclose(dscale, (dy * normalised).reshape(-1, shape[-1]).sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dbias, dy.astype(np.float64).reshape(-1, shape[-1]).sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5, 19), (7, 33), (5, 2, 2, 16)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_training(shape, dtype):
    x, dy = normal(shape, dtype) + 10, normal(shape, dtype, 1)
    scale, bias, *_ = vectors(shape[-1], dtype)
    y, mean, variance = ops.batch_norm_training(x, scale, bias)
    exact_mean, exact_variance = reference.statistics(x)
    close(mean, exact_mean, unit(dtype) * np.abs(exact_mean) * 1.01 + 1e-13)
    close(variance, exact_variance, unit(dtype) * exact_variance * 1.01 + 1e-12)
    # Sums of `cells` values in float64, then a few roundings of values near 10 in x's own type.
    cells = x.size // shape[-1]
    error = 2 * (gamma(2 * cells, np.float64) + gamma(4, dtype)) * np.abs(x).max() / np.sqrt(exact_variance.min())
    exact = reference.batch_norm(x, scale, bias, exact_mean, exact_variance, 1e-5)
    close(y, exact, error * (np.abs(scale) + np.abs(exact)))
    for ours, exact in zip(ops.batch_norm_training_gradient(dy, x, mean, variance, scale),
                           reference.batch_norm_training_gradient(dy, x, scale, 1e-5), strict=True):
        close(ours, exact, 4 * error * max(1, np.abs(exact).max()))


def test_batch_norm_training_finite_differences():
    x = normal((3, 2, 3, 5), np.float64)
    scale, bias, *_ = vectors(5, np.float64)
    _, mean, variance = ops.batch_norm_training(x, scale, bias)

    def gradients(dy):
        return ops.batch_norm_training_gradient(dy, x, mean, variance, scale)

    check_gradient(lambda v: ops.batch_norm_training(v, scale, bias)[0], lambda dy: gradients(dy)[0], x)
    check_gradient(lambda v: ops.batch_norm_training(x, v, bias)[0], lambda dy: gradients(dy)[1], scale)
    check_gradient(lambda v: ops.batch_norm_training(x, scale, v)[0], lambda dy: gradients(dy)[2], bias)


def test_statistics_far_from_zero():
    """A mean of 1e4 times the deviation: the one-pass formula would lose all digits in float32."""
    x = (normal((4, 9, 9, 3)) + 1e4).astype(np.float32)
    _, mean, variance = ops.batch_norm_training(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    np.testing.assert_allclose(variance, reference.statistics(x)[1], rtol=1e-6)


def test_batch_norm_adjoint():
    x, dy = normal((2, 3, 3, 7)), normal((2, 3, 3, 7), seed=1)
    scale, _, _, variance = vectors(7, np.float32)
    zero = np.zeros(7, np.float32)
    up, down = ops.batch_norm(x, scale, zero, zero, variance), ops.batch_norm_gradient(dy, scale, variance)
    assert abs(inner(up, dy) - inner(x, down)) <= 2 * gamma(3, x.dtype) * inner(np.abs(up), np.abs(dy))


# ------------------------------------------------------------------------------------- promises


def everything(x, dy):
    settings = {"size": 3, "alpha": 0.4}
    scale, bias, mean, variance = vectors(x.shape[-1], x.dtype)
    results = [ops.batch_norm(x, scale, bias, mean, variance), ops.batch_norm_gradient(dy, scale, variance)]
    for beta in (0.75, 0.6):
        results += [ops.response_norm(x, beta=beta, **settings), ops.response_norm(x, alpha=0.4, beta=beta),
                    ops.response_norm_gradient(dy, x, beta=beta, **settings)]
    for mode in ("divisive", "subtractive"):
        results += [ops.contrast_norm(x, mode=mode, **settings),
                    ops.contrast_norm_gradient(dy, x, mode=mode, **settings)]
    return results


@pytest.fixture
def any_threads():
    yield
    threads.set_num_threads(None)


def test_bits_do_not_depend_on_batch_position_or_threads(any_threads):
    x, dy = normal((6, 17, 18, 99)), normal((6, 17, 18, 99), seed=1)
    threads.set_num_threads(1)
    expected = everything(x, dy)
    training = ops.batch_norm_training(x, *vectors(99, np.float32)[:2])
    down = ops.batch_norm_training_gradient(dy, x, *training[1:], training[1])
    for count in (2, 3):
        threads.set_num_threads(count)
        for a, b in zip(everything(x, dy), expected, strict=True):
            same_bits(a, b)
        for a, b in zip(ops.batch_norm_training(x, *vectors(99, np.float32)[:2]), training, strict=True):
            same_bits(a, b)
        for a, b in zip(ops.batch_norm_training_gradient(dy, x, *training[1:], training[1]), down, strict=True):
            same_bits(a, b)
    for part in (slice(2, 3), slice(1, 5), slice(None, None, -1)):
        for a, b in zip(everything(x[part], dy[part]), expected, strict=True):
            same_bits(a, b[part])


def test_any_memory_layout():
    x, dy = normal((2, 5, 6, 7)), normal((2, 5, 6, 7), seed=1)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]):
        for a, b in zip(everything(change(x), change(dy)), everything(x, dy), strict=True):
            same_bits(a, b)


# --------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_pytorch_response_norm(size):
    torch = pytest.importorskip("torch")
    x, dy = normal((2, 4, 5, 9), np.float64), normal((2, 4, 5, 9), np.float64, 1)
    tensor = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).requires_grad_()
    theirs = torch.nn.functional.local_response_norm(tensor, size, alpha=0.5, beta=0.75, k=1.0)
    settings = {"size": size, "alpha": 0.5, "k": 1.0, "alpha_is_divided_by_size": True}
    np.testing.assert_allclose(ops.response_norm(x, **settings), theirs.detach().numpy().transpose(0, 2, 3, 1),
                               rtol=1e-12)
    signal = torch.from_numpy(np.ascontiguousarray(dy.transpose(0, 3, 1, 2)))
    gradient, = torch.autograd.grad(theirs, tensor, signal)
    np.testing.assert_allclose(ops.response_norm_gradient(dy, x, **settings), gradient.numpy().transpose(0, 2, 3, 1),
                               rtol=1e-10, atol=1e-12)


def test_pytorch_batch_norm():
    torch = pytest.importorskip("torch")
    x, dy = normal((3, 4, 5, 7), np.float64), normal((3, 4, 5, 7), np.float64, 1)
    scale, bias, mean, variance = vectors(7, np.float64)
    arrays = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), scale, bias
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    signal = torch.from_numpy(np.ascontiguousarray(dy.transpose(0, 3, 1, 2)))
    statistics = torch.from_numpy(mean), torch.from_numpy(variance)
    for training in (False, True):
        theirs = torch.nn.functional.batch_norm(tensors[0], *((None, None) if training else statistics), *tensors[1:],
                                                training=training)
        if training:
            y, *own = ops.batch_norm_training(x, scale, bias)
            gradients = ops.batch_norm_training_gradient(dy, x, *own, scale)
        else:
            y = ops.batch_norm(x, scale, bias, mean, variance)
            gradients = (ops.batch_norm_gradient(dy, scale, variance),
                         *ops.batch_norm_parameter_gradients(dy, x, mean, variance))
        np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-12)
        exact = [g.numpy() for g in torch.autograd.grad(theirs, tensors, signal)]
        exact[0] = exact[0].transpose(0, 2, 3, 1)
        for a, b in zip(gradients, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


# ------------------------------------------------------------------------------------ bad input


X = np.ones((1, 4, 4, 6), np.float32)


@pytest.mark.parametrize(("settings", "argument", "error"), [
    ({"size": 0}, "size", ValueError), ({"size": -1}, "size", ValueError), ({"size": 7}, "size", ValueError),
    ({"size": 2.5}, "size", TypeError), ({"k": 0}, "k", ValueError), ({"k": -1.0}, "k", ValueError),
    ({"k": float("nan")}, "k", ValueError), ({"alpha": -1e-4}, "alpha", ValueError),
    ({"alpha": "1"}, "alpha", TypeError), ({"beta": float("inf")}, "beta", ValueError),
    ({"beta": None}, "beta", TypeError),
])
def test_bad_response_norm(settings, argument, error):
    with pytest.raises(error, match=f"response_norm: {argument} is .*allowed"):
        ops.response_norm(X, **settings)
    with pytest.raises(error, match=f"response_norm_gradient: {argument} is .*allowed"):
        ops.response_norm_gradient(X, X, **settings)


@pytest.mark.parametrize(("settings", "argument", "error"), [
    ({"size": 0}, "size", ValueError), ({"size": 3.0}, "size", TypeError), ({"size": 3, "k": 0}, "k", ValueError),
    ({"size": 3, "mode": "both"}, "mode", ValueError), ({"size": 3, "alpha": -1}, "alpha", ValueError),
    ({"size": 2**70}, "size", ValueError),
])
def test_bad_contrast_norm(settings, argument, error):
    with pytest.raises(error, match=f"contrast_norm: {argument} is .*allowed"):
        ops.contrast_norm(X, **settings)
    with pytest.raises(error, match=f"contrast_norm_gradient: {argument} is .*allowed"):
        ops.contrast_norm_gradient(X, X, **settings)


def test_bad_arrays():
    for call in (ops.response_norm, ops.contrast_norm):
        with pytest.raises(TypeError, match="x.dtype is .*allowed"):
            call(X.astype(np.int32))
    with pytest.raises(ValueError, match="x.shape is .*4 dimensions"):
        ops.contrast_norm(X[0])
    for call in (ops.response_norm_gradient, ops.contrast_norm_gradient):
        with pytest.raises(ValueError, match="dy.shape is .*allowed"):
            call(X[:, :2], X)
        with pytest.raises(TypeError, match="dtypes is .*one dtype"):
            call(X.astype(np.float64), X)


@pytest.mark.parametrize("missing", ["scale", "bias", "mean", "variance"])
def test_bad_statistics(missing):
    vectors = {name: np.ones(6, np.float32) for name in ("scale", "bias", "mean", "variance")}
    for wrong, error in ((np.ones(5, np.float32), ValueError), (np.ones((6, 1), np.float32), ValueError),
                         (None, TypeError), (np.ones(6), TypeError)):
        with pytest.raises(error, match=f"batch_norm: .*{missing}.*allowed"):
            ops.batch_norm(X, **{**vectors, missing: wrong})
    with pytest.raises(ValueError, match="variance is -1.0"):
        ops.batch_norm(X, **{**vectors, "variance": np.full(6, -1, np.float32)})
    with pytest.raises(ValueError, match="epsilon is"):
        ops.batch_norm(X, **vectors, epsilon=-1e-5)
    with pytest.raises(ValueError, match="epsilon is 0"):
        ops.batch_norm_training(X, vectors["scale"], vectors["bias"], epsilon=0)
    with pytest.raises(ValueError, match="x.shape is .*at least one cell"):
        ops.batch_norm_training(X[:0], vectors["scale"], vectors["bias"])


# ------------------------------------------------------------------ the checks above can fail


def test_a_window_that_is_not_mirrored_is_noticed(monkeypatch):
    """Even size: the gradient over the forward's window instead of the mirrored one."""
    settings = {"size": 4, "alpha": 0.5, "k": 2.0}
    x, dy = normal((3, 9)), normal((3, 9), seed=1)
    check_response_gradient(dy, x, settings)
    original = backend.response_norm_gradient

    def flipped(dx, dy, x, *arguments):
        out = np.empty_like(dx)
        original(out, dy[..., ::-1].copy(), x[..., ::-1].copy(), *arguments)
        dx[:] = out[..., ::-1]

    monkeypatch.setattr(backend, "response_norm_gradient", flipped)
    with pytest.raises(AssertionError):
        check_response_gradient(dy, x, settings)


@pytest.mark.parametrize("change", [{"alpha": 1.001}, {"k": 1.0001}, {"beta": 1.0001}])
def test_slightly_wrong_constants_are_noticed(monkeypatch, change):
    settings = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 1.0}
    x = normal((3, 4, 4, 9))
    check_response(x, settings)
    check_contrast(x[None, 0], {**settings, "size": 3}, "divisive")
    for name in ("response_norm", "contrast_norm"):
        original = getattr(backend, name)
        first = 3 if name == "response_norm" else 4

        def wrong(*arguments, original=original, first=first):
            values = list(arguments)
            for i, key in enumerate(("alpha", "beta", "k")):
                values[first + i] *= change.get(key, 1)
            original(*values)

        monkeypatch.setattr(backend, name, wrong)
    with pytest.raises(AssertionError):
        check_response(x, settings)
    with pytest.raises(AssertionError):
        check_contrast(x[None, 0], {**settings, "size": 3}, "divisive")
