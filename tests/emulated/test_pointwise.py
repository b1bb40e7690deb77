"""Pointwise operations, copies, loss and updates on the emulated CUDA kernels, against Numba's."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import backends, ops
from zfcore.geometry import Tile

DTYPES = (np.float32, np.float64)
SHAPES = [(2, 3, 5, 8), (1, 1, 1, 3), (0, 2, 2, 4), (3, 101)]


def normal(shape, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    x.reshape(-1)[::7] = 0
    x.reshape(-1)[3::11] = np.nan
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_relu_and_add(agree, shape, dtype):
    x = normal(shape, dtype)
    dy = normal(shape, dtype, 1).reshape(-1)[::-1].reshape(shape)  # NaN where y is positive, too
    y = agree(ops.relu, x)
    for rule in ("gradient", "deconvnet", "guided"):
        agree(ops.relu_backward, dy, y, rule=rule)
    agree(ops.add, x, dy, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dropout(agree, shape, dtype):
    """The same mask on every backend: integers of Philox, no rounding."""
    x = normal(shape, dtype)
    for seed, step in ((0, 0), (2**40 + 5, 2**33 + 1)):
        agree(ops.dropout, x, 0.3, seed=seed, step=step)


@pytest.mark.parametrize("sizes", [(4, 8, 4), (3, 1, 5), (16,)])
def test_concat_and_split(agree, sizes):
    parts = [normal((2, 3, 2, size), seed=size) for size in sizes]
    joined = agree(ops.concat, *parts)
    for one, other in zip(ops.split(joined, sizes, backend=backends.get("emulated")), parts, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("channels", [3, 8])
def test_clear_outside(channels):
    tile = Tile(np.array([[-1, -2], [3, 4], [-9, 0]], np.int32), (6, 7))
    results = []
    for name in ("numba", "emulated"):
        x = np.ones((3, 5, 5, channels), np.float32)
        results.append(ops.clear_outside(x, tile, backend=backends.get(name)))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 10), (1, 1), (3, 1000), (0, 5)])
def test_softmax(agree, shape, dtype):
    x = 50 * np.random.default_rng(0).standard_normal(shape).astype(dtype)
    labels = np.random.default_rng(1).integers(0, shape[1], shape[0])
    y = agree(ops.softmax, x, tolerance=4)
    agree(ops.softmax_gradient, x / 50, ops.softmax(x / 50), tolerance=64)
    agree(ops.softmax_cross_entropy, x, labels, tolerance=4)
    agree(ops.softmax_cross_entropy_gradient, y, labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 3, 3, 4), (1, 1), (7, 300), (300, 5)])
def test_updates(shape, dtype):
    """In place: SGD of both forms, Adam, filters renormalised (some above the radius, some below)."""
    generator = np.random.default_rng(0)
    given = [generator.standard_normal(shape).astype(dtype) for _ in range(4)]
    given[2] = np.abs(given[2])
    for change, tolerance in [
        (lambda a, e: ops.sgd_step(a[0], a[1], a[3], learning_rate=0.1, momentum=0.9, decay=1e-3, backend=e), 0),
        (lambda a, e: ops.sgd_step(a[0], a[1], a[3], learning_rate=0.1, momentum=0.9, decay=1e-3,
                                   rate_in_velocity=False, backend=e), 0),
        (lambda a, e: ops.adam_step(a[0], a[1], a[2], a[3], step=3, learning_rate=0.1, backend=e), 0),
        (lambda a, e: ops.renormalize_filters(a[0], 1.0, backend=e), 2),
    ]:
        results = []
        for name in ("numba", "emulated"):
            arrays = [array.copy() for array in given]
            change(arrays, backends.get(name))
            results.append(arrays)
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance * np.finfo(dtype).eps)
