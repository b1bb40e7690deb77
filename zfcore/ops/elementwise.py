"""Elementwise operations beyond ReLU: leaky and clipped ReLUs, sigmoids, arithmetic, scaling, broadcasting.

They are bound by memory and rare in the networks of the papers, so they have no kernels: the arrays' own library
computes them where they lie, NumPy on the host and CuPy, by NumPy's names, on a device. Exponentials are taken
in float64 and rounded once, so a value does not depend on where in an array it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import backends, checks

__all__ = ["clip", "clip_backward", "divide", "expand", "leaky_relu", "leaky_relu_gradient", "log_softmax",
           "log_softmax_gradient", "multiply", "reduce_to", "scale", "sigmoid", "sigmoid_gradient", "subtract",
           "tanh", "tanh_gradient"]

RULES = ("gradient", "deconvnet", "guided")


def _there(backend: Any, *arrays: Any) -> list[Any]:
    """The arrays where the backend works."""
    return [backend.asarray(array) for array in arrays]


def _one(where: str, name: str, array: Any) -> None:
    checks.floats(where, name, array)


def _same(where: str, **arrays: Any) -> None:
    """Require floating-point arrays of one dtype and one shape."""
    first, *others = arrays.items()
    checks.floats(where, first[0], first[1])
    for name, array in others:
        checks.floats(where, name, array)
        checks.shape(where, name, array, first[1].shape)
    checks.same_dtype(where, **arrays)


def _broadcasts(where: str, argument: str, shape: Sequence[int], target: Sequence[int]) -> None:
    """Require that `shape` broadcasts to exactly `target`."""
    aligned = tuple(target)[len(target) - len(shape):] if len(shape) <= len(target) else None
    fits = aligned is not None and all(a in (1, b) for a, b in zip(shape, aligned, strict=True))
    checks.require(fits, where, argument, tuple(shape), f"a shape that broadcasts to {tuple(target)}")


def _number(where: str, argument: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)) or value != value:
        checks.fail(where, argument, value, "a number", TypeError)
    return float(value)


def leaky_relu(x: Any, slope: Any, *, backend: Any = None) -> Any:
    """x where x > 0, else slope * x; NaN stays NaN.

    Parameters
    ----------
    x : array of any shape
    slope : a number, or an array that broadcasts to x (PReLU: He et al. 2015)
    """
    where = "leaky_relu"
    backend = backend or backends.of(x)
    _one(where, "x", x)
    slopes = _slopes(where, slope, x, backend)
    (x,) = _there(backend, x)
    return backend.asarray(np.where(x > 0, x, x * slopes))


def leaky_relu_gradient(dy: Any, x: Any, slope: Any, *, backend: Any = None) -> Any:
    """Gradient of `leaky_relu` by x: dy where x > 0, else slope * dy.

    Parameters
    ----------
    dy, x : of one shape; x is the input of the way up
    slope : as in `leaky_relu`
    """
    where = "leaky_relu_gradient"
    backend = backend or backends.of(dy)
    _same(where, dy=dy, x=x)
    slopes = _slopes(where, slope, x, backend)
    dy, x = _there(backend, dy, x)
    return backend.asarray(np.where(x > 0, dy, dy * slopes))


def _slopes(where: str, slope: Any, x: Any, backend: Any) -> Any:
    if isinstance(slope, (int, float)):
        return x.dtype.type(_number(where, "slope", slope))
    _one(where, "slope", slope)
    checks.same_dtype(where, x=x, slope=slope)
    _broadcasts(where, "slope.shape", slope.shape, x.shape)
    return backend.asarray(slope)


def clip(x: Any, low: float, high: float, *, backend: Any = None) -> Any:
    """min(max(x, low), high); NaN stays NaN.

    Parameters
    ----------
    x : array of any shape
    low, high : bounds, -inf and inf allowed; as in ONNX, high wins where low > high
    """
    backend = backend or backends.of(x)
    _one("clip", "x", x)
    bounds = [x.dtype.type(_number("clip", name, value)) for name, value in (("low", low), ("high", high))]
    (x,) = _there(backend, x)
    return backend.asarray(np.minimum(np.maximum(x, bounds[0]), bounds[1]))


def clip_backward(dy: Any, x: Any, low: float, high: float, *, rule: str = "gradient", backend: Any = None) -> Any:
    """What a clip does to a signal on the way down.

    Parameters
    ----------
    dy : the signal
    x : the clip's input or output, same shape: both give the mask low < x < high
    low, high : as in `clip`
    rule : "gradient": dy under the mask; "deconvnet": max(dy, 0); "guided": max(dy, 0) under the mask
    """
    where = "clip_backward"
    backend = backend or backends.of(dy)
    checks.one_of(where, "rule", rule, RULES)
    _same(where, dy=dy, x=x)
    low, high = _number(where, "low", low), _number(where, "high", high)
    dy, x = _there(backend, dy, x)
    passed = dy if rule == "gradient" else np.maximum(dy, dy.dtype.type(0))
    if rule == "deconvnet":
        return backend.asarray(passed)
    return backend.asarray(np.where((x > x.dtype.type(low)) & (x < x.dtype.type(high)), passed, dy.dtype.type(0)))


def sigmoid(x: Any, *, backend: Any = None) -> Any:
    """1 / (1 + exp(-x)) of an array of any shape, without overflow.

    Parameters
    ----------
    x : array of any shape
    """
    def value(x: np.ndarray) -> np.ndarray:
        small = np.exp(-np.abs(x))
        return np.where(x >= 0, 1, small) / (1 + small)

    return _wide("sigmoid", value, x, backend)


def sigmoid_gradient(dy: Any, y: Any, *, backend: Any = None) -> Any:
    """Gradient of `sigmoid` by its input, from its output y: dy * y * (1 - y).

    Parameters
    ----------
    dy, y : of one shape
    """
    backend = backend or backends.of(dy)
    _same("sigmoid_gradient", dy=dy, y=y)
    dy, y = _there(backend, dy, y)
    return backend.asarray(dy * (y * (1 - y)))


def tanh(x: Any, *, backend: Any = None) -> Any:
    """Hyperbolic tangent of an array of any shape.

    Parameters
    ----------
    x : array of any shape
    """
    return _wide("tanh", np.tanh, x, backend)


def tanh_gradient(dy: Any, y: Any, *, backend: Any = None) -> Any:
    """Gradient of `tanh` by its input, from its output y: dy * (1 - y ** 2).

    Parameters
    ----------
    dy, y : of one shape
    """
    backend = backend or backends.of(dy)
    _same("tanh_gradient", dy=dy, y=y)
    dy, y = _there(backend, dy, y)
    return backend.asarray(dy * (1 - y * y))


def _wide(where: str, function: Callable[[np.ndarray], np.ndarray], x: Any, backend: Any) -> Any:
    """The function's value in float64, rounded to x's type."""
    backend = backend or backends.of(x)
    _one(where, "x", x)
    (x,) = _there(backend, x)
    return backend.asarray(function(x.astype(np.float64)).astype(x.dtype))


def log_softmax(x: Any, *, backend: Any = None) -> Any:
    """log(softmax(x)) over the last axis of (..., C).

    Parameters
    ----------
    x : (..., C), C at least 1
    """
    def value(x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    checks.require(getattr(x, "ndim", 0) >= 1 and x.shape[-1] >= 1, "log_softmax", "x.shape",
                   tuple(getattr(x, "shape", ())), "(..., classes) with at least one class")
    return _wide("log_softmax", value, x, backend)


def log_softmax_gradient(dy: Any, y: Any, *, backend: Any = None) -> Any:
    """Gradient of `log_softmax` by its input, from its output y: dy - exp(y) * sum of dy.

    Parameters
    ----------
    dy, y : of one shape
    """
    backend = backend or backends.of(dy)
    _same("log_softmax_gradient", dy=dy, y=y)
    dy, y = _there(backend, dy, y)
    wide = dy.astype(np.float64)
    return backend.asarray((wide - np.exp(y.astype(np.float64)) * wide.sum(axis=-1, keepdims=True))
                           .astype(dy.dtype))


def subtract(a: Any, b: Any, *, backend: Any = None) -> Any:
    """a - b, of one shape.

    Parameters
    ----------
    a, b : of one shape and dtype
    """
    return _arithmetic("subtract", np.subtract, a, b, backend)


def multiply(a: Any, b: Any, *, backend: Any = None) -> Any:
    """a * b, of one shape.

    Parameters
    ----------
    a, b : of one shape and dtype
    """
    return _arithmetic("multiply", np.multiply, a, b, backend)


def divide(a: Any, b: Any, *, backend: Any = None) -> Any:
    """a / b, of one shape; a division by zero gives inf or NaN.

    Parameters
    ----------
    a, b : of one shape and dtype
    """
    return _arithmetic("divide", np.divide, a, b, backend)


def _arithmetic(where: str, function: Callable[..., np.ndarray], a: Any, b: Any, backend: Any) -> Any:
    backend = backend or backends.of(a)
    _same(where, a=a, b=b)
    a, b = _there(backend, a, b)
    with np.errstate(all="ignore"):
        return backend.asarray(function(a, b))


def scale(x: Any, scale: Any = None, bias: Any = None, *, backend: Any = None) -> Any:
    """x * scale + bias.

    Parameters
    ----------
    x : array of any shape
    scale, bias : arrays that broadcast to x, or None
    """
    where = "scale"
    backend = backend or backends.of(x)
    _one(where, "x", x)
    for name, array in (("scale", scale), ("bias", bias)):
        if array is not None:
            _one(where, name, array)
            _broadcasts(where, f"{name}.shape", array.shape, x.shape)
    checks.same_dtype(where, x=x, scale=scale, bias=bias)
    (y,) = _there(backend, x)
    if scale is not None:
        y = y * backend.asarray(scale)
    if bias is not None:
        y = y + backend.asarray(bias)
    return backend.asarray(y)


def expand(x: Any, shape: Sequence[int], *, backend: Any = None) -> Any:
    """x (N, ...) repeated along its axes of size 1 until it has `shape`.

    Parameters
    ----------
    x : array
    shape : of the same rank, equal to x's where x's is not 1
    """
    backend = backend or backends.of(x)
    _one("expand", "x", x)
    checks.require(len(shape) == x.ndim, "expand", "shape", tuple(shape), f"{x.ndim} sizes")
    _broadcasts("expand", "x.shape", x.shape, shape)
    checks.fits("expand", "shape", shape)
    (x,) = _there(backend, x)
    return backend.asarray(np.broadcast_to(x, tuple(shape)))


def reduce_to(dy: Any, shape: Sequence[int], *, backend: Any = None) -> Any:
    """Adjoint of broadcasting: dy summed over the axes along which `shape` was repeated.

    Parameters
    ----------
    dy : the signal at the broadcast shape
    shape : of what was broadcast; may have fewer axes than dy
    """
    backend = backend or backends.of(dy)
    _one("reduce_to", "dy", dy)
    _broadcasts("reduce_to", "shape", shape, dy.shape)
    (dy,) = _there(backend, dy)
    extra = dy.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(extra + i for i, size in enumerate(shape)
                                       if size == 1 and dy.shape[extra + i] != 1)
    if not axes:
        return backend.asarray(dy.reshape(tuple(shape)))
    # Summed wide: the order in which NumPy adds may change with the shape, the rounded sum hardly.
    total = dy.sum(axis=axes, dtype=np.float64, keepdims=True)
    checks.require(total.size == math.prod(shape), "reduce_to", "shape", tuple(shape), f"parts of {dy.shape}")
    return backend.asarray(total.reshape(tuple(shape)).astype(dy.dtype))
