"""What each kind of layer is in PyTorch: a module if it has weights, else a function.

A builder gets the layer and its inputs' shapes (height, width, channels); a function gets the
module it runs in, for the training flag, and the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers import BatchNorm, Convolution, Dropout, Layer, Linear, Shape
from ...ops.arrange import resize_taps

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
    if isinstance(module, PaddedConvolution):
        module.sides = (left, right, top, bottom)
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


class Broadcast(nn.Module):
    """Parameters that broadcast to an item: PReLU's slopes, a scale, a bias."""

    def __init__(self, names: Sequence[str], shape: Shape) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """x where x > 0, else slope * x; or x * scale + bias."""
        held = dict(self.named_parameters())
        if "slope" in held:
            return torch.where(x > 0, x, x * held["slope"])
        x = x * held["scale"] if "scale" in held else x
        return x + held["bias"] if "bias" in held else x


def broadcast(layer: Layer, shape: Shape) -> nn.Module:
    """PReLU and Scale, whose parameters are aligned to (C, H, W) or to a vector."""
    shapes = layer.parameter_shapes(shape)
    small = next(iter(shapes.values()))
    small = (1,) * (len(shape) - len(small)) + tuple(small)
    return Broadcast(list(shapes), (small[2], small[0], small[1]) if len(small) == 3 else small)


def transposed_convolution(layer: Any, shape: Shape) -> nn.Module:
    """ConvTranspose2d, cropped afterwards where the padding differs between opposite sides."""
    top, bottom, left, right = layer._pads
    even = top == bottom and left == right
    kind = nn.ConvTranspose2d if even else CroppedTransposed
    module = kind(shape[2], layer.filters, layer._window, layer._stride, (top, left) if even else 0,
                  layer._more if even else 0, layer.groups, layer.bias, layer._dilation)
    if isinstance(module, CroppedTransposed):
        module.sides = (-left, layer._more[1] - right, -top, layer._more[0] - bottom)
    return module


class CroppedTransposed(nn.ConvTranspose2d):
    """A transposed convolution whose padding differs between opposite sides."""

    sides: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve, then crop by `sides` (left, right, top, bottom, as negative padding)."""
        whole = nn.functional.conv_transpose2d(input, self.weight, None, self.stride, 0, 0, self.groups,
                                               self.dilation)
        cut = functional.pad(whole, self.sides)
        return cut if self.bias is None else cut + self.bias[:, None, None]


def clip(layer: Any, shape: Shape) -> Operation:
    """clamp."""
    return lambda _, x: x.clamp(layer.low, layer.high)


def expand(layer: Any, shape: Shape) -> Operation:
    """Repeat along axes of size 1."""
    sizes = layer._sizes
    first = (sizes[2], sizes[0], sizes[1]) if len(sizes) == 3 else sizes
    return lambda _, x: x.expand(-1, *first)


def rearrange(layer: Any, shape: Shape) -> Operation:
    """Channels last, cut, permuted, joined, channels first."""
    order = [0, *(axis + 1 for axis in layer._order)]

    def operation(_: nn.Module, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        x = x.reshape(-1, *layer._split).permute(order).reshape(-1, *layer._shape)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x

    return operation


def slices(layer: Any, shape: Shape) -> Operation:
    """Some of the maps."""
    return lambda _, x: x[:, layer.start:layer.stop]


def pad(layer: Any, shape: Shape) -> Operation:
    """pad; maps are added by zeros or the value only."""
    top, bottom, left, right = layer.padding
    sides = [left, right, top, bottom]
    if layer.mode == "constant":
        return lambda _, x: functional.pad(x, [*sides, *layer.channels], value=layer.value)
    if tuple(layer.channels) != (0, 0):
        raise ValueError(f"to_module: Pad by {layer.channels} maps in mode {layer.mode!r}, which PyTorch cannot")
    return lambda _, x: functional.pad(x, sides, {"edge": "replicate"}.get(layer.mode, layer.mode))


def resize(layer: Any, shape: Shape) -> Operation:
    """Two products with the matrices of the taps: every convention of ONNX is one of those."""
    matrices = []
    for axis, size in enumerate(shape[:2]):
        out = layer.size[axis]
        scale = out / size if layer.scales is None else float(layer.scales[axis])
        indices, weights = resize_taps(size, out, scale, layer.mode, layer.coordinates, layer.nearest)
        matrix = torch.zeros((out, size), dtype=torch.float64)
        matrix.scatter_add_(1, torch.from_numpy(indices), torch.from_numpy(weights))
        matrices.append(matrix)

    def operation(_: nn.Module, x: Tensor) -> Tensor:
        rows, columns = (matrix.to(x.device, x.dtype) for matrix in matrices)
        return rows @ x @ columns.T

    return operation


def max_unpool(layer: Any, *shapes: Shape) -> Operation:
    """max_unpool2d at the places of the pool's maxima."""
    if layer._pads[0] != layer._pads[1] or layer._pads[2] != layer._pads[3]:
        raise ValueError("to_module: MaxUnpool with different padding at opposite sides, which PyTorch cannot")
    padding = layer._pads[0], layer._pads[2]

    def operation(_: nn.Module, values: Tensor, source: Tensor) -> Tensor:
        indices = functional.max_pool2d(source, layer._window, layer._stride, padding,
                                           ceil_mode=layer.ceil_mode, return_indices=True)[1]
        flat = torch.zeros_like(source).flatten(2)
        return flat.scatter(2, indices.flatten(2), values.flatten(2)).view_as(source)

    return operation


def relu(layer: Layer, shape: Shape) -> Operation:
    """ReLU."""
    return lambda _, x: x.relu()


BUILDERS: dict[str, Callable[..., Operation | nn.Module]] = {
    "Convolution": convolution, "Linear": linear, "BatchNorm": batch_norm, "MaxPool": max_pool,
    "AveragePool": average_pool, "GlobalAveragePool": global_average_pool, "GlobalMaxPool": global_max_pool,
    "ResponseNorm": response_norm, "ContrastNorm": contrast_norm, "Dropout": dropout, "Add": add,
    "Concat": concat, "Flatten": flatten, "Softmax": softmax, "ReLU": relu,
    "PReLU": broadcast, "Scale": broadcast, "TransposedConvolution": transposed_convolution, "Clip": clip,
    "LeakyReLU": lambda layer, shape: lambda _, x: torch.where(x > 0, x, x * layer.slope),
    "Sigmoid": lambda layer, shape: lambda _, x: x.sigmoid(), "Tanh": lambda layer, shape: lambda _, x: x.tanh(),
    "LogSoftmax": lambda layer, shape: lambda _, x: x.log_softmax(1),
    "Subtract": lambda layer, *shapes: lambda _, a, b: a - b,
    "Multiply": lambda layer, *shapes: lambda _, a, b: a * b,
    "Divide": lambda layer, *shapes: lambda _, a, b: a / b,
    "Expand": expand, "Rearrange": rearrange, "Slice": slices, "Pad": pad, "Resize": resize,
    "MaxUnpool": max_unpool,
}
