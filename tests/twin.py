"""Another implementation of a network, of PyTorch's operations, with the rules as autograd functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zfcore import Network
from zfcore.geometry import same_padding

torch.set_num_threads(1)  # small maps: threads cost more than they save


class _Rectify(torch.autograd.Function):
    """ReLU whose backward pass follows a rule."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, rule: str) -> torch.Tensor:
        context.save_for_backward(x)
        context.rule = rule
        return x.clamp(min=0)

    @staticmethod
    def backward(context: Any, signal: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = context.saved_tensors
        if context.rule != "gradient":
            signal = signal.clamp(min=0)
        if context.rule != "deconvnet":
            signal = signal * (x > 0)
        return signal, None


class _Straight(torch.autograd.Function):
    """y on the way up, the identity to x on the way down."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y.clone()

    @staticmethod
    def backward(context: Any, signal: torch.Tensor) -> tuple[torch.Tensor, None]:
        return signal, None


def _pads(layer: Any, x: torch.Tensor, window: tuple[int, int], stride: tuple[int, int],
          dilation: tuple[int, int] = (1, 1)) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), torch's order."""
    padding = layer.padding
    if padding == "same":
        rows = same_padding(x.shape[2], window[0], stride[0], dilation[0])
        columns = same_padding(x.shape[3], window[1], stride[1], dilation[1])
        return (*columns, *rows)
    if isinstance(padding, int):
        return (padding,) * 4
    if len(padding) == 2:
        return padding[1], padding[1], padding[0], padding[0]
    return padding[2], padding[3], padding[0], padding[1]


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _contrast(layer: Any, x: torch.Tensor) -> torch.Tensor:
    before, after = layer.size // 2, layer.size - 1 - layer.size // 2

    def total(values: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(values, (before, after, before, after))
        return functional.avg_pool2d(padded, layer.size, 1) * layer.size**2

    centred = x - total(x) / total(torch.ones_like(x))
    alpha = layer.alpha / layer.size**2 if layer.alpha_is_divided_by_area else layer.alpha
    scale = (layer.k + alpha * total(centred**2)) ** -layer.beta
    return (centred if layer.mode == "subtractive" else x) * scale


def _response(layer: Any, x: torch.Tensor) -> torch.Tensor:
    alpha = layer.alpha if layer.alpha_is_divided_by_size else layer.alpha * layer.size
    return functional.local_response_norm(x, layer.size, alpha, layer.beta, layer.k)


def _layer(layer: Any, inputs: list[torch.Tensor], values: dict[str, torch.Tensor],
           rule: str) -> torch.Tensor:
    x, kind = inputs[0], type(layer).__name__
    if kind == "Convolution":
        dilation, stride = _pair(layer.dilation), _pair(layer.stride)
        pads = _pads(layer, x, _pair(layer.window), stride, dilation)
        weight = values["weight"].permute(0, 3, 1, 2)
        return functional.conv2d(functional.pad(x, pads), weight, values.get("bias"), stride, 0, dilation,
                                 layer.groups)
    if kind == "Linear":
        return functional.linear(x, values["weight"], values.get("bias"))
    if kind == "MaxPool":
        window, stride = _pair(layer.window), _pair(layer.stride or layer.window)
        left, right, top, bottom = _pads(layer, x, window, stride)
        if (left, top) == (right, bottom):
            return functional.max_pool2d(x, window, stride, (top, left), ceil_mode=layer.ceil_mode)
        x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
        return functional.max_pool2d(x, window, stride, ceil_mode=layer.ceil_mode)
    if kind == "AveragePool":
        window, stride = _pair(layer.window), _pair(layer.stride or layer.window)
        pads = _pads(layer, x, window, stride)
        options: dict[str, Any] = {"count_include_pad": layer.divisor == "padded"}
        if layer.divisor == "window":
            options = {"divisor_override": window[0] * window[1]}
        return functional.avg_pool2d(x, window, stride, (pads[2], pads[0]), layer.ceil_mode, **options)
    if kind in ("ResponseNorm", "ContrastNorm"):
        y = _response(layer, x) if kind == "ResponseNorm" else _contrast(layer, x)
        return _Straight.apply(x, y) if rule == "deconvnet" else y
    if kind == "BatchNorm":
        return functional.batch_norm(x, values["mean"], values["variance"], values["scale"], values["bias"],
                                     eps=layer.epsilon)
    if kind == "Scale":
        shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
        assert not layer.shape, "only one number a map"
        y = x * values["scale"].reshape(shape) if layer.scale else x
        return y + values["bias"].reshape(shape) if layer.bias else y
    if kind == "Rearrange":
        cells = x.permute(0, 2, 3, 1).reshape(len(x), *layer.split)
        moved = cells.permute(0, *(axis + 1 for axis in layer.order)).reshape(len(x), *layer.shape)
        return moved.permute(0, 3, 1, 2) if moved.ndim == 4 else moved
    simple = {
        "ReLU": lambda: _Rectify.apply(x, rule), "Dropout": lambda: x, "Add": lambda: sum(inputs[1:], x),
        "Concat": lambda: torch.cat(inputs, 1),
        "Flatten": lambda: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).flatten(1),
        "Softmax": lambda: torch.softmax(x, 1), "GlobalAveragePool": lambda: x.mean((2, 3)),
        "GlobalMaxPool": lambda: nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
    }
    return simple[kind]()


class Twin:
    """A network run by PyTorch: tensors by name (NCHW), parameters as leaves."""

    def __init__(self, net: Network, x: np.ndarray, rule: str = "gradient") -> None:
        self.parameters = {key: torch.tensor(value, requires_grad=not key.endswith(("mean", "variance")))
                           for key, value in net.parameters().items()}
        self.input = torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), requires_grad=True)
        self.tensors: dict[str, torch.Tensor] = {"input": self.input}
        for node in net.nodes.values():
            own = {key: self.parameters[f"{node.name}.{key}"] for key in node.layer.parameters}
            y = _layer(node.layer, [self.tensors[name] for name in node.inputs], own, rule)
            self.tensors[f"{node.name}.pre"] = y
            if node.layer.activation:
                y = _Rectify.apply(y, rule)
            self.tensors[node.name] = y

    def output(self, name: str) -> np.ndarray:
        """A tensor in our layout."""
        return channels_last(self.tensors[name])

    def down(self, name: str, signal: np.ndarray) -> np.ndarray:
        """Send a signal (our layout) from a tensor down; the signal at the pixels."""
        tensor = self.tensors[name]
        signal = np.ascontiguousarray(signal.transpose(0, 3, 1, 2)) if signal.ndim == 4 else signal
        seed = torch.tensor(signal)
        self.input.grad = None
        tensor.backward(seed, retain_graph=True)
        assert self.input.grad is not None
        return channels_last(self.input.grad)

    def gradients(self) -> dict[str, np.ndarray]:
        """The parameters' gradients of the walks down so far."""
        return {key: value.grad.numpy() for key, value in self.parameters.items() if value.grad is not None}


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    """NCHW or NC tensor as our array."""
    array = tensor.detach().numpy()
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
