"""Fully connected layers by plain loops (to be replaced by the blocked kernels)."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .threads import parallel

# ---------------------------------------------------------------------------------------- kernels


@kernel(fastmath={"contract", "reassoc"})
def _forward(begin, end, y, x, weight, bias, relu):
    for o in range(begin, end):
        for n in range(x.shape[0]):
            total = x.dtype.type(0)
            for i in range(x.shape[1]):
                total += x[n, i] * weight[o, i]
            total += bias[o]
            y[n, o] = 0 if relu and total <= 0 else total


@kernel
def _input_gradient(begin, end, dx, dy, weight):
    for n in range(begin, end):
        dx[n] = 0
        for o in range(weight.shape[0]):
            g = dy[n, o]
            for i in range(weight.shape[1]):
                dx[n, i] += g * weight[o, i]


@kernel
def _weight_gradient(begin, end, dweight, dy, x):
    for o in range(begin, end):
        dweight[o] = 0
        for n in range(x.shape[0]):
            g = dy[n, o]
            for i in range(x.shape[1]):
                dweight[o, i] += g * x[n, i]


# -------------------------------------------------------------------------------------- launchers


def linear_forward(y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, relu: bool) -> None:
    """y = activation(x weight' + bias)."""
    if bias is None:
        bias = np.zeros(weight.shape[0], weight.dtype)
    parallel(_forward, weight.shape[0], y, x, weight, bias, relu, grain=16)


def linear_input_gradient(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray) -> None:
    """dx = dy weight."""
    parallel(_input_gradient, dx.shape[0], dx, dy, weight)


def linear_weight_gradient(dweight: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dweight = dy' x."""
    parallel(_weight_gradient, dweight.shape[0], dweight, dy, x, grain=16)
