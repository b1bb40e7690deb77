"""Arithmetic on constants and shapes, done once while a file is read.

Exporters write sizes as small graphs (Shape, Gather, Concat ...). Their only unknown is the batch.
So every constant is computed twice, for two batch sizes: what is equal both times does not depend
on the batch, and what grows as the batch does is the batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .graph import Operation
from .tensors import TYPES, Budget

BATCHES = (2, 3)
Constant = tuple[np.ndarray, np.ndarray]  # for each of BATCHES; the same object twice if it does not matter


def same(array: np.ndarray) -> Constant:
    """A constant that does not depend on the batch."""
    return array, array


def independent(constant: Constant) -> bool:
    """Whether the constant is the same for every batch."""
    return constant[0] is constant[1] or (constant[0].shape == constant[1].shape
                                          and bool(np.array_equal(constant[0], constant[1])))


def _axes(values: Any, rank: int) -> list[int]:
    axes = [int(axis) for axis in np.asarray(values).reshape(-1)]
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(f"axes are {axes[:8]}; allowed: {-rank} to {rank - 1}")
    return [axis % rank for axis in axes]


def _constant_of_shape(node: Operation, shape: np.ndarray) -> np.ndarray:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full([int(size) for size in shape.reshape(-1)], value.reshape(-1)[0], value.dtype)


def _gather(node: Operation, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = _axes(node.attributes.get("axis", 0), data.ndim)[0]
    return np.take(data, indices.astype(np.int64), axis=axis)


def _slice(node: Operation, data: np.ndarray, *more: np.ndarray | None) -> np.ndarray:
    values = [node.attributes.get(name) for name in ("starts", "ends", "axes")] + [None]
    if more:
        values = [*more, None, None, None][:4]
    starts, ends = (np.asarray(value).reshape(-1) for value in values[:2])
    axes = range(len(starts)) if values[2] is None else _axes(values[2], data.ndim)
    steps = np.ones(len(starts), np.int64) if values[3] is None else np.asarray(values[3]).reshape(-1)
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = data.shape[axis]
        stop: int | None = int(end)
        if step < 0 and int(end) < -size:
            stop = None
        cut[axis] = slice(int(start), stop, int(step))
    return data[tuple(cut)]


def _reshape(node: Operation, data: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = [int(size) for size in shape.reshape(-1)]
    if not node.attributes.get("allowzero", 0):
        sizes = [data.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return data.reshape(sizes)


def _squeeze(node: Operation, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    chosen = node.attributes.get("axes") if axes is None else axes
    return np.squeeze(data, None if chosen is None else tuple(_axes(chosen, data.ndim)))


def _unsqueeze(node: Operation, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    chosen = np.asarray(node.attributes.get("axes", ()) if axes is None else axes).reshape(-1)
    places = _axes(chosen, data.ndim + len(chosen))
    return np.expand_dims(data, tuple(places))


def _cast(node: Operation, data: np.ndarray) -> np.ndarray:
    kind = node.attributes.get("to")
    if kind not in TYPES:
        raise ValueError(f"its target is data type {kind}; allowed: {sorted(TYPES)}")
    with np.errstate(all="ignore"):
        return data.astype(TYPES[kind][0])


def _divide(node: Operation, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu":
        if not b.all():
            raise ValueError("an integer is divided by 0")
        wide = np.trunc(np.asarray(a, np.float64) / b) if np.abs(a).max(initial=0) < 2**52 else a // b
        return np.asarray(wide).astype(a.dtype)
    with np.errstate(all="ignore"):
        return np.divide(a, b)


def _reduce(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def reduce(node: Operation, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
        chosen = node.attributes.get("axes") if axes is None else axes
        if chosen is None or np.size(chosen) == 0:
            chosen = range(data.ndim)
        keep = bool(node.attributes.get("keepdims", 1))
        return np.asarray(function(data, axis=tuple(_axes(list(np.asarray(chosen).reshape(-1)), data.ndim)),
                                   keepdims=keep)).astype(data.dtype)
    return reduce


def _split(node: Operation, data: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
    axis = _axes(node.attributes.get("axis", 0), data.ndim)[0]
    parts = node.attributes.get("split") if sizes is None else sizes.reshape(-1).tolist()
    if parts is None:
        most = -(-data.shape[axis] // len(node.outputs))
        parts = [max(0, min(most, data.shape[axis] - most * place)) for place in range(len(node.outputs))]
    if len(parts) != len(node.outputs) or sum(parts) != data.shape[axis] or min(parts) < 0:
        raise ValueError(f"its parts are {list(parts)[:8]}, of {data.shape[axis]}")
    return np.split(data, np.cumsum(parts)[:-1].astype(int), axis)


def _range(node: Operation, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _flatten(node: Operation, data: np.ndarray) -> np.ndarray:
    axis = node.attributes.get("axis", 1)
    return data.reshape(math.prod(data.shape[:axis]), -1)


def _plain(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def call(node: Operation, *arrays: np.ndarray) -> np.ndarray:
        if len(arrays) > getattr(function, "nin", len(arrays)):  # NumPy would write into the array after them
            raise ValueError(f"it has {len(arrays)} inputs; allowed: {function.nin}")  # type: ignore[attr-defined]
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays))
    return call


def _many(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """An operator of any number of inputs."""
    return _plain(lambda *arrays: functools.reduce(function, arrays))


def _modulo(node: Operation, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(np.fmod(a, b) if node.attributes.get("fmod", 0) else np.mod(a, b))


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "ConstantOfShape": _constant_of_shape, "Gather": _gather, "Slice": _slice, "Reshape": _reshape,
    "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Cast": _cast, "Div": _divide, "Range": _range,
    "Flatten": _flatten, "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max), "ReduceMin": _reduce(np.min), "ReduceMean": _reduce(np.mean),
    "Transpose": lambda node, data: np.transpose(data, node.attributes.get("perm")),
    "Concat": lambda node, *arrays: np.concatenate(arrays, axis=node.attributes.get("axis", 0)),
    "Expand": lambda node, data, shape: data * np.ones([int(size) for size in shape], data.dtype),
    "Identity": _plain(lambda x: x), "Add": _plain(np.add), "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply), "Neg": _plain(np.negative), "Abs": _plain(np.abs), "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil), "Sqrt": _plain(np.sqrt), "Exp": _plain(np.exp), "Min": _many(np.minimum),
    "Max": _many(np.maximum), "Equal": _plain(np.equal), "Less": _plain(np.less),
    "Greater": _plain(np.greater), "Split": _split, "Not": _plain(np.logical_not), "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or), "Where": _plain(np.where), "Sum": _many(np.add), "Mod": _modulo,
}
SHAPES = ("Shape", "Size")  # these need no values, only the tensor's sizes
_BROADCAST = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Equal", "Less", "Greater", "And", "Or", "Where",
              "Sum", "Mod", "Expand"}


def _bytes(node: Operation, arrays: Sequence[np.ndarray | None]) -> int:
    """An upper bound of the result's bytes, before it exists."""
    given = [array for array in arrays if array is not None]
    if node.op == "ConstantOfShape":
        value = node.attributes.get("value", np.zeros(1, np.float32))
        if value.size != 1:
            raise ValueError("its value holds several numbers; allowed: one")
        return _product(given[0]) * value.itemsize
    if node.op == "Expand":
        return math.prod(np.broadcast_shapes(given[0].shape, _shape(given[1]))) * given[0].itemsize
    if node.op == "Range":
        start, limit, delta = (float(array.reshape(-1)[0]) for array in given[:3])
        if delta == 0 or not math.isfinite((limit - start) / delta):
            raise ValueError("its step is 0 or its limits are not finite")
        return max(0, math.ceil((limit - start) / delta)) * 8
    if node.op in _BROADCAST:
        return math.prod(np.broadcast_shapes(*(array.shape for array in given))) * 8
    if node.op == "Gather":
        axis = _axes(node.attributes.get("axis", 0), given[0].ndim)[0]
        kept = math.prod(size for place, size in enumerate(given[0].shape) if place != axis)
        return kept * given[1].size * given[0].itemsize + given[1].size * 8
    return sum(array.nbytes for array in given) * (8 if node.op in ("Cast", "Not") else 1)


