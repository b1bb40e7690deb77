"""zfcore's kernels as JAX's operators: traced, differentiated, and equal to JAX's own."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from zfcore import ops  # noqa: E402
from zfcore.interop import jax as zf  # noqa: E402

jnp = jax.numpy


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = normal(2, 7, 6, 4)
WEIGHT = normal(6, 3, 2, 2, seed=1)
POOL = {"window": (3, 2), "stride": 2, "padding": (1, 0, 0, 1), "ceil_mode": True}
ACROSS, LOCAL = {"size": 3, "alpha": 0.1}, {"size": 3, "alpha": 0.5, "mode": "subtractive"}
SIZES = {"stride": (2, 1), "padding": [1, 2, 0, 1], "dilation": (1, 2), "groups": 2}
CALLS = {
    "max_pool": (lambda x: zf.max_pool(x, **POOL)[0], lambda x: ops.max_pool(x, **POOL)[0]),
    "response_norm": (lambda x: zf.response_norm(x, **ACROSS), lambda x: ops.response_norm(x, **ACROSS)),
    "contrast_norm": (lambda x: zf.contrast_norm(x, **LOCAL), lambda x: ops.contrast_norm(x, **LOCAL)),
    "convolution": (lambda x: zf.convolution(x, WEIGHT, **SIZES), lambda x: ops.convolution(x, WEIGHT, **SIZES)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("compiled", [False, True])
def test_values(name: str, compiled: bool) -> None:
    ours, expected = CALLS[name]
    y = (jax.jit(ours) if compiled else ours)(X)
    assert isinstance(y, jax.Array)
    np.testing.assert_array_equal(np.asarray(y), expected(X))


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_derivatives(name: str) -> None:
    """Against central differences in float64, along a random direction; compiled."""
    ours, _ = CALLS[name]
    with jax.enable_x64(True):
        x, direction = jnp.asarray(X, jnp.float64), normal(*X.shape, seed=2).astype(np.float64)
        weights = normal(*ours(x).shape, seed=3).astype(np.float64) if name != "convolution" else None
        if name == "convolution":
            def loss(x):
                return (zf.convolution(x, WEIGHT.astype(np.float64), padding=1, groups=2) ** 2).sum()
        else:
            def loss(x):
                return (ours(x) * weights).sum()
        slope = float((jax.jit(jax.grad(loss))(x) * direction).sum())
        h = 1e-6
        expected = float(loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_convolution_is_jaxs() -> None:
    bias = normal(6, seed=4)

    def theirs(x, weight, bias):
        y = jax.lax.conv_general_dilated(x, weight, (2, 1), ((1, 1), (0, 2)), rhs_dilation=(1, 2),
                                         feature_group_count=2, dimension_numbers=("NHWC", "OHWI", "NHWC"))
        return y + bias

    def ours(x, weight, bias):
        return zf.convolution(x, weight, bias, stride=(2, 1), padding=(1, 1, 0, 2), dilation=(1, 2), groups=2)

    found, expected = (jax.jit(jax.grad(lambda *given, f=f: (f(*given) ** 2).sum(), (0, 1, 2)))(X, WEIGHT, bias)
                       for f in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_unpooling_is_the_adjoint_of_pooling() -> None:
    y, switches = jax.jit(lambda x: zf.max_pool(x, window=3, stride=2))(X)
    assert switches.dtype == np.uint8

    def up(y):
        return zf.max_unpool(y, switches, X.shape, window=3, stride=2)

    signal = normal(*X.shape, seed=5)
    x, back = jax.vjp(up, y)
    np.testing.assert_allclose(float((x * signal).sum()), float((y * back(signal)[0]).sum()), rtol=1e-5)


def test_mapped_over_a_batch() -> None:
    many = normal(3, 1, 5, 5, 4)
    y = jax.vmap(lambda x: zf.response_norm(x, size=3))(many)
    np.testing.assert_array_equal(np.asarray(y), ops.response_norm(many, size=3))


def test_arrays_of_jax_in_and_out() -> None:
    """`zfcore.ops` itself takes them over by DLPack, and gives JAX's back."""
    y, switches = ops.max_pool(jnp.asarray(X), window=3, stride=2)
    assert isinstance(y, jax.Array)
    assert isinstance(switches, jax.Array)
    np.testing.assert_array_equal(np.asarray(y), ops.max_pool(X, window=3, stride=2)[0])
    with pytest.raises(ValueError, match="it is read-only"):
        ops.renormalize_filters(jnp.asarray(WEIGHT), 1.0)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="stride is 0"):
        zf.max_pool(X, window=2, stride=0)
    with pytest.raises(Exception, match="at most the 4 channels"):
        jax.block_until_ready(zf.response_norm(X, size=5))
