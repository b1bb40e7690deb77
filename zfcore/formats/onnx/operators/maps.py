"""Operators on maps: convolutions, pools, normalisations, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....layers import (
    AveragePool,
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    GlobalMaxPool,
    Linear,
    MaxPool,
    MaxUnpool,
    Pad,
    Resize,
    ResponseNorm,
    Scale,
    TransposedConvolution,
)
from ..convert import Converter, Entry, Unsupported, Value, operator
from ..graph import Operation
from ..views import Part, View, canonical, last_first
from . import dilated

LOWEST = float(np.finfo(np.float32).min)  # -inf has no place in JSON
WEIGHT_SUFFIXES = (".weight", "_w_0", "/weight", "_weight", ".scale")


def hint(name: str) -> str | None:
    """The layer's name in a weight's name, where the file follows one of the customs."""
    for suffix in WEIGHT_SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix) and not name.startswith("onnx::"):
            return name[: -len(suffix)]
    return None


def as_maps(c: Converter, value: Value) -> tuple[Entry, int]:
    """The tensor as (height, width, maps), and how many of its axes are places: 2, or 1 (height 1)."""
    c.need_batch()
    places = len(value.view.axes) - 1
    if places not in (1, 2):
        raise Unsupported(f"its input has rank {places + 2}; allowed: 4, or 3")
    order = last_first(places + 1)
    sizes = tuple(value.view.shape[axis] for axis in order)
    return c.arranged(value, order, (1,) * (2 - places) + sizes), places


def from_maps(entry: Entry, places: int) -> View:
    """The ONNX tensor that maps stand for."""
    return canonical(entry.shape[2 - places:])


def _sizes(node: Operation, name: str, places: int, default: int, least: int = 0) -> list[int]:
    """(vertical, horizontal) of an attribute with one number an axis."""
    values = list(node.integers(name, (default,) * places))
    if len(values) != places or any(not least <= value < 2**31 for value in values):
        raise Unsupported(f"{name} is {values[:8]}, on {places} axes")
    return [default] * (2 - places) + values


def _padding(node: Operation, size: Sequence[int], window: Sequence[int], stride: Sequence[int],
             dilation: Sequence[int], places: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) from `pads` or `auto_pad`."""
    automatic = node.attributes.get("auto_pad", "NOTSET")
    pads = list(node.integers("pads", (0,) * (2 * places)))
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        result = []
        for axis in range(2):
            span = dilation[axis] * (window[axis] - 1) + 1
            total = max((-(-size[axis] // stride[axis]) - 1) * stride[axis] + span - size[axis], 0)
            less, more = total // 2, total - total // 2
            result += [less, more] if automatic == "SAME_UPPER" else [more, less]
        return result[0], result[1], result[2], result[3]
    if automatic == "VALID":
        pads = [0] * (2 * places)
    elif automatic not in ("NOTSET", ""):
        raise Unsupported(f"auto_pad is {automatic!r}")
    if len(pads) != 2 * places or any(not 0 <= value < 2**31 for value in pads):
        raise Unsupported(f"pads are {pads[:8]}")
    before, after = [0] * (2 - places) + pads[:places], [0] * (2 - places) + pads[places:]
    return before[0], after[0], before[1], after[1]


def _filters(c: Converter, node: Operation, places: int) -> tuple[np.ndarray, list[int]]:
    """The filters as (first, second, rows, columns), and their window."""
    weight = c.weights(node, 1)
    if weight.ndim != places + 2 or not weight.size:
        raise Unsupported(f"its weight has shape {weight.shape}")
    if places == 1:
        weight = weight[:, :, None, :]
    window = [int(size) for size in weight.shape[2:]]
    given = node.attributes.get("kernel_shape")
    if given is not None and list(given) != window[2 - places:]:
        raise Unsupported(f"kernel_shape is {list(given)[:4]}, but its weight's is {window[2 - places:]}")
    return weight, window


@operator("Conv")
def convolution(c: Converter, node: Operation) -> None:
    """Convolution, of one or two axes."""
    entry, places = as_maps(c, c.value(node, 0))
    weight, window = _filters(c, node, places)
    stride = _sizes(node, "strides", places, 1, 1)
    dilation = _sizes(node, "dilations", places, 1, 1)
    groups = int(node.attributes.get("group", 1))
    parameters = {"weight": weight.transpose(0, 2, 3, 1)}
    if c.given(node, 2):
        parameters["bias"] = c.weights(node, 2)
    padding = _padding(node, entry.shape, window, stride, dilation, places)
    try:
        layer = Convolution(weight.shape[0], (window[0], window[1]), (stride[0], stride[1]), padding,
                            (dilation[0], dilation[1]), groups, "bias" in parameters)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], node.outputs[0], parameters, hint(node.inputs[1]), "Conv")
    c.define(node, made, from_maps(made, places))


@operator("ConvTranspose")
def transposed_convolution(c: Converter, node: Operation) -> None:
    """The adjoint of a convolution."""
    entry, places = as_maps(c, c.value(node, 0))
    weight, window = _filters(c, node, places)
    stride = _sizes(node, "strides", places, 1, 1)
    dilation = _sizes(node, "dilations", places, 1, 1)
    more = _sizes(node, "output_padding", places, 0)
    groups = int(node.attributes.get("group", 1))
    automatic = node.attributes.get("auto_pad", "NOTSET")
    wanted = node.attributes.get("output_shape")
    if wanted is None and automatic in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [entry.shape[axis] * stride[axis] for axis in range(2 - places, 2)]
    if wanted is None:
        padding = _padding(node, entry.shape, window, stride, dilation, places)
    else:
        sizes = [1] * (2 - places) + [int(size) for size in wanted][-places:]
        sides = []
        for axis in range(2):
            span = dilation[axis] * (window[axis] - 1) + 1
            total = stride[axis] * (entry.shape[axis] - 1) + more[axis] + span - sizes[axis]
            if total < 0:  # the output is larger than the input reaches
                more[axis], total = more[axis] - total, 0
            half, rest = total // 2, total - total // 2
            sides += [half, rest] if automatic == "SAME_UPPER" else [rest, half]
        padding = sides[0], sides[1], sides[2], sides[3]
    parameters = {"weight": weight.transpose(0, 2, 3, 1)}
    if c.given(node, 2):
        parameters["bias"] = c.weights(node, 2)
    try:
        layer = TransposedConvolution(weight.shape[1] * groups, (window[0], window[1]), (stride[0], stride[1]),
                                      padding, (dilation[0], dilation[1]), groups, (more[0], more[1]),
                                      "bias" in parameters)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], node.outputs[0], parameters, hint(node.inputs[1]), "ConvTranspose")
    c.define(node, made, from_maps(made, places))


