"""A layer for each kind of call, from its arguments by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ...layers import (
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    Softmax,
)
from . import elementwise
from .making import Made, Shape, Values, WholePool, arrays, one, pair, require, shape_of


def convolution(values: Values, shape: Shape) -> Made:
    """Conv2d, padding by zeros, by numbers or by name."""
    shape_of(values["input"], 4)
    mode = values.get("padding_mode", "zeros")
    require(mode == "zeros", f"padding_mode {mode!r}")
    parameters = arrays(values, weight="weight", bias="bias")
    require("weight" in parameters, "weight that is computed")
    filters, _, *window = parameters["weight"].shape
    dilation, stride = pair(values.get("dilation", 1)), pair(values.get("stride", 1))
    padding = values.get("padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # PyTorch's: the odd cell goes after, at stride 1, as here
        require(stride == (1, 1), "padding 'same' with a stride")
    else:
        padding = one(pair(padding))
    layer = Convolution(filters, one((window[0], window[1])), one(stride), padding, one(dilation),
                        values.get("groups", 1), bias="bias" in parameters)
    return Made(layer, [values["input"]], parameters)


def linear(values: Values, shape: Shape) -> Made:
    """Linear on (N, features)."""
    shape_of(values["input"], 2)
    parameters = arrays(values, weight="weight", bias="bias")
    require("weight" in parameters, "weight that is computed")
    return Made(Linear(parameters["weight"].shape[0], bias="bias" in parameters), [values["input"]], parameters)


def relu(values: Values, shape: Shape) -> Made:
    """ReLU in all its spellings."""
    return Made(ReLU(), [values["input"]])


def _pool_sizes(values: Values) -> dict[str, Any]:
    window = pair(values["kernel_size"])
    stride = values.get("stride")
    stride = window if stride is None or stride == [] else pair(stride)
    return {"window": one(window), "stride": one(stride), "padding": one(pair(values.get("padding", 0))),
            "ceil_mode": bool(values.get("ceil_mode", False))}


def max_pool(values: Values, shape: Shape) -> Made:
    """MaxPool2d without dilation."""
    shape_of(values["input"], 4)
    require(pair(values.get("dilation", 1)) == (1, 1), "dilation")
    require(not values.get("return_indices"), "return_indices")
    sizes = _pool_sizes(values)
    require(math.prod(pair(sizes["window"])) <= 256, "a window of more than 256 cells")
    return Made(MaxPool(**sizes), [values["input"]])


def average_pool(values: Values, shape: Shape) -> Made:
    """AvgPool2d, counting the padding or not."""
    shape_of(values["input"], 4)
    sizes = _pool_sizes(values)
    override = values.get("divisor_override")
    divisor = "padded" if values.get("count_include_pad", True) else "valid"
    if override is not None:
        require(override == math.prod(pair(sizes["window"])), f"divisor_override {override}")
        divisor = "window"
    if sizes["padding"] == 0 and not sizes["ceil_mode"]:
        divisor = "valid"  # all the same then, and the crops know it
    return Made(AveragePool(**sizes, divisor=divisor), [values["input"]])


def adaptive(kind: str) -> Callable[[Values, Shape], Made | None]:
    """AdaptiveAvgPool2d and AdaptiveMaxPool2d, to one cell or to sizes that divide the input's."""

    def made(values: Values, shape: Shape) -> Made | None:
        before = shape_of(values["input"], 4)[2:]
        after = shape[2:]
        if before == after:
            return None
        if after == (1, 1):
            return Made(WholePool((before[0], before[1]), kind), [values["input"]])
        require(before[0] % after[0] == 0 and before[1] % after[1] == 0,
                 f"{before[0]} x {before[1]} cells to {after[0]} x {after[1]}, which does not divide them")
        window = one((before[0] // after[0], before[1] // after[1]))
        return Made(AveragePool(window) if kind == "average" else MaxPool(window), [values["input"]])

    return made


def batch_norm(values: Values, shape: Shape) -> Made:
    """BatchNorm with its running statistics; without scale and bias these are 1 and 0."""
    require(len(shape_of(values["input"])) in (2, 4), "an input of another rank than 2 and 4")
    parameters = arrays(values, scale="weight", bias="bias", mean="running_mean", variance="running_var")
    require("mean" in parameters and "variance" in parameters, "no running statistics")
    parameters.setdefault("scale", torch.ones_like(parameters["mean"]))
    parameters.setdefault("bias", torch.zeros_like(parameters["mean"]))
    momentum = values.get("momentum", 0.1)
    require(momentum is not None and momentum > 0, "a cumulative average")
    return Made(BatchNorm(float(values.get("eps", 1e-5)), 1 - momentum), [values["input"]], parameters)


def response_norm(values: Values, shape: Shape) -> Made:
    """LocalResponseNorm, whose alpha is divided by its size."""
    shape_of(values["input"], 4)
    layer = ResponseNorm(values["size"], float(values.get("alpha", 1e-4)), float(values.get("beta", 0.75)),
                         float(values.get("k", 1.0)), alpha_is_divided_by_size=True)
    return Made(layer, [values["input"]])


def dropout(values: Values, shape: Shape) -> Made | None:
    """Dropout: the identity at inference, kept for training on."""
    rate = values.get("p", 0.5)
    return Made(Dropout(rate), [values["input"]]) if 0 < rate < 1 else None


def softmax(values: Values, shape: Shape) -> Made:
    """Softmax over the classes of (N, classes)."""
    shape_of(values["input"], 2)
    require(values.get("dim") in (1, -1), f"dim {values.get('dim')}")
    return Made(Softmax(), [values["input"]])


def concat(values: Values, shape: Shape) -> Made:
    """Tensors side by side on the channel axis."""
    tensors = values["tensors"]
    rank = len(shape_of(tensors[0]))
    require(rank in (2, 4), f"inputs of {rank} dimensions")
    require(values.get("dim", 0) in (1, 1 - rank), f"dim {values.get('dim', 0)}")
    return Made(Concat(), list(tensors))


def mean(values: Values, shape: Shape) -> Made:
    """Mean over rows and columns."""
    before = shape_of(values["input"], 4)
    axes = values.get("dim")
    axes = axes if isinstance(axes, (tuple, list)) else [axes]
    require(all(isinstance(axis, int) for axis in axes) and sorted(axis % 4 for axis in axes) == [2, 3],
             f"dim {values.get('dim')}")
    if len(shape) == 4:
        return Made(WholePool((before[2], before[3])), [values["input"]])
    return Made(GlobalAveragePool(), [values["input"]])


def reshape(values: Values, shape: Shape) -> Made | None:
    """Any change of shape that takes maps apart.

    What is not maps is a vector here, whatever its shape there: the order of its numbers is the same.
    """
    before = shape_of(values["input"])
    if before == shape or (len(before) != 4 and len(shape) != 4):
        require(before[0] == shape[0], f"from {before} to {shape}, which moves values between images")
        return None
    require(len(shape) != 4, f"from {before} to {shape}")
    require(before[0] == shape[0], f"from {before} to {shape}, which moves values between images")
    return Made(Flatten(), [values["input"]])


def identity(values: Values, shape: Shape) -> None:
    """Whatever leaves the numbers alone."""
    shape_of(values["input"])


LAYERS: dict[str, Callable[[Values, Shape], Made | None]] = {
    "conv2d": convolution, "linear": linear, "relu": relu, "max_pool2d": max_pool, "avg_pool2d": average_pool,
    "adaptive_avg_pool2d": adaptive("average"), "adaptive_max_pool2d": adaptive("maximum"),
    "batch_norm": batch_norm, "local_response_norm": response_norm, "dropout": dropout, "softmax": softmax,
    "cat": concat, "mean": mean, "reshape": reshape, "identity": identity,
    **elementwise.LAYERS,
}
