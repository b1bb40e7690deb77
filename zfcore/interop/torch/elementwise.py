"""Layers for calls that look at one element at a time, arithmetic, slices, padding and resizing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...layers import (
    Add,
    Clip,
    Divide,
    Expand,
    Layer,
    LeakyReLU,
    LogSoftmax,
    Multiply,
    Pad,
    PReLU,
    Resize,
    Scale,
    Sigmoid,
    Slice,
    Subtract,
    Tanh,
    TransposedConvolution,
)
from .making import Made, Shape, Values, arrays, one, pair, require, shape_of


def pointwise(layer: Callable[[], Layer]) -> Callable[[Values, Shape], Made]:
    """A layer without settings."""

    def made(values: Values, shape: Shape) -> Made:
        shape_of(values["input"])
        return Made(layer(), [values["input"]])

    return made


def clip(low: str | float, high: str | float) -> Callable[[Values, Shape], Made]:
    """Clip between numbers, or between the arguments of these names."""

    def made(values: Values, shape: Shape) -> Made:
        shape_of(values["input"])
        bounds = [values.get(bound, {"min_val": -1.0, "max_val": 1.0}.get(bound)) if isinstance(bound, str)
                  else bound for bound in (low, high)]
        require(all(bound is None or isinstance(bound, (int, float)) for bound in bounds), "bounds that are tensors")
        return Made(Clip(*bounds), [values["input"]])

    return made


def leaky_relu(values: Values, shape: Shape) -> Made:
    """LeakyReLU."""
    shape_of(values["input"])
    return Made(LeakyReLU(float(values.get("negative_slope", 0.01))), [values["input"]])


def prelu(values: Values, shape: Shape) -> Made:
    """PReLU with one slope, or one for every map."""
    shape_of(values["input"])
    slope = arrays(values, slope="weight")
    require("slope" in slope, "slopes that are computed")
    return Made(PReLU((1,) if slope["slope"].numel() == 1 else ()), [values["input"]], slope)


def _hard_sigmoid(x: fx.Node) -> Made:
    sixth = Made(Scale((1,)), [x], {"scale": torch.tensor([1 / 6]), "bias": torch.tensor([0.5])}, "sixth")
    return Made(Clip(0.0, 1.0), [sixth], part="gate")


def hard_sigmoid(values: Values, shape: Shape) -> Made:
    """min(max(x / 6 + 1 / 2, 0), 1)."""
    shape_of(values["input"])
    return _hard_sigmoid(values["input"])


def hard_swish(values: Values, shape: Shape) -> Made:
    """x times its hard sigmoid."""
    shape_of(values["input"])
    return Made(Multiply(), [values["input"], _hard_sigmoid(values["input"])])


def silu(values: Values, shape: Shape) -> Made:
    """x times its sigmoid."""
    shape_of(values["input"])
    return Made(Multiply(), [values["input"], Made(Sigmoid(), [values["input"]], part="gate")])


def log_softmax(values: Values, shape: Shape) -> Made:
    """Logarithm of the softmax over classes or maps."""
    require(values.get("dim") in (1, 1 - len(shape)), f"dim {values.get('dim')}")
    return Made(LogSoftmax(), [values["input"]])


def _constant(value: Any, before: Shape, shape: Shape) -> torch.Tensor | None:
    """A constant operand as one number, or one for every map; None if it is no constant."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.tensor([value], dtype=torch.float64)
    if not isinstance(value, torch.Tensor):
        return None
    require(before == shape, "a constant that broadcasts its tensor")
    if value.numel() == 1:
        return value.reshape(1)
    aligned = (1,) * (len(before) - value.ndim) + tuple(value.shape)
    require(aligned == (1, before[1], *(1 for _ in before[2:])), "a constant that differs from place to place")
    return value.reshape(-1)


def _scaled(node: Any, scale: torch.Tensor | None, bias: torch.Tensor | None) -> Made:
    given = {key: value for key, value in (("scale", scale), ("bias", bias)) if value is not None}
    sizes = {value.numel() for value in given.values()}
    shape = (1,) if sizes == {1} else ()
    return Made(Scale(shape, scale is not None, bias is not None), [node], given)


def arithmetic(kind: type[Layer]) -> Callable[[Values, Shape], Made]:
    """Sum, difference, product or quotient of tensors, which broadcast, or of a tensor and a constant."""

    def made(values: Values, shape: Shape) -> Made:
        require(values.get("alpha", 1) == 1, "alpha")
        require(values.get("rounding_mode") is None, "rounding_mode")
        first, second = values["input"], values.get("other")
        if isinstance(first, fx.Node) and isinstance(second, fx.Node):
            return Made(kind(), [_expanded(item, shape) for item in (first, second)])
        swapped = not isinstance(first, fx.Node)
        node, number = (second, first) if swapped else (first, second)
        constant = _constant(number, shape_of(node), shape)
        require(constant is not None, f"an operand {number!r}")
        assert constant is not None
        if kind is Add:
            return _scaled(node, None, constant)
        if kind is Multiply:
            return _scaled(node, constant, None)
        if kind is Subtract:
            return _scaled(node, -torch.ones_like(constant), constant) if swapped else _scaled(
                node, None, -constant)
        require(not swapped, "a constant divided by a tensor")
        return _scaled(node, 1 / constant.double(), None)

    return made


