"""Layers with weights: convolution and fully connected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import Window, output_size, same_padding
from ..rules import GRADIENT, Rule
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape, check_activation

Padding = int | str | tuple[int, ...]


def check_padding(where: str, padding: Any) -> None:
    """Accept "same" or what `checks.padding` accepts."""
    if padding != "same":
        checks.padding(where, padding)


def resolve_padding(where: str, padding: Padding, shape: Sequence[int], window: tuple[int, int],
                    stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) for maps of `shape`; "same" gives ceil(size / stride) positions."""
    if padding == "same":
        return (*same_padding(shape[0], window[0], stride[0], dilation[0]),
                *same_padding(shape[1], window[1], stride[1], dilation[1]))
    return checks.padding(where, padding)


@dataclass
class Convolution(Layer):
    """Cross-correlation with `filters` filters, bias and an optional fused ReLU.

    Parameters
    ----------
    filters : number of output maps
    window, stride, dilation : one integer or (vertical, horizontal)
    padding : cells: one integer, (vertical, horizontal), (top, bottom, left, right), or "same":
        ceil(size / stride) positions, the odd cell at the bottom and right
    groups : filters of group g see only the g-th part of the channels
    bias : whether there is one
    activation : None or "relu"
    """

    shares: ClassVar[bool] = True
    short = True

    filters: int
    window: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: Padding = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        where = "Convolution"
        checks.integer(where, "filters", self.filters, 1)
        checks.integer(where, "groups", self.groups, 1)
        self._window = checks.pair(where, "window", self.window, 1)
        self._stride = checks.pair(where, "stride", self.stride, 1)
        self._dilation = checks.pair(where, "dilation", self.dilation, 1)
        check_padding(where, self.padding)
        check_activation(self)

    def _padding(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        return resolve_padding("Convolution", self.padding, shape, self._window, self._stride, self._dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = self._map_shape(shapes[0])
        if channels % self.groups or self.filters % self.groups:
            self._fail("groups", self.groups,
                       f"a divisor of {channels} input channels and {self.filters} filters")
        pads = self._padding(shapes[0])
        rows = output_size(height, self._window[0], self._stride[0], pads[0], pads[1], self._dilation[0])
        columns = output_size(width, self._window[1], self._stride[1], pads[2], pads[3], self._dilation[1])
        if rows < 1 or columns < 1:
            self._fail("window", self.window, f"a window that fits the padded input of {height} x {width}")
        return rows, columns, self.filters

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        weight = (self.filters, *self._window, shapes[0][2] // self.groups)
        return {"weight": weight, "bias": (self.filters,)} if self.bias else {"weight": weight}

    def geometry(self, shape: Shape) -> Window | None:
        pads = self._padding(shape)
        span = [self._dilation[a] * (self._window[a] - 1) + 1 for a in range(2)]
        return Window(self._stride, (pads[0], pads[2]), (span[0], span[1]))

    def multiply_adds(self, *shapes: Shape) -> int:
        rows, columns, _ = self.output_shape(*shapes)
        return rows * columns * math.prod(self.parameter_shapes(*shapes)["weight"])

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        sizes = {"stride": self._stride, "dilation": self._dilation, "groups": self.groups,
                 "padding": (0, 0, 0, 0) if run.tile else self._padding(x.shape[1:3]),
                 "algorithm": run.algorithm, "precision": run.precision}
        fused = None if run.pre else self.activation
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        y = ops.convolution(x, weight, bias, activation=fused, **sizes)
        cache: Cache = {"x": x if run.parameters else None, "shape": x.shape, "sizes": sizes}
        if fused:
            cache["y"] = y
        else:
            y = self.activated(ops, y, cache, run)
        return y, cache

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        signal = self.rectified(ops, dy, cache, rule, pre)
        weight, sizes = self.parameters["weight"], cache["sizes"]
        gradients: Gradients = {}
        if parameters:
            gradients["weight"] = ops.convolution_weight_gradient(signal, cache["x"], weight.shape, **sizes)
            if self.bias:
                gradients["bias"] = ops.channel_sum(signal)
        if not inputs:
            return (None,), gradients
        return (ops.convolution_input_gradient(signal, weight, tuple(cache["shape"]), **sizes),), gradients

    def unit_gradient(self, ops: Any, maps: Any, values: Any, shape: Sequence[int]) -> Any:
        # The input has exactly the window's span: value times the map's filter, at its taps.
        weight = self.parameters["weight"]
        product = weight[ops.backend.asarray(maps)] * values[:, None, None, None]
        if self.groups == 1 and self._dilation == (1, 1):
            return product
        signal = ops.backend.zeros(tuple(shape), weight.dtype)
        taps = signal[:, :: self._dilation[0], :: self._dilation[1]]
        channels = weight.shape[3]
        group = maps // (self.filters // self.groups)
        for item, first in enumerate((group * channels).tolist()):
            taps[item, :, :, first:first + channels] = product[item]
        return signal


@dataclass
class Linear(Layer):
    """Fully connected layer on (N, inputs), with bias and an optional fused ReLU.

    Weights are (units, inputs); after a Flatten the inputs are in (row, column, channel) order.
    """

    shares: ClassVar[bool] = True
    short = True

    units: int
    bias: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        checks.integer("Linear", "units", self.units, 1)
        check_activation(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            self._fail("the input's shape", shapes[0], "(features,): put a Flatten or global pool before it")
        return (self.units,)

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        weight = {"weight": (self.units, shapes[0][0])}
        return {**weight, "bias": (self.units,)} if self.bias else {**weight}

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def multiply_adds(self, *shapes: Shape) -> int:
        return self.units * shapes[0][0]

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        fused = None if run.pre else self.activation
        y = ops.linear(x, self.parameters["weight"], self.parameters.get("bias"), activation=fused,
                       precision=run.precision)
        cache: Cache = {"x": x if run.parameters else None, "sizes": {"precision": run.precision}}
        if fused:
            cache["y"] = y
        else:
            y = self.activated(ops, y, cache, run)
        return y, cache

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        signal, sizes = self.rectified(ops, dy, cache, rule, pre), cache["sizes"]
        gradients: Gradients = {}
        if parameters:
            gradients["weight"] = ops.linear_weight_gradient(signal, cache["x"], **sizes)
            if self.bias:
                gradients["bias"] = ops.channel_sum(signal)
        if not inputs:
            return (None,), gradients
        return (ops.linear_input_gradient(signal, self.parameters["weight"], **sizes),), gradients
