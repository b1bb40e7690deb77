"""An ONNX file as plain Python: nodes in order, constants as arrays; whatever is malformed is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .tensors import TYPES, Budget, read, text

OLDEST_OPSET = 7
DOMAINS = ("", "ai.onnx")
# AttributeProto.AttributeType
FLOAT, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS = 1, 2, 3, 4, 5, 6, 7, 8


@dataclass(frozen=True)
class Operation:
    """One node: its operator, attributes, and the names of the tensors it reads and makes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    domain: str = ""

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers; TypeError if it is something else."""
        values = self.attributes.get(name, default)
        if not isinstance(values, tuple) or not all(type(value) is int for value in values):
            raise TypeError(f"{name} is no list of integers")
        return values

    def __str__(self) -> str:
        op = self.op if self.op.isidentifier() else repr(self.op)
        return f"{op[:60]} {(self.name or (self.outputs or ('?',))[0])[:200]!r}"


@dataclass(frozen=True)
class Declared:
    """A graph's input or output: name, type and sizes; a size is None or a name where it is open."""

    name: str
    dtype: Any
    shape: tuple[int | str | None, ...] | None


@dataclass
class Graph:
    """A checked ONNX graph, its nodes in topological order.

    Attributes
    ----------
    name, opset : the graph's name, the version of the standard operators
    operations : the nodes that the outputs need
    constants : the initialisers
    inputs : what the caller must give, initialisers left out
    outputs : what it computes
    metadata : the file's own notes
    """

    name: str
    opset: int
    operations: list[Operation]
    constants: dict[str, np.ndarray]
    inputs: list[Declared]
    outputs: list[Declared]
    metadata: dict[str, str] = field(default_factory=dict)


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _attribute(where: str, attribute: Any, folder: Path | None, budget: Budget) -> Any:
    """An attribute's value; subgraphs, references to functions' arguments and others are refused."""
    if attribute.ref_attr_name:
        raise ValueError(f"onnx: {where}: attribute {attribute.name!r} refers to a function's argument")
    plain = {FLOAT: "f", INT: "i", FLOATS: "floats", INTS: "ints"}
    if attribute.type in plain:
        value = getattr(attribute, plain[attribute.type])
        return value if attribute.type in (FLOAT, INT) else tuple(value)
    if attribute.type == STRING:
        return _decoded(attribute.s)
    if attribute.type == STRINGS:
        return tuple(_decoded(value) for value in attribute.strings)
    if attribute.type == TENSOR:
        return read(attribute.t, folder, budget)
    kind = "a subgraph" if attribute.type in (GRAPH, 10) else f"of type {attribute.type}"
    raise ValueError(f"onnx: {where}: attribute {attribute.name!r} is {kind}; "
                     "allowed: numbers, texts and tensors")


def _declared(info: Any) -> Declared:
    name = text(info.name)
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ValueError(f"onnx: {info.name!r} is a {kind or 'value without a type'}; allowed: a tensor")
    tensor = info.type.tensor_type
    dtype = TYPES[tensor.elem_type][0] if tensor.elem_type in TYPES else None
    if not tensor.HasField("shape"):
        return Declared(name, dtype, None)
    sizes: list[int | str | None] = []
    for dimension in tensor.shape.dim:
        field_name = dimension.WhichOneof("value")
        sizes.append(None if field_name is None else getattr(dimension, field_name) or None)
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ValueError(f"onnx: {info.name!r} has shape {sizes}; allowed: sizes >= 1")
    return Declared(name, dtype, tuple(sizes))


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if len(versions) > 1:
        raise ValueError(f"onnx: the file names {len(versions)} versions of the standard operators; allowed: one")
    version = versions[0] if versions else 1
    if version < OLDEST_OPSET:
        raise ValueError(f"onnx: the file's opset is {version}; allowed: {OLDEST_OPSET} or newer "
                         "(onnx.version_converter converts older files)")
    return version


