"""Fully connected layers: loops over rows, in float64."""

from __future__ import annotations

import numpy as np


def linear(x, weight, bias=None):
    """y (N, O) with y[n, o] = sum of x[n, i] weight[o, i], plus bias[o]."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    y = np.zeros((x.shape[0], weight.shape[0]))
    for n in range(x.shape[0]):
        for o in range(weight.shape[0]):
            y[n, o] = np.sum(x[n] * weight[o]) + (0.0 if bias is None else float(bias[o]))
    return y


def input_gradient(dy, weight):
    """dx (N, I)."""
    dx = np.zeros((dy.shape[0], weight.shape[1]))
    for n in range(dy.shape[0]):
        for o in range(weight.shape[0]):
            dx[n] += float(dy[n, o]) * weight[o].astype(np.float64)
    return dx


def weight_gradient(dy, x):
    """dweight (O, I)."""
    dweight = np.zeros((dy.shape[1], x.shape[1]))
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            dweight[o] += float(dy[n, o]) * x[n].astype(np.float64)
    return dweight
