"""Parameter updates, in place and in one pass; an item is one element, or one filter."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .threads import parallel
from .work import PIECE, grain

# ------------------------------------------------------------------------------------------------
# kernels


@kernel
def sgd_inside_kernel(begin, end, weight, velocity, gradient, rate, momentum, decay):
    """The learning rate is inside the velocity: v = m v - rate (g + decay w), w += v."""
    weight, velocity, gradient = weight[begin:end], velocity[begin:end], gradient[begin:end]
    for i in range(weight.size):
        v = momentum * velocity[i] - rate * (gradient[i] + decay * weight[i])
        velocity[i] = v
        weight[i] += v


@kernel
def sgd_outside_kernel(begin, end, weight, velocity, gradient, rate, momentum, decay):
    """The learning rate is outside the velocity: v = m v + g + decay w, w -= rate v."""
    weight, velocity, gradient = weight[begin:end], velocity[begin:end], gradient[begin:end]
    for i in range(weight.size):
        v = momentum * velocity[i] + (gradient[i] + decay * weight[i])
        velocity[i] = v
        weight[i] -= rate * v


@kernel
def adam_kernel(begin, end, weight, first, second, gradient, rate, beta1, beta2, rest1, rest2, root, epsilon,
                decay):
    """Kingma and Ba 2015; `rate` and `root` hold the two bias corrections."""
    weight, gradient, first, second = weight[begin:end], gradient[begin:end], first[begin:end], second[begin:end]
    for i in range(weight.size):
        g = gradient[i] + decay * weight[i]
        m = beta1 * first[i] + rest1 * g
        v = beta2 * second[i] + rest2 * (g * g)
        first[i] = m
        second[i] = v
        weight[i] -= rate * m / (np.sqrt(v) / root + epsilon)


@kernel(fastmath={"reassoc", "contract"})
def renormalize_filters_kernel(begin, end, weight, radius):
    """One filter (a row of weight): scaled to root mean square `radius` where its own is greater.

    The sum of squares is cut for the vector unit by the filter's length alone.
    """
    length = weight.shape[1]
    for k in range(begin, end):
        row = weight[k]
        total = 0.0
        for i in range(length):
            total += np.float64(row[i]) * np.float64(row[i])
        size = np.sqrt(total / length)
        if size > radius:
            scale = row.dtype.type(radius / size)
            for i in range(length):
                row[i] *= scale


# ------------------------------------------------------------------------------------------------
# launchers


def _flat(*arrays: np.ndarray) -> list[np.ndarray]:
    """The same memory in one dimension."""
    return [array.reshape(-1) for array in arrays]


def sgd_step(weight: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, learning_rate: float,
             momentum: float, decay: float, rate_in_velocity: bool) -> None:
    """Change weight and velocity."""
    number = weight.dtype.type
    parallel(sgd_inside_kernel if rate_in_velocity else sgd_outside_kernel, weight.size,
             *_flat(weight, velocity, gradient), number(learning_rate), number(momentum), number(decay), grain=PIECE)


def adam_step(weight: np.ndarray, first: np.ndarray, second: np.ndarray, gradient: np.ndarray, step: int,
              learning_rate: float, beta1: float, beta2: float, epsilon: float, decay: float) -> None:
    """Change weight and both moments."""
    numbers = (learning_rate / (1 - beta1**step), beta1, beta2, 1 - beta1, 1 - beta2, (1 - beta2**step) ** 0.5,
               epsilon, decay)
    parallel(adam_kernel, weight.size, *_flat(weight, first, second, gradient),
             *(weight.dtype.type(number) for number in numbers), grain=PIECE)


def renormalize_filters(weight: np.ndarray, radius: float) -> None:
    """Rescale the filters of weight (filters, ...) whose root mean square exceeds radius."""
    filters = weight.shape[0]
    length = weight.size // max(filters, 1)
    parallel(renormalize_filters_kernel, filters, weight.reshape(filters, length), float(radius), grain=grain(length))
