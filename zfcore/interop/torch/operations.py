"""What each kind of layer is in PyTorch: a module if it has weights, else a function.

A builder gets the layer and its inputs' shapes (height, width, channels); a function gets the
module it runs in, for the training flag, and the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers import BatchNorm, Convolution, Dropout, Layer, Linear, Shape

Operation = Callable[..., Tensor]
# How PyTorch calls batch norm's parameters.
NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def apply(module: nn.Module, x: Tensor) -> Tensor:
    """Call the module."""
    result: Tensor = module(x)
    return result


class PaddedConvolution(nn.Conv2d):
    """A convolution whose padding differs between opposite sides."""

    sides: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor) -> Tensor:
        """Pad by `sides` (left, right, top, bottom), then convolve."""
        return super().forward(functional.pad(input, self.sides))


def convolution(layer: Convolution, shape: Shape) -> nn.Module:
    """Conv2d, or one that pads before."""
    top, bottom, left, right = layer._padding(shape)
    even = top == bottom and left == right
    kind = nn.Conv2d if even else PaddedConvolution
    module = kind(shape[2], layer.filters, layer._window, layer._stride, (top, left) if even else 0,
                  layer._dilation, layer.groups, layer.bias)
    if not even:
        module.sides = (left, right, top, bottom)  # type: ignore[assignment]
    return module


def linear(layer: Linear, shape: Shape) -> nn.Module:
    """Linear; flattened maps are channels first."""
    return nn.Linear(shape[0], layer.units, layer.bias)


def batch_norm(layer: BatchNorm, shape: Shape) -> nn.Module:
    """BatchNorm2d on maps, BatchNorm1d on vectors."""
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return kind(shape[-1], layer.epsilon, 1 - layer.momentum)


def _sides(layer: Any, shape: Shape) -> tuple[list[int], list[int], list[int]]:
    """A pool's padding (left, right, top, bottom) up to the end of its last window; negative: a crop.

    Also the padding that counts for the "padded" divisor, and what is inside.
    """
    pads = layer._padding(shape)
    rows, columns, _ = layer.output_shape(shape)
    ends = [(count - 1) * layer._stride[axis] + layer._window[axis] - shape[axis] - pads[2 * axis]
            for axis, count in enumerate((rows, columns))]
    exact = [pads[2], ends[1], pads[0], ends[0]]
    counted = [pads[2], min(pads[3], ends[1]), pads[0], min(pads[1], ends[0])]
    return exact, counted, [exact[place] - counted[place] for place in range(4)]


def max_pool(layer: Any, shape: Shape) -> Operation:
    """max_pool2d, after explicit padding by -inf where the sides differ."""
    top, bottom, left, right = layer._padding(shape)
    if top == bottom and left == right:
        return lambda _, x: functional.max_pool2d(x, layer._window, layer._stride, (top, left),
                                                  ceil_mode=layer.ceil_mode)
    exact = _sides(layer, shape)[0]
    return lambda _, x: functional.max_pool2d(functional.pad(x, exact, value=-torch.inf), layer._window,
                                              layer._stride)


def average_pool(layer: Any, shape: Shape) -> Operation:
    """Sums of windows over the number of cells that the divisor counts."""
    exact, counted, beyond = _sides(layer, shape)

    def total(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, layer._window, layer._stride, divisor_override=1)

    def operation(_: nn.Module, x: Tensor) -> Tensor:
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
        if layer.divisor == "window":
            count: Any = layer._window[0] * layer._window[1]
        elif layer.divisor == "padded":
            count = total(functional.pad(functional.pad(ones, counted, value=1.0), beyond))
        else:
            count = total(functional.pad(ones, exact)).clamp(min=1)
        return total(functional.pad(x, exact)) / count

    return operation


def global_average_pool(layer: Layer, shape: Shape) -> Operation:
    """Mean over rows and columns."""
    return lambda _, x: x.mean((2, 3))


def global_max_pool(layer: Layer, shape: Shape) -> Operation:
    """Maximum over rows and columns; its gradient goes to one place."""
    return lambda _, x: x.flatten(2).max(2).values


def response_norm(layer: Any, shape: Shape) -> Operation:
    """PyTorch's response norm divides alpha by the size."""
    alpha = layer.alpha if layer.alpha_is_divided_by_size else layer.alpha * layer.size
    if getattr(layer, "mirrored", False):  # the window of an even size begins one map later
        return lambda _, x: functional.local_response_norm(
            x.flip(1), layer.size, alpha, layer.beta, layer.k).flip(1)
    return lambda _, x: functional.local_response_norm(x, layer.size, alpha, layer.beta, layer.k)


def contrast_norm(layer: Any, shape: Shape) -> Operation:
    """Sums over windows around each cell, the mean over the cells inside the map."""
    before, after = layer.size // 2, layer.size - 1 - layer.size // 2
    alpha = layer.alpha / layer.size**2 if layer.alpha_is_divided_by_area else layer.alpha

    def total(x: Tensor) -> Tensor:
        padded = functional.pad(x, (before, after, before, after))
        return functional.avg_pool2d(padded, layer.size, 1, divisor_override=1)

    def operation(_: nn.Module, x: Tensor) -> Tensor:
        mean = total(x) / total(torch.ones_like(x[:1, :1]))
        difference = x - (mean.detach() if layer.mean_is_constant else mean)
        scale = (layer.k + alpha * total(difference * difference)) ** -layer.beta
        return (x if layer.mode == "divisive" else difference) * scale

    return operation


def dropout(layer: Dropout, shape: Shape) -> Operation:
    """Dropout, when the module trains."""
    return lambda module, x: functional.dropout(x, layer.rate, module.training)


def add(layer: Layer, *shapes: Shape) -> Operation:
    """Sum of all inputs, in order."""
    return lambda _, *xs: sum(xs[1:], xs[0])


def concat(layer: Layer, *shapes: Shape) -> Operation:
    """Side by side on the channel axis."""
    return lambda _, *xs: torch.cat(xs, 1)


def flatten(layer: Layer, shape: Shape) -> Operation:
    """(N, C, H, W) as (N, C * H * W), in that order."""
    return lambda _, x: x.flatten(1)


def softmax(layer: Layer, shape: Shape) -> Operation:
    """Over the channels."""
    return lambda _, x: x.softmax(1)


def relu(layer: Layer, shape: Shape) -> Operation:
    """ReLU."""
    return lambda _, x: x.relu()


BUILDERS: dict[str, Callable[..., Operation | nn.Module]] = {
    "Convolution": convolution, "Linear": linear, "BatchNorm": batch_norm, "MaxPool": max_pool,
    "AveragePool": average_pool, "GlobalAveragePool": global_average_pool, "GlobalMaxPool": global_max_pool,
    "ResponseNorm": response_norm, "ContrastNorm": contrast_norm, "Dropout": dropout, "Add": add,
    "Concat": concat, "Flatten": flatten, "Softmax": softmax, "ReLU": relu,
}
