"""zfcore's kernels as custom operators of PyTorch: torch.ops.zfcore.*, with gradients and shape functions.

Tensors are (N, C, H, W), float32 or float64, on the CPU or on a CUDA device (there on PyTorch's current
stream, and of float16 and bfloat16 too, contrast norm excepted). Their results are channels last in memory; a
channels-last input is used as it lies, another one is copied once. `torch.compile` and `torch.export` keep the
operators whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

from ... import backends, ops
from ...geometry import output_size

__all__ = ["contrast_norm", "convolution", "max_pool", "max_unpool", "response_norm"]

_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def _inward(tensor: Tensor) -> Any:
    """The tensor as an (N, H, W, C) array of NumPy or CuPy, the same memory if it is channels last."""
    tensor = tensor.detach()
    if tensor.ndim == 4:
        tensor = tensor.permute(_LAST)
    tensor = tensor.contiguous()
    if tensor.dtype == torch.bfloat16:
        return ops.Bfloat16(_shared(tensor.view(torch.int16)).view(np.uint16))
    return _shared(tensor)


def _shared(tensor: Tensor) -> Any:
    """A dense tensor as an array of NumPy or CuPy: the same memory."""
    if tensor.device.type == "cpu":
        return tensor.numpy()
    if tensor.device.type == "cuda":
        return backends.get("cuda").from_outside(tensor)
    raise ValueError(f"zfcore: a tensor is on {tensor.device}; allowed: the CPU or a CUDA device")


def _outward(array: Any) -> Tensor:
    """An (N, H, W, C) array as a tensor (N, C, H, W): the same memory, channels last."""
    if isinstance(array, ops.Bfloat16):
        return _outward(array.bits.view(np.int16)).view(torch.bfloat16)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.utils.dlpack.from_dlpack(array)
    return tensor.permute(_FIRST) if tensor.ndim == 4 else tensor


def _stream(tensor: Tensor) -> Any:
    """Kernels that run inside go to PyTorch's current stream."""
    if tensor.device.type != "cuda":
        return contextlib.nullcontext()
    import cupy

    return cupy.cuda.ExternalStream(torch.cuda.current_stream(tensor.device).cuda_stream, tensor.device.index)


def _call(operation: Any, *tensors: Tensor | None, **options: Any) -> Any:
    """An operation of `zfcore.ops` on tensors."""
    first = next(tensor for tensor in tensors if tensor is not None)
    with _stream(first):
        result = operation(*(None if tensor is None else _inward(tensor) for tensor in tensors), **options)
        return tuple(map(_outward, result)) if isinstance(result, tuple) else _outward(result)


def _like(tensor: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """What a shape function returns: an empty tensor, channels last in memory."""
    return torch.empty(tuple(shape), dtype=dtype or tensor.dtype, device=tensor.device,
                       memory_format=torch.channels_last)


def _nhwc(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(shape[axis]) for axis in _LAST)


# ------------------------------------------------------------------------------------------ max pooling


@torch.library.custom_op("zfcore::max_pool", mutates_args=())
def max_pool(x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int],
             ceil_mode: bool) -> tuple[Tensor, Tensor]:
    """Max pooling with uint8 switches, see `zfcore.ops.max_pool`.

    Parameters
    ----------
    x : (N, C, H, W)
    window, stride : (vertical, horizontal)
    padding : (top, bottom, left, right)
    ceil_mode : whether a last window may hang over the border

    Returns
    -------
    y, switches : (N, C, P, Q)
    """
    return _call(ops.max_pool, x, window=tuple(window), stride=tuple(stride), padding=tuple(padding),
                 ceil_mode=ceil_mode)


@max_pool.register_fake
def _(x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int],
      ceil_mode: bool) -> tuple[Tensor, Tensor]:
    rows = output_size(x.shape[2], window[0], stride[0], padding[0], padding[1], ceil_mode=ceil_mode)
    columns = output_size(x.shape[3], window[1], stride[1], padding[2], padding[3], ceil_mode=ceil_mode)
    shape = (x.shape[0], x.shape[1], rows, columns)
    return _like(x, shape), _like(x, shape, torch.uint8)


