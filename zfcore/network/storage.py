"""Tensors of 16 bits between layers: what each layer gets of them on the way up and down.

Parameters stay float32. Layers whose operations take 16 bits (`Layer.short`) get the tensors as they are and their
weights rounded; the others get float32, and what they give is rounded. bfloat16 goes about as `Bfloat16`, which no
arithmetic of NumPy's takes for numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import checks
from ..backends.bfloat16 import Bfloat16
from ..layers import Convolution, Layer, Run
from ..layers.base import INFERENCE, Cache, Gradients
from ..ops import storage
from ..rules import GRADIENT, Rule
from .walk import IMAGE, Node


class Arithmetic:
    """What a network has for it: the names of what its tensors and products are made of."""

    _storage: str = "float32"
    _precision: str | None = None

    @property
    def storage(self) -> str:
        """What the tensors between layers are made of: "float32", "float16" or "bfloat16"."""
        return self._storage

    @storage.setter
    def storage(self, name: str) -> None:
        checks.one_of("Network", "storage", name, checks.STORAGES)
        self._storage = name

    @property
    def precision(self) -> str:
        """What products are made of; set it to None for the storage's own."""
        return self._precision or self._storage

    @precision.setter
    def precision(self, name: str | None) -> None:
        if name is not None:
            checks.one_of("Network", "precision", name, checks.PRECISIONS)
        self._precision = name

    def take_arithmetic(self, other: Arithmetic) -> None:
        """Have another network's storage and precision."""
        self._storage, self._precision = other._storage, other._precision


def check_fit(where: str, stored: str, precision: str | None) -> None:
    """ValueError where arrays of a storage have no products of a precision; None: their own."""
    if stored != "float32" and precision is not None:
        allowed = ("float32", stored)
        checks.require(precision in allowed, where, "precision", precision,
                       f"{' or '.join(map(repr, allowed))} with the storage {stored!r}")


class Storage:
    """What a walk's tensors are made of, and how they get there and back.

    Parameters
    ----------
    backend : where the walk is
    name : "float32", "float16" or "bfloat16"
    kept : where rounded weights stay, by layer, with those that they are of: for parameters that do not change

    Raises
    ------
    ValueError : the backend has no kernels of 16 bits
    """

    def __init__(self, backend: Any, name: str, kept: dict[str, tuple[str, Any, Any]] | None = None) -> None:
        names = tuple(each for each in checks.STORAGES if each in backend.PRECISIONS)
        checks.require(name in names, "Network", "storage", name,
                       f"{' or '.join(map(repr, names))} on the backend {backend.name!r}")
        self.backend, self.name, self.kept = backend, name, kept

    def rounded(self, array: Any) -> Any:
        """A float32 array as the storage has it, others as they are."""
        if self.name == "float32" or isinstance(array, Bfloat16) or array.dtype in checks.SHORT:
            return array
        if array.dtype != np.float32:
            checks.fail("Network", "dtype", str(array.dtype), f"float32 with the storage {self.name!r}", TypeError)
        short = storage.rounded(self.backend, self.name, array)
        return Bfloat16(short) if short.dtype == np.uint16 else short

    def widened(self, array: Any) -> Any:
        """An array of 16 bits as float32, others (None among them) as they are."""
        if isinstance(array, Bfloat16):
            return array.wide(self.backend)
        return storage.widened(self.backend, array) if getattr(array, "dtype", None) == np.float16 else array

    def nodes(self, nodes: Sequence[Node], every: Iterable[Node]) -> list[Node]:
        """The nodes with layers that take and give what is stored.

        Parameters
        ----------
        nodes : in topological order
        every : all nodes of the network: what one of them reads is rounded
        """
        if self.name == "float32":
            return list(nodes)
        read = {name for node in every for name in node.inputs}
        return [replace(node, layer=_Stored(node.first.name, self._for_copies(node), self, node.name in read))
                for node in nodes]

    def _for_copies(self, node: Node) -> Layer:
        """The node's layer, with four channels where it is a convolution of the image's three."""
        first = node.first.layer
        if node.inputs == (IMAGE,) and type(first) is Convolution and first.groups == 1:
            if first.parameters["weight"].shape[3] == 3:
                return _Padded(node.layer, self)
        return node.layer

    def padded(self, array: Any) -> Any:
        """An array (..., 3) as (..., 4), the last ones zero."""
        short = getattr(array, "bits", array)
        made = self.backend.empty((*short.shape[:-1], 4), short.dtype)
        self.backend.pad_channels(made.reshape(-1, 4), self.backend.asarray(short).reshape(-1, 3))
        return Bfloat16(made) if isinstance(array, Bfloat16) else made

    def first_three(self, array: Any) -> Any:
        """The first three channels of an array (..., 4)."""
        if isinstance(array, Bfloat16):
            return Bfloat16(self.backend.asarray(array.bits[..., :3]))
        return self.backend.asarray(array[..., :3])

    def weighted(self, name: str, layer: Layer) -> Layer:
        """A layer that takes 16 bits, with its weights in them; biases stay, since sums begin with them."""
        weight = layer.parameters.get("weight")
        if weight is None:
            return layer
        found = None if self.kept is None else self.kept.get(name)
        if found is None or found[0] != self.name or found[1] is not weight:
            found = self.name, weight, self.rounded(weight)
            if self.kept is not None:
                self.kept[name] = found
        twin = copy.copy(layer)
        twin.parameters = {**layer.parameters, "weight": found[2]}
        return twin


