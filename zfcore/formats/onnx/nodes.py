"""The ONNX nodes of each kind of layer. Shapes here are (height, width, channels), theirs NCHW."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from ... import backends
from ...network import Network
from ...network.layout import aligned, outward
from ...network.walk import Node


class Builder:
    """The nodes and initialisers of a graph in the making.

    Parameters
    ----------
    network : whose layers are added
    orders : of its flattened maps, from `layout.flattened`
    """

    def __init__(self, network: Network, orders: Mapping[str, np.ndarray]) -> None:
        self.network, self.orders = network, orders
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._names = {"input", *network.nodes, *(f"{name}.pre" for name in network.nodes)}

    def unique(self, name: str) -> str:
        """A name for a tensor or array that no other has."""
        chosen, count = name, 2
        while chosen in self._names:
            chosen, count = f"{name}_{count}", count + 1
        self._names.add(chosen)
        return chosen

    def array(self, name: str, values: Any) -> str:
        """Keep an array; returns its name."""
        chosen = self.unique(name)
        self.initializers.append(numpy_helper.from_array(np.array(values, order="C"), chosen))
        return chosen

    def parameter(self, node: Node, key: str) -> str:
        """Keep a layer's parameter, channels first."""
        values = backends.to_numpy(node.layer.parameters[key])
        values = outward(node.layer, key, values, self.orders.get(node.inputs[0]))
        return self.array(f"{node.name}.{key}", np.asarray(values, np.float32))

    def emit(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; returns its output's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=self._node_name(output),
                                           **{key: value for key, value in attributes.items()
                                              if value is not None}))
        return output

    def _node_name(self, output: str) -> str:
        return f"node/{output}"

    def inner(self, node: Node, part: str) -> str:
        """Name of a tensor between a layer's own nodes."""
        return self.unique(f"{node.name}/{part}")

    def shape(self, node: Node, index: int = 0) -> tuple[int, ...]:
        """Shape of a layer's input, here."""
        return self.network.shapes[node.inputs[index]]

    def add(self, node: Node) -> None:
        """Add a layer's nodes, with its fused ReLU."""
        below = f"{node.name}.pre" if node.layer.activation else node.name
        EXPORTERS[type(node.layer).__name__](self, node, node.layer, below)
        if node.layer.activation:
            self.emit("Relu", [below], node.name)


def _pads(padding: Sequence[int]) -> list[int]:
    """(top, bottom, left, right) as ONNX has it."""
    return [padding[0], padding[2], padding[1], padding[3]]