def _shape(values: np.ndarray) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in values.reshape(-1))
    if len(sizes) > 32 or any(size < 0 or size > 2**40 for size in sizes):
        raise ValueError(f"its shape is {sizes[:8]}; allowed: up to 32 sizes >= 0")
    return sizes


def _product(values: np.ndarray) -> int:
    return math.prod(_shape(values))


def compute(node: Operation, inputs: Sequence[Constant | None], budget: Budget) -> list[Constant]:
    """The outputs of an operator of FUNCTIONS whose inputs are all constant.

    ValueError if it cannot be computed or would exceed the budget.
    """
    results = []
    worlds = (0,) if all(each is None or each[0] is each[1] for each in inputs) else (0, 1)
    for world in worlds:
        arrays = [None if each is None else each[world] for each in inputs]
        while arrays and arrays[-1] is None:
            arrays.pop()
        try:
            budget.take(f"the result of {node}", min(_bytes(node, arrays), 2**62))
            made = FUNCTIONS[node.op](node, *arrays)
            results.append(made if isinstance(made, list) else [np.asarray(made)])
        except (ValueError, TypeError, IndexError, ArithmeticError, AttributeError) as error:
            if str(error).startswith("onnx: "):
                raise
            raise ValueError(f"onnx: {node} cannot be computed: {str(error)[:300]}") from None
    return list(zip(results[0], results[-1], strict=True))


def literal(node: Operation) -> Constant:
    """The value of a Constant node."""
    attributes = node.attributes
    if "value" in attributes and isinstance(attributes["value"], np.ndarray):
        return same(attributes["value"])
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}
    for name, kind in kinds.items():
        if name in attributes:
            return same(np.asarray(attributes[name], kind))
    raise ValueError(f"onnx: {node} has the attributes {sorted(attributes)}; allowed: value, value_float, "
                     "value_floats, value_int or value_ints")
