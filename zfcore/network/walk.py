"""The two walks through a network. Nothing else in the package knows how to reverse one.

`up` runs the layers, `down` takes signals back under a rule: training, saliency, the deconvnet and
guided backpropagation are the same walk. A frame says what part of each map the arrays are: all of
it (`Frame`) or crops (`cones.Crop`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..geometry import Tile
from ..layers import Layer, Run, Shape
from ..rules import Rule
from ..units import PRE

IMAGE = "input"


@dataclass(frozen=True)
class Node:
    """A layer in its place: its name, the tensors it reads, and its output's shape without N.

    `parts` are the nodes that a fused one stands for (`stages`).
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    shape: Shape
    parts: tuple[Node, ...] = ()

    @property
    def first(self) -> Node:
        """The part that reads the inputs and has the parameters; most nodes have no others."""
        return self.parts[0] if self.parts else self

    @property
    def last(self) -> Node:
        """The part that writes the output."""
        return self.parts[-1] if self.parts else self


class Frame:
    """Arrays are whole maps: nothing to slice, clear or embed."""

    def tile(self, node: Node) -> Tile | None:
        """Where the node's first input lies in its map."""
        return None

    def enter(self, ops: Any, node: Node, index: int, array: Any) -> Any:
        """What the node sees of its input number `index`."""
        return array

    def leave(self, ops: Any, node: Node, array: Any) -> Any:
        """The node's output as its consumers may read it."""
        return array

    def back(self, ops: Any, node: Node, index: int, signal: Any) -> Any:
        """The node's signal at its input number `index`, as a part of that tensor's signal."""
        return signal


@dataclass
class Forward:
    """What a walk up returns.

    Attributes
    ----------
    output : the tensor where the walk ended
    tensor : its name
    kept : tensors that were asked for, by name
    caches : what the walk down needs, by layer; empty without cache=True
    nodes : names of the layers that ran, in order
    batch : number of images
    host : whether the images came as NumPy's, so that arrays of the walk down go back as such
    storage : what the tensors in the caches are made of; `output` and `kept` are float32 (or float64) always
    walked : the layers themselves, with the first stage as one where it was fused
    """

    output: Any
    tensor: str = IMAGE
    kept: dict[str, Any] = field(default_factory=dict)
    caches: dict[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    batch: int = 0
    host: bool = False
    storage: str = "float32"
    walked: tuple[Node, ...] = ()


@dataclass
class Backward:
    """What a walk down returns.

    Attributes
    ----------
    input : the signal at the pixels; None if it was not asked for
    gradients : parameters' gradients, keyed like `Network.parameters()`
    kept : signals that were asked for, by tensor, summed over consumers, before rectification
    """

    input: Any = None
    gradients: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def layer_seed(seed: int, name: str) -> int:
    """Key of a layer's dropout: different layers drop different units."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "little")


def up(ops: Any, x: Any, nodes: Sequence[Node], *, keep: Collection[str] = (), cache: bool = False,
       run: Run = Run(), frame: Frame = Frame(), frozen: Collection[str] = ()  # noqa: B008 (both are immutable)
       ) -> Forward:
    """Run `nodes`, which are in topological order, on `x`; the `frozen` ones as at inference.

    A tensor is let go after its last consumer, unless it was asked for or a cache holds it.
    """
    last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    tensors: dict[str, Any] = {IMAGE: x}
    result = Forward(x, nodes=tuple(part.name for node in nodes for part in node.parts or (node,)), batch=x.shape[0])
    if IMAGE in keep:
        result.kept[IMAGE] = x
    for place, node in enumerate(nodes):
        inputs = [frame.enter(ops, node.first, index, tensors[name]) for index, name in enumerate(node.inputs)]
        own = replace(run, pre=node.name + PRE in keep, tile=frame.tile(node.last),
                      seed=layer_seed(run.seed, node.name) if run.training else 0)
        if node.first.name in frozen:
            own = replace(own, training=False, parameters=False)
        y, remembered = node.layer.forward(ops, *inputs, run=own)
        tensors[node.name] = result.output = y = frame.leave(ops, node.last, y)
        if own.pre:
            result.kept[node.name + PRE] = frame.leave(ops, node, remembered.pop("pre"))
        if node.name in keep:
            result.kept[node.name] = y
        if cache:
            result.caches[node.name] = remembered
        for name in set(node.inputs):
            if last[name] == place:
                del tensors[name]
        del inputs, y, remembered
    return result


def down(ops: Any, nodes: Sequence[Node], caches: Mapping[str, Any], seeds: Mapping[str, Any], rule: Rule, *,
         parameters: Collection[str] = (), inputs: bool = True, keep: Collection[str] = (),
         frame: Frame = Frame()) -> Backward:  # noqa: B008 (immutable)
    """Take signals from the tensors in `seeds` down to the pixels.

    Parameters
    ----------
    ops : the operations, bound to a backend
    nodes, caches : those of the walk up
    seeds : signal by tensor; "conv5.pre" enters below the fused ReLU of conv5
    rule : what ReLUs and normalisations do
    parameters : layers whose parameters' gradients are wanted
    inputs : whether the signal at the pixels is wanted
    keep : tensors whose signals are wanted
    frame : what part of each map the arrays are
    """
    # A node's own input needs a signal only if something below it is wanted.
    wanted = {IMAGE} if inputs or IMAGE in keep else set()
    wanted |= {name.removesuffix(PRE) for name in keep}
    leads: set[str] = set(wanted)
    for node in nodes:
        if node.first.name in parameters or leads.intersection(node.inputs):
            leads.add(node.name)
    signals: dict[str, list[Any]] = {name: [signal] for name, signal in seeds.items()}
    result = Backward()

    def arriving(name: str) -> Any:
        """Sum of all consumers' signals in topological order, which is the reverse of their coming."""
        parts = signals.pop(name, None)
        if parts is None:
            return None
        total = parts[0] if len(parts) == 1 else ops.add(*reversed(parts))
        if name in keep:
            result.kept[name] = total
        return total

    for node in reversed(nodes):
        signal, below = arriving(node.name), signals.pop(node.name + PRE, [None])[0]
        if node.name not in leads or (signal is None and below is None):
            continue
        layer, cache = node.layer, caches[node.name]
        if node.name + PRE in keep:
            result.kept[node.name + PRE] = below = layer.rectified(ops, signal, cache, rule, below)
            signal = None
        further = bool(leads.intersection(node.inputs))
        dxs, gradients = layer.backward(ops, signal, cache, rule, node.first.name in parameters, further, below)
        for name, gradient in gradients.items():
            result.gradients[f"{node.first.name}.{name}"] = gradient
        for index in reversed(range(len(node.inputs))):
            producer = node.inputs[index]
            if dxs[index] is not None and producer in leads:
                part = frame.back(ops, node.first, index, dxs[index])
                signals.setdefault(producer, []).append(part)
        del dxs, signal, below
    result.input = arriving(IMAGE)
    return result
