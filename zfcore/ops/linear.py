"""Fully connected layers: matrix products with a weight matrix of (outputs, inputs)."""

from __future__ import annotations

from typing import Any

from .. import backends, checks

__all__ = ["linear", "linear_input_gradient", "linear_weight_gradient"]

ACTIVATIONS = (None, "relu")


def _matrices(where: str, **arrays: Any) -> None:
    """Check rank, dtype and size of each matrix; only the batch (axis 0 of x and dy) may be empty."""
    for name, array in arrays.items():
        checks.floats(where, name, array, 2)
        sizes = tuple(array.shape)
        checks.require(min(sizes if name == "weight" else sizes[1:]) >= 1, where, f"{name}.shape", sizes,
                       "sizes of at least 1" + ("" if name == "weight" else " but for the batch"))
        checks.fits(where, f"{name}.shape", sizes)
    checks.same_dtype(where, **arrays)


def linear(x: Any, weight: Any, bias: Any = None, *, activation: str | None = None,
           backend: Any = None) -> Any:
    """x times the transposed weight matrix, plus a bias, rectified if asked.

    Parameters
    ----------
    x : (N, I) float32 or float64; N may be 0
    weight : (O, I), the same dtype
    bias : (O,) or None
    activation : None or "relu"

    Returns
    -------
    y : (N, O); a row's bits depend on that row of x alone, not on the batch
    """
    where = "linear"
    _matrices(where, x=x, weight=weight)
    if bias is not None:
        checks.floats(where, "bias", bias, 1)
    checks.same_dtype(where, x=x, weight=weight, bias=bias)
    checks.one_of(where, "activation", activation, ACTIVATIONS)
    checks.shape(where, "weight", weight, (weight.shape[0], x.shape[1]))
    if bias is not None:
        checks.shape(where, "bias", bias, (weight.shape[0],))
    checks.fits(where, "the output's shape", (x.shape[0], weight.shape[0]))
    backend = backend or backends.of(x)
    y = backend.empty((x.shape[0], weight.shape[0]), x.dtype)
    backend.linear_forward(y, backend.asarray(x), backend.asarray(weight),
                           None if bias is None else backend.asarray(bias), activation == "relu")
    return y


def linear_input_gradient(dy: Any, weight: Any, *, backend: Any = None) -> Any:
    """Adjoint of `linear` with respect to x: dy (N, O) times weight (O, I), giving (N, I).

    Parameters
    ----------
    dy : (N, O)
    weight : (O, I)
    """
    where = "linear_input_gradient"
    _matrices(where, dy=dy, weight=weight)
    checks.shape(where, "dy", dy, (dy.shape[0], weight.shape[0]))
    checks.fits(where, "the gradient's shape", (dy.shape[0], weight.shape[1]))
    backend = backend or backends.of(dy)
    dx = backend.empty((dy.shape[0], weight.shape[1]), dy.dtype)
    backend.linear_input_gradient(dx, backend.asarray(dy), backend.asarray(weight))
    return dx


def linear_weight_gradient(dy: Any, x: Any, *, backend: Any = None) -> Any:
    """Adjoint of `linear` with respect to the weights: dy (N, O) and x (N, I) give (O, I).

    Parameters
    ----------
    dy : (N, O)
    x : (N, I)
    """
    where = "linear_weight_gradient"
    _matrices(where, dy=dy, x=x)
    checks.shape(where, "dy", dy, (x.shape[0], dy.shape[1]))
    checks.fits(where, "the gradient's shape", (dy.shape[1], x.shape[1]))
    backend = backend or backends.of(dy)
    dweight = backend.empty((dy.shape[1], x.shape[1]), dy.dtype)
    backend.linear_weight_gradient(dweight, backend.asarray(dy), backend.asarray(x))
    return dweight