@torch.library.custom_op("zfcore::max_unpool", mutates_args=())
def max_unpool(y: Tensor, switches: Tensor, size: Sequence[int], window: Sequence[int], stride: Sequence[int],
               padding: Sequence[int], last: bool) -> Tensor:
    """Unpooling, the adjoint of `max_pool` at fixed switches, see `zfcore.ops.max_unpool`.

    Parameters
    ----------
    y, switches : (N, C, P, Q)
    size : (H, W) of the result
    window, stride, padding : the pooling's
    last : where windows share a cell the last one wins, as in torch; else their values are added
    """
    shape = (y.shape[0], *size, y.shape[1])
    with _stream(y):
        return _outward(ops.max_unpool(_inward(y), _inward(switches), shape, window=tuple(window),
                                       stride=tuple(stride), padding=tuple(padding),
                                       overlap="last" if last else "sum"))


@max_unpool.register_fake
def _(y: Tensor, switches: Tensor, size: Sequence[int], window: Sequence[int], stride: Sequence[int],
      padding: Sequence[int], last: bool) -> Tensor:
    return _like(y, (y.shape[0], y.shape[1], size[0], size[1]))


@torch.library.custom_op("zfcore::max_unpool_gradient", mutates_args=())
def max_unpool_gradient(dx: Tensor, switches: Tensor, window: Sequence[int], stride: Sequence[int],
                        padding: Sequence[int], last: bool) -> Tensor:
    """Adjoint of `max_unpool` at fixed switches: the signal of each value's cell, 0 for values that lost theirs."""
    options = {"window": tuple(window), "stride": tuple(stride), "padding": tuple(padding)}
    with _stream(dx):
        signal, places = _inward(dx), _inward(switches)
        dy = ops.pool_at(signal, places, **options)
        if last:  # each value's own number comes back from the cells that it won
            backend = backends.of(places)
            numbers = backend.asarray(np.arange(1.0, places.size + 1).reshape(places.shape))
            winners = ops.max_unpool(numbers, places, tuple(signal.shape), overlap="last", **options)
            won = ops.pool_at(winners, places, **options) == numbers
            dy = ops.Bfloat16(dy.bits * won) if isinstance(dy, ops.Bfloat16) else dy * won.astype(dy.dtype)
        return _outward(dy)


@max_unpool_gradient.register_fake
def _(dx: Tensor, switches: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int],
      last: bool) -> Tensor:
    return _like(dx, switches.shape)


def _keep_pool(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.window, ctx.stride, ctx.padding, _ = inputs
    ctx.size = tuple(x.shape[2:])
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _pool_backward(ctx: Any, dy: Tensor, _: Any) -> Any:
    (switches,) = ctx.saved_tensors
    return max_unpool(dy, switches, ctx.size, ctx.window, ctx.stride, ctx.padding, False), None, None, None, None


def _keep_unpool(ctx: Any, inputs: Any, output: Any) -> None:
    _, switches, _, ctx.window, ctx.stride, ctx.padding, ctx.last = inputs
    ctx.save_for_backward(switches)


def _unpool_backward(ctx: Any, dx: Tensor) -> Any:
    (switches,) = ctx.saved_tensors
    return (max_unpool_gradient(dx, switches, ctx.window, ctx.stride, ctx.padding, ctx.last),
            None, None, None, None, None, None)


max_pool.register_autograd(_pool_backward, setup_context=_keep_pool)
max_unpool.register_autograd(_unpool_backward, setup_context=_keep_unpool)


# ---------------------------------------------------------------------------------------- normalisation


@torch.library.custom_op("zfcore::response_norm", mutates_args=())
def response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, divided: bool) -> Tensor:
    """Normalisation across maps, see `zfcore.ops.response_norm`.

    Parameters
    ----------
    x : (N, C, H, W)
    size, alpha, beta, k : as there
    divided : whether a is alpha / size, as in torch
    """
    return _call(ops.response_norm, x, size=size, alpha=alpha, beta=beta, k=k, alpha_is_divided_by_size=divided)


@torch.library.custom_op("zfcore::response_norm_gradient", mutates_args=())
def response_norm_gradient(dy: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float,
                           divided: bool) -> Tensor:
    """Gradient of `response_norm`."""
    return _call(ops.response_norm_gradient, dy, x, size=size, alpha=alpha, beta=beta, k=k,
                 alpha_is_divided_by_size=divided)