def convolution(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Conv; "same" becomes numbers."""
    inputs = [node.inputs[0], b.parameter(node, "weight")]
    inputs += [b.parameter(node, "bias")] if layer.bias else []
    b.emit("Conv", inputs, output, kernel_shape=layer._window, strides=layer._stride, dilations=layer._dilation,
           group=layer.groups, pads=_pads(layer._padding(b.shape(node))))


def transposed(b: Builder, node: Node, layer: Any, output: str) -> None:
    """ConvTranspose."""
    inputs = [node.inputs[0], b.parameter(node, "weight")]
    inputs += [b.parameter(node, "bias")] if layer.bias else []
    b.emit("ConvTranspose", inputs, output, kernel_shape=layer._window, strides=layer._stride,
           dilations=layer._dilation, group=layer.groups, pads=_pads(layer._pads), output_padding=layer._more)


def linear(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Gemm with the weights as they are, (units, inputs)."""
    inputs = [node.inputs[0], b.parameter(node, "weight")]
    inputs += [b.parameter(node, "bias")] if layer.bias else []
    b.emit("Gemm", inputs, output, transB=1)


def max_pool(b: Builder, node: Node, layer: Any, output: str) -> None:
    """MaxPool."""
    b.emit("MaxPool", [node.inputs[0]], output, kernel_shape=layer._window, strides=layer._stride,
           pads=_pads(layer._padding(b.shape(node))), ceil_mode=int(layer.ceil_mode))


def average_pool(b: Builder, node: Node, layer: Any, output: str) -> None:
    """AveragePool; where padding counts, ceil mode's last windows get padding at the end instead.

    Where only a part of that padding counts, the mean over the whole window is scaled.
    """
    shape, window, stride = b.shape(node), layer._window, layer._stride
    pads = list(layer._padding(shape))
    ends = []
    for axis in range(2):
        end = (node.shape[axis] - 1) * stride[axis] + window[axis] - shape[axis] - pads[2 * axis]
        ends.append(max(end, pads[2 * axis + 1]) if not layer.ceil_mode else max(end, 0))
    exact = [pads[0], ends[0], pads[2], ends[1]]
    sizes = {"kernel_shape": window, "strides": stride, "pads": _pads(exact)}
    if layer.divisor == "valid":
        sizes["pads"] = _pads(pads)
        b.emit("AveragePool", [node.inputs[0]], output, count_include_pad=0, ceil_mode=int(layer.ceil_mode),
               **sizes)
        return
    if layer.divisor == "padded":
        counts = [[min(place * stride[axis] + window[axis], pads[2 * axis] + shape[axis] + pads[2 * axis + 1])
                   - place * stride[axis] for place in range(node.shape[axis])] for axis in range(2)]
        share = np.outer(counts[0], counts[1]).astype(np.float64) / (window[0] * window[1])
        if not (share == 1).all():
            mean = b.emit("AveragePool", [node.inputs[0]], b.inner(node, "window"), count_include_pad=1, **sizes)
            factor = b.array(f"{node.name}/share", (1 / share).astype(np.float32)[None, None])
            b.emit("Mul", [mean, factor], output)
            return
    b.emit("AveragePool", [node.inputs[0]], output, count_include_pad=1, **sizes)


def whole_pool(kind: str) -> Callable[..., None]:
    """GlobalAveragePool or GlobalMaxPool, as a vector."""

    def exporter(b: Builder, node: Node, layer: Any, output: str) -> None:
        cells = b.emit(kind, [node.inputs[0]], b.inner(node, kind))
        b.emit("Flatten", [cells], output, axis=1)

    return exporter


def response_norm(b: Builder, node: Node, layer: Any, output: str) -> None:
    """LRN; an even size, which runtimes refuse or mirror, as a sum over maps by a 1x1 convolution."""
    x, size = node.inputs[0], layer.size
    alpha = layer.alpha if layer.alpha_is_divided_by_size else layer.alpha * size
    if size % 2:
        b.emit("LRN", [x], output, size=size, alpha=float(alpha), beta=float(layer.beta), bias=float(layer.k))
        return
    channels = b.shape(node)[2]
    before = (size - 1) // 2 if getattr(layer, "mirrored", False) else size // 2
    offset = np.arange(channels)[None] - np.arange(channels)[:, None]
    band = ((offset >= -before) & (offset < size - before)).astype(np.float32) * np.float32(alpha / size)
    squares = b.emit("Mul", [x, x], b.inner(node, "squares"))
    sums = b.emit("Conv", [squares, b.array(f"{node.name}/band", band[:, :, None, None])], b.inner(node, "sums"))
    _divided(b, node, x, sums, layer, output)


def _divided(b: Builder, node: Node, numerator: str, sums: str, layer: Any, output: str) -> None:
    """numerator * (k + sums) ** -beta."""
    scale = b.emit("Add", [sums, b.array(f"{node.name}/k", np.float32(layer.k))], b.inner(node, "scale"))
    power = b.emit("Pow", [scale, b.array(f"{node.name}/power", np.float32(-layer.beta))],
                   b.inner(node, "power"))
    b.emit("Mul", [numerator, power], output)


def contrast_norm(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Means over windows, by average pools at stride 1."""
    x, size = node.inputs[0], layer.size
    before, after = size // 2, size - 1 - size // 2
    window = {"kernel_shape": [size, size], "strides": [1, 1], "pads": [before, before, after, after]}
    alpha = layer.alpha if layer.alpha_is_divided_by_area else layer.alpha * size**2
    mean = b.emit("AveragePool", [x], b.inner(node, "mean"), count_include_pad=0, **window)
    difference = b.emit("Sub", [x, mean], b.inner(node, "difference"))
    squares = b.emit("Mul", [difference, difference], b.inner(node, "squares"))
    total = b.emit("AveragePool", [squares], b.inner(node, "mean_square"), count_include_pad=1, **window)
    sums = b.emit("Mul", [total, b.array(f"{node.name}/alpha", np.float32(alpha))], b.inner(node, "sums"))
    _divided(b, node, x if layer.mode == "divisive" else difference, sums, layer, output)


def batch_norm(b: Builder, node: Node, layer: Any, output: str) -> None:
    """BatchNormalization with its own statistics."""
    b.emit("BatchNormalization", [node.inputs[0], *(b.parameter(node, key) for key in
                                                   ("scale", "bias", "mean", "variance"))],
           output, epsilon=layer.epsilon, momentum=layer.momentum)


def dropout(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Dropout, which does nothing at inference and keeps its rate."""
    b.emit("Dropout", [node.inputs[0], b.array(f"{node.name}.rate", np.float32(layer.rate))], output)


def add(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Add of two, Sum of more."""
    b.emit("Add" if len(node.inputs) == 2 else "Sum", node.inputs, output)


def simple(kind: str, **attributes: Any) -> Callable[..., None]:
    """A node with the layer's inputs and fixed attributes."""

    def exporter(b: Builder, node: Node, layer: Any, output: str) -> None:
        b.emit(kind, node.inputs, output, **attributes)

    return exporter


def leaky_relu(b: Builder, node: Node, layer: Any, output: str) -> None:
    """LeakyRelu."""
    b.emit("LeakyRelu", [node.inputs[0]], output, alpha=float(layer.slope))


def clip(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Clip; an absent bound is an empty name."""
    low = "" if layer.low is None else b.array(f"{node.name}.low", np.float32(layer.low))
    high = "" if layer.high is None else b.array(f"{node.name}.high", np.float32(layer.high))
    b.emit("Clip", [node.inputs[0], low, high] if high else [node.inputs[0], low] if low else node.inputs, output)


def _broadcast(b: Builder, node: Node, key: str) -> str:
    """A parameter that broadcasts to an item, aligned to (C, H, W)."""
    values = aligned(backends.to_numpy(node.layer.parameters[key]), len(b.shape(node)), b.orders.get(node.inputs[0]))
    return b.array(f"{node.name}.{key}", np.asarray(values, np.float32))


def prelu(b: Builder, node: Node, layer: Any, output: str) -> None:
    """PRelu."""
    b.emit("PRelu", [node.inputs[0], _broadcast(b, node, "slope")], output)


def scale(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Mul, Add, or both."""
    x = node.inputs[0]
    if layer.scale:
        target = b.inner(node, "scaled") if layer.bias else output
        x = b.emit("Mul", [x, _broadcast(b, node, "scale")], target)
    if layer.bias:
        b.emit("Add", [x, _broadcast(b, node, "bias")], output)


def expand(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Expand; the batch's size of 1 broadcasts to any."""
    shape = layer._sizes
    first = (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
    b.emit("Expand", [node.inputs[0], b.array(f"{node.name}/shape", np.array((1, *first), np.int64))], output)


def rearrange(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Channels last, Reshape, Transpose, Reshape, channels first."""
    x = node.inputs[0]

    def reshape(name: str, tensor: str, sizes: Sequence[int], target: str) -> str:
        shape = b.array(f"{node.name}/{name}", np.array((-1, *sizes), np.int64))
        return b.emit("Reshape", [tensor, shape], target)

    if len(b.shape(node)) == 3:
        x = b.emit("Transpose", [x], b.inner(node, "last"), perm=[0, 2, 3, 1])
    x = reshape("split", x, layer._split, b.inner(node, "parts"))
    order = [0, *(axis + 1 for axis in layer._order)]
    x = b.emit("Transpose", [x], b.inner(node, "moved"), perm=order)
    if len(node.shape) != 3:
        reshape("shape", x, node.shape, output)
        return
    x = reshape("shape", x, node.shape, b.inner(node, "joined"))
    b.emit("Transpose", [x], output, perm=[0, 3, 1, 2])


def slices(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Slice of the maps."""
    bounds = [b.array(f"{node.name}/{name}", np.array([value], np.int64))
              for name, value in (("start", layer.start), ("stop", layer.stop), ("axis", 1))]
    b.emit("Slice", [node.inputs[0], *bounds], output)


def pad(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Pad of rows, columns and maps."""
    top, bottom, left, right = layer.padding
    before, after = layer.channels
    pads = np.array([0, before, top, left, 0, after, bottom, right], np.int64)
    inputs = [node.inputs[0], b.array(f"{node.name}/pads", pads)]
    if layer.mode == "constant":
        inputs.append(b.array(f"{node.name}/value", np.float32(layer.value)))
    b.emit("Pad", inputs, output, mode=layer.mode)


def resize(b: Builder, node: Node, layer: Any, output: str) -> None:
    """Resize to the layer's size, or by its scales."""
    if layer.scales is None:
        inputs = ["", "", b.array(f"{node.name}/sizes", np.array(layer.size, np.int64))]
    else:
        inputs = ["", b.array(f"{node.name}/scales", np.array(layer.scales, np.float32))]
    b.emit("Resize", [node.inputs[0], *inputs], output, axes=[2, 3],
           mode=layer.mode, coordinate_transformation_mode=layer.coordinates,
           nearest_mode=layer.nearest if layer.mode == "nearest" else None)


def max_unpool(b: Builder, node: Node, layer: Any, output: str) -> None:
    """MaxUnpool with the indices of the pool, run again on its input."""
    sizes = {"kernel_shape": layer._window, "strides": layer._stride, "pads": _pads(layer._pads)}
    pooled, indices = b.inner(node, "pooled"), b.inner(node, "indices")
    b.nodes.append(helper.make_node("MaxPool", [node.inputs[1]], [pooled, indices], name=f"node/{pooled}",
                                    ceil_mode=int(layer.ceil_mode), **sizes))
    shape = b.emit("Shape", [node.inputs[1]], b.inner(node, "shape"))
    b.emit("MaxUnpool", [node.inputs[0], indices, shape], output, **sizes)


EXPORTERS: dict[str, Callable[..., None]] = {
    "Convolution": convolution, "TransposedConvolution": transposed, "Linear": linear, "MaxPool": max_pool,
    "AveragePool": average_pool, "GlobalAveragePool": whole_pool("GlobalAveragePool"),
    "GlobalMaxPool": whole_pool("GlobalMaxPool"), "ResponseNorm": response_norm,
    "ContrastNorm": contrast_norm, "BatchNorm": batch_norm, "Dropout": dropout, "Add": add,
    "ReLU": simple("Relu"), "Sigmoid": simple("Sigmoid"), "Tanh": simple("Tanh"), "Subtract": simple("Sub"),
    "Multiply": simple("Mul"), "Divide": simple("Div"), "Concat": simple("Concat", axis=1),
    "Flatten": simple("Flatten", axis=1), "Softmax": simple("Softmax", axis=1),
    "LogSoftmax": simple("LogSoftmax", axis=1), "LeakyReLU": leaky_relu, "Clip": clip, "PReLU": prelu,
    "Scale": scale, "Expand": expand, "Rearrange": rearrange, "Slice": slices, "Pad": pad, "Resize": resize,
    "MaxUnpool": max_unpool,
}