def _expanded(node: fx.Node, shape: Shape) -> fx.Node | Made:
    """The tensor, repeated to a shape (N, C, H, W) or (N, C)."""
    before = shape_of(node)
    if before == shape:
        return node
    require(len(before) == len(shape) and before[0] == shape[0] and len(shape) in (2, 4),
            f"tensors of shapes {before} and {shape}")
    return Made(Expand((*shape[2:], shape[1])), [node], part="expanded")


def transposed_convolution(values: Values, shape: Shape) -> Made:
    """ConvTranspose2d."""
    shape_of(values["input"], 4)
    parameters = arrays(values, weight="weight", bias="bias")
    require("weight" in parameters, "weight that is computed")
    groups = values.get("groups", 1)
    _, filters, *window = parameters["weight"].shape
    layer = TransposedConvolution(
        filters * groups, one((window[0], window[1])), one(pair(values.get("stride", 1))),
        one(pair(values.get("padding", 0))), one(pair(values.get("dilation", 1))), groups,
        one(pair(values.get("output_padding", 0))), bias="bias" in parameters)
    return Made(layer, [values["input"]], parameters)


def interpolate(values: Values, shape: Shape) -> Made | None:
    """Upsample: nearest or bilinear."""
    before = shape_of(values["input"], 4)
    mode, corners = values.get("mode", "nearest"), bool(values.get("align_corners"))
    require(not values.get("antialias"), "antialias")
    require(mode in ("nearest", "nearest-exact", "bilinear"), f"mode {mode!r}")
    if before == shape:
        return None
    factors = values.get("scale_factor")
    scales = None
    if factors is not None and not values.get("recompute_scale_factor") and not corners:
        both = factors if isinstance(factors, (tuple, list)) else (factors, factors)
        scales = float(both[0]), float(both[1])
    coordinates = {"nearest": "asymmetric"}.get(mode, "align_corners" if corners else "half_pixel")
    rounding = {"nearest": "floor", "nearest-exact": "round_prefer_ceil"}.get(mode, "round_prefer_floor")
    layer = Resize((shape[2], shape[3]), "linear" if mode == "bilinear" else "nearest", coordinates, rounding, scales)
    return Made(layer, [values["input"]])


def pad(values: Values, shape: Shape) -> Made:
    """Padding of rows, columns and maps by a number, mirrored cells or the border's."""
    shape_of(values["input"], 4)
    sides = values["pad"]
    sides = list(sides) if isinstance(sides, (tuple, list)) else [sides] * 4
    require(len(sides) % 2 == 0 and all(isinstance(item, int) for item in sides), f"padding {values['pad']!r}")
    sides += [0] * (8 - len(sides))
    require(sides[6:] == [0, 0], "padding of the batch")
    mode = str(values.get("mode") or "constant").replace("replicate", "edge")
    require(mode in ("constant", "reflect", "edge"), f"mode {mode!r}")
    left, right, top, bottom, before, after = sides[:6]
    return Made(Pad((top, bottom, left, right), (before, after), mode, float(values.get("value") or 0.0)),
                [values["input"]])


def maps(values: Values, shape: Shape) -> Made | None:
    """x[:, a:b]: some of the maps."""
    before, index = shape_of(values["input"]), values["index"]
    index = index if isinstance(index, (tuple, list)) else [index]
    whole = [slice(None)] * len(before)
    whole[:len(index)] = index
    require(Ellipsis not in index and all(isinstance(item, slice) for item in whole), "an index other than slices")
    require(all(item == slice(None) for axis, item in enumerate(whole) if axis != 1), "a slice of other axes")
    bounds = (whole[1].start, whole[1].stop, whole[1].step)
    require(all(item is None or isinstance(item, int) for item in bounds), "a slice whose bounds are computed")
    start, stop, step = whole[1].indices(before[1])
    require(step == 1 and start < stop, "a slice with steps")
    return None if (start, stop) == (0, before[1]) else Made(Slice(start, stop), [values["input"]])


LAYERS: dict[str, Callable[[Values, Shape], Made | None]] = {
    "relu6": clip(0.0, 6.0), "hardtanh": clip("min_val", "max_val"), "clamp": clip("min", "max"),
    "leaky_relu": leaky_relu, "prelu": prelu, "sigmoid": pointwise(Sigmoid), "tanh": pointwise(Tanh),
    "silu": silu, "hardsigmoid": hard_sigmoid, "hardswish": hard_swish, "log_softmax": log_softmax,
    "add": arithmetic(Add), "sub": arithmetic(Subtract), "mul": arithmetic(Multiply), "div": arithmetic(Divide),
    "conv_transpose2d": transposed_convolution, "interpolate": interpolate, "pad": pad, "getitem": maps,
}
