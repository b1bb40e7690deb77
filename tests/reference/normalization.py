"""Normalisations by loops, in float64; gradients by the chain rule, term by term."""

from __future__ import annotations

import numpy as np


def _window(f, size, limit):
    """Cells f - size // 2 to f - size // 2 + size - 1, clipped."""
    return [j for j in range(f - size // 2, f - size // 2 + size) if 0 <= j < limit]


def response_norm(x, size, alpha, beta, k):
    """(y, D) of x (..., C); alpha as it stands in front of the sum."""
    x = x.astype(np.float64)
    base = np.full(x.shape, float(k))
    for f in range(x.shape[-1]):
        for j in _window(f, size, x.shape[-1]):
            base[..., f] += alpha * x[..., j] ** 2
    return x * base**-beta, base


def response_norm_gradient(dy, x, size, alpha, beta, k):
    """dx: every y_j is followed to every x_f that it depends on."""
    dy, x = dy.astype(np.float64), x.astype(np.float64)
    _, base = response_norm(x, size, alpha, beta, k)
    dx = dy * base**-beta
    for j in range(x.shape[-1]):
        for f in _window(j, size, x.shape[-1]):
            slope = -beta * base[..., j] ** (-beta - 1) * 2 * alpha * x[..., f]
            dx[..., f] += dy[..., j] * x[..., j] * slope
    return dx


def _neighbours(i, j, size, shape):
    return [(r, s) for r in _window(i, size, shape[1]) for s in _window(j, size, shape[2])]


def contrast_norm(x, size, alpha, beta, k, mode="divisive"):
    """(y, d, D) of x (N, H, W, C)."""
    x = x.astype(np.float64)
    d, base = np.empty(x.shape), np.full(x.shape, float(k))
    cells = [(i, j) for i in range(x.shape[1]) for j in range(x.shape[2])]
    for i, j in cells:
        around = _neighbours(i, j, size, x.shape)
        d[:, i, j] = x[:, i, j] - sum(x[:, r, s] for r, s in around) / len(around)
    for i, j in cells:
        for r, s in _neighbours(i, j, size, x.shape):
            base[:, i, j] += alpha * d[:, r, s] ** 2
    return (x if mode == "divisive" else d) * base**-beta, d, base


def contrast_norm_gradient(dy, x, size, alpha, beta, k, mode="divisive", mean_is_constant=False):
    """dx, scattered: from y to its numerator and to the d of its window, from d to the x of its mean."""
    dy, x = dy.astype(np.float64), x.astype(np.float64)
    _, d, base = contrast_norm(x, size, alpha, beta, k, mode)
    numerator = x if mode == "divisive" else d
    by_d, dx = np.zeros(x.shape), np.zeros(x.shape)
    cells = [(i, j) for i in range(x.shape[1]) for j in range(x.shape[2])]
    for i, j in cells:
        straight = dy[:, i, j] * base[:, i, j] ** -beta
        (dx if mode == "divisive" else by_d)[:, i, j] += straight
        slope = dy[:, i, j] * numerator[:, i, j] * -beta * base[:, i, j] ** (-beta - 1)
        for r, s in _neighbours(i, j, size, x.shape):
            by_d[:, r, s] += slope * 2 * alpha * d[:, r, s]
    for i, j in cells:
        dx[:, i, j] += by_d[:, i, j]
        around = _neighbours(i, j, size, x.shape)
        for r, s in around:
            if not mean_is_constant:
                dx[:, r, s] -= by_d[:, i, j] / len(around)
    return dx


def batch_norm(x, scale, bias, mean, variance, epsilon):
    """Inference, float64."""
    x, scale, bias, mean, variance = (a.astype(np.float64) for a in (x, scale, bias, mean, variance))
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


def statistics(x):
    """Mean and biased variance of every channel."""
    cells = x.astype(np.float64).reshape(-1, x.shape[-1])
    mean = sum(cells) / len(cells)
    return mean, sum((cell - mean) ** 2 for cell in cells) / len(cells)


def batch_norm_training_gradient(dy, x, scale, epsilon):
    """(dx, dscale, dbias) by the three paths: through x, through the mean, through the variance."""
    shape, dy, x = x.shape, dy.astype(np.float64), x.astype(np.float64)
    mean, variance = statistics(x)
    dy, x = dy.reshape(-1, shape[-1]), x.reshape(-1, shape[-1])
    count, deviation = len(x), np.sqrt(variance + epsilon)
    by_normalised = dy * scale
    by_variance = -0.5 * (by_normalised * (x - mean)).sum(0) / deviation**3
    by_mean = -by_normalised.sum(0) / deviation - 2 * by_variance * (x - mean).sum(0) / count
    dx = by_normalised / deviation + by_variance * 2 * (x - mean) / count + by_mean / count
    return dx.reshape(shape), (dy * (x - mean) / deviation).sum(0), dy.sum(0)
