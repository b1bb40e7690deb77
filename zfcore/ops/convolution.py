"""Convolution: cross-correlation of NHWC maps with KRSC filters, and its two gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import backends, checks
from ..geometry import output_size
from . import storage

__all__ = ["channel_sum", "convolution", "convolution_input_gradient", "convolution_weight_gradient"]

ACTIVATIONS = (None, "relu")
ALGORITHMS = ("direct", "winograd", "winograd_exact", "auto")


class Geometry(NamedTuple):
    """Checked sizes of one convolution."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    output_shape: tuple[int, int, int, int]


def _shape(where: str, argument: str, value: Any, batch: bool) -> tuple[int, int, int, int]:
    """Check a shape of four sizes, all >= 1 but for the batch, which may be 0."""
    if not isinstance(value, (tuple, list)):
        checks.fail(where, argument, value, "a tuple of four sizes", TypeError)
    checks.require(len(value) == 4, where, argument, tuple(value), "four dimensions")
    first, *others = value
    sizes = (checks.integer(where, argument, first, 0 if batch else 1),
             *(checks.integer(where, argument, size, 1) for size in others))
    checks.fits(where, argument, sizes)
    return sizes  # type: ignore[return-value]


def _geometry(where: str, input_shape: tuple[int, int, int, int], weight_shape: tuple[int, int, int, int],
              stride: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    """Check everything that sizes alone decide; arrays' shapes have been checked one by one."""
    stride = checks.pair(where, "stride", stride, 1)
    dilation = checks.pair(where, "dilation", dilation, 1)
    pads = checks.padding(where, padding)
    groups = checks.integer(where, "groups", groups, 1)
    batch, height, width, channels = input_shape
    filters, window_height, window_width, filter_channels = weight_shape
    checks.require(channels % groups == 0 and filters % groups == 0, where, "groups", groups,
                   f"a divisor of {channels} input channels and of {filters} filters")
    checks.require(filter_channels * groups == channels, where, "weight.shape", weight_shape,
                   f"{channels // groups} channels in each filter ({channels} input channels / {groups} groups)")
    rows = output_size(height, window_height, stride[0], pads[0], pads[1], dilation[0])
    columns = output_size(width, window_width, stride[1], pads[2], pads[3], dilation[1])
    checks.require(rows >= 1 and columns >= 1, where, "weight.shape", weight_shape,
                   f"a window that fits the padded input of {height + pads[0] + pads[1]} x "
                   f"{width + pads[2] + pads[3]} at dilation {dilation}")
    shape = (batch, rows, columns, filters)
    checks.fits(where, "the output's shape", shape)
    return Geometry(stride, pads, dilation, groups, shape)


def _fast(where: str, algorithm: str, backend: Any, weight_shape: tuple[int, int, int, int],
          geometry: Geometry) -> Any:
    """The backend's launchers of a fast algorithm, or None for the direct one; backends need have none."""
    choose = getattr(backend, "fast_convolution", None)
    fast = None
    if algorithm != "direct" and choose is not None:
        fast = choose(algorithm, weight_shape, geometry.stride, geometry.dilation, geometry.groups,
                      geometry.output_shape[1:3])
    if algorithm.startswith("winograd") and fast is None:
        checks.fail(where, "algorithm", algorithm, f"'direct' or 'auto', here, for filters of shape "
                    f"{weight_shape}, stride {geometry.stride} and dilation {geometry.dilation}")
    return fast


def convolution(x: Any, weight: Any, bias: Any = None, *, stride: int | Sequence[int] = 1,
                padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
                activation: str | None = None, algorithm: str = "direct", precision: str | None = None,
                backend: Any = None) -> Any:
    """Cross-correlate maps with filters, add a bias and, if asked, rectify.

    Parameters
    ----------
    x : (N, H, W, C) float32 or float64, or 16 bits where the backend has them; N may be 0
    weight : (K, R, S, C / groups), the same dtype
    bias : (K,) or None; of that dtype, or float32 where it is of 16 bits
    stride, dilation : one integer or (vertical, horizontal), >= 1
    padding : cells of zeros: one integer, (vertical, horizontal) or (top, bottom, left, right)
    groups : filters of group g see only the g-th part of the channels
    activation : None or "relu", applied while the sums are in registers
    algorithm : "direct" sums every product in a fixed order, which is exact on small integers and
        does not depend on batch size, position or crop. "winograd" needs up to four times fewer
        products: 3 x 3 and, with less, 5 x 5 filters at stride 1, 5 x 5 and 6 x 6 at stride 2. Its bits
        do not depend on batch size or position in the batch, but on the place in the map; its
        rounding errors are three to six times larger (docs/performance.md states the bound).
        "winograd_exact": smaller tiles with smaller errors, exact on small integers, a saving of up to
        2.25. "auto" chooses "direct" or "winograd" by the sizes of filters and maps alone
    precision : what products are made of. None: the arrays' own type, float32 for float32. For float32 arrays
        also "tf32", "float16" or "bfloat16": the factors are rounded to that and summed in float32 on tensor
        cores; with 16 bits the result is rounded too. "tf32x3", of float32 arrays too: each factor is split
        into two of tf32 and three products are made of them, so that errors are near those of float32, not
        of tf32. Arrays of 16 bits take their own, or "float32": plain arithmetic. Backends that lack a
        precision refuse it; numba has "float32" alone

    Returns
    -------
    y : (N, P, Q, K) with P = floor((H + top + bottom - dilation * (R - 1) - 1) / stride) + 1. The
        padding's zeros are multiplied like others: an infinite weight makes NaN of them.

    Raises
    ------
    TypeError, ValueError for dtypes, ranks or sizes that do not fit together, before any allocation.
    """
    where = "convolution"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x, 4, backend)
    checks.floats(where, "weight", weight, 4, backend)
    checks.same_dtype(where, x=x, weight=weight)
    precision = checks.precision(where, precision, x, backend)
    checks.one_of(where, "activation", activation, ACTIVATIONS)
    checks.one_of(where, "algorithm", algorithm, ALGORITHMS)
    geometry = _geometry(where, _shape(where, "x.shape", tuple(x.shape), True),
                         _shape(where, "weight.shape", tuple(weight.shape), False),
                         stride, padding, dilation, groups)
    bias = storage.bias_of(where, bias, x, weight.shape[0], backend)
    fast = _fast(where, algorithm, backend, tuple(weight.shape), geometry)
    factors = storage.rounded(backend, precision, x), storage.rounded(backend, precision, weight)
    arrays = (*factors, None if bias is None else storage.widened(backend, bias))
    y = backend.empty(geometry.output_shape, arrays[0].dtype)
    if fast is None:
        backend.convolution_forward(y, *arrays, *geometry[:4], activation == "relu", *storage.named(precision))
    else:
        fast.forward(y, *arrays, geometry.stride[0], geometry.padding, geometry.groups, activation == "relu")
    return storage.in_type_of(backend, y, x)