def _window(c: Converter, node: Operation, entry: Entry, places: int) -> tuple[Any, Any, Any, Any, bool]:
    """Window, stride, dilation, padding and ceil mode of a pool."""
    if "kernel_shape" not in node.attributes:
        raise Unsupported("kernel_shape is missing")
    window = _sizes(node, "kernel_shape", places, 1, 1)
    stride = _sizes(node, "strides", places, 1, 1)
    dilation = _sizes(node, "dilations", places, 1, 1)
    padding = _padding(node, entry.shape, window, stride, dilation, places)
    return ((window[0], window[1]), (stride[0], stride[1]), (dilation[0], dilation[1]), padding,
            bool(node.attributes.get("ceil_mode", 0)))


def _wide(padding: Sequence[int], window: Sequence[int]) -> bool:
    """Whether padding is more than half the window, which pools do not take."""
    return max(padding[:2]) > window[0] // 2 or max(padding[2:]) > window[1] // 2


def _dilated(c: Converter, *arguments: Any) -> Entry:
    """A pool with holes; what its layers say against it is `Unsupported`."""
    try:
        return dilated.pool(c, *arguments)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None


@operator("MaxPool")
def max_pool(c: Converter, node: Operation) -> None:
    """Max pooling; padding of more than half the window becomes a layer before it, of the lowest number."""
    entry, places = as_maps(c, c.value(node, 0))
    window, stride, dilation, padding, ceil_mode = _window(c, node, entry, places)
    if window[0] * window[1] > 256:
        raise Unsupported(f"its window is {window}; allowed: an area of at most 256")
    if dilation != (1, 1):
        if len(node.outputs) > 1 and node.outputs[1]:
            raise Unsupported(f"dilations are {dilation}; allowed: 1 where its indices are wanted")
        made = _dilated(c, entry, MaxPool, LOWEST, window, stride, dilation, padding, ceil_mode, True, node.outputs[0])
        c.define(node, made, from_maps(made, places))
        return
    if _wide(padding, window):
        if ceil_mode:
            raise Unsupported("padding is more than half the window in ceil mode")
        entry = c.emit(Pad(padding, value=LOWEST), [entry], node.outputs[0] + "_padded")
        padding = (0, 0, 0, 0)
    made = c.emit(MaxPool(window, stride, padding, ceil_mode), [entry], node.outputs[0], op="MaxPool")
    c.define(node, made, from_maps(made, places))
    if len(node.outputs) > 1 and node.outputs[1]:
        c.pools[node.outputs[1]] = made, node


