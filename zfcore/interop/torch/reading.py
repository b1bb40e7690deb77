"""From a traced module to a Network: in-place writes resolved, ReLUs fused, weights turned round."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from ... import checks
from ...layers import Flatten, GlobalAveragePool, GlobalMaxPool, Layer, ReLU
from ...network import Network
from ...network.layout import flattened, inward
from ...preprocessing import Preprocessing
from .calls import Arguments, call, described
from .checking import verify
from .layers import LAYERS
from .making import Made, Unsupported, WholePool
from .patterns import Shuffle, channel_shuffles, part_of
from .tracing import Trace, evaluating, trace

IMAGE = "input"


@dataclass
class Step:
    """A layer to be: its name, its inputs' names, and its parameters in PyTorch's layout."""

    name: str
    layer: Layer | WholePool
    inputs: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)


def read(module: Any, example: Any, name: str | None, preprocessing: Preprocessing | None,
         class_names: Sequence[str] | None) -> Network:
    """See `from_module`."""
    if not isinstance(module, nn.Module):
        checks.fail("from_module", "module", type(module).__name__, "a torch.nn.Module", TypeError)
    if not isinstance(example, torch.Tensor):
        sizes = tuple(example) if isinstance(example, (tuple, list, torch.Size)) else ()
        checks.require(len(sizes) == 3, "from_module", "example", example, "a tensor or (C, H, W)")
        example = torch.randn((1, *sizes), generator=torch.Generator().manual_seed(0))
        parameter = next(module.parameters(), None)
        example = example if parameter is None else example.to(parameter.device, parameter.dtype)
    shape = tuple(example.shape)
    checks.require(len(shape) == 4 and shape[0] > 0, "from_module", "example.shape", shape, "(N, C, H, W)")
    if shape[0] == 1:  # with two images, what works along the batch shows
        example = torch.cat([example, example]).detach()
    with evaluating(module):
        reader = _Reader(trace(module, example))
        steps, output = reader.steps()
    network = Network(name or type(module).__name__, (shape[2], shape[3], shape[1]), scheme="he",
                      preprocessing=preprocessing, class_names=class_names)
    for step in _fused(_needed(steps, output), output):
        assert isinstance(step.layer, Layer)
        network.add(step.name, step.layer, step.inputs)
    if not network.nodes:
        raise ValueError("from_module: the module returns its input; allowed: one with a layer or more")
    orders = flattened(network)
    network.load_parameters({
        f"{step.name}.{key}": inward(network.nodes[step.name].layer, key, value, orders.get(step.inputs[0]))
        for step in steps if step.name in network.nodes for key, value in step.parameters.items()})
    with evaluating(module):
        verify(module, example, network, reader.trace.graph, reader.made)
    return network


class _Reader:
    """Turns the calls of a trace into steps, in order."""

    def __init__(self, traced: Trace) -> None:
        self.trace = traced
        self.nodes = list(traced.graph.graph.nodes)
        self.found: list[Step] = []
        self.faults: list[str] = []
        self.tensor: dict[fx.Node, str | None] = {}  # which step's output a node is now; None: unknown
        self.made: dict[fx.Node, str] = {}  # the step of a call
        self.taken = {IMAGE}
        self.shuffles, self.inside = channel_shuffles(self.nodes, traced)

    def steps(self) -> tuple[list[Step], str]:
        """All steps and the name of the output's tensor; ValueError lists what is not supported."""
        inputs = [node for node in self.nodes if node.op == "placeholder" and node.users]
        if len(inputs) != 1:
            self.faults.append(f"inputs: {', '.join(node.name for node in inputs)} (one is supported)")
        output: str | None = None
        for node in self.nodes:
            if node.op == "placeholder":
                self.tensor[node] = IMAGE
            elif node.op == "output":
                output = self._output(_single(node.args[0]))
            elif node.op == "get_attr" or node in self.inside:
                continue
            elif isinstance(self.trace.values[node], torch.Tensor):
                self._call(node)
            elif _holds_tensors(self.trace.values[node]) and not self._splits(node):
                self.faults.append(f"{node.name} ({described(self.trace.graph, node)}: several results)")
        if self.faults:
            raise ValueError(f"from_module: not supported: {'; '.join(self.faults)}")
        assert output is not None
        return self.found, output

    def _output(self, node: fx.Node) -> str | None:
        """The output's tensor, which must be maps or vectors."""
        rank = self.trace.values[node].ndim
        if rank not in (2, 4):
            self.faults.append(f"output: {rank} dimensions")
        return self.tensor.get(node)

    def _call(self, node: fx.Node) -> None:
        """Add a node's step, or note why not, and follow what it writes in place."""
        what = described(self.trace.graph, node)
        try:
            before = len(self.found)
            name = self.tensor[node] = self._made(node)
            if len(self.found) > before and name is not None:
                self.made[node] = name
        except Unsupported as reason:
            self.faults.append(f"{node.name} ({what}{': ' if str(reason) else ''}{reason})")
            self.tensor[node] = None
        if node in self.trace.writes:
            self._written(node, what)

    def _splits(self, node: fx.Node) -> bool:
        """Whether a call cuts a tensor into parts of its maps, whose readers become slices."""
        found = call(self.trace.graph, node)
        return found is not None and found[0] in ("chunk", "split")

    def _made(self, node: fx.Node) -> str | None:
        """Add the steps of a call; returns the tensor that it is."""
        shape = tuple(self.trace.values[node].shape)
        if node in self.shuffles:
            found: Shuffle = self.shuffles[node]
            return self._add(Made(found.layer, [found.source]), self._name(node, {}))
        known = call(self.trace.graph, node)
        if known is None or known[0] not in LAYERS:
            raise Unsupported("")
        kind, arguments = known
        part = part_of(node, kind, arguments, self.trace)
        if part is not None:
            return self._add(part, self._name(node, {}))
        made = LAYERS[kind]({key: self._value(value) for key, value in arguments.items()}, shape)
        if made is None:  # nothing happens to the numbers
            return self._source(arguments["input"])
        return self._add(made, self._name(node, arguments))

    def _source(self, node: Any) -> str | None:
        if not isinstance(node, fx.Node) or node not in self.tensor:
            raise Unsupported("a constant among its inputs")
        return self.tensor[node]

    def _add(self, made: Made, name: str) -> str:
        """Add a layer, after those that were made for it."""
        names = [self._add(item, self._unique(f"{name}.{item.part}")) if isinstance(item, Made)
                 else self._source(item) for item in made.inputs]
        parameters = {key: value.detach().cpu().to(torch.float32).numpy()
                      for key, value in made.parameters.items()}
        self.found.append(Step(name, made.layer, [item or IMAGE for item in names], parameters))
        return name

    def _value(self, value: Any) -> Any:
        """An argument's value: nodes of tensors that are computed stay nodes, with their shapes at hand."""
        if isinstance(value, fx.Node):
            if value.op == "get_attr" or not isinstance(self.trace.values[value], torch.Tensor):
                return self.trace.values[value]
            value.meta["shape"] = tuple(self.trace.values[value].shape)
            return value
        if isinstance(value, (tuple, list)):
            return [self._value(item) for item in value]
        return value

    def _written(self, node: fx.Node, what: str) -> None:
        """From here on every name of the memory that `node` overwrote means its result."""
        memory = self.trace.storage.get(node)
        if self.trace.writes[node] != {memory}:
            self.faults.append(f"{node.name} ({what}: writes into an input that it does not return)")
            return
        result = self.trace.values[node]
        place = result.data_ptr(), result.shape, result.stride()
        later = set(self.nodes[self.nodes.index(node) + 1:])
        for other in list(self.tensor):
            if other is node or self.trace.storage.get(other) != memory:
                continue
            value = self.trace.values[other]
            if (value.data_ptr(), value.shape, value.stride()) == place:
                self.tensor[other] = self.tensor[node]
            elif later.intersection(other.users):
                self.faults.append(f"{node.name} ({what}: overwrites {other.name}, which is another view of "
                                   "the same memory and is used later)")

    def _name(self, node: fx.Node, arguments: Arguments) -> str:
        """The module's path, or that of its weights, or the call's name; numbered when taken."""
        weight = arguments.get("weight")
        if node.op == "call_module":
            name = str(node.target)
        elif isinstance(weight, fx.Node) and weight.op == "get_attr" and "." in str(weight.target):
            name = str(weight.target).rpartition(".")[0]
        else:
            name = node.name
        return self._unique(re.sub(r"[^A-Za-z0-9_./\-]", "_", name)[:150])

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.taken or unique.endswith(".pre"):
            unique, count = f"{name}_{count}", count + 1
        self.taken.add(unique)
        return unique


