"""Drop-in modules of PyTorch on zfcore's kernels: pooling with one-byte switches, unpooling, response norm.

Deterministic on every device, forward and backward; NaN and ties have one answer.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ... import checks
from .custom import max_pool, max_unpool, response_norm

__all__ = ["LocalResponseNorm", "MaxPool2d", "MaxUnpool2d"]


class _Pool(nn.Module):
    """Window, stride and padding of a pooling, as torch writes them."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        where = type(self).__name__
        self.kernel_size = checks.pair(where, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else checks.pair(where, "stride", stride, 1)
        vertical, horizontal = checks.pair(where, "padding", padding, 0)
        self.padding = (vertical, vertical, horizontal, horizontal)

    def extra_repr(self) -> str:
        """The settings, as torch's own shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding[::2]}"


class MaxPool2d(_Pool):
    """torch.nn.MaxPool2d with switches of one byte instead of indices of eight.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode : as there; windows of at most 256 cells
    return_indices : return (y, switches) for `MaxUnpool2d`: uint8 positions inside the window
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride, padding)
        checks.require(dilation in (1, (1, 1)), "MaxPool2d", "dilation", dilation, "1")
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        """y (N, C, P, Q), and its switches if asked; x may lack N."""
        batch = x if x.ndim == 4 else x[None]
        y, switches = max_pool(batch, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        if x.ndim == 3:
            y, switches = y[0], switches[0]
        return (y, switches) if self.return_indices else y


class MaxUnpool2d(_Pool):
    """torch.nn.MaxUnpool2d for the switches of `MaxPool2d`, and the same on every device.

    Parameters
    ----------
    kernel_size, stride, padding : the pooling's
    overlap : where windows share a cell: "sum" adds their values (the adjoint of pooling), "last" keeps
        the last one's in raster order, as torch does on the CPU
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, overlap: str = "sum") -> None:
        super().__init__(kernel_size, stride, padding)
        checks.one_of("MaxUnpool2d", "overlap", overlap, ("sum", "last"))
        self.overlap = overlap

    def forward(self, y: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        """x (N, C, H, W); without `output_size` the smallest that pools to y's size, as torch takes it."""
        if output_size is None:
            size = [(y.shape[axis - 2] - 1) * self.stride[axis] + self.kernel_size[axis] - 2 * self.padding[2 * axis]
                    for axis in range(2)]
        else:
            size = [int(extent) for extent in tuple(output_size)[-2:]]
        whole = y.ndim == 4
        x = max_unpool(y if whole else y[None], indices if whole else indices[None], size, self.kernel_size,
                       self.stride, self.padding, self.overlap == "last")
        return x if whole else x[0]


class LocalResponseNorm(nn.Module):
    """torch.nn.LocalResponseNorm in one pass over memory, its gradient in another; nothing is stored but the input.

    Parameters
    ----------
    size, alpha, beta, k : as there; alpha is divided by the size
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = checks.integer("LocalResponseNorm", "size", size, 1)
        self.alpha, self.beta, self.k = float(alpha), float(beta), float(k)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (N, C, ...)."""
        checks.require(x.ndim >= 2, "LocalResponseNorm", "x.shape", tuple(x.shape), "(N, C, ...)")
        maps = x if x.ndim == 4 else x.reshape(x.shape[0], x.shape[1], -1, 1)
        missing = self.size - x.shape[1]  # a window wider than all maps sees zeros beyond them
        if missing > 0:
            maps = functional.pad(maps, (0, 0, 0, 0, 0, missing))
        y = response_norm(maps, self.size, self.alpha, self.beta, self.k, True)
        return (y[:, :x.shape[1]] if missing > 0 else y).reshape(x.shape) if x.ndim != 4 or missing > 0 else y

    def extra_repr(self) -> str:
        """The settings, as torch's own shows them."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def replace(module: nn.Module) -> int:
    """Put `LocalResponseNorm` and `MaxPool2d` of this file in the place of torch's, all through a module.

    Poolings that return torch's indices, are dilated or have windows of more than 256 cells stay.

    Returns
    -------
    how many were replaced
    """
    count = 0
    for name, child in module.named_children():
        made: nn.Module | None = None
        if type(child) is nn.LocalResponseNorm:
            made = LocalResponseNorm(child.size, child.alpha, child.beta, child.k)
        elif type(child) is nn.MaxPool2d and not child.return_indices:
            window = checks.pair("replace", "kernel_size", child.kernel_size, 1)
            if child.dilation in (1, (1, 1)) and window[0] * window[1] <= 256:
                made = MaxPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
        if made is not None:
            setattr(module, name, made.train(child.training))
            count += 1
        else:
            count += replace(child)
    return count