@dataclass
class _Padded(Layer):
    """A convolution of an image of three channels, alone or in a stage, by four of them, the last ones zero.

    Tensor cores' kernels copy asynchronously, which a device does by four bytes at least: numbers of 16 bits that
    begin anywhere, as those of three channels do, could only be loaded and stored one by one. Plain arithmetic is left
    alone.
    """

    layer: Layer
    storage: Storage

    short = True

    def __post_init__(self) -> None:
        self.parameters, self.activation = self.layer.parameters, self.layer.activation

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x, weight, four = inputs[0], self.parameters["weight"], run.precision != "float32"
        if four:
            x, weight = self.storage.padded(x), self.storage.padded(weight)
        layer = copy.copy(self.layer)
        layer.parameters = {**self.parameters, "weight": weight}
        y, cache = layer.forward(ops, x, run=run)
        return y, {**cache, "convolution": layer, "four": four}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        layer: Layer = cache["convolution"]
        (dx,), gradients = layer.backward(ops, dy, cache, rule, parameters, inputs, pre)
        if cache["four"]:
            dx = None if dx is None else self.storage.first_three(dx)
            gradients |= {name: self.storage.first_three(gradients[name]) for name in {"weight"} & set(gradients)}
        return (dx,), gradients


@dataclass
class _Stored(Layer):
    """A layer among tensors of a storage.

    Parameters
    ----------
    name, layer : of its node, or of the part with the parameters
    storage : the walk's
    read : whether a layer reads the output: what no layer reads, as a network's probabilities, need not be rounded
    """

    name: str
    layer: Layer
    storage: Storage
    read: bool

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        if self.layer.short:
            layer = self.storage.weighted(self.name, self.layer)
            y, cache = layer.forward(ops, *inputs, run=run)
            return y, {**cache, "layer": layer}
        wide = [self.storage.widened(x) for x in inputs]
        y, cache = self.layer.forward(ops, *wide, run=run)
        for given, x in zip(inputs, wide, strict=True):  # half the memory until the way down
            cache.update({key: given for key, value in cache.items() if value is x})
        return self.storage.rounded(y) if self.read else y, cache

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> tuple[tuple[Any, ...], Gradients]:
        if self.layer.short:
            layer: Layer = cache["layer"]
            return layer.backward(ops, dy, cache, rule, parameters, inputs, pre)
        wide = self.storage.widened
        dxs, gradients = self.layer.backward(ops, wide(dy), self._widened(cache), rule, parameters, inputs, wide(pre))
        return tuple(None if dx is None else self.storage.rounded(dx) for dx in dxs), gradients

    def rectified(self, ops: Any, dy: Any, cache: Cache, rule: Rule, pre: Any) -> Any:
        if self.layer.short:
            return self.layer.rectified(ops, dy, cache, rule, pre)
        wide = self.storage.widened
        return self.layer.rectified(ops, wide(dy), self._widened(cache), rule, wide(pre))

    def _widened(self, cache: Cache) -> Cache:
        return {key: self.storage.widened(value) for key, value in cache.items()}