def _single(result: Any) -> Any:
    while isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    return result


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and any(isinstance(item, torch.Tensor) for item in value)


def _needed(steps: list[Step], output: str) -> list[Step]:
    """The steps that lead to the output."""
    wanted, chosen = {output}, []
    for step in reversed(steps):
        if step.name in wanted:
            wanted.update(step.inputs)
            chosen.append(step)
    return chosen[::-1]


def _fused(steps: list[Step], output: str) -> list[Step]:
    """Steps with their ReLUs fused, and pools to one cell joined with their flattening."""
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    by_name = {step.name: step for step in steps}
    renamed: dict[str, str] = {}
    result = []
    for step in steps:
        below = by_name.get(step.inputs[0])
        step.inputs = [renamed.get(name, name) for name in step.inputs]
        if below is not None and below.name != output and _joins(below, step, readers[below.name]):
            renamed[step.name] = renamed.get(below.name, below.name)
            continue
        if isinstance(step.layer, WholePool):
            vectors = step.name != output and all(isinstance(reader.layer, Flatten)
                                                  for reader in readers[step.name])
            step.layer = step.layer.chosen(vectors)
        result.append(step)
    return result


def _joins(below: Step, step: Step, readers: list[Step]) -> bool:
    """Whether a step is a ReLU that the layer below has taken in, or nothing to do after it."""
    if isinstance(step.layer, ReLU) and len(readers) == 1 and _can_fuse(below.layer):
        setattr(below.layer, "activation", "relu")  # noqa: B010 (a field of those that can)
        return True
    return isinstance(step.layer, Flatten) and isinstance(below.layer, GlobalAveragePool | GlobalMaxPool)


def _can_fuse(layer: Layer | WholePool) -> bool:
    """Whether the layer has a ReLU to switch on that is still off."""
    names = [item.name for item in dataclasses.fields(layer)]
    return "activation" in names and getattr(layer, "activation", "") is None
