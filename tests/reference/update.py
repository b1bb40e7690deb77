"""Parameter updates from their papers' formulas, in float64; each returns new arrays."""

from __future__ import annotations

import numpy as np


def sgd(weight, velocity, gradient, rate, momentum, decay, rate_in_velocity):
    """(weight, velocity) after one step."""
    weight, velocity, gradient = (a.astype(np.float64) for a in (weight, velocity, gradient))
    slope = gradient + decay * weight
    if rate_in_velocity:
        velocity = momentum * velocity - rate * slope
        return weight + velocity, velocity
    velocity = momentum * velocity + slope
    return weight - rate * velocity, velocity


def adam(weight, first, second, gradient, step, rate, beta1, beta2, epsilon, decay):
    """(weight, first, second) after one step."""
    weight, first, second, gradient = (a.astype(np.float64) for a in (weight, first, second, gradient))
    slope = gradient + decay * weight
    first = beta1 * first + (1 - beta1) * slope
    second = beta2 * second + (1 - beta2) * slope**2
    unbiased = first / (1 - beta1**step), second / (1 - beta2**step)
    return weight - rate * unbiased[0] / (np.sqrt(unbiased[1]) + epsilon), first, second


def renormalize(weight, radius):
    """Filters above the radius are scaled to it."""
    weight = weight.astype(np.float64).copy()
    for filter_ in weight:
        size = np.sqrt((filter_**2).sum() / max(filter_.size, 1))
        if size > radius:
            filter_ *= radius / size
    return weight
