"""Response normalisation across maps, local contrast normalisation, batch normalisation."""

from __future__ import annotations

import math
from typing import Any

from .. import backends, checks
from ..geometry import Tile
from .crop import bounds_of

__all__ = ["batch_norm", "batch_norm_gradient", "batch_norm_parameter_gradients", "batch_norm_training",
           "batch_norm_training_gradient", "contrast_norm", "contrast_norm_gradient", "response_norm",
           "response_norm_gradient"]

MODES = ("divisive", "subtractive")


def _constants(where: str, alpha: Any, beta: Any, k: Any) -> tuple[float, float, float]:
    """alpha >= 0, any finite beta, k > 0: then the base k + alpha * sum of squares never reaches 0."""
    for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            checks.fail(where, name, value, "a finite number", TypeError)
        checks.require(math.isfinite(value), where, name, value, "a finite number")
    checks.require(alpha >= 0, where, "alpha", alpha, "a number >= 0")
    checks.require(k > 0, where, "k", k, "a number above 0, so that the base never reaches 0")
    return float(alpha), float(beta), float(k)


def _signal(where: str, dy: Any, shape: tuple[int, ...], x: Any, backend: Any = None) -> None:
    checks.floats(where, "dy", dy, None, backend)
    checks.shape(where, "dy", dy, shape)
    checks.same_dtype(where, dy=dy, x=x)


def _across(where: str, x: Any, size: Any, alpha: Any, beta: Any, k: Any,
            divided: bool, backend: Any) -> tuple[int, float, float, float]:
    checks.floats(where, "x", x, None, backend)
    checks.require(x.ndim >= 1, where, "x.shape", tuple(x.shape), "at least one dimension")
    checks.integer(where, "size", size, 1, checks.LONGEST)
    checks.require(size <= x.shape[-1], where, "size", size, f"at most the {x.shape[-1]} channels")
    alpha, beta, k = _constants(where, alpha, beta, k)
    return int(size), alpha / size if divided else alpha, beta, k


def response_norm(x: Any, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0,
                  alpha_is_divided_by_size: bool = False, backend: Any = None) -> Any:
    """Normalise across neighbouring maps (Krizhevsky et al. 2012, section 3.3).

    y_f = x_f * D_f ** -beta, D_f = k + a * sum of x_j ** 2 over j from f - size // 2 to
    f - size // 2 + size - 1, clipped at the first and last map; a = alpha, or alpha / size with
    `alpha_is_divided_by_size` (Caffe, PyTorch, ONNX). For even sizes cuDNN and ONNX use the mirror image.

    Parameters
    ----------
    x : (..., C), C >= size
    size : maps in the window
    alpha, beta, k : the constants of D
    alpha_is_divided_by_size : whether a is alpha / size
    """
    where = "response_norm"
    backend = backend or backends.of(x)
    settings = _across(where, x, size, alpha, beta, k, alpha_is_divided_by_size, backend)
    x = backend.asarray(x)
    y = backend.empty(x.shape, x.dtype)
    backend.response_norm(y, x, *settings)
    return y


def response_norm_gradient(dy: Any, x: Any, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0,
                           alpha_is_divided_by_size: bool = False, backend: Any = None) -> Any:
    """Gradient of `response_norm` by x (its input, the only thing it needs stored).

    Parameters
    ----------
    dy : the signal, of x's shape
    x : (..., C), the input of `response_norm`
    size : maps in the window
    alpha, beta, k : the constants of D
    alpha_is_divided_by_size : whether a is alpha / size
    """
    where = "response_norm_gradient"
    backend = backend or backends.of(x)
    settings = _across(where, x, size, alpha, beta, k, alpha_is_divided_by_size, backend)
    _signal(where, dy, x.shape, x, backend)
    dy, x = backend.asarray(dy), backend.asarray(x)
    dx = backend.empty(x.shape, x.dtype)
    backend.response_norm_gradient(dx, dy, x, *settings)
    return dx


def _over_space(where: str, x: Any, size: Any, alpha: Any, beta: Any, k: Any, divided: bool, mode: str,
                tile: Tile | None) -> tuple[Any, int, float, float, float, bool]:
    """Bounds of the map and the kernel's settings."""
    checks.floats(where, "x", x, 4)
    checks.integer(where, "size", size, 1, checks.LONGEST)
    checks.one_of(where, "mode", mode, MODES)
    alpha, beta, k = _constants(where, alpha, beta, k)
    bounds = bounds_of(where, x.shape, tile)
    return bounds, int(size), alpha / size**2 if divided else alpha, beta, k, mode == "subtractive"


