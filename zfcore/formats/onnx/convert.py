"""From a checked graph to layers: the walk over its nodes, and what the operators' handlers need.

A handler takes the converter and a node, emits layers, and defines the node's outputs as values: a
layer's tensor and a view of it (`views`). What it cannot do it raises as `Unsupported`; the walk goes
on, so that everything that is not supported is listed at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ... import checks
from ...layers import Flatten, Layer, Rearrange, Shape, Slice
from . import fold, patterns
from .fold import BATCHES, Constant
from .graph import Declared, Graph, Operation
from .tensors import Budget
from .views import Part, View, canonical, last_first

# What a node with attributes of the wrong kind, or too few inputs or outputs, leads to in a handler.
MALFORMED = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
Handler = Callable[["Converter", Operation], None]
OPERATORS: dict[str, Handler] = {}


class Unsupported(ValueError):
    """A node that cannot be converted, and why."""


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Register the handler of these operators."""
    def register(handler: Handler) -> Handler:
        OPERATORS.update(dict.fromkeys(names, handler))
        return handler
    return register


@dataclass(eq=False)
class Entry:
    """A layer in the making.

    Attributes
    ----------
    layer : None for the image
    inputs : the entries that it reads
    shape : of its output, without the batch
    parameters : its arrays
    tensor : the ONNX tensor that it computes; `pre` the one before a ReLU that was fused into it
    hint : a name that the file gives its weights
    """

    layer: Layer | None
    inputs: tuple[Entry, ...]
    shape: Shape
    tensor: str
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    pre: str | None = None
    hint: str | None = None
    op: str = ""


@dataclass(frozen=True, eq=False)
class Value:
    """An ONNX tensor: where it is, and how it lies there."""

    entry: Entry
    view: View
    tensor: str


def plain(shape: Sequence[int]) -> View:
    """The view of a layer's tensor that holds the ONNX item in its own order."""
    parts = tuple(Part(size) for size in shape)
    return View(parts, tuple((part,) for part in parts))


