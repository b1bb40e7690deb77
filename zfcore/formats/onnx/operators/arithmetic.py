"""Sums, products and matrix products."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np

from ....layers import Add, Convolution, Divide, Expand, Layer, Linear, Multiply, Scale, Subtract
from ..convert import Converter, Entry, Unsupported, Value, operator
from ..fold import BATCHES
from ..graph import Operation
from ..views import Part, View, canonical, last_first
from .maps import hint

Shape = tuple[int, ...]


def operand(c: Converter, array: np.ndarray, shape: Shape) -> tuple[np.ndarray, Shape]:
    """A constant as it broadcasts against items of an ONNX `shape`, and the shape of the result.

    The array comes back with the maps last, without leading axes of size 1.
    """
    rank = len(shape)
    if c.first and array.ndim == rank + 1:
        if array.shape[0] != 1:
            raise Unsupported(f"a constant of shape {array.shape} has numbers of its own for every image")
        array = array[0]
    if array.ndim > rank:
        raise Unsupported(f"a constant of shape {array.shape} has more axes than its tensor")
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    try:
        whole = np.broadcast_shapes(shape, array.shape)
    except ValueError:
        raise Unsupported(f"a constant of shape {array.shape} does not fit items of shape {shape}") from None
    moved = array.transpose(last_first(rank)) if rank else array
    small = moved.shape
    while len(small) > 1 and small[0] == 1:
        small = small[1:]
    return np.ascontiguousarray(moved.reshape(small or (1,))), tuple(int(size) for size in whole)


def expanded(c: Converter, value: Value, shape: Shape) -> Entry:
    """The tensor, maps last, repeated until its items have this ONNX shape."""
    entry = c.standard(value)
    if value.view.shape == shape:
        return entry
    if len(value.view.shape) != len(shape):
        raise Unsupported(f"shapes {value.view.shape} and {shape} have different ranks")
    layer = Expand(tuple(shape[axis] for axis in last_first(len(shape))))
    return c.emit(layer, [entry], value.tensor + "_expanded")


def aligned(c: Converter, values: list[Value]) -> tuple[list[Entry], View]:
    """Several tensors in one shape and one order, and the view of a result that has it too."""
    shapes = [value.view.shape for value in values]
    if len(set(map(len, shapes))) > 1:
        if c.first:
            raise Unsupported(f"its inputs' items have shapes {shapes}: a batch axis meets another axis")
        rank = max(map(len, shapes))
        values = [value if len(value.view.shape) == rank else Value(value.entry, View(
            value.view.parts, ((),) * (rank - len(value.view.axes)) + value.view.axes), value.tensor)
            for value in values]
        shapes = [value.view.shape for value in values]
    try:
        whole = tuple(int(size) for size in np.broadcast_shapes(*shapes))
    except ValueError:
        raise Unsupported(f"its inputs' items have shapes {shapes}") from None
    if len(set(shapes)) == 1:
        forms = {(value.entry.shape, *value.view.arrangement(range(len(whole)))[:2]) for value in values}
        if len(forms) == 1:
            return [value.entry for value in values], values[0].view
    return [expanded(c, value, whole) for value in values], canonical(
        [whole[axis] for axis in last_first(len(whole))])


def scaled(c: Converter, node: Operation, index: int, factor: np.ndarray | None, bias: np.ndarray | None) -> None:
    """A tensor times a constant plus a constant; both have one shape, or one is None."""
    value = c.value(node, index)
    given = factor if factor is not None else bias
    assert given is not None
    if given.size == 1 and given.ndim <= len(value.view.axes) + c.first:
        small, entry, view = (1,), value.entry, value.view
    else:
        array, shape = operand(c, given, value.view.shape)
        small, entry = array.shape, expanded(c, value, shape)
        view = canonical([shape[axis] for axis in last_first(len(shape))])
    parameters = {}
    for name, numbers in (("scale", factor), ("bias", bias)):
        if numbers is not None:
            parameters[name] = (numbers.reshape(1) if small == (1,) and numbers.size == 1
                                else operand(c, numbers, value.view.shape)[0])
    layer = Scale(() if small == entry.shape[-1:] and small != (1,) else small,
                  factor is not None, bias is not None)
    c.define(node, c.emit(layer, [entry], node.outputs[0], parameters, op=node.op), view)


@operator("Expand")
def expand(c: Converter, node: Operation) -> None:
    """Items repeated along axes of size 1."""
    value = c.value(node, 0)
    if not c.is_constant(node, 1):
        raise Unsupported("its shape is not constant")
    before, found = value.view.shape, set()
    for target, batch in zip(c.constants[node.inputs[1]], BATCHES, strict=True):
        sizes = tuple(int(size) for size in target.reshape(-1))
        first = (batch,) if c.first else ()
        try:
            whole = np.broadcast_shapes(first + before, sizes) if len(sizes) <= 32 and min(sizes, default=1) > 0 else ()
        except ValueError:
            whole = ()
        if len(whole) != len(first + before) or whole[:c.first] != first:
            raise Unsupported(f"its shape is {sizes[:8]}, for items of shape {before}")
        found.add(tuple(int(size) for size in whole[c.first:]))
    if len(found) != 1:
        raise Unsupported("its shape depends on the number of images")
    shape = found.pop()
    if shape == before:
        c.define(node, value.entry, value.view)
        return
    inner = tuple(shape[axis] for axis in last_first(len(shape)))
    c.define(node, c.emit(Expand(inner), [c.standard(value)], node.outputs[0], op="Expand"), canonical(inner))


def _pair(c: Converter, node: Operation, layer: Layer) -> None:
    entries, view = aligned(c, [c.value(node, 0), c.value(node, 1)])
    c.define(node, c.emit(layer, entries, node.outputs[0], op=node.op), view)


@operator("Add", "Sum")
def add(c: Converter, node: Operation) -> None:
    """Sum of tensors and constants."""
    data = [index for index in range(len(node.inputs)) if not c.is_constant(node, index)]
    numbers = [c.weights(node, index) for index in range(len(node.inputs)) if index not in data]
    if not data:
        raise Unsupported("all of its inputs are constant")
    if not numbers:
        if len(data) == 1:
            value = c.value(node, 0)
            c.define(node, value.entry, value.view)
            return
        entries, view = aligned(c, [c.value(node, index) for index in data])
        c.define(node, c.emit(Add(), entries, node.outputs[0], op="Add"), view)
        return
    if len(data) > 1 or len(numbers) > 1:
        raise Unsupported("several tensors and constants are added at once")
    if not _into_bias(c, node, data[0], numbers[0]):
        scaled(c, node, data[0], None, numbers[0])


def _into_bias(c: Converter, node: Operation, index: int, numbers: np.ndarray) -> bool:
    """Make a constant after a matrix product that nobody else reads its bias."""
    value = c.value(node, index)
    entry = value.entry
    made = entry.op == "MatMul" and isinstance(entry.layer, (Linear, Convolution)) and not entry.layer.bias
    alone = entry.tensor == node.inputs[index] and c.readers[entry.tensor] == 1 and entry.tensor not in c.wanted
    units = entry.shape[-1]
    fits = numbers.size == 1 or (numbers.shape[-1] == units and numbers.size == units)
    if not made or not alone or not fits or numbers.ndim > len(value.view.axes) + c.first:
        return False
    assert isinstance(entry.layer, (Linear, Convolution))
    entry.layer = dataclasses.replace(entry.layer, bias=True)
    entry.parameters["bias"] = np.array(np.broadcast_to(numbers.reshape(-1), (units,)), np.float32)
    entry.tensor = node.outputs[0]
    c.define(node, entry, value.view)
    return True


@operator("Sub")
def subtract(c: Converter, node: Operation) -> None:
    """Difference of tensors or constants."""
    if c.is_constant(node, 1):
        scaled(c, node, 0, None, -c.weights(node, 1))
    elif c.is_constant(node, 0):
        numbers = c.weights(node, 0)
        scaled(c, node, 1, np.full_like(numbers, -1), numbers)
    else:
        _pair(c, node, Subtract())


@operator("Mul")
def multiply(c: Converter, node: Operation) -> None:
    """Product of tensors or constants."""
    if c.is_constant(node, 1):
        scaled(c, node, 0, c.weights(node, 1), None)
    elif c.is_constant(node, 0):
        scaled(c, node, 1, c.weights(node, 0), None)
    else:
        _pair(c, node, Multiply())


@operator("Div")
def divide(c: Converter, node: Operation) -> None:
    """Quotient of tensors, or of a tensor by a constant."""
    if c.is_constant(node, 1):
        numbers = c.weights(node, 1)
        if not numbers.all():
            raise Unsupported("it divides by a constant 0")
        scaled(c, node, 0, (1 / numbers.astype(np.float64)).astype(np.float32), None)
    elif c.is_constant(node, 0):
        raise Unsupported("a constant is divided by a tensor")
    else:
        _pair(c, node, Divide())


def _linear(c: Converter, node: Operation, weight: np.ndarray, bias: Any) -> None:
    """Fully connected: the weight (units, inputs) takes the item in the layer's own order, once and for all."""
    value = c.value(node, 0)
    if math.prod(value.view.shape) != weight.shape[1] or not weight.size:
        raise Unsupported(f"its weight is for {weight.shape[1]} inputs; there are {math.prod(value.view.shape)}")
    entry, weight = c.vector(value, weight)
    parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    made = c.emit(Linear(weight.shape[0], bias is not None), [entry], node.outputs[0], parameters,
                  hint(node.inputs[1]), node.op)
    c.define(node, made, canonical(made.shape))