def contrast_norm(x: Any, *, size: int = 9, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0,
                  alpha_is_divided_by_area: bool = True, mode: str = "divisive", tile: Tile | None = None,
                  backend: Any = None) -> Any:
    """Local contrast normalisation over space, each map by itself.

    d = x - m, m the mean over the valid cells of a size x size window around the cell (rows
    i - size // 2 to i - size // 2 + size - 1, columns alike), D = k + a * sum of d ** 2 over the same
    window, y = x * D ** -beta ("divisive", cuda-convnet's) or d * D ** -beta ("subtractive", Jarrett et
    al. 2009). a = alpha / size ** 2 with `alpha_is_divided_by_area`, else alpha.

    Parameters
    ----------
    x : (N, H, W, C)
    tile : x is a batch of crops. The output has the crop's size; cells outside the map are 0. Two windows
        are used in sequence, so cells closer to the crop's first or last row or column than twice the
        window's reach lack neighbours and differ from the whole map's; the others are equal bit for bit.
    size : side of the window
    alpha, beta, k : the constants of D
    alpha_is_divided_by_area : whether a is alpha / size ** 2
    mode : "divisive" or "subtractive"
    """
    where = "contrast_norm"
    backend = backend or backends.of(x)
    settings = _over_space(where, x, size, alpha, beta, k, alpha_is_divided_by_area, mode, tile)
    x = backend.asarray(x)
    y = backend.empty(x.shape, x.dtype)
    backend.contrast_norm(y, x, *settings)
    return y


def contrast_norm_gradient(dy: Any, x: Any, *, size: int = 9, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0,
                           alpha_is_divided_by_area: bool = True, mode: str = "divisive", tile: Tile | None = None,
                           mean_is_constant: bool = False, backend: Any = None) -> Any:
    """Exact gradient of `contrast_norm` by x.

    Parameters
    ----------
    dy : of x's shape
    mean_is_constant : hold the local mean fixed, as cuda-convnet does; not the gradient (0.4 to 5 % off)
    x : (N, H, W, C), the input of `contrast_norm`
    size : side of the window
    alpha, beta, k : the constants of D
    alpha_is_divided_by_area : whether a is alpha / size ** 2
    mode : "divisive" or "subtractive"
    tile : as in `contrast_norm`
    """
    where = "contrast_norm_gradient"
    backend = backend or backends.of(x)
    settings = _over_space(where, x, size, alpha, beta, k, alpha_is_divided_by_area, mode, tile)
    _signal(where, dy, x.shape, x)
    dy, x = backend.asarray(dy), backend.asarray(x)
    dx = backend.empty(x.shape, x.dtype)
    backend.contrast_norm_gradient(dx, dy, x, *settings, bool(mean_is_constant))
    return dx


def _per_channel(where: str, x: Any, epsilon: float, **vectors: Any) -> None:
    checks.floats(where, "x", x)
    checks.require(x.ndim >= 1, where, "x.shape", tuple(x.shape), "at least one dimension")
    for name, vector in vectors.items():
        checks.floats(where, name, vector, 1)
        checks.shape(where, name, vector, (x.shape[-1],))
    checks.same_dtype(where, x=x, **vectors)
    checks.require(math.isfinite(epsilon) and epsilon >= 0, where, "epsilon", epsilon, "a finite number >= 0")


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5,
               backend: Any = None) -> Any:
    """Batch norm at inference: (x - mean) * scale / sqrt(variance + epsilon) + bias, per channel.

    Parameters
    ----------
    x : (..., C)
    scale, bias, mean, variance : (C,)
    epsilon : added to the variance
    """
    where = "batch_norm"
    backend = backend or backends.of(x)
    _per_channel(where, x, epsilon, scale=scale, bias=bias, mean=mean, variance=variance)
    _positive(where, variance, epsilon)
    x, scale, bias, mean, variance = map(backend.asarray, (x, scale, bias, mean, variance))
    y = backend.empty(x.shape, x.dtype)
    backend.batch_norm(y, x, scale, bias, mean, variance, epsilon)
    return y


def _positive(where: str, variance: Any, epsilon: float) -> None:
    if variance.size:
        least = float(variance.min())
        checks.require(not least + epsilon <= 0, where, "variance", least, "variance + epsilon above 0")


