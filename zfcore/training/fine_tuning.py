"""Going on from a trained network: its last layer replaced for other classes, its other parameters taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..layers import Convolution, Linear

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["classifier", "take", "with_classes"]


def classifier(net: Network) -> str:
    """Name of the layer that gives each class its value: the last one with weights.

    Parameters
    ----------
    net : with a Linear or Convolution whose outputs are its classes, whatever pools them afterwards
    """
    classes = net.tensor_shape(net.logits)[-1]
    for node in reversed(net.nodes.values()):
        units = {Linear: "units", Convolution: "filters"}.get(type(node.layer))
        if units is not None:
            if getattr(node.layer, units) == classes:
                return node.name
            break
    raise ValueError(f"fine-tuning: {net.name or 'the network'} has no last layer with {classes} outputs to replace; "
                     "allowed: one whose classes are the units of a Linear or the filters of a Convolution")


def with_classes(net: Network, classes: int, class_names: Sequence[str] | None = None) -> Network:
    """The same architecture for another number of classes, without parameters.

    Parameters
    ----------
    net : left as it is
    classes : outputs of its last layer with weights
    class_names : of the result
    """
    checks.integer("with_classes", "classes", classes, 1)
    config = net.to_config()
    if classes != net.tensor_shape(net.logits)[-1]:
        last = classifier(net)
        entry = next(each for each in config["layers"] if each["name"] == last)
        entry["units" if "units" in entry else "filters"] = classes
    config["class_names"] = None if class_names is None else list(class_names)
    tensors = None if net.preprocessing is None else net.preprocessing.tensors()
    result = type(net).from_config(config, tensors)
    result._backend = net._backend
    result.take_arithmetic(net)
    return result


def take(net: Network, source: Network, but: Collection[str] = ()) -> list[str]:
    """Copy the parameters of layers that both networks have, of the same name and shapes.

    Parameters
    ----------
    net : initialised; changed
    source : with parameters
    but : layers that keep their own

    Returns
    -------
    Names of the layers with parameters that were not taken and keep their own
    """
    net.require_thawed("fine-tuning")
    for name in but:
        checks.one_of("fine-tuning", "a layer to replace", name,
                      [node.name for node in net.nodes.values() if node.layer.parameters])
    kept = []
    for node in net.nodes.values():
        own = node.layer.parameters
        if not own:
            continue
        other = source.nodes[node.name].layer.parameters if node.name in source.nodes else {}
        if node.name in but or {key: value.shape for key, value in own.items()} != {
                key: value.shape for key, value in other.items()}:
            kept.append(node.name)
        else:
            node.layer.parameters = {key: net.ops.backend.asarray(np.array(source.ops.backend.to_numpy(value),
                                                                           order="C"))
                                     for key, value in other.items()}
    return kept