@torch.library.custom_op("zfcore::contrast_norm", mutates_args=())
def contrast_norm(x: Tensor, size: int, alpha: float, beta: float, k: float, mode: str) -> Tensor:
    """Local contrast normalisation, see `zfcore.ops.contrast_norm`.

    Parameters
    ----------
    x : (N, C, H, W)
    size, alpha, beta, k : as there
    mode : "divisive" or "subtractive"
    """
    return _call(ops.contrast_norm, x, size=size, alpha=alpha, beta=beta, k=k, mode=mode)


@torch.library.custom_op("zfcore::contrast_norm_gradient", mutates_args=())
def contrast_norm_gradient(dy: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, mode: str) -> Tensor:
    """Gradient of `contrast_norm`."""
    return _call(ops.contrast_norm_gradient, dy, x, size=size, alpha=alpha, beta=beta, k=k, mode=mode)


def _same_shape(x: Tensor, *_: Any) -> Tensor:
    return _like(x, x.shape)


def _keep_input(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.settings = inputs[1:]


for _norm, _gradient in ((response_norm, response_norm_gradient), (contrast_norm, contrast_norm_gradient)):
    def _backward(ctx: Any, dy: Tensor, gradient: Any = _gradient) -> Any:
        return gradient(dy, ctx.saved_tensors[0], *ctx.settings), *(None for _ in ctx.settings)

    _norm.register_fake(_same_shape)
    _gradient.register_fake(_same_shape)
    _norm.register_autograd(_backward, setup_context=_keep_input)


# ------------------------------------------------------------------------------------------ convolution


@torch.library.custom_op("zfcore::convolution", mutates_args=())
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
                dilation: Sequence[int], groups: int) -> Tensor:
    """Cross-correlation in one fixed order of sums, see `zfcore.ops.convolution`.

    Parameters
    ----------
    x : (N, C, H, W)
    weight : (K, C / groups, R, S)
    bias : (K,) or None; of 16 bits or float32 where x is of 16 bits
    stride, dilation : (vertical, horizontal)
    padding : (top, bottom, left, right)
    groups : filters of group g see only the g-th part of the channels
    """
    return _call(ops.convolution, x, weight, bias, **_sizes(stride, padding, dilation, groups))


@torch.library.custom_op("zfcore::convolution_input_gradient", mutates_args=())
def convolution_input_gradient(dy: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int],
                               padding: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """Gradient of `convolution` by x, whose shape is given; also the deconvnet's filtering."""
    return _call(ops.convolution_input_gradient, dy, weight, input_shape=_nhwc(shape),
                 **_sizes(stride, padding, dilation, groups))


@torch.library.custom_op("zfcore::convolution_weight_gradient", mutates_args=())
def convolution_weight_gradient(dy: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int],
                                padding: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """Gradient of `convolution` by the weight, whose shape is given; float32 for tensors of 16 bits."""
    return _call(ops.convolution_weight_gradient, dy, x, weight_shape=_nhwc(shape),
                 **_sizes(stride, padding, dilation, groups))


def _sizes(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> dict[str, Any]:
    return {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}


@convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
      dilation: Sequence[int], groups: int) -> Tensor:
    rows, columns = (output_size(x.shape[2 + axis], weight.shape[2 + axis], stride[axis], padding[2 * axis],
                                 padding[2 * axis + 1], dilation[axis]) for axis in range(2))
    return _like(x, (x.shape[0], weight.shape[0], rows, columns))


@convolution_input_gradient.register_fake
def _(dy: Tensor, weight: Tensor, shape: Sequence[int], *_: Any) -> Tensor:
    return _like(dy, shape)


@convolution_weight_gradient.register_fake
def _(dy: Tensor, x: Tensor, shape: Sequence[int], *_: Any) -> Tensor:
    return _like(dy, shape, torch.float32 if dy.dtype.itemsize == 2 else dy.dtype)


def _keep_convolution(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, *ctx.sizes = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, weight)


def _convolution_backward(ctx: Any, dy: Tensor) -> Any:
    x, weight = ctx.saved_tensors
    needed = ctx.needs_input_grad
    return (convolution_input_gradient(dy, weight, x.shape, *ctx.sizes) if needed[0] else None,
            convolution_weight_gradient(dy, x, weight.shape, *ctx.sizes).to(weight.dtype) if needed[1] else None,
            dy.sum((0, 2, 3), dtype=ctx.bias_dtype) if needed[2] else None, None, None, None, None)


convolution.register_autograd(_convolution_backward, setup_context=_keep_convolution)
