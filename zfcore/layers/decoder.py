"""What decoders are made of: transposed convolution, and unpooling by a pool's own switches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import Window, output_size
from ..rules import GRADIENT, Rule
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape, check_activation
from .elementwise import Signals


@dataclass
class TransposedConvolution(Layer):
    """The adjoint of a convolution as a layer ("deconvolution", ONNX's ConvTranspose), with bias.

    Its weight (channels, rows, columns, filters / groups) is that of the convolution which would lead
    back from its output to its input.

    Parameters
    ----------
    filters : maps of the output
    window, stride, padding, dilation, groups : that convolution's
    output_padding : rows and columns added at the bottom and right of the output, less than the stride
    """

    filters: int
    window: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    output_padding: int | tuple[int, int] = 0
    bias: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        where = "TransposedConvolution"
        checks.integer(where, "filters", self.filters, 1)
        checks.integer(where, "groups", self.groups, 1)
        self._window = checks.pair(where, "window", self.window, 1)
        self._stride = checks.pair(where, "stride", self.stride, 1)
        self._dilation = checks.pair(where, "dilation", self.dilation, 1)
        self._pads = checks.padding(where, self.padding)
        self._more = checks.pair(where, "output_padding", self.output_padding, 0)
        if any(more >= stride for more, stride in zip(self._more, self._stride, strict=True)):
            self._fail("output_padding", self.output_padding, "less than the stride")
        check_activation(self)
        self._sizes = {"stride": self._stride, "padding": self._pads, "dilation": self._dilation,
                       "groups": self.groups}

    def output_shape(self, *shapes: Shape) -> Shape:
        *maps, channels = self._map_shape(shapes[0])
        if channels % self.groups or self.filters % self.groups:
            self._fail("groups", self.groups,
                       f"a divisor of {channels} input channels and {self.filters} filters")
        size = []
        for axis in range(2):
            span = self._dilation[axis] * (self._window[axis] - 1) + 1
            before, after = self._pads[2 * axis:2 * axis + 2]
            grown = (maps[axis] - 1) * self._stride[axis] + span + self._more[axis] - before - after
            if grown < 1 or maps[axis] != output_size(grown, self._window[axis], self._stride[axis], before,
                                                      after, self._dilation[axis]):
                self._fail("padding", self.padding, f"padding that leaves something of a map of {maps}")
            size.append(grown)
        return size[0], size[1], self.filters

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        weight = (shapes[0][2], *self._window, self.filters // self.groups)
        return {"weight": weight, "bias": (self.filters,)} if self.bias else {"weight": weight}

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def multiply_adds(self, *shapes: Shape) -> int:
        return shapes[0][0] * shapes[0][1] * math.prod(self.parameter_shapes(*shapes)["weight"])

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        shape = (x.shape[0], *self.output_shape(tuple(x.shape[1:])))
        y = ops.convolution_input_gradient(x, self.parameters["weight"], shape, **self._sizes)
        if self.bias:
            y = ops.scale(y, None, self.parameters["bias"])
        cache: Cache = {"x": x if run.parameters else None}
        return self.activated(ops, y, cache, run), cache

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        signal = self.rectified(ops, dy, cache, rule, pre)
        weight = self.parameters["weight"]
        gradients: Gradients = {}
        if parameters:
            gradients["weight"] = ops.convolution_weight_gradient(cache["x"], signal, weight.shape, **self._sizes)
            if self.bias:
                gradients["bias"] = ops.channel_sum(signal)
        return (ops.convolution(signal, weight, None, **self._sizes) if inputs else None,), gradients


@dataclass
class MaxUnpool(Layer):
    """Places its first input's values at the switches of a max pool of its second input.

    The second input is the pool's own input: its switches are found again there. Windows must not
    overlap, else a place could get two values.

    Parameters
    ----------
    window, stride, padding, ceil_mode : the pool's
    """

    input_count: ClassVar[tuple[int, int | None]] = (2, 2)
    window: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: int | tuple[int, ...] = 0
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        where = "MaxUnpool"
        self._window = checks.pair(where, "window", self.window, 1)
        self._stride = self._window if self.stride is None else checks.pair(where, "stride", self.stride, 1)
        self._pads = checks.padding(where, self.padding)
        if any(stride < window for stride, window in zip(self._stride, self._window, strict=True)):
            self._fail("stride", self.stride, "at least the window: unpooling overlapping windows is ambiguous")
        self._sizes: dict[str, Any] = {"window": self._window, "stride": self._stride, "padding": self._pads}

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = self._map_shape(shapes[1])
        top, bottom, left, right = self._pads
        pooled = (output_size(height, self._window[0], self._stride[0], top, bottom, 1, self.ceil_mode),
                  output_size(width, self._window[1], self._stride[1], left, right, 1, self.ceil_mode), channels)
        if shapes[0] != pooled:
            self._fail("the inputs' shapes", shapes, f"{pooled}, the pooled map, and the pool's input")
        return shapes[1]

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        values, source = inputs
        _, switches = ops.max_pool(source, ceil_mode=self.ceil_mode, **self._sizes)
        y = ops.max_unpool(values, switches, tuple(source.shape), **self._sizes)
        return y, {"switches": switches, "shape": tuple(source.shape)}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if not inputs:
            return (None, None), {}
        return (ops.pool_at(dy, cache["switches"], **self._sizes), None), {}
