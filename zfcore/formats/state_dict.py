"""Weights as PyTorch's state_dict names them, into networks whose layout is channels last."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks
from ..layers import Shape
from ..models.torchvision import ARCHITECTURES, Architecture
from ..network import Network
from ..network.layout import flattened, inward
from . import presets
from .tensors import FLOATS, MAX_BYTES, TensorFile

# How PyTorch calls batch norm's parameters.
NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
# Left by DataParallel and torch.compile.
WRAPPERS = (r"^(?:module\.|_orig_mod\.)+", "")


def torch_keys(network: Network, modules: dict[str, str]) -> dict[str, tuple[str, str]]:
    """(layer, parameter) by state_dict key.

    Parameters
    ----------
    network : whose parameters are wanted
    modules : path of the PyTorch module by layer's name
    """
    keys = {}
    for name, path in modules.items():
        parameters = _own_shapes(network, name)
        for parameter in parameters:
            called = NORM[parameter] if "variance" in parameters else parameter
            keys[f"{path}.{called}"] = (name, parameter)
    return keys


def canonical(key: str, aliases: Sequence[tuple[str, str]]) -> str:
    """A key in torchvision's spelling."""
    for pattern, replacement in (WRAPPERS, *aliases):
        key = re.sub(pattern, replacement, key)
    return key


def _own_shapes(network: Network, layer: str) -> dict[str, Shape]:
    node = network.nodes[layer]
    return node.layer.parameter_shapes(*(network.shapes[item] for item in node.inputs))


def _shapes(network: Network, layer: str, parameter: str) -> list[Shape]:
    """Shapes in which channels-first files may hold a parameter: the first is PyTorch's own."""
    own = _own_shapes(network, layer)[parameter]
    if len(own) == 4:
        return [(own[0], own[3], own[1], own[2])]
    if len(own) != 2:
        return [own]
    # A fully connected layer may be kept as a convolution over the maps that were flattened for it.
    tensor = network.nodes[layer].inputs[0]
    while type(network.nodes[tensor].layer).__name__ in ("Flatten", "Dropout"):
        tensor = network.nodes[tensor].inputs[0]
    shape = network.shapes[tensor]
    height, width, channels = shape if len(shape) == 3 else (1, 1, own[1])
    return [own, (own[0], channels, height, width)]


def _classes(file: TensorFile, names: dict[str, str], architecture: Architecture) -> int:
    """Number of classes: the head's rows in the file; 1000 if it has none."""
    for part in ("weight", "bias"):
        name = names.get(f"{architecture.head}.{part}")
        if name is not None and file.entries[name].shape and 0 < file.entries[name].shape[0] < 2**24:
            return file.entries[name].shape[0]
    return 1000


def load(path: str | os.PathLike[str], architecture: str, *, preprocessing: Any = None,
         class_names: Sequence[str] | None = None, input_size: int = 224,
         max_bytes: int = MAX_BYTES) -> Network:
    """Fill a known architecture with weights that torchvision, timm or a training run of them saved.

    Parameters
    ----------
    path : a safetensors file of a state_dict (channels first; float16 and bfloat16 become float32)
    architecture : "torchvision/resnet18" and its like: the keys of `models.torchvision.ARCHITECTURES`
    preprocessing : another than the architecture's (RGB, ImageNet's mean and deviation, smallest
        side 256, centre crop 224), as some newer weights want: a Preprocessing, a preset, a JSON file
    class_names : names of the classes
    input_size : side of the images
    max_bytes : refuse a file whose arrays would need more

    Returns
    -------
    Network with as many classes as the file's last layer has. ValueError lists every missing,
    unexpected and misshapen key; `num_batches_tracked` is ignored.
    """
    checks.one_of("load", "architecture", architecture, ARCHITECTURES)
    known = ARCHITECTURES[architecture]
    with TensorFile(path, max_bytes) as file:
        names: dict[str, str] = {}
        for name in file:
            key = canonical(name, known.aliases)
            if key in names:
                raise ValueError(f"{path}: {names[key]!r} and {name!r} both mean {key!r}")
            names[key] = name
        classes = _classes(file, names, known)
        try:
            network = known.build(classes, input_size=input_size)
        except ValueError as error:
            raise ValueError(f"{path}: {architecture} with {classes} classes and input_size {input_size} "
                             f"cannot be built: {error}") from None
        keys = torch_keys(network, known.modules(network))
        _check(file, names, keys, network, architecture)
        orders = flattened(network)
        values: dict[str, Any] = {}
        for key, (layer, parameter) in keys.items():
            node = network.nodes[layer]
            array = np.asarray(file.array(names[key]), np.float32)
            values[f"{layer}.{parameter}"] = inward(node.layer, parameter, array, orders.get(node.inputs[0]))
    network.load_parameters(values, copy=False)
    if preprocessing is not None:
        network.preprocessing = presets.resolve(preprocessing, network.input_shape)
    if class_names is not None:
        classes = math.prod(network.shapes[network.output])
        checks.require(len(class_names) == classes, "load", "class_names", len(class_names),
                       f"{classes} names, one for each of the file's classes")
        network.class_names = [str(name) for name in class_names]
    return network


def _check(file: TensorFile, names: dict[str, str], keys: dict[str, tuple[str, str]], network: Network,
           architecture: str) -> None:
    """ValueError that lists all that does not fit, before an array is read."""
    missing = [key for key in keys if key not in names]
    unexpected = [name for key, name in names.items()
                  if key not in keys and not key.endswith("num_batches_tracked")]
    misshapen, wrong_type = [], []
    for key, place in keys.items():
        if key in names:
            entry = file.entries[names[key]]
            allowed = _shapes(network, *place)
            if entry.shape not in allowed:
                misshapen.append(f"{names[key]} {entry.shape} instead of {allowed[0]}")
            if entry.dtype not in FLOATS:
                wrong_type.append(f"{names[key]} {entry.dtype}")
    wrong = [f"{what}: {', '.join(items)}" for what, items in
             (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen),
              ("not floating-point", wrong_type)) if items]
    if wrong:
        raise ValueError(f"{file.path} does not fit {architecture}: {'; '.join(wrong)}")
