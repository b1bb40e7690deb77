"""Softmax and cross-entropy, row by row in float64."""

from __future__ import annotations

import math

import numpy as np


def softmax(x):
    """exp(x) over its sum; scores are shifted by their greatest, which changes nothing."""
    y = np.zeros(x.shape)
    for n, row in enumerate(x.astype(np.float64)):
        powers = [math.exp(value - max(row)) for value in row]
        y[n] = [power / math.fsum(powers) for power in powers]
    return y


def cross_entropy(x, labels):
    """log of the sum of exp(x), minus the label's x."""
    losses = []
    for row, label in zip(x.astype(np.float64), labels, strict=True):
        greatest = max(row)
        losses.append(greatest - row[label] + math.log(math.fsum(math.exp(value - greatest) for value in row)))
    return np.array(losses)


def cross_entropy_gradient(x, labels):
    """Gradient of the mean loss by x."""
    dx = softmax(x)
    for n, label in enumerate(labels):
        dx[n, label] -= 1
    return dx / max(len(x), 1)
