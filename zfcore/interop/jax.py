"""zfcore's kernels as operators of JAX: differentiable in reverse, and inside `jax.jit`.

    from zfcore.interop import jax as zf
    y, switches = zf.max_pool(x, window=3, stride=2)

Arrays are (N, H, W, C), float32 or (with JAX's x64 mode) float64; options are those of `zfcore.ops` and must
be constants. The kernels run on the host, through `jax.pure_callback`: arrays on a GPU make the way there and
back. Needs the `jax` extra.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .. import checks, ops
from ..geometry import output_size

__all__ = ["contrast_norm", "convolution", "max_pool", "max_unpool", "response_norm"]


def _host(operation: Callable[..., Any], results: Any, *arrays: Any, **options: Any) -> Any:
    """Call an operation of `zfcore.ops` from inside traced code; `results`: a (shape, dtype), or a tuple of them."""

    def run(*given: Any) -> Any:
        return operation(*map(np.asarray, given), **options)

    several = isinstance(results[0][0], tuple) if results[0] else False
    shapes = tuple(jax.ShapeDtypeStruct(*each) for each in results) if several else jax.ShapeDtypeStruct(*results)
    return jax.pure_callback(run, shapes, *arrays, vmap_method="sequential")


def _constant(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options as something that can be hashed: JAX compiles once for each."""
    return tuple(sorted((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items()))


def _like(x: Any) -> tuple[tuple[int, ...], Any]:
    return tuple(x.shape), x.dtype


# ------------------------------------------------------------------------------------------ max pooling


def max_pool(x: Any, *, window: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> tuple[Any, Any]:
    """Max pooling with uint8 switches: `zfcore.ops.max_pool`. The gradient goes to the switches.

    Parameters
    ----------
    x : (N, H, W, C)
    window, stride, padding, ceil_mode : as there

    Returns
    -------
    y, switches : (N, P, Q, C)
    """
    where = "max_pool"
    sides = checks.pair(where, "window", window, 1)
    steps = sides if stride is None else checks.pair(where, "stride", stride, 1)
    return _max_pool(x, sides, steps, checks.padding(where, padding), bool(ceil_mode))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x: Any, window: Any, stride: Any, padding: Any, ceil_mode: bool) -> tuple[Any, Any]:
    sizes = [output_size(x.shape[1 + axis], window[axis], stride[axis], padding[2 * axis], padding[2 * axis + 1],
                         ceil_mode=ceil_mode) for axis in range(2)]
    shape = (x.shape[0], *sizes, x.shape[3])
    return tuple(_host(ops.max_pool, ((shape, x.dtype), (shape, np.dtype(np.uint8))), x, window=window, stride=stride,
                       padding=padding, ceil_mode=ceil_mode))


def _max_pool_up(x: Any, window: Any, stride: Any, padding: Any, ceil_mode: bool) -> Any:
    y, switches = _max_pool(x, window, stride, padding, ceil_mode)
    return (y, switches), (switches, x.shape)


def _max_pool_down(window: Any, stride: Any, padding: Any, ceil_mode: bool, kept: Any, signals: Any) -> Any:
    switches, shape = kept
    return (max_unpool(signals[0], switches, shape, window=window, stride=stride, padding=padding),)


_max_pool.defvjp(_max_pool_up, _max_pool_down)


def max_unpool(y: Any, switches: Any, output_shape: Any, *, window: Any, stride: Any = None, padding: Any = 0) -> Any:
    """Unpooling, which adds where windows share a cell: `zfcore.ops.max_unpool`.

    Parameters
    ----------
    y, switches : (N, P, Q, C)
    output_shape : (N, H, W, C)
    window, stride, padding : the pooling's
    """
    options = {"window": window, "stride": stride, "padding": padding}
    return _max_unpool(y, switches, tuple(output_shape), _constant(options))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _max_unpool(y: Any, switches: Any, shape: Any, options: Any) -> Any:
    def run(y: Any, switches: Any) -> Any:
        return ops.max_unpool(y, switches, shape, **dict(options))

    return _host(run, (shape, y.dtype), y, switches)


def _max_unpool_up(y: Any, switches: Any, shape: Any, options: Any) -> Any:
    return _max_unpool(y, switches, shape, options), switches


def _max_unpool_down(shape: Any, options: Any, switches: Any, signal: Any) -> Any:
    taken = _host(ops.pool_at, (tuple(switches.shape), signal.dtype), signal, switches, **dict(options))
    return taken, np.zeros(switches.shape, jax.dtypes.float0)


_max_unpool.defvjp(_max_unpool_up, _max_unpool_down)


# ---------------------------------------------------------------------------------------- normalisation


def response_norm(x: Any, **options: Any) -> Any:
    """Normalisation across maps: `zfcore.ops.response_norm`.

    Parameters
    ----------
    x : (..., C)
    options : as there, constants
    """
    return _norm(x, "response_norm", _constant(options))


def contrast_norm(x: Any, **options: Any) -> Any:
    """Local contrast normalisation: `zfcore.ops.contrast_norm`; the exact gradient.

    Parameters
    ----------
    x : (N, H, W, C)
    options : as there, constants
    """
    return _norm(x, "contrast_norm", _constant(options))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _norm(x: Any, name: str, options: Any) -> Any:
    return _host(ops.OPERATIONS[name], _like(x), x, **dict(options))


def _norm_up(x: Any, name: str, options: Any) -> Any:
    return _norm(x, name, options), x


def _norm_down(name: str, options: Any, x: Any, dy: Any) -> Any:
    return (_host(ops.OPERATIONS[f"{name}_gradient"], _like(x), dy, x, **dict(options)),)


_norm.defvjp(_norm_up, _norm_down)


# ------------------------------------------------------------------------------------------ convolution


def convolution(x: Any, weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                groups: int = 1) -> Any:
    """Cross-correlation in one fixed order of sums: `zfcore.ops.convolution`.

    Parameters
    ----------
    x : (N, H, W, C)
    weight : (K, R, S, C / groups)
    bias : (K,) or None
    stride, padding, dilation, groups : as there
    """
    where = "convolution"
    options = {"stride": checks.pair(where, "stride", stride, 1), "padding": checks.padding(where, padding),
               "dilation": checks.pair(where, "dilation", dilation, 1), "groups": groups}
    y = _convolution(x, weight, _constant(options))
    return y if bias is None else y + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: Any, weight: Any, options: Any) -> Any:
    sizes = dict(options)
    pads = sizes["padding"]
    rows, columns = (output_size(x.shape[1 + axis], weight.shape[1 + axis], sizes["stride"][axis], pads[2 * axis],
                                 pads[2 * axis + 1], sizes["dilation"][axis]) for axis in range(2))
    shape = (x.shape[0], rows, columns, weight.shape[0])
    return _host(ops.OPERATIONS["convolution"], (shape, x.dtype), x, weight, **sizes)


def _convolution_up(x: Any, weight: Any, options: Any) -> Any:
    return _convolution(x, weight, options), (x, weight)


def _convolution_down(options: Any, kept: Any, dy: Any) -> Any:
    x, weight = kept
    dx = _host(ops.convolution_input_gradient, _like(x), dy, weight, input_shape=tuple(x.shape), **dict(options))
    return dx, _host(ops.convolution_weight_gradient, _like(weight), dy, x, weight_shape=tuple(weight.shape),
                     **dict(options))


_convolution.defvjp(_convolution_up, _convolution_down)