@operator("Gemm")
def general_product(c: Converter, node: Operation) -> None:
    """alpha * A * B + beta * C with a constant B."""
    alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    weight = c.weights(node, 1)
    value = c.value(node, 0)
    if weight.ndim != 2 or len(value.view.axes) + c.first != 2:
        raise Unsupported("its operands are not matrices")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    weight = weight if alpha == 1 else weight * np.float32(alpha)
    numbers = c.weights(node, 2) * np.float32(beta) if c.given(node, 2) else None
    if not c.first:
        if node.attributes.get("transA", 0):
            value = Value(value.entry, value.view.transposed((1, 0)), value.tensor)
        _rows(c, node, value, weight)
        if numbers is not None:
            c.values[node.outputs[0] + "_product"] = c.values[node.outputs[0]]
            scaled(c, replace(node, inputs=(node.outputs[0] + "_product",)), 0, None, numbers)
        return
    if node.attributes.get("transA", 0):
        raise Unsupported("it works along the batch axis (transA)")
    bias = None
    if numbers is not None:
        if numbers.ndim == 2 and numbers.shape[0] != 1:
            raise Unsupported(f"a constant of shape {numbers.shape} has numbers of its own for every image")
        if numbers.ndim > 2 or numbers.size not in (1, len(weight)):
            raise Unsupported(f"its bias has shape {numbers.shape}, for {len(weight)} outputs")
        bias = np.broadcast_to(numbers.reshape(-1), (len(weight),))
    _linear(c, node, weight, bias)


