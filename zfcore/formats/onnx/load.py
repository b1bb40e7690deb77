"""From a file to a network: its input's size, its layers' names, its preprocessing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import checks
from ...network import Network
from ...units import PRE
from .. import presets
from . import operators, texts  # noqa: F401 (importing operators registers them)
from .convert import Converter, Entry, Value, declared_batch
from .graph import Declared, Graph, build, parse
from .tensors import MAX_BYTES, Budget

_RESERVED = {"input"}


@dataclass
class Import:
    """A network from a file, and where the file's tensors are in it.

    Attributes
    ----------
    network : with its parameters
    tensors : the network's tensor for a tensor's name in the file: "conv1" or, before a fused ReLU,
        "conv1.pre"; tensors that are only views of others are not listed
    outputs : the network's tensors that are the file's outputs, in its order
    """

    network: Network
    tensors: dict[str, str]
    outputs: list[str]


def load(path: str | os.PathLike[str], preprocessing: Any = None, *,
         input_shape: int | Sequence[int] | None = None, class_names: Sequence[str] | None = None,
         max_bytes: int = MAX_BYTES) -> Network:
    """Read a network from an ONNX file.

    Parameters
    ----------
    path : the file; external data may lie in its folder
    preprocessing : how pixels become the input: a preset ("caffe-bgr", "torchvision", "zero-one",
        "minus-one-one"), the path of a JSON file, a Preprocessing; None: `model.json` beside the file if
        it says so, else unknown: the network runs, studies on images ask for it
    input_shape : (height, width) or one side, where the file leaves it open
    class_names : names of the output's units
    max_bytes : limit of all tensors that the file holds or declares, refused before allocation

    Raises
    ------
    ValueError
        for malformed and hostile files, and for operators that are not supported, all of them at once
    """
    return read(path, preprocessing, input_shape=input_shape, class_names=class_names,
                max_bytes=max_bytes).network


def read(path: str | os.PathLike[str], preprocessing: Any = None, *,
         input_shape: int | Sequence[int] | None = None, class_names: Sequence[str] | None = None,
         max_bytes: int = MAX_BYTES) -> Import:
    """Read a network as `load` does, together with the names of the file's tensors in it."""
    target = Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"{target}: no such file")
    checks.integer("load", "max_bytes", max_bytes, 1)
    size = target.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{target}: has {size} bytes; allowed: {max_bytes} (max_bytes)")
    try:
        model = parse(target.read_bytes())
        graph = build(model, target.parent, Budget(max_bytes))
        converter = converter_of(graph, input_shape, Budget(max_bytes))
        result = finish(converter, target.stem)
        net = result.network
        net.preprocessing = presets.resolve(preprocessing, net.input_shape, target)
        texts.restore(net, model)
    except ValueError as error:
        raise ValueError(f"{target}: {str(error).removeprefix('onnx: ')}") from None
    if class_names is not None:
        net.class_names = [str(name) for name in class_names]
    return result


def converter_of(graph: Graph, input_shape: Any, budget: Budget) -> Converter:
    """Convert a graph that has one input, the image."""
    if len(graph.inputs) != 1:
        names = ", ".join(each.name for each in graph.inputs)
        raise ValueError(f"onnx: the graph has {len(graph.inputs)} inputs ({names[:500]}); "
                         "allowed: one, the image")
    declared = graph.inputs[0]
    if declared.dtype not in (np.float32, np.float64, np.float16):
        kind = np.dtype(declared.dtype).name if declared.dtype else "numbers of an unknown kind"
        raise ValueError(f"onnx: input {declared.name!r} holds {kind}; allowed: floating-point numbers")
    shape = image_shape(declared, input_shape)
    converter = Converter(graph, {declared.name: shape}, batch=declared_batch(declared), budget=budget)
    converter.run()
    return converter