def convolution_input_gradient(dy: Any, weight: Any, input_shape: Sequence[int], *,
                               stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
                               dilation: int | Sequence[int] = 1, groups: int = 1,
                               algorithm: str = "direct", precision: str | None = None,
                               backend: Any = None) -> Any:
    """Adjoint of `convolution` with respect to its input; also the deconvnet's filtering.

    Parameters
    ----------
    dy : (N, P, Q, K), the shape that `convolution` gives for `input_shape`
    weight : (K, R, S, C / groups)
    input_shape : (N, H, W, C) of the convolution's input
    stride, padding, dilation, groups, algorithm, precision : as in `convolution`

    Returns
    -------
    dx : (N, H, W, C), the sum of dy times the filters that touched each cell; no bias. (Zeiler &
        Fergus, section 2.1: "filtering" with flipped filters.)
    """
    where = "convolution_input_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 4, backend)
    checks.floats(where, "weight", weight, 4, backend)
    checks.same_dtype(where, dy=dy, weight=weight)
    precision = checks.precision(where, precision, dy, backend)
    checks.one_of(where, "algorithm", algorithm, ALGORITHMS)
    shape = _shape(where, "input_shape", input_shape, True)
    geometry = _geometry(where, shape, _shape(where, "weight.shape", tuple(weight.shape), False),
                         stride, padding, dilation, groups)
    checks.shape(where, "dy", dy, geometry.output_shape)
    fast = _fast(where, algorithm, backend, tuple(weight.shape), geometry)
    arrays = storage.rounded(backend, precision, dy), storage.rounded(backend, precision, weight)
    dx = backend.empty(shape, arrays[0].dtype)
    if fast is None:
        backend.convolution_input_gradient(dx, *arrays, *geometry[:4], *storage.named(precision))
    else:
        fast.input_gradient(dx, *arrays, geometry.stride[0], geometry.padding, geometry.groups)
    return storage.in_type_of(backend, dx, dy)


