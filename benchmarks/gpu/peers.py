"""The peers: what a user of PyTorch writes, as functions of tensors that torch.compile can take.

Maps are (N, C, H, W) with channels last in memory. Gradients come from the operators that autograd itself calls, or
from `torch.func.vjp`, so that a compiler sees the whole of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .plan import Conv, Pool

Tensor = torch.Tensor
aten = torch.ops.aten


class Pooling:
    """Max pooling with indices, its gradient, unpooling; for one geometry."""

    def __init__(self, pool: Pool) -> None:
        self.window, self.stride, self.ceil = list(pool.window), list(pool.stride), pool.ceil
        self.size = [pool.height, pool.width]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and int64 indices."""
        return functional.max_pool2d(x, self.window, self.stride, ceil_mode=self.ceil, return_indices=True)

    def gradient(self, dy: Tensor, x: Tensor, indices: Tensor) -> Tensor:
        """The values of dy at their indices, added where windows overlap."""
        return aten.max_pool2d_with_indices_backward(dy, x, self.window, self.stride, [0, 0], [1, 1], self.ceil,
                                                     indices)

    def unpool(self, dy: Tensor, indices: Tensor) -> Tensor:
        """The values of dy at their indices; where windows overlap, any of them."""
        return functional.max_unpool2d(dy, indices, self.window, self.stride, output_size=self.size)

    # What torch.compile makes of pooling in a training graph: places in their windows, int8 as our switches.

    def offsets(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and int8 places."""
        return _prims()._low_memory_max_pool_with_offsets(x, self.window, self.stride, [0, 0], [1, 1], self.ceil)

    def gradient_of_offsets(self, dy: Tensor, x: Tensor, offsets: Tensor) -> Tensor:
        """`gradient` from places."""
        indices = _prims()._low_memory_max_pool_offsets_to_indices(offsets, self.window, self.size, self.stride, [0, 0],
                                                                   [1, 1])
        return self.gradient(dy, x, indices)


def _prims() -> Any:
    from torch._inductor import inductor_prims

    return inductor_prims


class Convolving:
    """A convolution in its three directions; for one geometry."""

    def __init__(self, layer: Conv) -> None:
        (top, bottom, left, right), self.groups = layer.padding, layer.groups
        if top != bottom or left != right:
            raise ValueError(f"Convolving: padding is {layer.padding}; allowed: the same on both sides")
        self.stride, self.pads = list(layer.stride), [top, left]

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The maps."""
        return functional.conv2d(x, weight, bias, self.stride, self.pads, 1, self.groups)

    def _backward(self, dy: Tensor, x: Tensor, weight: Tensor, mask: Sequence[bool]) -> Sequence[Tensor]:
        return aten.convolution_backward(dy, x, weight, None, self.stride, self.pads, [1, 1], False, [0, 0],
                                         self.groups, mask)

    def input_gradient(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """By the input, of which only the shape counts."""
        return self._backward(dy, x, weight, [True, False, False])[0]

    def weight_gradient(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """By the filters, of which only the shape counts."""
        return self._backward(dy, x, weight, [False, True, False])[1]


def response_norm(x: Tensor) -> Tensor:
    """Across maps, with AlexNet's constants (PyTorch divides alpha by the size)."""
    return functional.local_response_norm(x, 5, 5e-4, 0.75, 2.0)


def response_norm_of_slices(x: Tensor) -> Tensor:
    """The same as sums of shifted maps, which a compiler fuses."""
    squares = functional.pad((x * x).movedim(1, -1), (2, 2))
    channels = x.shape[1]
    near = sum(squares[..., shift:shift + channels] for shift in range(5))
    return x * (2.0 + 1e-4 * near.movedim(-1, 1)) ** -0.75  # type: ignore[union-attr]


def contrast_norm(x: Tensor) -> Tensor:
    """Local contrast normalisation as a user composes it."""
    mean = functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    square = functional.avg_pool2d((x - mean) ** 2, 5, 1, 2, divisor_override=1)
    return x * (1.0 + 1e-3 * square) ** -0.75


def gradient_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient as a function of dy and x, which computes again what it needs of the way up; as ours does."""
    def gradient(dy: Tensor, x: Tensor) -> Tensor:
        return torch.func.vjp(function, x)[1](dy)[0]

    return gradient


def update(weights: list[Tensor], velocities: list[Tensor], gradients: list[Tensor], copies: list[Tensor]) -> None:
    """SGD with momentum, one tensor after the other, for a compiler to fuse."""
    for place, (weight, velocity, gradient) in enumerate(zip(weights, velocities, gradients, strict=True)):
        velocity.mul_(0.9).add_(gradient + 5e-4 * weight)
        weight.sub_(velocity, alpha=1e-2)
        if copies:
            copies[place].copy_(weight)


def fused_update(weights: list[Tensor], velocities: list[Tensor], gradients: list[Tensor], copies: list[Tensor]
                 ) -> None:
    """PyTorch's own fused SGD, then the copies of 16 bits."""
    torch._fused_sgd_(weights, gradients, velocities, weight_decay=5e-4, momentum=0.9, lr=1e-2, dampening=0.0,
                      nesterov=False, maximize=False, is_first_step=False)
    if copies:
        torch._foreach_copy_(copies, weights)


class Deconvnet:
    """The deconvnet by hooks: every ReLU below a layer passes the positive part of the signal down.

    Parameters
    ----------
    model : layers one after the other; it gets the hooks
    last : the layer whose units are projected, by its place
    normalization : whether response norms pass their gradient, as with Captum, or the signal as it is, as ours
    """

    def __init__(self, model: nn.Sequential, last: int, normalization: bool = True) -> None:
        self.model = model[:last + 1]
        for module in self.model[:-1]:
            if isinstance(module, nn.ReLU):
                module.register_full_backward_hook(lambda _module, _inputs, signals: (functional.relu(signals[0]),))
            elif isinstance(module, nn.LocalResponseNorm) and not normalization:
                module.register_full_backward_hook(lambda _module, _inputs, signals: (signals[0],))

    def __call__(self, images: Tensor, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels of one unit of each image."""
        images = images.detach().requires_grad_()
        values = self.model(images)[torch.arange(len(images), device=images.device), maps, rows, columns]
        return torch.autograd.grad(values.sum(), images)[0]