def batch_norm_gradient(dy: Any, scale: Any, variance: Any, *, epsilon: float = 1e-5, backend: Any = None) -> Any:
    """Gradient of `batch_norm` by x: dy * scale / sqrt(variance + epsilon); every rule's way down.

    Parameters
    ----------
    dy : (..., C), the signal
    scale, variance : (C,)
    epsilon : added to the variance
    """
    where = "batch_norm_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy)
    _per_channel(where, dy, epsilon, scale=scale, variance=variance)
    _positive(where, variance, epsilon)
    dy, scale, variance = map(backend.asarray, (dy, scale, variance))
    dx = backend.empty(dy.shape, dy.dtype)
    backend.batch_norm_gradient(dx, dy, scale, variance, epsilon)
    return dx


def batch_norm_parameter_gradients(dy: Any, x: Any, mean: Any, variance: Any, *, epsilon: float = 1e-5,
                                   backend: Any = None) -> tuple[Any, Any]:
    """Gradients of `batch_norm` by scale and bias, (C,) each.

    Parameters
    ----------
    dy : (..., C), the signal
    x : (..., C), the input
    mean, variance : (C,), those of the forward pass
    epsilon : added to the variance
    """
    where = "batch_norm_parameter_gradients"
    backend = backend or backends.of(x)
    _per_channel(where, x, epsilon, mean=mean, variance=variance)
    _positive(where, variance, epsilon)
    _signal(where, dy, x.shape, x)
    dy, x, mean, variance = map(backend.asarray, (dy, x, mean, variance))
    dscale, dbias = backend.empty(mean.shape, x.dtype), backend.empty(mean.shape, x.dtype)
    backend.batch_norm_parameter_gradients(dscale, dbias, dy, x, mean, variance, epsilon)
    return dscale, dbias


def batch_norm_training(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5,
                        backend: Any = None) -> tuple[Any, Any, Any]:
    """Batch norm with the batch's own statistics (Ioffe and Szegedy 2015).

    Parameters
    ----------
    x : (..., C)
    scale, bias : (C,)
    epsilon : added to the variance

    Returns
    -------
    y : like x
    mean, variance : (C,), over all cells of all images; the variance is the biased one
    """
    where = "batch_norm_training"
    backend = backend or backends.of(x)
    _per_channel(where, x, epsilon, scale=scale, bias=bias)
    checks.require(x.size > 0, where, "x.shape", tuple(x.shape), "at least one cell to take statistics from")
    checks.require(epsilon > 0, where, "epsilon", epsilon, "above 0: a constant map has variance 0")
    x, scale, bias = map(backend.asarray, (x, scale, bias))
    mean, variance = backend.empty(scale.shape, x.dtype), backend.empty(scale.shape, x.dtype)
    backend.batch_statistics(mean, variance, x)
    y = backend.empty(x.shape, x.dtype)
    backend.batch_norm(y, x, scale, bias, mean, variance, epsilon)
    return y, mean, variance


def batch_norm_training_gradient(dy: Any, x: Any, mean: Any, variance: Any, scale: Any, *, epsilon: float = 1e-5,
                                 trusted: bool = False, backend: Any = None) -> tuple[Any, Any, Any]:
    """Gradients of `batch_norm_training`: (dx, dscale, dbias); mean and variance are its results.

    Parameters
    ----------
    dy : (..., C), the signal
    x : (..., C), the input
    mean, variance : (C,), what `batch_norm_training` gave
    scale : (C,)
    epsilon : added to the variance
    trusted : the variance is `batch_norm_training`'s own and not looked at first, so that nothing waits for a device
    """
    where = "batch_norm_training_gradient"
    backend = backend or backends.of(x)
    _per_channel(where, x, epsilon, mean=mean, variance=variance, scale=scale)
    if not trusted:
        _positive(where, variance, epsilon)
    _signal(where, dy, x.shape, x)
    dy, x, mean, variance, scale = map(backend.asarray, (dy, x, mean, variance, scale))
    dx = backend.empty(x.shape, x.dtype)
    dscale, dbias = backend.empty(mean.shape, x.dtype), backend.empty(mean.shape, x.dtype)
    backend.batch_norm_training_gradient(dx, dscale, dbias, dy, x, mean, variance, scale, epsilon)
    return dx, dscale, dbias