def convolution_weight_gradient(dy: Any, x: Any, weight_shape: Sequence[int], *,
                                stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
                                dilation: int | Sequence[int] = 1, groups: int = 1,
                                algorithm: str = "direct", precision: str | None = None,
                                backend: Any = None) -> Any:
    """Adjoint of `convolution` with respect to its filters, summed over the batch.

    Parameters
    ----------
    dy : (N, P, Q, K)
    x : (N, H, W, C), the convolution's input
    weight_shape : (K, R, S, C / groups)
    stride, padding, dilation, groups, algorithm, precision : as in `convolution`

    Returns
    -------
    dweight : `weight_shape`, float32 where the arrays are of 16 bits; zeros where the batch is empty
    """
    where = "convolution_weight_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 4, backend)
    checks.floats(where, "x", x, 4, backend)
    checks.same_dtype(where, dy=dy, x=x)
    precision = checks.precision(where, precision, dy, backend)
    checks.one_of(where, "algorithm", algorithm, ALGORITHMS)
    shape = _shape(where, "weight_shape", weight_shape, False)
    geometry = _geometry(where, _shape(where, "x.shape", tuple(x.shape), True), shape,
                         stride, padding, dilation, groups)
    checks.shape(where, "dy", dy, geometry.output_shape)
    fast = _fast(where, algorithm, backend, shape, geometry)
    dweight = backend.empty(shape, np.float32 if dy.dtype in checks.SHORT else dy.dtype)
    arrays = storage.rounded(backend, precision, dy), storage.rounded(backend, precision, x)
    if fast is None:
        backend.convolution_weight_gradient(dweight, *arrays, *geometry[:4], *storage.named(precision))
    else:
        fast.weight_gradient(dweight, *arrays, geometry.stride[0], geometry.padding, geometry.groups)
    return dweight


def channel_sum(dy: Any, *, backend: Any = None) -> Any:
    """Sum over all axes but the last, in fixed order: the gradient of a bias.

    Parameters
    ----------
    dy : (..., C) of rank 2 or more; all other axes may be empty

    Returns
    -------
    sums : (C,), float32 where dy is of 16 bits
    """
    where = "channel_sum"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, None, backend)
    checks.require(dy.ndim >= 2, where, "dy.shape", tuple(dy.shape), "at least 2 dimensions")
    checks.require(dy.shape[-1] >= 1, where, "dy.shape", tuple(dy.shape), "at least one channel")
    checks.fits(where, "dy.shape", dy.shape)
    dy = backend.asarray(dy)
    sums = backend.empty((dy.shape[-1],), np.float32 if dy.dtype in checks.SHORT else dy.dtype)
    backend.channel_sum(sums, dy.reshape(-1, dy.shape[-1]))
    return sums
