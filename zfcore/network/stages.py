"""The first stage of a network as one node, where the backend has kernels for it and nobody asks for its middle."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from ..layers import Convolution, MaxPool
from ..layers.stage import _Stage
from ..ops.chains import LARGEST
from ..units import PRE
from .walk import IMAGE, Node


def fused(ops: Any, nodes: Sequence[Node], keep: Collection[str]) -> list[Node]:
    """The nodes, a convolution of the image and the max pool that alone reads it as one of them.

    For walks whose convolutions are direct and whose signals neither enter nor leave between the two; the bits are
    those of the two layers.

    Parameters
    ----------
    ops : the operations, bound to a backend
    nodes : in topological order
    keep : tensors that are asked for
    """
    if not hasattr(ops.backend, "convolution_pool"):
        return list(nodes)
    pairs = {}
    for node in nodes:
        readers = [other for other in nodes if node.name in other.inputs]
        if (type(node.layer) is Convolution and node.inputs == (IMAGE,) and len(readers) == 1
                and type(readers[0].layer) is MaxPool and math.prod(readers[0].layer._window) <= LARGEST
                and not {node.name, node.name + PRE} & set(keep)):
            pairs[readers[0].name] = node
    below = {node.name for node in pairs.values()}
    result = []
    for node in nodes:
        first = pairs.get(node.name)
        if first is not None and isinstance(first.layer, Convolution) and isinstance(node.layer, MaxPool):
            node = Node(node.name, _Stage(first.layer, node.layer), first.inputs, node.shape, (first, node))
        if node.name not in below:
            result.append(node)
    return result
