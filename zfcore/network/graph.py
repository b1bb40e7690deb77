"""Network: a graph of named layers in topological order, and the two walks through it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import backends, checks, initializers, ops, rules
from ..layers import Layer, Run, Shape, from_config
from ..preprocessing import Preprocessing
from ..rules import Rule
from ..units import PRE, Unit, tensor_node
from . import cones, projection, sizes, stages, tables, walk
from .cones import Cone
from .freezing import Freezable
from .storage import Arithmetic, Storage, check_fit
from .walk import IMAGE, Backward, Forward, Node

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./\-]{0,199}")
FORMAT = 1


class Network(Freezable, Arithmetic):
    """A convolutional network that can be walked up and down.

    Parameters
    ----------
    name : what it is called in reports
    input_shape : (height, width, channels) of its images
    preprocessing : how pixels become its input
    class_names : names of the output's units
    scheme : the initialiser that `initialize` uses by default
    backend : where it runs; None: ZFCORE_BACKEND, else numba
    algorithm : of its convolutions, see `ops.convolution`: "auto" takes Winograd's algorithm where it is
        faster, "direct" the one with smaller rounding errors. Projections are always direct
    precision : what the products of its convolutions and fully connected layers are made of, see
        `ops.convolution`: "float32", or, on the backends that have them, "tf32", "tf32x3", "float16" or "bfloat16".
        None: the storage's own
    storage : what the tensors between its layers are made of: "float32", or, on the backends that have kernels of
        16 bits, "float16" or "bfloat16". Parameters, their gradients and all that comes in or out stay float32

    Both may be set later, too, and neither is saved. Projections and occlusion are always float32.

    `metadata` holds texts that travel with a saved network, such as how it was trained.

    Examples
    --------
    >>> net = Network("small", (28, 28, 1))
    >>> net.add("conv1", Convolution(8, 3, activation="relu"))
    'conv1'
    >>> net.initialize(seed=0)(images)
    """

    def __init__(self, name: str = "", input_shape: Sequence[int] = (224, 224, 3), *,
                 preprocessing: Preprocessing | None = None, class_names: Sequence[str] | None = None,
                 scheme: str = "zf", backend: str | None = None, algorithm: str = "auto",
                 precision: str | None = None, storage: str = "float32") -> None:
        checks.require(isinstance(input_shape, (tuple, list)) and len(input_shape) == 3,
                       "Network", "input_shape", input_shape, "(height, width, channels)")
        shape = tuple(checks.integer("Network", "input_shape", size, 1) for size in input_shape)
        checks.fits("Network", "input_shape", shape)
        checks.one_of("Network", "scheme", scheme, initializers.SCHEMES)
        checks.one_of("Network", "algorithm", algorithm, ("auto", "direct"))
        self.name = str(name)
        self.preprocessing = preprocessing
        self.class_names = None if class_names is None else [str(item) for item in class_names]
        self.scheme = scheme
        self.algorithm = algorithm
        self.precision, self.storage = precision, storage
        check_fit("Network", storage, precision)
        self.metadata: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.shapes: dict[str, Shape] = {IMAGE: shape}
        self._backend = backend
        self._ops: ops.Ops | None = None

    # The graph

    @property
    def ops(self) -> ops.Ops:
        """The operations, bound to this network's backend at first use."""
        if self._ops is None:
            self._ops = ops.bind(self._backend)
        return self._ops

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images."""
        height, width, channels = self.shapes[IMAGE]
        return height, width, channels

    @property
    def output(self) -> str:
        """Name of the last tensor."""
        return next(reversed(self.nodes), IMAGE)

    @property
    def logits(self) -> str:
        """Name of the tensor before a final softmax, or of the output: where cross-entropy starts."""
        node = self.nodes.get(self.output)
        return node.inputs[0] if node and type(node.layer).__name__ == "Softmax" else self.output

    def add(self, name: str, layer: Layer, inputs: str | Sequence[str] | None = None) -> str:
        """Add a layer and return its name.

        Parameters
        ----------
        name : letters, digits and `_ . / -`; unique, not "input", not ending in ".pre"
        layer : a layer of its own: it holds this place's parameters
        inputs : names of the layers that it reads; None: the one added last, or the image, "input"
        """
        where = f"Network.add({name!r})"
        valid = isinstance(name, str) and _NAME.fullmatch(name) and not name.endswith(PRE)
        checks.require(bool(valid) and name not in self.shapes, where, "name", name,
                       "a new name of letters, digits and _ . / -, not 'input', not ending in '.pre'")
        checks.require(isinstance(layer, Layer), where, "layer", layer, "a layer")
        checks.require(all(layer is not node.layer for node in self.nodes.values()), where, "layer", layer,
                       "a layer object that the network does not hold yet")
        names = (self.output,) if inputs is None else (inputs,) if isinstance(inputs, str) else tuple(inputs)
        for item in names:
            checks.one_of(where, "inputs", item, self.shapes)
        fewest, most = layer.input_count
        checks.require(fewest <= len(names) and (most is None or len(names) <= most), where, "inputs", names,
                       f"{fewest} names" if fewest == most else f"{fewest} names or more")
        shapes = [self.shapes[item] for item in names]
        try:
            shape = layer.output_shape(*shapes)
            checks.fits(type(layer).__name__, "the output's shape", shape)
            for parameter, sizes in layer.parameter_shapes(*shapes).items():
                checks.fits(type(layer).__name__, parameter, sizes)
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from None
        self.nodes[name] = Node(name, layer, names, shape)
        self.shapes[name] = shape
        return name

    def tensor_shape(self, name: str) -> Shape:
        """Shape without N of "conv5", "conv5.pre" or "input"; an unknown name's error lists the layers."""
        layer, pre = tensor_node(name) if isinstance(name, str) else (name, False)
        if layer not in self.shapes:
            checks.fail("Network", "layer", name, "one of " + ", ".join(self.nodes))
        if pre and (layer == IMAGE or not self.nodes[layer].layer.activation):
            checks.fail("Network", "layer", name, f"{layer!r}, which has no fused ReLU to be taken before")
        return self.shapes[layer]

    def below(self, names: Iterable[str]) -> list[Node]:
        """The layers that these tensors need, themselves included, in topological order."""
        needed = {tensor_node(name)[0] for name in names}
        chosen = []
        for node in reversed(self.nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
                chosen.append(node)
        return chosen[::-1]

    # The walks

    def __call__(self, x: Any) -> Any:
        """The output for images (N, height, width, channels), preprocessed already."""
        return self.forward(x).output

    def _enter(self, where: str, x: Any) -> Any:
        """An array on the network's backend: NumPy's are taken there, another backend's are refused."""
        kind = backends.kind(x)
        if kind not in ("numpy", self.ops.backend.ARRAYS):
            checks.fail(where, "x", f"an array of {kind}", f"numpy or {self.ops.backend.ARRAYS}", TypeError)
        return x if kind == self.ops.backend.ARRAYS else self.ops.backend.asarray(x)

    def stored(self) -> Storage:
        """The storage of its walks; ValueError where its backend or its precision have no such thing."""
        check_fit("Network", self.storage, self._precision)
        return Storage(self.ops.backend, self.storage, self._rounded)

    def _check_input(self, x: Any) -> None:
        checks.floats(self.name or "Network", "x", x, 4)
        checks.require(tuple(x.shape[1:]) == self.shapes[IMAGE], self.name or "Network", "x.shape",
                       tuple(x.shape), f"(N, {', '.join(map(str, self.shapes[IMAGE]))})")

    def _check_parameters(self, nodes: Iterable[Node]) -> None:
        """Require parameters, and have them where the network runs."""
        nodes = list(nodes)
        missing = [node.name for node in nodes if not node.layer.parameters and self._parameter_shapes(node)]
        if missing:
            raise ValueError(f"layers {', '.join(missing)} have no parameters yet: "
                             "call initialize(seed) or load_parameters(values)")
        for node in nodes:
            for name, array in node.layer.parameters.items():
                if self.ops.backend.ARRAYS != backends.kind(array):
                    node.layer.parameters[name] = self._enter(node.name, array)

    def forward(self, x: Any, keep: Collection[str] = (), cache: bool = False, training: bool = False, *,
                to: str | None = None, parameters: bool = True, frozen: Collection[str] = (), seed: int = 0,
                step: int = 0, fused: bool = False) -> Forward:
        """Walk up.

        Parameters
        ----------
        x : (N, height, width, channels), preprocessed, in the parameters' dtype. What comes back is of its
            kind: NumPy arrays for NumPy's, wherever the network runs, and the device's for the device's
        keep : tensors to return, as "conv3" or "conv5.pre"; all others are let go as early as possible
        cache : keep what `backward` needs
        training : dropout drops, batch norm uses the batch's statistics and moves its own
        to : the tensor to stop at; None: the output
        parameters : whether `backward` will want parameter gradients; without them caches are smaller
        frozen : layers that run as at inference in a training pass too; without parameter gradients
        seed, step : of dropout: another step drops other units
        fused : with caches too, the image's convolution and the max pool that alone reads it are one, where the backend
            has kernels for that: the same bits, and nothing of the map between is kept, so that `backward` knows no
            signal there

        Returns
        -------
        Forward, with `output`, `kept` and `caches`
        """
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        top = self.output if to is None else to
        for name in (top, *keep):
            self.tensor_shape(name)
        self._check_input(x)
        stored = self.stored()
        nodes = self.below((top, *keep))
        self._check_parameters(nodes)
        run = Run(training=training, parameters=cache and parameters, seed=seed, step=step,
                  algorithm=self.algorithm, precision=self.precision)
        if fused or not cache:
            nodes = stages.fused(self.ops, nodes, {*keep, top})
        result = walk.up(self.ops, stored.rounded(self._enter("forward", x)), stored.nodes(nodes, self.nodes.values()),
                         keep={*keep, top}, cache=cache, run=run, frozen=frozen)
        result.tensor, result.host = top, isinstance(x, np.ndarray)
        result.storage, result.walked = stored.name, tuple(nodes)
        result.kept = {name: stored.widened(array) for name, array in result.kept.items()}
        if result.host:
            result.kept = {name: self.ops.backend.to_numpy(array) for name, array in result.kept.items()}
        result.output = result.kept[top] if top in keep else result.kept.pop(top)
        return result

    def features(self, x: Any, layers: Sequence[str]) -> dict[str, Any]:
        """Named tensors of a batch; layers above them do not run."""
        checks.require(len(layers) > 0, "features", "layers", layers, "one name or more")
        kept = self.forward(x, keep=layers, to=self._highest(layers)).kept
        return {name: kept[name] for name in ((layers,) if isinstance(layers, str) else layers)}

    def _highest(self, names: Sequence[str]) -> str:
        """The name that stands last in topological order."""
        names = (names,) if isinstance(names, str) else names
        for name in names:
            self.tensor_shape(name)
        order = {name: place for place, name in enumerate(self.shapes)}
        return max(names, key=lambda name: order[tensor_node(name)[0]])

    def backward(self, forward: Forward, signal: Any, rule: str | Rule = "gradient", *,
                 parameters: bool | Collection[str] = True, inputs: bool = True,
                 keep: Collection[str] = ()) -> Backward:
        """Walk down: the one reverse walk, under a rule.

        Parameters
        ----------
        forward : a walk up with cache=True
        signal : an array of the output's shape, or {tensor: array}: "conv5" enters after its ReLU,
            "conv5.pre" before it; several tensors' signals meet where their paths do
        rule : "gradient", "deconvnet", "guided" or a Rule
        parameters : whose parameters' gradients are wanted: True (all), False, or layers' names
        inputs : whether the signal at the pixels is wanted
        keep : tensors whose signals are wanted

        Returns
        -------
        Backward, with `input`, `gradients` keyed like `parameters()`, and `kept`
        """
        if not forward.caches:
            raise ValueError("backward: the forward pass has no caches; allowed: a pass with cache=True")
        seeds = dict(signal) if isinstance(signal, Mapping) else {forward.tensor: signal}
        nodes = forward.walked
        known = [*(node.name for node in nodes), IMAGE]
        inside = set(forward.nodes).difference(known)  # of a fused stage
        for name, array in seeds.items():
            shape = self.tensor_shape(name)
            checks.one_of("backward", "signal", tensor_node(name)[0], known)
            checks.shape("backward", f"signal[{name!r}]", array, (forward.batch, *shape))
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        for name in keep:
            self.tensor_shape(name)
            checks.require(tensor_node(name)[0] not in inside, "backward", "keep", name,
                           "a tensor outside the fused stage, or a walk up with fused=False")
        if isinstance(parameters, bool):
            chosen = list(forward.nodes) if parameters else []
        else:
            chosen = [parameters] if isinstance(parameters, str) else list(parameters)
            for name in chosen:
                checks.one_of("backward", "parameters", name, self.nodes)
        wanted = {name for name in chosen if self._parameter_shapes(self.nodes[name])}
        stored = Storage(self.ops.backend, forward.storage)
        seeds = {name: stored.rounded(self._enter("backward", array)) for name, array in seeds.items()}
        result = walk.down(self.ops, stored.nodes(nodes, self.nodes.values()), forward.caches, seeds, rules.get(rule),
                           parameters=wanted, inputs=inputs, keep=keep)
        result.input = stored.widened(result.input)
        result.kept = {name: stored.widened(array) for name, array in result.kept.items()}
        if forward.host:
            host = self.ops.backend.to_numpy
            result.input = None if result.input is None else host(result.input)
            for arrays in (result.gradients, result.kept):
                arrays.update({name: host(array) for name, array in arrays.items()})
        return result

    # Looking inside

    def cone(self, layer: str) -> Cone:
        """What units of a layer touch: receptive field, tiles' size and origins."""
        self.tensor_shape(layer)
        if tensor_node(layer)[0] == IMAGE:
            checks.fail("cone", "layer", layer, "one of " + ", ".join(self.nodes))
        return cones.build(self.below([layer]), tensor_node(layer)[0], self.shapes)

    def project(self, x: np.ndarray, units: Any, rule: str | Rule = "deconvnet", seed: str = "activation", *,
                images: Sequence[int] | None = None, crop: bool = True, batch_size: int = 32,
                allow_negative: bool = False) -> projection.Projections:
        """Project units to pixel space; see `projection.project`."""
        return projection.project(self, x, units, rule, seed, images=images, crop=crop, batch_size=batch_size,
                                  allow_negative=allow_negative)

    def project_tiles(self, tiles: np.ndarray, origins: np.ndarray, layer: str, maps: Any, rows: Any,
                      columns: Any, rule: str | Rule = "deconvnet", seed: str = "activation", *,
                      batch_size: int = 32, allow_negative: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Project units from their tiles of pixels; see `projection.project_tiles`."""
        return projection.project_tiles(self, tiles, origins, layer, maps, rows, columns, rule, seed,
                                        batch_size=batch_size, allow_negative=allow_negative)

    def at_size(self, height: int, width: int, to: str | None = None) -> Network:
        """The layers up to `to` for images of another size, parameters shared; see `sizes.at_size`."""
        return sizes.at_size(self, height, width, to)

    def layers(self) -> list[tables.Row]:
        """A row for every layer: name, type, output shape, parameters, receptive field, multiply-adds."""
        return tables.rows(self)

    def memory(self, batch: int = 1) -> tables.Memory:
        """Bytes of the parameters, of a forward pass's largest moment, and of a pass with caches."""
        return tables.memory(self, batch)

    def multiply_adds(self, batch: int = 1) -> dict[str, int]:
        """Multiply-adds of the forward pass, by layer."""
        checks.integer("multiply_adds", "batch", batch, 0)
        return {node.name: batch * node.layer.multiply_adds(*(self.shapes[item] for item in node.inputs))
                for node in self.nodes.values()}

    def __str__(self) -> str:
        return tables.text(self)

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {self.input_shape}, {len(self.nodes)} layers)"

    # Parameters

    def _parameter_shapes(self, node: Node) -> dict[str, Shape]:
        return node.layer.parameter_shapes(*(self.shapes[item] for item in node.inputs))

    def parameter_shapes(self) -> dict[str, Shape]:
        """Shapes of all parameters, keyed "conv1.weight"."""
        return {f"{node.name}.{key}": shape for node in self.nodes.values()
                for key, shape in self._parameter_shapes(node).items()}

    def parameters(self) -> dict[str, Any]:
        """All parameters, batch norm's statistics included: the arrays themselves, keyed "conv1.weight"."""
        self._check_parameters(self.nodes.values())
        return {f"{node.name}.{key}": node.layer.parameters[key] for node in self.nodes.values()
                for key in self._parameter_shapes(node)}

    def initialize(self, seed: int, scheme: str | None = None) -> Network:
        """Give every layer random parameters; the same numbers for the same seed. Returns the network.

        Parameters
        ----------
        seed : an integer >= 0
        scheme : "zf", "krizhevsky", "he" or "zf-scaled" (`zfcore.initializers`); None: the network's own
        """
        self.require_thawed("initialize")
        scheme = scheme or self.scheme
        checks.one_of("initialize", "scheme", scheme, initializers.SCHEMES)
        checks.integer("initialize", "seed", seed, 0)
        kinds = {node.name: type(node.layer).__name__ for node in self.nodes.values()}
        ones = initializers.ones_of_krizhevsky(kinds) if scheme == "krizhevsky" else set()
        for node in self.nodes.values():
            node.layer.parameters = {
                key: initializers.draw(scheme, node.name, key, shape, seed, float(node.name in ones),
                                       IMAGE in node.inputs)
                for key, shape in self._parameter_shapes(node).items()}
        return self

    def load_parameters(self, values: Mapping[str, Any], copy: bool = True) -> Network:
        """Take all parameters, as `parameters()` gives them, as float32. Returns the network.

        Parameters
        ----------
        values : arrays by name, "conv1.weight"
        copy : False keeps arrays that are float32 and contiguous as they are: the caller gives them up

        Raises
        ------
        ValueError that lists every missing, unexpected and misshapen key, before anything is changed.
        """
        self.require_thawed("load_parameters")
        shapes = self.parameter_shapes()
        missing = [key for key in shapes if key not in values]
        unexpected = [key for key in values if key not in shapes]
        misshapen = [f"{key} {np.shape(values[key])} instead of {shape}" for key, shape in shapes.items()
                     if key in values and tuple(np.shape(values[key])) != shape]
        wrong = [f"{what}: {', '.join(keys)}" for what, keys in
                 (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)) if keys]
        if wrong:
            raise ValueError(f"load_parameters: {'; '.join(wrong)}")
        for node in self.nodes.values():
            node.layer.parameters = {
                key: np.array(backends.to_numpy(values[f"{node.name}.{key}"]), np.float32, order="C", copy=copy or None)
                for key in self._parameter_shapes(node)}
        return self

    def astype(self, dtype: Any) -> Network:
        """Convert the parameters to float32 or float64, in place. Returns the network."""
        self.require_thawed("astype")
        checks.require(np.dtype(dtype) in checks.FLOATS, "astype", "dtype", dtype, "float32 or float64")
        for node in self.nodes.values():
            node.layer.parameters = {key: value.astype(dtype) for key, value in node.layer.parameters.items()}
        return self

    @property
    def parameter_count(self) -> int:
        """Number of all parameters."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    # Description

    def to_config(self) -> dict[str, Any]:
        """The network without its parameters, as a mapping for JSON."""
        return {
            "format": FORMAT,
            "name": self.name,
            "input_shape": list(self.input_shape),
            "scheme": self.scheme,
            # Left out where it is the usual one, so that hashes of networks stay what they were.
            **({} if self.algorithm == "auto" else {"algorithm": self.algorithm}),
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_config(),
            "class_names": self.class_names,
            "layers": [{"name": node.name, "inputs": list(node.inputs), **node.layer.to_config()}
                       for node in self.nodes.values()],
        }

    @classmethod
    def from_config(cls, config: Any, tensors: Mapping[str, np.ndarray] | None = None) -> Network:
        """Build the network that `to_config` described; ValueError for anything else.

        Parameters
        ----------
        config : that mapping
        tensors : the preprocessing's arrays, if it has any
        """
        where = "Network.from_config"
        if not isinstance(config, Mapping) or config.get("format") != FORMAT:
            checks.fail(where, "format", config.get("format") if isinstance(config, Mapping) else config,
                        f"a mapping whose format is {FORMAT}")
        described, names, entries = (config.get(key) for key in ("preprocessing", "class_names", "layers"))
        if not isinstance(entries, list):
            raise ValueError(f"{where}: layers is a {type(entries).__name__}; allowed: a list")
        if not (names is None or isinstance(names, list)):
            raise ValueError(f"{where}: class_names is a {type(names).__name__}; allowed: a list or null")
        try:
            network = cls(config.get("name", ""), config.get("input_shape", ()), class_names=names,
                          scheme=config.get("scheme", "zf"), algorithm=config.get("algorithm", "auto"),
                          preprocessing=described and Preprocessing.from_config(described, tensors))
            for entry in entries:
                checks.require(isinstance(entry, dict) and {"name", "inputs", "type"} <= set(entry),
                               where, "layer", entry, "a mapping with name, inputs and type")
                fields = {key: value for key, value in entry.items() if key not in ("name", "inputs")}
                layer = from_config(fields)
                network.add(entry["name"], layer, entry["inputs"])
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
        return network

    def unit(self, text: str | Unit) -> Unit:
        """Read a unit's name and check that it exists here."""
        return projection.check_unit(self, Unit.parse(text))