def _sorted(operations: list[Operation], known: set[str], outputs: list[str]) -> list[Operation]:
    """The operations that the outputs need, each after those it reads; the first output's comes last."""
    producer = {name: operation for operation in operations for name in operation.outputs if name}
    missing = Counter(name for operation in operations for name in operation.inputs
                      if name and name not in producer and name not in known)
    missing.update(name for name in outputs if name not in producer and name not in known)
    if missing:
        names = ", ".join(repr(name[:100]) for name in list(missing)[:20])
        raise ValueError(f"onnx: {len(missing)} tensors are read but nobody makes them: {names}")
    order: list[Operation] = []
    state: dict[int, int] = {}  # 1: being visited, 2: done
    for wanted in reversed(outputs):
        if wanted in known:
            continue
        stack: list[tuple[Operation, int]] = [(producer[wanted], 0)]
        while stack:
            operation, place = stack.pop()
            if state.get(id(operation)) == 2:
                continue
            state[id(operation)] = 1
            while place < len(operation.inputs):
                name = operation.inputs[place]
                place += 1
                if not name or name in known:
                    continue
                before = producer[name]
                if state.get(id(before)) == 1:
                    raise ValueError(f"onnx: the graph has a cycle through {operation} and {before}")
                if state.get(id(before)) is None:
                    stack += [(operation, place), (before, 0)]
                    break
            else:
                state[id(operation)] = 2
                order.append(operation)
    return order


def build(model: Any, folder: Path | None, budget: Budget) -> Graph:
    """Check a ModelProto and take it apart.

    Parameters
    ----------
    model : the ModelProto
    folder : where its external data is; None: nowhere
    budget : bytes that its tensors may take

    Raises
    ------
    ValueError
        for whatever is malformed: duplicate or missing tensors, cycles, subgraphs, sparse tensors, data
        that does not fit its declaration, external data outside the folder
    """
    graph = model.graph
    if not graph.output:
        raise ValueError("onnx: the graph has no outputs; allowed: one or more")
    opset = _opset(model)
    if graph.sparse_initializer:
        raise ValueError("onnx: the graph has sparse initialisers; allowed: dense ones")
    local = {(function.domain, function.name) for function in model.functions}
    constants: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if text(tensor.name) in constants or not tensor.name:
            raise ValueError(f"onnx: there are several initialisers called {tensor.name[:200]!r}; allowed: one")
        constants[tensor.name] = read(tensor, folder, budget)
    declared = [_declared(info) for info in graph.input if info.name not in constants]
    known = set(constants) | {each.name for each in declared}
    if len(known) != len(constants) + len(declared):
        raise ValueError("onnx: several inputs have one name")
    made: set[str] = set()
    operations = []
    for node in graph.node:
        made_here = tuple(text(name) for name in node.output)
        label = str(Operation(text(node.op_type), text(node.name), (), made_here, {}))
        if node.domain not in DOMAINS and (node.domain, node.op_type) in local:
            raise ValueError(f"onnx: {label} is a function of the file's own; allowed: standard operators "
                             "(onnx.inliner.inline_local_functions removes functions)")
        for name in node.output:
            if name and (name in made or name in known):
                raise ValueError(f"onnx: {name[:200]!r} is made twice, the second time by {label}")
            made.add(name)
        attributes = {}
        for attribute in node.attribute:
            if text(attribute.name) in attributes:
                raise ValueError(f"onnx: {label} has two attributes {attribute.name!r}")
            attributes[attribute.name] = _attribute(label, attribute, folder, budget)
        operations.append(Operation(node.op_type, node.name, tuple(text(name) for name in node.input), made_here,
                                    attributes, "" if node.domain in DOMAINS else text(node.domain)))
    outputs = [_declared(info) for info in graph.output]
    order = _sorted(operations, known, [each.name for each in outputs])
    return Graph(text(graph.name), opset, order, constants, declared, outputs,
                 {text(entry.key): text(entry.value) for entry in model.metadata_props})


def parse(data: bytes) -> Any:
    """A ModelProto from a file's bytes; ValueError if they are none."""
    try:
        import onnx
    except ImportError:
        raise ImportError("reading ONNX files needs the onnx package: pip install 'zfcore[onnx]'") from None
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ValueError(f"onnx: this is no ONNX file: {str(error)[:200]}") from None
    if not model.HasField("graph"):
        raise ValueError("onnx: the file has no graph")
    return model