def _rows(c: Converter, node: Operation, value: Value, weight: np.ndarray) -> None:
    """The item's last axis times weight (units, inputs), for all of its other axes: a 1 x 1 convolution."""
    shape = value.view.shape
    if not shape or shape[-1] != weight.shape[1] or not weight.size:
        raise Unsupported(f"its operands' shapes are {shape} and {weight.shape[::-1]}")
    entry = c.arranged(value, range(len(shape)), (math.prod(shape[:-1]), 1, shape[-1]))
    made = c.emit(Convolution(len(weight), 1, bias=False), [entry], node.outputs[0],
                  {"weight": weight[:, None, None, :]}, hint(node.inputs[1]), "MatMul")
    parts = [Part(size) for size in (*shape[:-1], len(weight))]
    c.define(node, made, View(tuple(parts), tuple((part,) for part in parts)))


@operator("MatMul")
def product(c: Converter, node: Operation) -> None:
    """A tensor's last axis times a constant matrix or vector."""
    weight = c.weights(node, 1)
    value = c.value(node, 0)
    if weight.ndim not in (1, 2):
        raise Unsupported(f"its second operand has shape {weight.shape}; allowed: a matrix")
    flat = weight.ndim == 1
    weight = weight[None] if flat else weight.T
    if len(value.view.axes) == 1 and c.first and not flat:
        _linear(c, node, weight, None)
        return
    _rows(c, node, value, weight)
    if flat:
        made = c.values[node.outputs[0]]
        c.define(node, made.entry, View(made.view.parts, made.view.axes[:-1]))
