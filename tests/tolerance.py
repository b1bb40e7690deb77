"""Bounds by formula, and the checks that use them; imports nothing of the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 6.9e-6  # the cube root of float64's rounding error: best for central differences


def unit(dtype) -> float:
    """Relative error of one rounding."""
    return float(np.finfo(dtype).eps) / 2


def gamma(operations: int, dtype) -> float:
    """Bound on the relative error of `operations` roundings in sequence."""
    return operations * unit(dtype) / (1 - operations * unit(dtype))


def close(actual, exact, bound) -> None:
    """|actual - exact| <= bound, elementwise; the message names the worst ratio."""
    actual, exact = np.asarray(actual, np.float64), np.asarray(exact, np.float64)
    assert actual.shape == exact.shape
    bound = np.broadcast_to(bound, exact.shape)
    excess = ~(np.abs(actual - exact) <= bound)  # so that NaN is beyond every bound
    assert not excess.any(), f"{excess.sum()} of {excess.size} beyond the bound, by up to " \
        f"{(np.abs(actual - exact) / np.maximum(bound, 1e-300))[excess].max():.3g} times"


def inner(a, b) -> float:
    """Inner product in float64."""
    return float((np.asarray(a, np.float64) * np.asarray(b, np.float64)).sum())


def differences(function: Callable[[np.ndarray], float], x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Central differences of a scalar function at the given flat places of x (float64)."""
    slopes = []
    for place in places:
        values = []
        for side in (STEP, -STEP):
            moved = x.copy()
            moved.reshape(-1)[place] += side
            values.append(function(moved))
        slopes.append((values[0] - values[1]) / (2 * STEP))
    return np.array(slopes)


def check_gradient(function: Callable[[np.ndarray], np.ndarray], gradient: Callable[[np.ndarray], np.ndarray],
                   x: np.ndarray, seed: int = 0, count: int = 12) -> None:
    """Compare a gradient with central differences of <dy, function(x)>, in float64, at a few places."""
    rng = np.random.default_rng(seed)
    dy = rng.standard_normal(function(x).shape)
    places = rng.choice(x.size, min(count, x.size), replace=False)
    measured = differences(lambda moved: inner(dy, function(moved)), x, places)
    scale = max(1.0, float(np.abs(dy).sum()))
    # Truncation is of the order of STEP ** 2, rounding of eps / STEP: both near 1e-10.
    np.testing.assert_allclose(gradient(dy).reshape(-1)[places], measured, rtol=1e-6, atol=1e-9 * scale)


def same_bits(a, b) -> None:
    """Equal shapes, types and bytes (so -0 is not 0, and NaN equals itself)."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    assert a.shape == b.shape and a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()
