"""Channels last here, channels first elsewhere: which vectors are flattened maps, and their order.

Maps keep the order of their channels in both layouts, so only vectors that come from a Flatten
differ: (row, column, channel) here, (channel, row, column) in PyTorch, Caffe and ONNX. Whoever
brings weights in or takes them out asks `flattened` for the order, and `inward` or `outward` for
the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import BatchNorm, Convolution, Linear, PReLU, Scale, Shape, TransposedConvolution
from .graph import Network

# Layers that treat all elements alike, or have a parameter for each.
_TRANSPARENT = {"Add", "BatchNorm", "Clip", "Divide", "Dropout", "LeakyReLU", "LogSoftmax", "Multiply", "PReLU",
                "ReLU", "Scale", "Sigmoid", "Softmax", "Subtract", "Tanh"}


def _flattened(shape: Shape) -> np.ndarray | None:
    """Place of every element of flattened maps in the channels-first vector."""
    if len(shape) != 3 or shape[2] == 1 or shape[0] * shape[1] == 1:
        return None
    height, width, channels = shape
    return np.arange(height * width * channels).reshape(channels, height, width).transpose(1, 2, 0).ravel()


def flattened(network: Network) -> dict[str, np.ndarray]:
    """Of every vector whose order differs: `here[i] = there[order[i]]`, by the tensor's name.

    ValueError where vectors of different orders meet, or a layer depends on the order.
    """
    orders: dict[str, np.ndarray] = {}
    for node in network.nodes.values():
        kind = type(node.layer).__name__
        before = [orders.get(name) for name in node.inputs]
        order: np.ndarray | None = None
        if kind == "Flatten":
            shape = network.shapes[node.inputs[0]]
            order = before[0] if len(shape) == 1 else _flattened(shape)
        elif kind == "Concat" and any(item is not None for item in before):
            sizes = [network.shapes[name][0] for name in node.inputs]
            starts = np.cumsum([0, *sizes[:-1]])
            order = np.concatenate([begin + (np.arange(size) if item is None else item)
                                    for begin, size, item in zip(starts, sizes, before, strict=True)])
        elif kind in _TRANSPARENT:
            order = before[0]
            for other in before[1:]:
                both = order is not None and other is not None and np.array_equal(order, other)
                if not both and (order is not None or other is not None):
                    raise ValueError(f"layer {node.name!r} joins vectors of maps that were flattened in "
                                     "different orders; allowed: vectors of one order")
        elif kind != "Linear" and any(item is not None for item in before):
            raise ValueError(f"layer {node.name!r} ({kind}) moves elements of maps that were flattened channels "
                             "last, which channels first cannot express")
        if order is not None and len(node.shape) == 1:
            orders[node.name] = order
    return orders


def inward(layer: Any, name: str, array: Any, order: np.ndarray | None = None) -> Any:
    """A layer's parameter in channels-first form as this engine wants it.

    Parameters
    ----------
    layer : it decides the form: a Convolution's weights are (K, C / groups, R, S) there
    name : of the parameter
    array : its values; a fully connected layer's may be (units, C, R, S), as timm's are
    order : of the layer's input vector, from `flattened`
    """
    if isinstance(layer, Convolution | TransposedConvolution) and name == "weight":
        return np.ascontiguousarray(np.transpose(array, (0, 2, 3, 1)))
    if isinstance(layer, Linear) and name == "weight":
        array = array.reshape(array.shape[0], -1)
        return array if order is None else np.take(array, order, axis=1)
    if isinstance(layer, BatchNorm | PReLU | Scale) and order is not None and array.size == len(order):
        return array[order]
    return array


def outward(layer: Any, name: str, array: Any, order: np.ndarray | None = None) -> Any:
    """The inverse of `inward`: a parameter in channels-first form.

    Parameters
    ----------
    layer, name, array, order : as there; the slopes and scales of PReLU and Scale: see `aligned`
    """
    if isinstance(layer, Convolution | TransposedConvolution) and name == "weight":
        return np.ascontiguousarray(np.transpose(array, (0, 3, 1, 2)))
    if order is not None and (isinstance(layer, BatchNorm) or (isinstance(layer, Linear) and name == "weight")):
        return np.take(array, _inverse(order), axis=-1)
    return array


def aligned(array: Any, rank: int, order: np.ndarray | None = None) -> Any:
    """Numbers that broadcast to an item here, as they broadcast to (C, H, W) or a channels-first vector.

    Parameters
    ----------
    array : they may have fewer axes than the item
    rank : of the item: 3 or 1
    order : of the vector
    """
    array = np.asarray(array).reshape((1,) * (rank - np.ndim(array)) + np.shape(array))
    if rank == 3:
        return array.transpose(2, 0, 1)
    return array if order is None or array.size == 1 else array[_inverse(order)]


def _inverse(order: np.ndarray) -> np.ndarray:
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return back
