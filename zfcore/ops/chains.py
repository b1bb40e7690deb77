"""Fused chains: the first stage up, and the deconvnet's way down, without the large maps between.

Where the backend has no kernel for one, its single operations run; the bits are theirs either way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks
from ..geometry import Tile
from . import convolution as _convolution
from . import pooling as _pooling
from .activation import relu
from .crop import bounds_of
from .storage import DTYPES, bias_of, in_type_of, named, rounded, widened

__all__ = ["convolution_pool", "unpool_filter"]

LARGEST = 64  # cells of a window in the kernels


def convolution_pool(x: Any, weight: Any, bias: Any = None, *, window: Any, window_stride: Any = None,
                     window_padding: Any = 0, ceil_mode: bool = False, stride: Any = 1, padding: Any = 0,
                     dilation: Any = 1, groups: int = 1, activation: str | None = None, tile: Tile | None = None,
                     precision: str | None = None, backend: Any = None) -> tuple[Any, Any]:
    """`max_pool` of `convolution`, without its maps: these are computed where a pooling window looks.

    Parameters
    ----------
    x, weight, bias, stride, padding, dilation, groups, activation, precision : as in `convolution`, algorithm
        "direct"
    window, window_stride, window_padding, ceil_mode : the pool's, as in `max_pool`
    tile : where the convolution's maps lie when x is a batch of crops

    Returns
    -------
    y, switches : (N, P, Q, K), as of `max_pool`
    """
    where = "convolution_pool"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x, 4, backend)
    checks.floats(where, "weight", weight, 4, backend)
    checks.same_dtype(where, x=x, weight=weight)
    precision = checks.precision(where, precision, x, backend)
    checks.one_of(where, "activation", activation, _convolution.ACTIVATIONS)
    sizes = _convolution._geometry(where, _convolution._shape(where, "x.shape", tuple(x.shape), True),
                                   _convolution._shape(where, "weight.shape", tuple(weight.shape), False),
                                   stride, padding, dilation, groups)
    bias = bias_of(where, bias, x, weight.shape[0], backend)
    maps = sizes.output_shape
    windows = _pooling._windows(where, maps, window, window_stride, window_padding, tile, ceil_mode)
    _pooling._switch_area(where, windows.window)
    fused = getattr(backend, "convolution_pool", None)
    if fused is None or windows.window[0] * windows.window[1] > LARGEST:
        y = _convolution.convolution(x, weight, bias, **_settings(sizes), activation=activation, precision=precision,
                                     backend=backend)
        return _pooling.max_pool(y, window=window, stride=window_stride, padding=window_padding, ceil_mode=ceil_mode,
                                 tile=tile, backend=backend)
    bounds = bounds_of(where, maps, tile)
    shape = (maps[0], *windows.outputs(maps[1:3], ceil_mode), maps[3])
    factors = rounded(backend, precision, x), rounded(backend, precision, weight)
    y, switches = backend.empty(shape, factors[0].dtype), backend.empty(shape, np.uint8)
    fused(y, switches, *factors, None if bias is None else widened(backend, bias), bounds, maps[1:3], *sizes[:4],
          activation == "relu", windows.window, windows.stride, windows.before, *named(precision))
    return in_type_of(backend, y, x), switches


def unpool_filter(y: Any, switches: Any, weight: Any, input_shape: Any, size: Any, *, window: Any,
                  window_stride: Any = None, window_padding: Any = 0, overlap: str = "sum", rectify: bool = False,
                  stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, tile: Tile | None = None,
                  precision: str | None = None, backend: Any = None) -> Any:
    """`max_unpool`, `relu` if asked, then `convolution_input_gradient`, without the maps between.

    The deconvnet's way down through a stage (Zeiler & Fergus 2013, section 2.1: unpool, rectify, filter). The
    switches are trusted: a bad one reaches no cell.

    Parameters
    ----------
    y, switches : (N, P', Q', K), the signal at the pooled maps and the pool's switches
    weight, stride, padding, dilation, groups, precision : as in `convolution_input_gradient`, algorithm "direct"
    input_shape : (N, H, W, C) of the convolution's input
    size : (P, Q) of the convolution's maps
    window, window_stride, window_padding, overlap : the pool's, as in `max_unpool`
    rectify : whether the unpooled signal is rectified before it is filtered
    tile : where the convolution's maps lie when the arrays are crops

    Returns
    -------
    dx : (N, H, W, C)
    """
    where = "unpool_filter"
    backend = backend or backends.of(y)
    checks.floats(where, "y", y, 4, backend)
    checks.floats(where, "weight", weight, 4, backend)
    checks.same_dtype(where, y=y, weight=weight)
    precision = checks.precision(where, precision, y, backend)
    checks.one_of(where, "overlap", overlap, ("sum", "last"))
    shape = _convolution._shape(where, "input_shape", input_shape, True)
    sizes = _convolution._geometry(where, shape, _convolution._shape(where, "weight.shape", tuple(weight.shape), False),
                                   stride, padding, dilation, groups)
    maps = sizes.output_shape
    checks.require(checks.pair(where, "size", size, 1) == maps[1:3], where, "size", size, f"{maps[1:3]}")
    windows = _pooling._windows(where, maps, window, window_stride, window_padding, tile)
    _pooling._switch_area(where, windows.window)
    _pooling._pooled_shape(where, "y", y, maps, windows, (False,) if tile is not None else (False, True))
    _pooling._uint8(where, switches, y.shape)
    fused = getattr(backend, "unpool_filter", None)
    # Float32 signals of one cell are added, then rounded to 16 bits; in the kernel they would be rounded before.
    added = overlap == "sum" and any(step < size for step, size in zip(windows.stride, windows.window, strict=True))
    if fused is None or (added and DTYPES.get(precision, y.dtype) != y.dtype):
        signal = _pooling.max_unpool(y, switches, maps, window=window, stride=window_stride, padding=window_padding,
                                     overlap=overlap, trusted=True, tile=tile, backend=backend)
        signal = relu(signal, backend=backend) if rectify else signal
        return _convolution.convolution_input_gradient(signal, weight, shape, **_settings(sizes), precision=precision,
                                                       backend=backend)
    bounds = bounds_of(where, maps, tile)
    factors = rounded(backend, precision, y), rounded(backend, precision, weight)
    dx = backend.empty(shape, factors[0].dtype)
    fused(dx, factors[0], backend.asarray(switches), factors[1], bounds, windows.window, windows.stride, windows.before,
          overlap == "last", bool(rectify), maps[1:3], *sizes[:4], *named(precision))
    return in_type_of(backend, dx, y)


def _settings(sizes: _convolution.Geometry) -> dict[str, Any]:
    return {"stride": sizes.stride, "padding": sizes.padding, "dilation": sizes.dilation, "groups": sizes.groups}