class Converter:
    """The walk over a graph's nodes.

    Parameters
    ----------
    graph : the checked graph
    shapes : for every input that is data, its ONNX shape without the batch
    batched : whether the tensors' first axis is the batch; else a whole tensor is one image
    batch : the number of images that the file was made for, if it says one
    budget : bytes that folded constants and the layers' parameters may take
    bound : inputs whose values are known
    """

    def __init__(self, graph: Graph, shapes: dict[str, Shape], *, batched: bool = True, batch: int | None = None,
                 budget: Budget | None = None, bound: dict[str, np.ndarray] | None = None) -> None:
        self.graph = graph = patterns.joined(graph)
        self.opset, self.batch = graph.opset, batch
        self.first = 1 if batched else 0
        self.budget = budget or Budget()
        self.constants: dict[str, Constant] = {
            name: fold.same(array) for name, array in {**graph.constants, **(bound or {})}.items()}
        self.values: dict[str, Value] = {}
        self.pools: dict[str, tuple[Entry, Operation]] = {}  # a max pool's indices, by tensor
        self.entries: list[Entry] = []
        self.problems: list[str] = []
        self.readers = Counter(name for node in graph.operations for name in node.inputs)
        self.wanted = {each.name for each in graph.outputs}
        self._arranged: dict[Any, Entry] = {}
        self._poisoned: set[str] = set()
        self.image = self._inputs(shapes)

    def _inputs(self, shapes: dict[str, Shape]) -> Entry:
        """The image: the one data input, or all of them side by side as maps of one cell."""
        for name, shape in shapes.items():
            checks.fits("onnx", f"shape of {name!r}", shape)
        if len(shapes) == 1:
            (name, shape), = shapes.items()
            inner = tuple(shape[axis] for axis in last_first(len(shape)))
            maps = inner if len(inner) == 3 else (1,) * (3 - len(inner)) + inner if len(inner) < 3 else (
                math.prod(inner[:-2]), *inner[-2:])
            image = Entry(None, (), maps, name)
            self.values[name] = Value(image, canonical(inner), name)
            return image
        sizes = [math.prod(shape) for shape in shapes.values()]
        image = Entry(None, (), (1, 1, max(sum(sizes), 1)), "input")
        start = 0
        for (name, shape), size in zip(shapes.items(), sizes, strict=True):
            entry = self._add(Entry(Slice(start, start + size), (image,), (1, 1, size), name))
            self.values[name] = Value(entry, plain(shape), name)
            start += size
        return image

    # The walk

    def run(self) -> None:
        """Convert every node; ValueError that lists all that is not supported."""
        known = {*OPERATORS, *fold.FUNCTIONS, *fold.SHAPES, "Constant"}
        unknown = [f"{node}" for node in self.graph.operations if not isinstance(node, patterns.Recognised)
                   and (node.domain or node.op not in known)]
        for node in self.graph.operations:
            if any(name in self._poisoned for name in node.inputs):
                self._poisoned.update(node.outputs)
                continue
            try:
                with np.errstate(all="ignore"):  # a file's numbers may be inf or NaN
                    self._convert(node)
            except (ValueError, *MALFORMED) as error:
                if not isinstance(error, Unsupported) and str(error).startswith("onnx: "):
                    raise
                if f"{node}" not in unknown:
                    what = str(error) if isinstance(error, ValueError) else f"it is malformed ({str(error)[:200]})"
                    self.problems.append(f"{node}: {what}")
                self._poisoned.update(node.outputs)
        self.problems[:0] = [f"{name} (operator)" for name in unknown]
        if self.problems:
            more = f"; and {len(self.problems) - 50} more" if len(self.problems) > 50 else ""
            raise Unsupported(f"onnx: not supported: {'; '.join(self.problems[:50])}{more}")

    def _convert(self, node: Operation) -> None:
        if node.domain:
            raise Unsupported(f"the operators of {node.domain!r} are unknown")
        if isinstance(node, patterns.Recognised):
            self._recognised(node)
        elif node.op == "Constant":
            self.constants[node.outputs[0]] = fold.literal(node)
        elif node.op in fold.SHAPES:
            self._shape(node)
        elif node.op in fold.FUNCTIONS and node.inputs and all(
                not name or name in self.constants for name in node.inputs):
            inputs = [self.constants[name] if name else None for name in node.inputs]
            found = fold.compute(node, inputs, self.budget)
            self.constants.update({name: made for name, made in zip(node.outputs, found, strict=False) if name})
        elif node.op in OPERATORS:
            OPERATORS[node.op](self, node)
        else:
            raise Unsupported("its inputs are not constant")

    def _recognised(self, node: patterns.Recognised) -> None:
        """A layer of maps that keeps their shape."""
        self.need_batch()
        value = self.value(node, 0)
        if len(value.view.axes) != 3 or node.layer is None:
            raise Unsupported(f"its input has rank {len(value.view.axes) + 1}; allowed: 4")
        made = self.emit(node.layer, [self.standard(value)], node.outputs[0])
        self.define(node, made, canonical(made.shape))

    def _shape(self, node: Operation) -> None:
        name = node.inputs[0] if node.inputs else ""
        if name in self.constants:
            shapes = [np.array(array.shape, np.int64) for array in self.constants[name]]
        else:
            sizes = self.value(node, 0).view.shape
            shapes = [np.array(((batch,) if self.first else ()) + sizes, np.int64) for batch in BATCHES]
        if node.op == "Size":
            shapes = [np.array(shape.prod(), np.int64) for shape in shapes]
        else:
            start, end = node.attributes.get("start", 0), node.attributes.get("end")
            shapes = [shape[start:end] for shape in shapes]
        self.constants[node.outputs[0]] = (shapes[0], shapes[1])

    # What handlers read

    def given(self, node: Operation, index: int) -> bool:
        """Whether a node has an input of this number."""
        return index < len(node.inputs) and bool(node.inputs[index])

    def is_constant(self, node: Operation, index: int) -> bool:
        """Whether an input's value is known."""
        return self.given(node, index) and node.inputs[index] in self.constants

    def constant(self, node: Operation, index: int) -> np.ndarray:
        """An input that must be constant."""
        if not self.is_constant(node, index):
            raise Unsupported(f"input {index} is not constant")
        worlds = self.constants[node.inputs[index]]
        if not fold.independent(worlds):
            raise Unsupported(f"input {index} depends on the number of images")
        return worlds[0]

    def numbers(self, node: Operation, index: int, name: str) -> list[int] | None:
        """Integers that newer operators take as an input and older ones as an attribute."""
        if self.given(node, index):
            return [int(value) for value in self.constant(node, index).reshape(-1)]
        values = node.attributes.get(name)
        return None if values is None else [int(value) for value in values]

    def weights(self, node: Operation, index: int) -> np.ndarray:
        """A constant input as float32."""
        array = self.constant(node, index)
        if array.dtype.kind != "f":
            raise Unsupported(f"input {index} is of {array.dtype}")
        return np.asarray(array, np.float32)

    def value(self, node: Operation, index: int) -> Value:
        """An input that must be data."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name in self.pools:
            raise Unsupported(f"input {index} holds a pool's indices")
        if name not in self.values:
            raise Unsupported(f"input {index} is constant, which this operator cannot take here"
                              if name in self.constants else f"input {index} is missing")
        return self.values[name]

    def axis(self, node: Operation, axis: int, rank: int) -> int:
        """The item's axis of an ONNX axis of a tensor whose items have `rank` axes."""
        whole = rank + self.first
        if isinstance(axis, bool) or not isinstance(axis, int) or not -whole <= axis < whole:
            raise Unsupported(f"axis is {axis}, of {whole}")
        inner = axis % whole - self.first
        if inner < 0:
            raise Unsupported("it works along the batch axis")
        return inner

    def need_batch(self) -> None:
        """For operators whose first axis is the batch by definition."""
        if not self.first:
            raise Unsupported("its tensors have no batch axis")

    # What handlers make

    def _add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def emit(self, layer: Layer, inputs: Sequence[Entry], tensor: str, parameters: dict[str, Any] | None = None,
             hint: str | None = None, op: str = "") -> Entry:
        """Add a layer; a layer's own complaint about its inputs becomes `Unsupported`."""
        shapes = [entry.shape for entry in inputs]
        try:
            shape = layer.output_shape(*shapes)
            checks.fits(type(layer).__name__, "the output's shape", shape)
            wanted = layer.parameter_shapes(*shapes)
        except (ValueError, TypeError, IndexError) as error:
            raise Unsupported(str(error)) from None
        arrays = {}
        for name, size in wanted.items():
            given = np.asarray((parameters or {})[name])
            if given.shape != size:
                raise Unsupported(f"its {name} has shape {given.shape}; its input asks for {size}")
            self.budget.take(f"{name} of {tensor[:200]!r}", given.size * 4)
            arrays[name] = np.array(given, np.float32, order="C")  # the layer's own
        return self._add(Entry(layer, tuple(inputs), shape, tensor, arrays, hint=hint, op=op))

    def define(self, node: Operation, entry: Entry, view: View, index: int = 0) -> None:
        """Say what an output of the node is."""
        self.values[node.outputs[index]] = Value(entry, view, node.outputs[index])

    def arranged(self, value: Value, order: Sequence[int], shape: Shape | None = None) -> Entry:
        """The tensor with the item's axes in this order, rearranged only where it is not so already.

        `shape`: the same elements with other sizes.
        """
        split, moved, sizes = value.view.arrangement(order)
        sizes = shape if shape is not None else sizes or (1,)
        if list(moved) == sorted(moved) and value.entry.shape == sizes:
            return value.entry
        key = value.entry, split, moved, sizes
        if key not in self._arranged:
            checks.fits("onnx", f"shape of {value.tensor!r}", sizes)
            kept = list(moved) == sorted(moved) and len(sizes) == 1
            layer: Layer = Flatten() if kept else Rearrange(split, moved, sizes)
            name = value.tensor if value.tensor != value.entry.tensor else value.tensor + "_arranged"
            self._arranged[key] = self.emit(layer, [value.entry], name)
        return self._arranged[key]

    def standard(self, value: Value) -> Entry:
        """The tensor with its maps last."""
        return self.arranged(value, last_first(len(value.view.axes)))

    def vector(self, value: Value, weight: np.ndarray) -> tuple[Entry, np.ndarray]:
        """The item as one axis in the layer's own order, and a weight (units, inputs) whose inputs follow it."""
        size = math.prod(value.view.shape)
        flat = Value(value.entry, View(value.view.parts, (value.view.parts,)), value.tensor)
        entry = self.arranged(flat, (0,), (size,))
        split, order, _ = value.view.arrangement(range(len(value.view.axes)))
        moved = weight.reshape(len(weight), *(split[axis] for axis in order))
        return entry, moved.transpose(0, *(order.index(axis) + 1 for axis in range(len(order)))).reshape(
            weight.shape)

    def outputs(self) -> list[Value | Constant | None]:
        """The graph's outputs, the ones that are data laid out for a reader; None for a pool's indices."""
        result: list[Value | Constant | None] = []
        for declared in reversed(self.graph.outputs):
            if declared.name in self.pools:
                result.append(None)
                continue
            if declared.name in self.constants:
                result.append(self.constants[declared.name])
                continue
            value = self.values[declared.name]
            shape = value.view.shape
            if math.prod(shape) == max(shape, default=1) and self.first:
                # One axis only: a vector, whatever the file's axes of size 1 are.
                entry, axes = self.arranged(value, range(len(shape)), (math.prod(shape),)), []
                part = Part(math.prod(shape))
                axes = [(part,) if size == part.size and size != 1 else () for size in shape]
                result.append(Value(entry, View((part,), tuple(axes)), value.tensor))
            else:
                entry = self.standard(value)
                result.append(Value(entry, canonical([shape[axis] for axis in last_first(len(shape))]),
                                    value.tensor))
        return result[::-1]


def declared_batch(declared: Declared) -> int | None:
    """The batch size that an input's declaration fixes."""
    size = declared.shape[0] if declared.shape else None
    return size if isinstance(size, int) else None
