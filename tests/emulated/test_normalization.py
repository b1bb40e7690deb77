"""Normalisation and sums over cells on the emulated CUDA kernels, against Numba's."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import ops
from zfcore.geometry import Tile

DTYPES = (np.float32, np.float64)


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size", "beta"), [
    ((2, 3, 5, 96), 5, 0.75), ((1, 1, 1, 1), 1, 0.75), ((1, 2, 3, 7), 4, 0.5), ((1, 2, 2, 6), 6, 1.0),
    ((1, 3, 3, 530), 5, 0.75), ((1, 2, 2, 9), 3, 0.6), ((0, 2, 2, 8), 5, 0.75), ((1, 1, 2, 1030), 8, 0.75)])
def test_response_norm(agree, shape, size, beta, dtype):
    options = {"size": size, "alpha": 0.1, "beta": beta, "k": 2.0}
    x = normal(shape, dtype)
    agree(ops.response_norm, x, **options, tolerance=4 if beta == 0.6 else 0)
    agree(ops.response_norm_gradient, normal(shape, dtype, 1), x, **options, tolerance=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["divisive", "subtractive"])
@pytest.mark.parametrize(("shape", "size"), [
    ((2, 6, 7, 3), 3), ((1, 5, 4, 8), 4), ((1, 3, 3, 2), 9), ((0, 4, 4, 2), 3)])
def test_contrast_norm(agree, shape, size, mode, dtype):
    options = {"size": size, "alpha": 0.3, "beta": 0.75, "k": 1.0, "mode": mode}
    x = normal(shape, dtype)
    agree(ops.contrast_norm, x, **options)
    for constant in (False, True):
        agree(ops.contrast_norm_gradient, normal(shape, dtype, 1), x, **options, mean_is_constant=constant,
              tolerance=4)


@pytest.mark.parametrize("mode", ["divisive", "subtractive"])
def test_contrast_norm_of_crops(agree, mode):
    tile = Tile(np.array([[-3, -2], [4, 6], [-20, 0]], np.int32), (9, 11))
    x = normal((3, 8, 9, 4))
    agree(ops.contrast_norm, x, size=3, mode=mode, tile=tile)
    agree(ops.contrast_norm_gradient, x, x, size=3, mode=mode, tile=tile, tolerance=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (2, 1, 1, 40), (70, 10), (1, 40, 41, 33)])
def test_batch_norm(agree, shape, dtype):
    x, dy = normal(shape, dtype), normal(shape, dtype, 1)
    scale, bias, mean = (normal(shape[-1:], dtype, seed) for seed in (2, 3, 4))
    variance = normal(shape[-1:], dtype, 5) ** 2
    agree(ops.batch_norm, x, scale, bias, mean, variance)
    agree(ops.batch_norm_gradient, dy, scale, variance)
    # Both sum in float64, each in an order of its own: the mean of float64 arrays differs by its sum's bound.
    cells = x.size // shape[-1]
    agree(ops.batch_norm_training, x, scale, bias, tolerance=8 if dtype is np.float32 else 8 + cells)
    agree(ops.batch_norm_training_gradient, dy, x, mean, variance, scale, tolerance=8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (3000, 33), (0, 4, 4, 5)])
def test_channel_sum_of_integers(agree, shape, dtype):
    agree(ops.channel_sum, np.random.default_rng(0).integers(-50, 50, shape).astype(dtype))
