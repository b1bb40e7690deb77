"""Class activation maps: which places of a layer's maps speak for a score."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks
from ..network import Network
from ..units import PRE
from .resize import resize_maps
from .result import Attribution, channels_of
from .saliency import guided
from .targets import resolve

__all__ = ["cam", "default_layer", "gradcam", "guided_gradcam"]

_THROUGH = ("Dropout", "Flatten")


def default_layer(network: Network, top: str | None = None) -> str:
    """The last layer of maps that spread over several cells: what Grad-CAM looks at.

    Parameters
    ----------
    network : any
    top : the tensor below which to look; None: the class scores

    Returns
    -------
    name of the layer
    """
    name = (network.logits if top is None else top).removesuffix(PRE)
    nodes = network.below([name])
    for node in reversed(nodes):
        if node.name != name and len(node.shape) == 3 and node.shape[0] * node.shape[1] > 1:
            return node.name
    checks.fail("gradcam", "layer", None, f"a network with maps below {name}")


def _head(network: Network, where: str) -> tuple[str, np.ndarray | None]:
    """The maps under the global average pool, and the weights (classes, maps) above it; None: the identity."""
    node, weight = network.nodes.get(network.logits), None
    while node is not None:
        kind = type(node.layer).__name__
        if kind == "Linear" and weight is None and not node.layer.activation:
            weight = backends.to_numpy(node.layer.parameters["weight"])
        elif kind == "GlobalAveragePool" or (kind == "AveragePool" and node.shape[:2] == (1, 1)):
            return node.inputs[0], weight
        elif kind not in _THROUGH:
            break
        node = network.nodes.get(node.inputs[0])
    raise ValueError(f"{where}: the network {network.name or ''} does not end in a global average pool and at most "
                     "one fully connected layer; allowed: such a network (gradcam takes any)")


def cam(network: Network, x: np.ndarray, target: Any = None, *, batch_size: int = 32) -> Attribution:
    """Class activation map: M_c = sum over k of w_kc f_k.

    f_k are the maps under the global average pool, w_kc the weights of class c above it; where nothing
    is above it (SqueezeNet) M_c is the class's own map. The mean of M_c is the score without its bias.
    Zhou et al., *Learning Deep Features for Discriminative Localization* (2016).

    Parameters
    ----------
    network : whose classes come from a global average pool
    x, batch_size : as for `saliency.gradient`
    target : None or a class, or one for each row

    Returns
    -------
    Attribution, signed values (N, height, width) of the maps' size

    Raises
    ------
    ValueError : no global average pool, or a target that is no class
    """
    checks.integer("cam", "batch_size", batch_size, 1)
    layer, weight = _head(network, "cam")
    targets = resolve(network, target, x, batch_size)
    checks.require(targets.classes, "cam", "target", target, "a class (gradcam takes units)")
    rows, columns, _ = network.tensor_shape(layer)
    values, scores = np.empty((len(x), rows, columns), x.dtype), np.empty(len(x), x.dtype)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        forward = network.forward(x[part], keep=(layer,), to=network.logits)
        maps, classes = forward.kept[layer], targets.maps[part]
        scores[part] = targets[part].scores(forward.output)
        if weight is None:
            values[part] = np.stack([item[..., index] for item, index in zip(maps, classes, strict=True)])
        else:
            values[part] = np.einsum("nhwk,nk->nhw", maps, weight[classes])
    return Attribution("cam", values, scores, targets.names(), True, {"layer": layer}, channels_of(network))


def gradcam(network: Network, x: np.ndarray, target: Any = None, *, layer: str | None = None,
            rectify: bool = True, batch_size: int = 32) -> Attribution:
    """Grad-CAM: M = ReLU(sum over k of alpha_k A_k), alpha_k = mean over positions of d S / d A_k.

    Selvaraju et al., *Grad-CAM* (2017), equations 1 and 2. On a network that ends in a global average
    pool and a linear layer it is CAM divided by the number of positions.

    Parameters
    ----------
    network, x, target, batch_size : as for `saliency.gradient`
    layer : whose maps A_k; None: the last ones below the score that spread over several cells
    rectify : False leaves out the ReLU: places that speak against the score are below zero

    Returns
    -------
    Attribution, values (N, height, width) of the layer's size; signed without `rectify`
    """
    checks.integer("gradcam", "batch_size", batch_size, 1)
    targets = resolve(network, target, x, batch_size)
    layer = default_layer(network, targets.tensor) if layer is None else layer
    shape = network.tensor_shape(layer)
    if len(shape) != 3:
        checks.fail("gradcam", "layer", layer, f"a layer of maps; {layer} has the shape {shape}")
    below = {node.name for node in network.below([targets.tensor])}
    checks.require(layer.removesuffix(PRE) in below, "gradcam", "layer", layer,
                   f"a layer that {targets.tensor} is computed from")
    values, scores = np.empty((len(x), *shape[:2]), x.dtype), np.empty(len(x), x.dtype)
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        forward = network.forward(x[part], keep=(layer,), to=targets.tensor, cache=True, parameters=False)
        scores[part] = targets[part].scores(forward.output)
        signal = targets[part].signal(forward.output)
        backward = network.backward(forward, signal, parameters=False, inputs=False, keep=(layer,))
        weight = backward.kept[layer].mean(axis=(1, 2))
        values[part] = np.einsum("nhwk,nk->nhw", forward.kept.get(layer, forward.output), weight)
    if rectify:
        np.maximum(values, 0, out=values)
    return Attribution("gradcam", values, scores, targets.names(), not rectify, {"layer": layer}, channels_of(network))


def guided_gradcam(network: Network, x: np.ndarray, target: Any = None, *, layer: str | None = None,
                   batch_size: int = 32) -> Attribution:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM's map, enlarged to the image.

    Selvaraju et al. (2017), section 3.2; the map is enlarged bilinearly.

    Parameters
    ----------
    network, x, target, layer, batch_size : as for `gradcam`

    Returns
    -------
    Attribution, signed values (N, height, width, channels)
    """
    targets = resolve(network, target, x, batch_size)
    chosen = targets.maps.tolist() if targets.classes else targets.names()
    coarse = gradcam(network, x, chosen, layer=layer, batch_size=batch_size)
    fine = guided(network, x, chosen, batch_size=batch_size)
    enlarged = resize_maps(coarse.values, x.shape[1:3])
    return Attribution("guided-gradcam", fine.values * enlarged[..., None], fine.scores, fine.targets, True,
                       coarse.settings, fine.channels)
