"""Layers without weights or windows: rectify, drop, join, flatten, softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import checks
from ..geometry import Window
from ..rules import GRADIENT, Rule, only_gradient
from .base import INFERENCE, Cache, Gradients, Layer, Run, Shape, check_activation


@dataclass
class ReLU(Layer):
    """max(x, 0), as a layer of its own; `activation="relu"` fuses it into the one before."""

    shares: ClassVar[bool] = True
    short = True

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        y = ops.relu(inputs[0])
        return y, {"y": y}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        return (ops.relu_backward(dy, cache["y"], rule=rule.relu) if inputs else None,), {}


@dataclass
class Dropout(Layer):
    """Drops values in training and scales the others by 1 / (1 - rate); at inference the identity."""

    short = True

    rate: float = 0.5

    def __post_init__(self) -> None:
        valid = isinstance(self.rate, (int, float)) and 0 <= self.rate < 1
        checks.require(valid, "Dropout", "rate", self.rate, "a number in [0, 1)")

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        if not run.training:
            return inputs[0], {"mask": None}
        return ops.dropout(inputs[0], self.rate, seed=run.seed, step=run.step), {"mask": (run.seed, run.step)}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if cache["mask"] is None or not inputs:
            return (dy if inputs else None,), {}
        seed, step = cache["mask"]
        return (ops.dropout(dy, self.rate, seed=seed, step=step),), {}


@dataclass
class Add(Layer):
    """Sum of its inputs, rectified if asked; on the way down each input gets the signal."""

    input_count: ClassVar[tuple[int, int | None]] = (2, None)
    short = True
    activation: str | None = None

    def __post_init__(self) -> None:
        check_activation(self)

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(set(shapes)) > 1:
            self._fail("the inputs' shapes", shapes, "one shape for all")
        return shapes[0]

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        cache: Cache = {"count": len(inputs)}
        return self.activated(ops, ops.add(*inputs), cache, run), cache

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        return (self.rectified(ops, dy, cache, rule, pre) if inputs else None,) * cache["count"], {}


@dataclass
class Concat(Layer):
    """Its inputs side by side on the channel axis; on the way down the signal is split."""

    input_count: ClassVar[tuple[int, int | None]] = (1, None)
    short = True

    def output_shape(self, *shapes: Shape) -> Shape:
        if len({shape[:-1] for shape in shapes}) > 1:
            self._fail("the inputs' shapes", shapes, "one height and width for all")
        return *shapes[0][:-1], sum(shape[-1] for shape in shapes)

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.concat(*inputs), {"sizes": tuple(x.shape[-1] for x in inputs)}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        sizes = cache["sizes"]
        return tuple(ops.split(dy, sizes)) if inputs else (None,) * len(sizes), {}


@dataclass
class Flatten(Layer):
    """(N, H, W, C) as (N, H * W * C), in that order."""

    short = True

    def output_shape(self, *shapes: Shape) -> Shape:
        return (math.prod(shapes[0]),)

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        return x.reshape(x.shape[0], math.prod(x.shape[1:])), {"shape": x.shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        return (dy.reshape(cache["shape"]) if inputs else None,), {}


@dataclass
class Softmax(Layer):
    """exp(x) / sum of exp(x) over the last axis: the classes, or the maps at every place."""

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        y = ops.softmax(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        return y, {"y": y}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        only_gradient(rule, self, "it has no deconvnet or guided rule: take a unit of the layer below it")
        if not inputs:
            return (None,), {}
        rows = (-1, dy.shape[-1])
        return (ops.softmax_gradient(dy.reshape(rows), cache["y"].reshape(rows)).reshape(dy.shape),), {}
