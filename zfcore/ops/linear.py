"""Fully connected layers: matrix products with a weight matrix of (outputs, inputs)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks
from . import storage

__all__ = ["linear", "linear_input_gradient", "linear_weight_gradient"]

ACTIVATIONS = (None, "relu")


def _matrices(where: str, backend: Any, **arrays: Any) -> None:
    """Check rank, dtype and size of each matrix; only the batch (axis 0 of x and dy) may be empty."""
    for name, array in arrays.items():
        checks.floats(where, name, array, 2, backend)
        sizes = tuple(array.shape)
        checks.require(min(sizes if name == "weight" else sizes[1:]) >= 1, where, f"{name}.shape", sizes,
                       "sizes of at least 1" + ("" if name == "weight" else " but for the batch"))
        checks.fits(where, f"{name}.shape", sizes)
    checks.same_dtype(where, **arrays)


def linear(x: Any, weight: Any, bias: Any = None, *, activation: str | None = None, precision: str | None = None,
           backend: Any = None) -> Any:
    """x times the transposed weight matrix, plus a bias, rectified if asked.

    Parameters
    ----------
    x : (N, I) float32 or float64, or 16 bits where the backend has them; N may be 0
    weight : (O, I), the same dtype
    bias : (O,) or None; of that dtype, or float32 where it is of 16 bits
    activation : None or "relu"
    precision : as in `convolution`

    Returns
    -------
    y : (N, O); a row's bits depend on that row of x alone, not on the batch
    """
    where = "linear"
    backend = backend or backends.of(x)
    _matrices(where, backend, x=x, weight=weight)
    precision = checks.precision(where, precision, x, backend)
    checks.one_of(where, "activation", activation, ACTIVATIONS)
    checks.shape(where, "weight", weight, (weight.shape[0], x.shape[1]))
    bias = storage.bias_of(where, bias, x, weight.shape[0], backend)
    checks.fits(where, "the output's shape", (x.shape[0], weight.shape[0]))
    factors = storage.rounded(backend, precision, x), storage.rounded(backend, precision, weight)
    y = backend.empty((x.shape[0], weight.shape[0]), factors[0].dtype)
    backend.linear_forward(y, *factors, None if bias is None else storage.widened(backend, bias), activation == "relu",
                           *storage.named(precision))
    return storage.in_type_of(backend, y, x)


def linear_input_gradient(dy: Any, weight: Any, *, precision: str | None = None, backend: Any = None) -> Any:
    """Adjoint of `linear` with respect to x: dy (N, O) times weight (O, I), giving (N, I).

    Parameters
    ----------
    dy : (N, O)
    weight : (O, I)
    precision : as in `convolution`
    """
    where = "linear_input_gradient"
    backend = backend or backends.of(dy)
    _matrices(where, backend, dy=dy, weight=weight)
    precision = checks.precision(where, precision, dy, backend)
    checks.shape(where, "dy", dy, (dy.shape[0], weight.shape[0]))
    checks.fits(where, "the gradient's shape", (dy.shape[0], weight.shape[1]))
    factors = storage.rounded(backend, precision, dy), storage.rounded(backend, precision, weight)
    dx = backend.empty((dy.shape[0], weight.shape[1]), factors[0].dtype)
    backend.linear_input_gradient(dx, *factors, *storage.named(precision))
    return storage.in_type_of(backend, dx, dy)


def linear_weight_gradient(dy: Any, x: Any, *, precision: str | None = None, backend: Any = None) -> Any:
    """Adjoint of `linear` with respect to the weights: dy (N, O) and x (N, I) give (O, I).

    Parameters
    ----------
    dy : (N, O)
    x : (N, I)
    precision : as in `convolution`

    Returns
    -------
    dweight : (O, I), float32 where the arrays are of 16 bits
    """
    where = "linear_weight_gradient"
    backend = backend or backends.of(dy)
    _matrices(where, backend, dy=dy, x=x)
    precision = checks.precision(where, precision, dy, backend)
    checks.shape(where, "dy", dy, (x.shape[0], dy.shape[1]))
    checks.fits(where, "the gradient's shape", (dy.shape[1], x.shape[1]))
    factors = storage.rounded(backend, precision, dy), storage.rounded(backend, precision, x)
    dweight = backend.empty((dy.shape[1], x.shape[1]), np.float32 if dy.dtype in checks.SHORT else dy.dtype)
    backend.linear_weight_gradient(dweight, *factors, *storage.named(precision))
    return dweight
