"""Which maps feed which: the weights between two layers' maps, through what keeps maps apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import backends
from ...network import Network

WEIGHTED = ("Convolution", "Linear")
# Layers whose output map k is made of input map k alone (a response norm mixes neighbours, mildly).
KEEPING = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ResponseNorm", "ContrastNorm", "BatchNorm",
           "ReLU", "Dropout", "Flatten"}


@dataclass
class Wiring:
    """What a layer's maps read.

    Attributes
    ----------
    names : (layer, map) of every input channel
    strength : float64 (maps, channels): norm of the weights from a channel to a map
    direction : float64 (maps, channels): the sum of these weights, whose sign says which way it pulls
    """

    names: list[tuple[str, int]]
    strength: np.ndarray
    direction: np.ndarray


def wiring(network: Network, layer: str) -> Wiring | None:
    """The weights into a layer's maps; None where it has none, or where maps are mixed on the way.

    Parameters
    ----------
    network : with parameters
    layer : a Convolution's or a Linear's name
    """
    weight = _weight(network, layer)
    names = None if weight is None else _origins(network, network.nodes[layer].inputs[0])
    if weight is None or names is None:
        return None
    channels = len(names)
    if weight.ndim == 2:  # a vector is flattened with the maps last
        if weight.shape[1] % channels:
            return None
        parts = weight.reshape(len(weight), -1, channels)
        return Wiring(names, np.sqrt((parts**2).sum(axis=1)), parts.sum(axis=1))
    groups = _groups(network, layer)
    share, filters = weight.shape[3], len(weight) // groups
    strength, direction = np.zeros((len(weight), channels)), np.zeros((len(weight), channels))
    for group in range(groups):
        rows = slice(group * filters, (group + 1) * filters)
        columns = slice(group * share, (group + 1) * share)
        strength[rows, columns] = np.sqrt((weight[rows] ** 2).sum(axis=(1, 2)))
        direction[rows, columns] = weight[rows].sum(axis=(1, 2))
    return Wiring(names, strength, direction)


def _weight(network: Network, layer: str) -> np.ndarray | None:
    """The weights of a Convolution or a Linear, float64; None for anything else."""
    node = network.nodes.get(layer)
    if node is None or type(node.layer).__name__ not in WEIGHTED:
        return None
    return backends.to_numpy(node.layer.parameters["weight"]).astype(np.float64)


def _groups(network: Network, layer: str) -> int:
    return int(getattr(network.nodes[layer].layer, "groups", 1))


def _origins(network: Network, tensor: str) -> list[tuple[str, int]] | None:
    """(layer, map) behind each channel of a tensor, down to layers with weights; None where maps are mixed."""
    name = tensor.removesuffix(".pre")
    if name not in network.nodes:
        return None  # the image
    node = network.nodes[name]
    kind = type(node.layer).__name__
    if kind in WEIGHTED:
        return [(name, index) for index in range(node.shape[-1])]
    if kind == "Concat":
        parts: list[Any] = [_origins(network, each) for each in node.inputs]
        return None if any(part is None for part in parts) else [pair for part in parts for pair in part]
    return _origins(network, node.inputs[0]) if kind in KEEPING else None


def alike(network: Network, layer: str) -> np.ndarray | None:
    """Cosines, float64 (maps, maps), between a layer's filters; None where it has no weights."""
    weight = _weight(network, layer)
    if weight is None:
        return None
    groups = _groups(network, layer)
    flat = weight.reshape(len(weight), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(norms > 0, norms, 1)
    cosines = flat @ flat.T
    group = np.arange(len(flat)) // (len(flat) // groups)
    return np.where(group[:, None] == group[None, :], cosines, 0.0)  # filters of two groups see other maps
