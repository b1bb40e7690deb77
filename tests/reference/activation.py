"""Pointwise rules, and dropout's generator in plain integers."""

from __future__ import annotations

import math

import numpy as np

MASK = 0xFFFFFFFF


def relu(x):
    """max(x, 0), NaN kept."""
    flat = [value if math.isnan(value) else max(value, 0) for value in x.reshape(-1)]
    return np.array(flat, x.dtype).reshape(x.shape)


def relu_backward(dy, y, rule):
    """The table of the three rules."""
    out = np.zeros_like(dy)
    for i in np.ndindex(dy.shape):
        passes = {"gradient": y[i] > 0, "deconvnet": dy[i] > 0, "guided": y[i] > 0 and dy[i] > 0}[rule]
        out[i] = dy[i] if passes else 0
    return out


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def dropout_mask(shape, rate, seed, step, first=0):
    """Which elements of (N, ...) stay."""
    images, elements = shape[0], int(np.prod(shape[1:]))
    kept = np.zeros((images, elements), bool)
    for n in range(images):
        for i in range(elements):
            words = philox((i // 4, first + n, step & MASK, step >> 32), (seed & MASK, seed >> 32))
            kept[n, i] = words[i % 4] >= round(rate * 2**32)
    return kept.reshape(shape)