@operator("AveragePool")
def average_pool(c: Converter, node: Operation) -> None:
    """Average pooling; padding of more than half the window becomes a layer of zeros before it."""
    entry, places = as_maps(c, c.value(node, 0))
    window, stride, dilation, padding, ceil_mode = _window(c, node, entry, places)
    counted = bool(node.attributes.get("count_include_pad", 0))
    name = node.outputs[0]
    if dilation != (1, 1):
        made = _dilated(c, entry, AveragePool, 0.0, window, stride, dilation, padding, ceil_mode, counted, name)
        c.define(node, made, from_maps(made, places))
        return
    layer = AveragePool(window, stride, padding, ceil_mode, "padded" if counted else "valid")
    if not _wide(padding, window):
        made = c.emit(layer, [entry], name, op="AveragePool")
        c.define(node, made, from_maps(made, places))
        return
    if ceil_mode:
        raise Unsupported("padding is more than half the window in ceil mode")
    size = entry.shape
    entry = c.emit(Pad(padding), [entry], name + "_padded")
    made = c.emit(AveragePool(window, stride), [entry], name if counted else name + "_pooled", op="AveragePool")
    if not counted:
        c.budget.take(f"the divisors of {name[:200]!r}", 16 * (made.shape[0] * made.shape[1] + sum(made.shape)))
        factors = [_share(size[axis], padding[2 * axis], window[axis], stride[axis], made.shape[axis])
                   for axis in range(2)]
        made = c.emit(Scale((*made.shape[:2], 1), bias=False), [made], name,
                      {"scale": (factors[0][:, None] * factors[1])[:, :, None]})
    c.define(node, made, from_maps(made, places))


def _share(size: int, before: int, window: int, stride: int, count: int) -> np.ndarray:
    """Along one axis, a window's cells for each one that lies inside the map."""
    start = np.arange(count) * stride - before
    inside = np.minimum(start + window, size) - np.maximum(start, 0)
    if (inside < 1).any():
        raise Unsupported("a window lies wholly in the padding, which is not counted")
    return window / inside


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(c: Converter, node: Operation) -> None:
    """A pool over all places."""
    c.need_batch()
    value = c.value(node, 0)
    shape = value.view.shape
    if not shape:
        raise Unsupported("its input has no maps")
    order = last_first(len(shape))
    sizes = tuple(shape[axis] for axis in order)
    maps = sizes if len(sizes) == 3 else (math.prod(sizes[:-1]), 1, sizes[-1])
    entry = c.arranged(value, order, maps)
    layer = GlobalAveragePool() if node.op == "GlobalAveragePool" else GlobalMaxPool()
    made = c.emit(layer, [entry], node.outputs[0], op=node.op)
    part = Part(shape[0])
    c.define(node, made, View((part,), ((part,), *(() for _ in shape[1:]))))


def _unpooled(c: Converter, node: Operation, entry: Entry, places: int) -> list[int]:
    """Sizes of an unpooled map, where the file does not say."""
    window, stride, _, padding, _ = _window(c, node, entry, places)
    return [(entry.shape[axis] - 1) * stride[axis] + window[axis] - padding[2 * axis] - padding[2 * axis + 1]
            for axis in range(2 - places, 2)]