def image_shape(declared: Declared, input_shape: Any) -> tuple[int, ...]:
    """The input's ONNX shape without the batch; open sizes come from the caller."""
    if declared.shape is None or len(declared.shape) < 2:
        raise ValueError(f"onnx: input {declared.name!r} has shape {declared.shape}; "
                         "allowed: (images, channels, height, width), or (images, features)")
    sizes = list(declared.shape[1:])
    if input_shape is not None:
        given = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else (input_shape,) * 2
        whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in given)
        if len(sizes) != 3 or len(given) not in (2, 3) or not whole:
            raise ValueError(f"onnx: input_shape is {input_shape!r}; allowed: (height, width) or one side, for "
                             f"input {declared.name!r} of shape {declared.shape}")
        if len(given) == 3 and sizes[0] is not None and sizes[0] != given[2] and isinstance(sizes[0], int):
            raise ValueError(f"onnx: input_shape is {input_shape!r}, but the file's input has "
                             f"{sizes[0]} channels")
        if len(given) == 3 and not isinstance(sizes[0], int):
            sizes[0] = given[2]
        for axis in (1, 2):
            if isinstance(sizes[axis], int) and sizes[axis] != given[axis - 1]:
                raise ValueError(f"onnx: input_shape is {input_shape!r}, but the file's input is "
                                 f"{sizes[1]} x {sizes[2]}")
            sizes[axis] = given[axis - 1]
    shape = tuple(size for size in sizes if isinstance(size, int))
    if len(shape) != len(sizes):
        raise ValueError(f"onnx: input {declared.name!r} has shape {declared.shape}, which leaves sizes open; "
                         "say which: input_shape=(height, width)")
    return shape


# Names


def clean(name: str) -> str:
    """A tensor's name as a layer may have it."""
    text = re.sub(r"_output_0$", "", name)
    text = re.sub(r"[^A-Za-z0-9_./\-]", "_", text).lstrip("./-_")
    while text.endswith(PRE):
        text = text[: -len(PRE)] + "_pre"
    return text[:150] or "tensor"


def _generic(name: str) -> bool:
    """Whether a tensor's name says nothing but that it is a ReLU's, or a number."""
    last = clean(name).rsplit("/", 1)[-1].lower()
    return last.startswith(("relu", "clip")) or last.isdecimal()


def layer_names(entry: Entry) -> tuple[str, ...]:
    """Names that a layer should have, best first: its weights', else that of the tensor that it makes.

    PyTorch's exporter names tensors by module and operator: "pool/MaxPool" is better called "pool",
    unless another operator of that module has the name.
    """
    if entry.hint:
        return (clean(entry.hint),)
    if entry.pre and _generic(entry.tensor) and not _generic(entry.pre):
        name = clean(entry.pre)
    else:
        name = clean(entry.tensor)
    short = name.removesuffix(f"/{entry.op}") if entry.op else name
    return (short, name) if short != name else (name,)


def finish(converter: Converter, name: str = "") -> Import:
    """Build the network of a converter that has run."""
    outputs = converter.outputs()
    constant = [declared.name for declared, value in zip(converter.graph.outputs, outputs, strict=True)
                if not isinstance(value, Value)]
    if constant:
        raise ValueError(f"onnx: outputs {', '.join(constant)[:300]} are constant; allowed: tensors that depend "
                         "on the image")
    network, names = assemble(converter, name)
    tensors = {}
    for entry in converter.entries:
        tensors[entry.tensor] = names[entry]
        if entry.pre:
            tensors[entry.pre] = names[entry] + PRE
    return Import(network, tensors, [names[value.entry] for value in outputs if isinstance(value, Value)])


def assemble(converter: Converter, name: str = "") -> tuple[Network, dict[Entry, str]]:
    """The network of all layers that were emitted, and their names in it."""
    height, width, channels = converter.image.shape
    network = Network(name, (height, width, channels))
    names = {converter.image: "input"}
    taken = set(_RESERVED)
    for entry in converter.entries:
        stems = layer_names(entry)
        chosen = next((name for name in stems if name not in taken), stems[-1])
        count = 2
        while chosen in taken:
            chosen, count = f"{stems[-1]}_{count}", count + 1
        taken.add(chosen)
        assert entry.layer is not None
        network.add(chosen, entry.layer, [names[each] for each in entry.inputs])
        names[entry] = chosen
        entry.layer.parameters = entry.parameters
    return network, names
