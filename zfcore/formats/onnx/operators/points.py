"""Operators that look at one element at a time, and softmax. They keep the view of their input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ....layers import (
    Add,
    Clip,
    Convolution,
    Dropout,
    Layer,
    LeakyReLU,
    Linear,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    TransposedConvolution,
)
from ..convert import Converter, Unsupported, operator
from ..graph import Operation
from ..views import Part, View, canonical, last_first
from .arithmetic import operand

FUSED = (Convolution, Linear, Add, TransposedConvolution)
LARGEST = float(np.finfo(np.float32).max)


def pointwise(c: Converter, node: Operation, layer: Layer) -> None:
    """A layer that treats all elements alike works on the layer's tensor, however it is viewed."""
    value = c.value(node, 0)
    c.define(node, c.emit(layer, [value.entry], node.outputs[0], op=node.op), value.view)


@operator("Relu")
def relu(c: Converter, node: Operation) -> None:
    """ReLU, fused into the layer before it where nobody else reads what lies between."""
    value = c.value(node, 0)
    entry = value.entry
    alone = entry.tensor == node.inputs[0] and c.readers[entry.tensor] == 1 and entry.tensor not in c.wanted
    if alone and isinstance(entry.layer, FUSED) and entry.layer.activation is None:
        entry.layer = dataclasses.replace(entry.layer, activation="relu")
        entry.pre, entry.tensor = entry.tensor, node.outputs[0]
        c.define(node, entry, value.view)
        return
    pointwise(c, node, ReLU())


@operator("Clip")
def clip(c: Converter, node: Operation) -> None:
    """Clipping; from 0 on without an upper bound it is a ReLU."""
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        number = float(c.weights(node, index).reshape(-1)[0]) if c.given(node, index) else node.attributes.get(name)
        bounds.append(None if number is None or abs(number) >= LARGEST else float(number))
    low, high = bounds
    if low is None and high is None:
        identity(c, node)
    elif low == 0 and high is None:
        relu(c, node)
    else:
        try:
            layer = Clip(low, high)
        except (ValueError, TypeError) as error:
            raise Unsupported(str(error)) from None
        pointwise(c, node, layer)


@operator("Identity")
def identity(c: Converter, node: Operation) -> None:
    """The same tensor under another name."""
    value = c.value(node, 0)
    c.define(node, value.entry, value.view)


@operator("LeakyRelu")
def leaky_relu(c: Converter, node: Operation) -> None:
    """ReLU with a slope below 0."""
    slope = float(node.attributes.get("alpha", 0.01))
    if not math.isfinite(slope):
        raise Unsupported(f"alpha is {slope}")
    pointwise(c, node, LeakyReLU(slope))


@operator("PRelu")
def parametric_relu(c: Converter, node: Operation) -> None:
    """ReLU with learned slopes."""
    value = c.value(node, 0)
    slope, shape = operand(c, c.weights(node, 1), value.view.shape)
    if shape != value.view.shape:
        raise Unsupported(f"its slopes have shape {slope.shape}, more than its input's")
    order = last_first(len(shape))
    inner = tuple(shape[axis] for axis in order)
    made = c.emit(PReLU(() if slope.shape == inner[-1:] else slope.shape), [c.standard(value)], node.outputs[0],
                  {"slope": slope}, op="PRelu")
    c.define(node, made, canonical(inner))


@operator("Sigmoid")
def sigmoid(c: Converter, node: Operation) -> None:
    """Logistic function."""
    pointwise(c, node, Sigmoid())


@operator("Tanh")
def tanh(c: Converter, node: Operation) -> None:
    """Hyperbolic tangent."""
    pointwise(c, node, Tanh())


@operator("Dropout")
def dropout(c: Converter, node: Operation) -> None:
    """Dropout: kept as a layer, so that a network that is trained on drops again."""
    if c.given(node, 2) and bool(c.constant(node, 2).reshape(-1)[0]):
        raise Unsupported("it is in training mode")
    if len(node.outputs) > 1 and node.outputs[1] and (c.readers[node.outputs[1]] or node.outputs[1] in c.wanted):
        raise Unsupported("its mask is wanted")
    rate = float(c.constant(node, 1).reshape(-1)[0]) if c.given(node, 1) else float(
        node.attributes.get("ratio", 0.5))
    if not 0 <= rate < 1:
        raise Unsupported(f"its ratio is {rate}")
    if rate == 0:
        identity(c, node)
    else:
        pointwise(c, node, Dropout(rate))


@operator("Softmax", "LogSoftmax")
def softmax(c: Converter, node: Operation) -> None:
    """Softmax along one axis; before opset 13 along all axes from one on."""
    value = c.value(node, 0)
    view, rank = value.view, len(value.view.axes)
    axis = c.axis(node, node.attributes.get("axis", -1 if c.opset >= 13 else 1), rank)
    layer: Layer = Softmax() if node.op == "Softmax" else LogSoftmax()
    along = [axis] if c.opset >= 13 else list(range(axis, rank))
    # The result does not depend on the order of the axes before, and along them not on their own order.
    order = [each for each in range(rank) if each not in along] + along
    if len(along) == 1 and axis == 0:
        order = list(last_first(rank))
    shape = view.shape
    rest = [shape[each] for each in order if each not in along]
    size = math.prod(shape[each] for each in along)
    sizes = (size,) if math.prod(rest) == 1 else (*rest, size)
    made = c.emit(layer, [c.arranged(value, order, sizes)], node.outputs[0], op=node.op)
    parts = {each: Part(shape[each]) for each in order}
    c.define(node, made, View(tuple(parts[each] for each in order),
                              tuple((parts[each],) for each in range(rank))))