def _unpool_constant(c: Converter, node: Operation, places: int) -> None:
    """Unpooling of one image by indices that are given: a matrix of zeros and ones.

    Indices count through the maps of the size that the windows say; a larger output has zeros around.
    """
    value = c.value(node, 0)
    entry, shape = as_maps(c, value)[0], value.view.shape
    indices = c.constant(node, 1)
    if indices.shape != (1, *shape) or indices.dtype.kind not in "iu":
        raise Unsupported(f"its indices have shape {indices.shape}; allowed: those of one image, {(1, *shape)}")
    inner = _unpooled(c, node, entry, places)
    if min(inner) < 1:
        raise Unsupported(f"its output's size is {inner}")
    size, count = math.prod(shape), math.prod((shape[0], *inner))
    flat = indices.reshape(-1)
    if flat.min() < 0 or flat.max() >= count or len(np.unique(flat)) != size:
        raise Unsupported(f"its indices are not different numbers from 0 to {count - 1}")
    c.budget.take(f"the unpooling of {node.outputs[0][:200]!r}", 8 * size * count)
    matrix = np.zeros((count, size), np.float32)
    matrix[flat, np.arange(size)] = 1
    vector, matrix = c.vector(value, matrix)
    made = c.emit(Linear(count, bias=False), [vector], node.outputs[0], {"weight": matrix}, op="MaxUnpool")
    parts = tuple(Part(each) for each in (shape[0], *inner))
    view = View(parts, tuple((part,) for part in parts))
    outer = [int(each) for each in c.constant(node, 2)][-places:] if c.given(node, 2) else inner
    if outer != inner:
        more = [0] * (2 - places) + [large - small for large, small in zip(outer, inner, strict=True)]
        entry = as_maps(c, Value(made, view, node.outputs[0]))[0]
        try:
            layer = Pad((0, more[0], 0, more[1]))
        except (ValueError, TypeError) as error:
            raise Unsupported(str(error)) from None
        made = c.emit(layer, [entry], node.outputs[0] + "_padded", op="MaxUnpool")
        view = from_maps(made, places)
    c.define(node, made, view)


@operator("MaxUnpool")
def max_unpool(c: Converter, node: Operation) -> None:
    """Unpooling by the indices of a MaxPool of the same graph."""
    entry, places = as_maps(c, c.value(node, 0))
    if c.is_constant(node, 1):
        _unpool_constant(c, node, places)
        return
    if not c.given(node, 1) or node.inputs[1] not in c.pools:
        raise Unsupported("its indices do not come from a MaxPool of the graph")
    pool, maker = c.pools[node.inputs[1]]
    layer, source = pool.layer, pool.inputs[0]
    assert isinstance(layer, MaxPool)
    if maker.attributes.get("storage_order", 0):
        raise Unsupported("its indices are in column-major order")
    if c.given(node, 2):
        size = [int(value) for value in c.constant(node, 2)][-places:]
    else:
        size = _unpooled(c, node, entry, places)
    if tuple(size) != source.shape[2 - places:2]:
        raise Unsupported(f"its output's size is {size}; allowed: {source.shape[2 - places:2]}, "
                          "that of the pool's input")
    try:
        unpool = MaxUnpool(layer.window, layer.stride, layer.padding, layer.ceil_mode)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(unpool, [entry, source], node.outputs[0], op="MaxUnpool")
    c.define(node, made, from_maps(made, places))


@operator("LRN")
def response_norm(c: Converter, node: Operation) -> None:
    """Normalisation across maps; ONNX's window of an even size is the mirror image of cuda-convnet's."""
    entry, places = as_maps(c, c.value(node, 0))
    size = node.attributes.get("size")
    if not isinstance(size, int) or size < 1:
        raise Unsupported(f"size is {size}")
    alpha, beta, k = (float(node.attributes.get(name, default))
                      for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    try:
        layer = ResponseNorm(size, alpha, beta, k, alpha_is_divided_by_size=True, mirrored=size % 2 == 0)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], node.outputs[0], op="LRN")
    c.define(node, made, from_maps(made, places))


@operator("BatchNormalization")
def batch_norm(c: Converter, node: Operation) -> None:
    """Batch normalisation at inference."""
    c.need_batch()
    if node.attributes.get("training_mode", 0) or any(c.readers[name] for name in node.outputs[1:]):
        raise Unsupported("it is in training mode")
    if not node.attributes.get("spatial", 1):
        raise Unsupported("its statistics are not one for each map (spatial is 0)")
    value = c.value(node, 0)
    shape = value.view.shape
    entry = c.standard(value)
    parameters = {name: c.weights(node, index)
                  for index, name in enumerate(("scale", "bias", "mean", "variance"), 1)}
    try:
        layer = BatchNorm(float(np.float32(node.attributes.get("epsilon", 1e-5))),
                          float(node.attributes.get("momentum", 0.9)))
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], node.outputs[0], parameters, hint(node.inputs[1]), "BatchNormalization")
    c.define(node, made, canonical([shape[axis] for axis in last_first(len(shape))]))


