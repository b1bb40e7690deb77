"""Pools: local ones, which know windows and switches, and global ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import Window, output_size
from ..rules import GRADIENT, Rule
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape
from .weighted import Padding, check_padding, resolve_padding


@dataclass
class _Pool(Layer):
    """Sizes that both local pools share."""

    shares: ClassVar[bool] = True
    short = True

    window: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: Padding = 0
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        where = type(self).__name__
        self._window = checks.pair(where, "window", self.window, 1)
        self._stride = self._window if self.stride is None else checks.pair(where, "stride", self.stride, 1)
        check_padding(where, self.padding)
        if self.padding == "same" and self.ceil_mode:
            self._fail("ceil_mode", True, "False with padding 'same', which fixes the size itself")

    def _padding(self, shape: Shape) -> tuple[int, int, int, int]:
        return resolve_padding(type(self).__name__, self.padding, shape, self._window, self._stride)

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = self._map_shape(shapes[0])
        pads = self._padding(shapes[0])
        if max(pads[:2]) > self._window[0] // 2 or max(pads[2:]) > self._window[1] // 2:
            self._fail("padding", self.padding, "at most half the window")
        size = [height + pads[0] + pads[1], width + pads[2] + pads[3]]
        if self._window[0] > size[0] or self._window[1] > size[1]:
            self._fail("window", self.window, f"a window that fits the padded input of {size[0]} x {size[1]}")
        return (output_size(height, self._window[0], self._stride[0], pads[0], pads[1], 1, self.ceil_mode),
                output_size(width, self._window[1], self._stride[1], pads[2], pads[3], 1, self.ceil_mode),
                channels)

    def geometry(self, shape: Shape) -> Window | None:
        pads = self._padding(shape)
        return Window(self._stride, (pads[0], pads[2]), self._window)

    def _sizes(self, x: Any, run: Run) -> dict[str, Any]:
        """The operation's keywords: a tile holds its padding already."""
        sizes: dict[str, Any] = {"window": self._window, "stride": self._stride}
        if run.tile:
            return {**sizes, "tile": run.tile}
        return {**sizes, "padding": self._padding(x.shape[1:3]), "ceil_mode": self.ceil_mode}


@dataclass
class MaxPool(_Pool):
    """Max pooling; on the way down each value goes to its switch.

    Parameters
    ----------
    window, stride : one integer or (vertical, horizontal); the stride defaults to the window
    padding : at most half the window, or "same"; padding never wins
    ceil_mode : whether a last window may stick out at the bottom and right
    """

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        sizes = self._sizes(x, run)
        y, switches = ops.max_pool(x, **sizes)
        if "ceil_mode" in sizes:
            del sizes["ceil_mode"]  # the switches' own shape says how many windows there are
        return y, {"switches": switches, "shape": x.shape, "sizes": sizes}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs:
            return (None,), {}
        signal = ops.max_unpool(dy, cache["switches"], tuple(cache["shape"]), overlap=rule.overlap, trusted=True,
                                **cache["sizes"])
        return (signal,), {}


@dataclass
class AveragePool(_Pool):
    """Average pooling.

    Parameters
    ----------
    window, stride, padding, ceil_mode : as for MaxPool
    divisor : "valid" counts the cells inside the map, "padded" also the padding's (torch's
        count_include_pad, and Caffe), "window" all cells of the window
    """

    divisor: str = "valid"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("AveragePool", "divisor", self.divisor, ("valid", "padded", "window"))

    def geometry(self, shape: Shape) -> Window | None:
        # With "padded" a window that leaves even the padding divides by less, which only the whole
        # map shows: without one of those "padded" is the same as "window".
        if self.divisor == "padded" and self._leaves_padding(shape):
            return None
        return super().geometry(shape)

    def _leaves_padding(self, shape: Shape) -> bool:
        pads = self._padding(shape)
        rows, columns, _ = self.output_shape(shape)
        return ((rows - 1) * self._stride[0] + self._window[0] > shape[0] + pads[0] + pads[1]
                or (columns - 1) * self._stride[1] + self._window[1] > shape[1] + pads[2] + pads[3])

    def _sizes(self, x: Any, run: Run) -> dict[str, Any]:
        divisor = "window" if run.tile and self.divisor == "padded" else self.divisor
        return {**super()._sizes(x, run), "divisor": divisor}

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        sizes = self._sizes(x, run)
        return ops.average_pool(x, **sizes), {"shape": x.shape, "sizes": sizes}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs:
            return (None,), {}
        return (ops.average_pool_gradient(dy, tuple(cache["shape"]), **cache["sizes"]),), {}


@dataclass
class _GlobalPool(Layer):
    """Pools over whole maps: (N, H, W, C) to (N, C)."""

    short = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (self._map_shape(shapes[0])[2],)

    def geometry(self, shape: Shape) -> Window | None:
        return None


@dataclass
class GlobalAveragePool(_GlobalPool):
    """Mean of every map."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.global_average_pool(inputs[0]), {"shape": inputs[0].shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        return (ops.global_average_pool_gradient(dy, tuple(cache["shape"])) if inputs else None,), {}


@dataclass
class GlobalMaxPool(_GlobalPool):
    """Maximum of every map; on the way down the value goes to the maximum's place."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y, positions = ops.global_max_pool(inputs[0])
        return y, {"positions": positions, "shape": inputs[0].shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if not inputs:
            return (None,), {}
        return (ops.global_max_pool_gradient(dy, cache["positions"], tuple(cache["shape"])),), {}
