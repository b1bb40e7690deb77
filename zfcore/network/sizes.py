"""The same network for images of another size: its layers again, its parameters shared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .. import checks
from ..layers import from_config
from ..units import tensor_node

if TYPE_CHECKING:
    from .graph import Network


def at_size(network: Network, height: int, width: int, to: str | None = None) -> Network:
    """The layers up to `to` for images of height x width; the parameters are the same arrays.

    Parameters
    ----------
    network : with parameters
    height, width : of the images
    to : the last tensor that is wanted; None: the output. Convolutions and pools take any size, a
        fully connected layer on flattened maps only its own

    Returns
    -------
    Network, whose preprocessing resizes to height x width

    Raises
    ------
    ValueError : a layer's window does not fit, or its parameters do not; the message names it
    """
    where = "at_size"
    height, width = checks.integer(where, "height", height, 1), checks.integer(where, "width", width, 1)
    top = network.output if to is None else to
    network.tensor_shape(top)
    preprocessing = network.preprocessing
    if preprocessing is not None:
        mean = preprocessing.mean  # a per-pixel mean is of one size: other sizes get its channels' means
        if mean.ndim == 3 and mean.shape[:2] != (height, width):
            mean = mean.mean(axis=(0, 1))
        preprocessing = replace(preprocessing, mean=mean, size=(height, width), crop=None)
    nodes = network.below([tensor_node(top)[0]])
    result = type(network)(network.name, (height, width, network.input_shape[2]), preprocessing=preprocessing,
                           class_names=network.class_names, scheme=network.scheme, backend=network._backend,
                           algorithm=network.algorithm)
    result.take_arithmetic(network)
    for node in nodes:
        layer = from_config(node.layer.to_config())
        layer.parameters = dict(node.layer.parameters)
        result.add(node.name, layer, node.inputs)
        for name, shape in result._parameter_shapes(result.nodes[node.name]).items():
            found = layer.parameters.get(name)
            if found is not None and tuple(found.shape) != shape:
                checks.fail(where, "(height, width)", (height, width),
                            f"a size at which {node.name}.{name} is {tuple(found.shape)}; here it were {shape}")
    result._ops = network._ops
    return result