@operator("Pad")
def pad(c: Converter, node: Operation) -> None:
    """Padding of up to three axes of the items."""
    value = c.value(node, 0)
    rank = len(value.view.axes)
    if rank > 3:
        raise Unsupported(f"its input has rank {rank + c.first}")
    pads = c.numbers(node, 1, "pads")
    if pads is None:
        pads = c.numbers(node, 99, "paddings")
    axes = list(range(rank + c.first))
    if c.given(node, 3):
        axes = [int(axis) % (rank + c.first) for axis in c.constant(node, 3).reshape(-1)]
    if pads is None or len(pads) != 2 * len(axes):
        raise Unsupported(f"pads are {None if pads is None else pads[:8]}")
    fill = float(c.constant(node, 2).reshape(-1)[0]) if c.given(node, 2) else float(
        node.attributes.get("value", 0.0))
    each = [(0, 0)] * (rank + c.first)
    for place, axis in enumerate(axes):
        each[axis] = pads[place], pads[place + len(axes)]
    if c.first and each[0] != (0, 0):
        raise Unsupported("it pads the batch axis")
    inner = each[c.first:]
    if not any(sum(map(abs, pair)) for pair in inner):
        c.define(node, value.entry, value.view)
        return
    order = last_first(rank)
    sizes = [(0, 0)] * (3 - rank) + [inner[axis] for axis in order]
    shape = (1,) * (3 - rank) + tuple(value.view.shape[axis] for axis in order)
    try:
        layer = Pad((*sizes[0], *sizes[1]), sizes[2], node.attributes.get("mode", "constant"), fill)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [c.arranged(value, order, shape)], node.outputs[0], op="Pad")
    c.define(node, made, canonical(made.shape[3 - rank:]))


@operator("Resize", "Upsample")
def resize(c: Converter, node: Operation) -> None:
    """Resizing of maps to the nearest cell or linearly."""
    value = c.value(node, 0)
    entry, places = as_maps(c, value)
    attributes = node.attributes
    mode = attributes.get("mode", "nearest")
    if mode == "bilinear":
        mode = "linear"
    old = node.op == "Upsample" or c.opset < 11
    coordinates = "asymmetric" if old else attributes.get("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else attributes.get("nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", "linear") or attributes.get("antialias", 0):
        smooth = " with antialias" if attributes.get("antialias", 0) else ""
        raise Unsupported(f"its interpolation mode is {mode!r}{smooth}")
    if coordinates == "tf_crop_and_resize":
        raise Unsupported(f"its interpolation mode is {coordinates!r}")
    whole = [1, *value.view.shape]
    axes = [int(axis) % len(whole) for axis in attributes.get("axes", range(len(whole)))]
    scales = [1.0] * len(whole)
    sizes: list[int] = list(whole)
    if not old and c.given(node, 3):
        given = [int(size) for size in c.constant(node, 3).reshape(-1)]
        if len(given) != len(axes):
            raise Unsupported(f"sizes are {given[:8]}, on {len(axes)} axes")
        if 0 in axes and given[axes.index(0)] not in (c.batch, 1):
            raise Unsupported("it resizes the batch axis")
        factors = [1.0 if axis == 0 else size / whole[axis] for axis, size in zip(axes, given, strict=True)]
        policy = attributes.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            chosen = min(factors) if policy == "not_larger" else max(factors)
            factors = [chosen] * len(axes)
            given = [math.floor(chosen * whole[axis] + 0.5) for axis in axes]
        for axis, factor, size in zip(axes, factors, given, strict=True):
            if axis:
                scales[axis], sizes[axis] = factor, size
    else:
        index = 1 if old else 2
        numbers = (c.weights(node, index).reshape(-1).tolist() if c.given(node, index)
                   else [float(scale) for scale in attributes.get("scales", ())])
        if len(numbers) != len(axes) or any(not 0 < scale < 1e6 for scale in numbers):
            raise Unsupported(f"scales are {numbers[:8]}, on {len(axes)} axes")
        for axis, scale in zip(axes, numbers, strict=True):
            scales[axis], sizes[axis] = scale, math.floor(whole[axis] * scale)
    if scales[:2] != [1.0, 1.0]:
        raise Unsupported(f"its scales are {scales[:8]}; allowed: 1 for images and maps")
    result = [1] * (2 - places) + sizes[2:]
    factors = [1.0] * (2 - places) + scales[2:]
    exact = all(factor == out / entry.shape[axis]
                for axis, (factor, out) in enumerate(zip(factors, result, strict=True)))
    try:
        layer = Resize((result[0], result[1]), mode, coordinates, nearest, None if exact else (factors[0], factors[1]))
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], node.outputs[0], op=node.op)
    c.define(node, made, from_maps(made, places))
