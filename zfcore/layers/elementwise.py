"""Elementwise layers beyond ReLU: leaky and clipped ReLUs, sigmoids, arithmetic, scales, broadcasting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import POINTWISE, Window
from ..rules import GRADIENT, Rule, only_gradient
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape

NO_RULE = "it is neither linear nor a ReLU, so it has no deconvnet or guided rule: take a unit below it"
Signals = tuple[tuple[Any, ...], Gradients]


def broadcast_window(parameter: Shape, shape: Shape) -> Window | None:
    """Pointwise, unless a parameter has its own number for every place: then crops would need theirs."""
    aligned = (1,) * (len(shape) - len(parameter)) + tuple(parameter)
    return POINTWISE if len(shape) == 3 and aligned[:2] == (1, 1) else None


def fit(layer: Layer, argument: str, small: Shape, shape: Shape) -> None:
    """Require that `small` broadcasts to exactly `shape`."""
    aligned = shape[len(shape) - len(small):] if len(small) <= len(shape) else ()
    if len(aligned) != len(small) or any(a not in (1, b) for a, b in zip(small, aligned, strict=True)):
        layer._fail(argument, small, f"a shape that broadcasts to {shape}")


def sizes(layer: Layer, argument: str, values: Any) -> Shape:
    """A tuple of positive sizes."""
    if not isinstance(values, (tuple, list)):
        layer._fail(argument, values, "a tuple of sizes")
    return tuple(checks.integer(type(layer).__name__, argument, value, 1) for value in values)


@dataclass
class LeakyReLU(Layer):
    """x where x > 0, else slope * x."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        valid = isinstance(self.slope, (int, float)) and not isinstance(self.slope, bool)
        checks.require(valid and math.isfinite(self.slope), "LeakyReLU", "slope", self.slope, "a finite number")

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.leaky_relu(inputs[0], float(self.slope)), {"x": inputs[0]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        return (ops.leaky_relu_gradient(dy, cache["x"], float(self.slope)) if inputs else None,), {}


@dataclass
class PReLU(Layer):
    """x where x > 0, else slope * x, with learned slopes (He et al. 2015).

    Parameters
    ----------
    shape : of the slopes, which broadcast to an item; (): one for every map
    """

    shape: tuple[int, ...] = ()
    trainable: ClassVar[tuple[str, ...]] = ("slope",)

    def __post_init__(self) -> None:
        self._sizes = sizes(self, "shape", self.shape)

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        return {"slope": self._sizes or (shapes[0][-1],)}

    def output_shape(self, *shapes: Shape) -> Shape:
        fit(self, "shape", self.parameter_shapes(*shapes)["slope"], shapes[0])
        return shapes[0]

    def geometry(self, shape: Shape) -> Window | None:
        return broadcast_window(self._sizes, shape)

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.leaky_relu(inputs[0], self.parameters["slope"]), {"x": inputs[0]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        x, slope = cache["x"], self.parameters["slope"]
        gradients: Gradients = {}
        if parameters:
            negative = ops.subtract(x, ops.relu(x))
            gradients["slope"] = ops.reduce_to(ops.multiply(dy, negative), slope.shape)
        return (ops.leaky_relu_gradient(dy, x, slope) if inputs else None,), gradients


@dataclass
class Clip(Layer):
    """min(max(x, low), high). From 0 on it counts as a ReLU in every rule, its mask is low < x < high.

    Parameters
    ----------
    low, high : bounds; None: none on that side
    """

    low: float | None = 0.0
    high: float | None = 6.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            checks.require(value is None or number, "Clip", name, value, "a finite number or None")
        self._bounds = (-math.inf if self.low is None else float(self.low),
                        math.inf if self.high is None else float(self.high))

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.clip(inputs[0], *self._bounds), {"x": inputs[0]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if self._bounds[0] != 0:
            only_gradient(rule, self, NO_RULE)
        return (ops.clip_backward(dy, cache["x"], *self._bounds, rule=rule.relu) if inputs else None,), {}


@dataclass
class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.sigmoid(inputs[0])
        return y, {"y": y}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        return (ops.sigmoid_gradient(dy, cache["y"]) if inputs else None,), {}


@dataclass
class Tanh(Layer):
    """Hyperbolic tangent."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.tanh(inputs[0])
        return y, {"y": y}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        return (ops.tanh_gradient(dy, cache["y"]) if inputs else None,), {}


@dataclass
class LogSoftmax(Layer):
    """Logarithm of the softmax over the last axis."""

    def geometry(self, shape: Shape) -> Window | None:
        return POINTWISE if len(shape) == 3 else None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.log_softmax(inputs[0])
        return y, {"y": y}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        return (ops.log_softmax_gradient(dy, cache["y"]) if inputs else None,), {}


@dataclass
class _Arithmetic(Layer):
    """Two inputs of one shape; `Expand` makes them so."""

    input_count: ClassVar[tuple[int, int | None]] = (2, 2)

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            self._fail("the inputs' shapes", shapes, "one shape for both")
        return shapes[0]


@dataclass
class Subtract(_Arithmetic):
    """The first input minus the second; linear, so every rule takes its adjoint."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.subtract(*inputs), {}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if not inputs:
            return (None, None), {}
        return (dy, ops.subtract(ops.backend.zeros(tuple(dy.shape), dy.dtype), dy)), {}


@dataclass
class Multiply(_Arithmetic):
    """The product of its inputs."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.multiply(*inputs), {"a": inputs[0], "b": inputs[1]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        if not inputs:
            return (None, None), {}
        return (ops.multiply(dy, cache["b"]), ops.multiply(dy, cache["a"])), {}


@dataclass
class Divide(_Arithmetic):
    """The first input divided by the second."""

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.divide(*inputs)
        return y, {"y": y, "b": inputs[1]}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        only_gradient(rule, self, NO_RULE)
        if not inputs:
            return (None, None), {}
        quotient = ops.divide(dy, cache["b"])
        zeros = ops.backend.zeros(tuple(dy.shape), dy.dtype)
        return (quotient, ops.subtract(zeros, ops.multiply(quotient, cache["y"]))), {}


@dataclass
class Scale(Layer):
    """x * scale + bias with constant or learned numbers; linear, so every rule multiplies by scale.

    Parameters
    ----------
    shape : of the numbers, which broadcast to an item; (): one for every map
    scale, bias : which of the two it has
    """

    shape: tuple[int, ...] = ()
    scale: bool = True
    bias: bool = True
    trainable: ClassVar[tuple[str, ...]] = ("scale", "bias")

    def __post_init__(self) -> None:
        self._sizes = sizes(self, "shape", self.shape)
        checks.require(bool(self.scale or self.bias), "Scale", "scale, bias", (self.scale, self.bias),
                       "at least one of them")

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        shape = self._sizes or (shapes[0][-1],)
        return {name: shape for name in ("scale", "bias") if getattr(self, name)}

    def output_shape(self, *shapes: Shape) -> Shape:
        fit(self, "shape", self._sizes or (shapes[0][-1],), shapes[0])
        return shapes[0]

    def geometry(self, shape: Shape) -> Window | None:
        return broadcast_window(self._sizes, shape)

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        y = ops.scale(x, self.parameters.get("scale"), self.parameters.get("bias"))
        return y, {"x": x if run.parameters and self.scale else None}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        gradients: Gradients = {}
        if parameters and self.scale:
            gradients["scale"] = ops.reduce_to(ops.multiply(dy, cache["x"]), self.parameters["scale"].shape)
        if parameters and self.bias:
            gradients["bias"] = ops.reduce_to(dy, self.parameters["bias"].shape)
        if not inputs:
            return (None,), gradients
        return (ops.scale(dy, self.parameters["scale"]) if self.scale else dy,), gradients


@dataclass
class Expand(Layer):
    """Repeats its input along axes of size 1, as broadcasting does; sums on the way down."""

    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._sizes = sizes(self, "shape", self.shape)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != len(self._sizes):
            self._fail("shape", self._sizes, f"{len(shapes[0])} sizes")
        fit(self, "the input's shape", shapes[0], self._sizes)
        return self._sizes

    def geometry(self, shape: Shape) -> Window | None:
        return POINTWISE if len(shape) == 3 and shape[:2] == self._sizes[:2] else None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        target = (*x.shape[1:-1], self._sizes[-1]) if run.tile else self._sizes
        return ops.expand(x, (x.shape[0], *target)), {"shape": x.shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        return (ops.reduce_to(dy, tuple(cache["shape"])) if inputs else None,), {}
