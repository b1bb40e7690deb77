"""What every layer has in common: two verbs, parameters, shapes and a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..geometry import POINTWISE, Tile, Window
from ..rules import GRADIENT, Rule

Shape = tuple[int, ...]
Cache = dict[str, Any]
Gradients = dict[str, Any]

REGISTRY: dict[str, type[Layer]] = {}


@dataclass(frozen=True)
class Run:
    """How a forward pass is run.

    Attributes
    ----------
    training : dropout drops, batch norm uses and updates its statistics
    parameters : whether the cache must serve parameter gradients too (it then holds the inputs)
    pre : whether the tensor before a fused ReLU is wanted, as cache["pre"]
    seed, step : key and counter of dropout's generator
    tile : where the inputs lie in their maps when they are crops; the layer then pads nothing
    algorithm : of convolutions, up and down; "direct" where a crop must give the whole map's bits
    precision : what the products of convolutions and fully connected layers are made of, up and down
    """

    training: bool = False
    parameters: bool = True
    pre: bool = False
    seed: int = 0
    step: int = 0
    tile: Tile | None = None
    algorithm: str = "auto"
    precision: str | None = None


INFERENCE = Run()


@dataclass
class Layer:
    """A layer: configuration in its fields, arrays in `parameters`, nothing hidden.

    `y, cache = layer.forward(ops, *inputs, run=Run())` and
    `dxs, gradients = layer.backward(ops, dy, cache, rule=GRADIENT, parameters=True, inputs=True)`,
    where `dxs` has one signal for each input. Shapes are (N, H, W, C) or (N, C); in
    `output_shape` and its like they come without N.
    """

    input_count: ClassVar[tuple[int, int | None]] = (1, 1)
    trainable: ClassVar[tuple[str, ...]] = ("weight", "bias")
    # Not annotated: a field of this name would come first in the subclasses' constructors.
    activation = None  # type: str | None
    short = False  # whether its operations, and all that it does with arrays besides, take 16 bits

    shares: ClassVar[bool] = False  # whether `shared` knows how to take items of this layer's cache
    parameters: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if not cls.__name__.startswith("_"):
            REGISTRY[cls.__name__] = cls

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, without the batch; ValueError if the inputs do not fit."""
        return shapes[0]

    def parameter_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        """Shapes of the parameters that inputs of these shapes need."""
        return {}

    def geometry(self, shape: Shape) -> Window | None:
        """What an output cell sees of an input of this shape; None if it sees all of it."""
        return POINTWISE

    def multiply_adds(self, *shapes: Shape) -> int:
        """Multiply-adds of the forward pass for one image; 0 where memory traffic is all there is."""
        return 0

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        """Return the output and what `backward` will need."""
        raise NotImplementedError

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        """Take the signal at the output to the inputs.

        Parameters
        ----------
        ops : the operations, bound to a backend
        dy : the signal, of the output's shape; None if there is only `pre`
        cache : what `forward` returned
        rule : what ReLUs and normalisations do to the signal
        parameters, inputs : which gradients are wanted; an unwanted one is {} or None
        pre : a signal that enters below the fused ReLU
        """
        raise NotImplementedError

    def unit_gradient(self, ops: Any, maps: Any, values: Any, shape: Sequence[int]) -> Any:
        """Signal at a one-cell output's input when one map of each item carries one value.

        What `backward` gives for that output signal (below a fused ReLU), without multiplying its
        zeros; None where the layer has no such short cut. `maps` are on the host, `values` the backend's;
        `shape` is the input's, with N.
        """
        return None

    def to_config(self) -> dict[str, Any]:
        """Type and configuration for JSON."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.init}
        return {"type": type(self).__name__, **values}

    def _fail(self, argument: str, value: Any, allowed: str) -> None:
        checks.fail(type(self).__name__, argument, value, allowed)

    def _map_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Require (height, width, channels)."""
        if len(shape) != 3:
            self._fail("the input's shape", shape, "maps of (height, width, channels)")
        return shape[0], shape[1], shape[2]

    def rectified(self, ops: Any, dy: Any, cache: Cache, rule: Rule, pre: Any) -> Any:
        """The signal below the fused ReLU, if there is one, with the signal that enters there."""
        if self.activation and dy is not None:
            dy = ops.relu_backward(dy, cache["y"], rule=rule.relu)
        if pre is None:
            return dy
        return pre if dy is None else ops.add(dy, pre)

    def activated(self, ops: Any, y: Any, cache: Cache, run: Run) -> Any:
        """Keep the tensor before the fused ReLU if asked, rectify, and remember the mask's tensor.

        For layers whose operation has not rectified already.
        """
        if run.pre:
            cache["pre"] = y
        if self.activation:
            y = ops.relu(y)
            cache["y"] = y
        return y


def from_config(config: Any) -> Layer:
    """Build the layer that `Layer.to_config` described; ValueError for anything else."""
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        checks.fail("from_config", "layer", config, "a mapping with a type and the layer's fields")
    kind = REGISTRY.get(config["type"])
    if kind is None:
        checks.fail("from_config", "type", config["type"], "one of " + ", ".join(sorted(REGISTRY)))
    assert kind is not None
    known = {item.name for item in dataclasses.fields(kind) if item.init}
    values = {key: tuple(value) if isinstance(value, list) else value
              for key, value in config.items() if key != "type"}
    if set(values) - known:
        checks.fail(kind.__name__, "fields", sorted(set(values) - known), ", ".join(sorted(known)) or "none")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def shared(cache: Cache, items: np.ndarray, owners: Any, rule: Rule) -> Cache:
    """The cache of a batch whose item i is item `items[i]` of the one that went up; `owners` are these on the backend.

    For layers that say `shares`: their caches hold arrays with one entry an item, shapes and sizes. The
    deconvnet looks at no ReLU's output and at no normalisation's input, so these are left out.
    """
    taken: Cache = {}
    for name, value in cache.items():
        if name in ("x", "y") and rule.relu == "deconvnet" and rule.normalization == "identity":
            taken[name] = None
        elif name == "shape":
            taken[name] = (len(items), *value[1:])
        elif name == "sizes":
            taken[name] = {key: _shared_tile(each, items) for key, each in value.items()}
        else:
            taken[name] = value[owners] if hasattr(value, "shape") else _shared_tile(value, items)
    return taken


def _shared_tile(value: Any, items: Any) -> Any:
    return Tile(value.origins[items], value.extent) if isinstance(value, Tile) else value


def check_activation(layer: Layer) -> None:
    """Refuse an unknown fused activation."""
    checks.one_of(type(layer).__name__, "activation", layer.activation, (None, "relu"))
