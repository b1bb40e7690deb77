"""A layer for each kind of call, from its arguments by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ...layers import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    Softmax,
)

Values = dict[str, Any]
Shape = tuple[int, ...]


class Unsupported(Exception):
    """A call that has no counterpart here; the text says why."""


@dataclass
class WholePool:
    """A pool to one cell: vectors if all that read it flatten it, else maps of one cell."""

    window: tuple[int, int] = (1, 1)
    kind: str = "average"

    def chosen(self, vectors: bool) -> Layer:
        """The layer that it is."""
        if vectors:
            return GlobalAveragePool() if self.kind == "average" else GlobalMaxPool()
        return AveragePool(self.window) if self.kind == "average" else MaxPool(self.window)


@dataclass
class Made:
    """A layer, the nodes that it reads, and its parameters in PyTorch's layout."""

    layer: Layer | WholePool
    inputs: list[fx.Node]
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise Unsupported(reason)


def _shape(node: Any, rank: int | None = None) -> Shape:
    """Shape of a computed tensor, (N, C, H, W) or (N, C)."""
    _require(isinstance(node, fx.Node), "an input that is a constant")
    shape: Shape = node.meta["shape"]
    _require(rank is None or len(shape) == rank, f"an input of {len(shape)} dimensions")
    return shape


def _pair(value: Any) -> tuple[int, int]:
    """One integer, one in a list, or two."""
    sizes = list(value) if isinstance(value, (tuple, list)) else [value]
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    _require(len(sizes) == 2 and all(isinstance(item, int) for item in sizes), f"sizes {value!r}")
    return sizes[0], sizes[1]


def _one(value: Any) -> Any:
    """A pair as one integer where both are the same: it reads better."""
    return value[0] if value[0] == value[1] else value


def _arrays(values: Values, **names: str) -> dict[str, torch.Tensor]:
    """Parameters among the arguments: those given; a computed one is unsupported."""
    found = {ours: values.get(theirs) for ours, theirs in names.items()}
    for ours, value in found.items():
        _require(value is None or isinstance(value, torch.Tensor), f"{ours} that is computed")
    return {key: value for key, value in found.items() if value is not None}


def convolution(values: Values, shape: Shape) -> Made:
    """Conv2d, padding by zeros, by numbers or by name."""
    _shape(values["input"], 4)
    mode = values.get("padding_mode", "zeros")
    _require(mode == "zeros", f"padding_mode {mode!r}")
    parameters = _arrays(values, weight="weight", bias="bias")
    _require("weight" in parameters, "weight that is computed")
    filters, _, *window = parameters["weight"].shape
    dilation, stride = _pair(values.get("dilation", 1)), _pair(values.get("stride", 1))
    padding = values.get("padding", 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # PyTorch's: the odd cell goes after, at stride 1, as here
        _require(stride == (1, 1), "padding 'same' with a stride")
    else:
        padding = _one(_pair(padding))
    layer = Convolution(filters, _one((window[0], window[1])), _one(stride), padding, _one(dilation),
                        values.get("groups", 1), bias="bias" in parameters)
    return Made(layer, [values["input"]], parameters)


def linear(values: Values, shape: Shape) -> Made:
    """Linear on (N, features)."""
    _shape(values["input"], 2)
    parameters = _arrays(values, weight="weight", bias="bias")
    _require("weight" in parameters, "weight that is computed")
    return Made(Linear(parameters["weight"].shape[0], bias="bias" in parameters), [values["input"]], parameters)


def relu(values: Values, shape: Shape) -> Made:
    """ReLU in all its spellings."""
    return Made(ReLU(), [values["input"]])


def _pool_sizes(values: Values) -> dict[str, Any]:
    window = _pair(values["kernel_size"])
    stride = values.get("stride")
    stride = window if stride is None or stride == [] else _pair(stride)
    return {"window": _one(window), "stride": _one(stride), "padding": _one(_pair(values.get("padding", 0))),
            "ceil_mode": bool(values.get("ceil_mode", False))}


def max_pool(values: Values, shape: Shape) -> Made:
    """MaxPool2d without dilation."""
    _shape(values["input"], 4)
    _require(_pair(values.get("dilation", 1)) == (1, 1), "dilation")
    _require(not values.get("return_indices"), "return_indices")
    sizes = _pool_sizes(values)
    _require(math.prod(_pair(sizes["window"])) <= 256, "a window of more than 256 cells")
    return Made(MaxPool(**sizes), [values["input"]])


def average_pool(values: Values, shape: Shape) -> Made:
    """AvgPool2d, counting the padding or not."""
    _shape(values["input"], 4)
    sizes = _pool_sizes(values)
    override = values.get("divisor_override")
    divisor = "padded" if values.get("count_include_pad", True) else "valid"
    if override is not None:
        _require(override == math.prod(_pair(sizes["window"])), f"divisor_override {override}")
        divisor = "window"
    if sizes["padding"] == 0 and not sizes["ceil_mode"]:
        divisor = "valid"  # all the same then, and the crops know it
    return Made(AveragePool(**sizes, divisor=divisor), [values["input"]])


def adaptive(kind: str) -> Callable[[Values, Shape], Made | None]:
    """AdaptiveAvgPool2d and AdaptiveMaxPool2d, to one cell or to sizes that divide the input's."""

    def made(values: Values, shape: Shape) -> Made | None:
        before = _shape(values["input"], 4)[2:]
        after = shape[2:]
        if before == after:
            return None
        if after == (1, 1):
            return Made(WholePool((before[0], before[1]), kind), [values["input"]])
        _require(before[0] % after[0] == 0 and before[1] % after[1] == 0,
                 f"{before[0]} x {before[1]} cells to {after[0]} x {after[1]}, which does not divide them")
        window = _one((before[0] // after[0], before[1] // after[1]))
        return Made(AveragePool(window) if kind == "average" else MaxPool(window), [values["input"]])

    return made


def batch_norm(values: Values, shape: Shape) -> Made:
    """BatchNorm with its running statistics; without scale and bias these are 1 and 0."""
    _require(len(_shape(values["input"])) in (2, 4), "an input of another rank than 2 and 4")
    parameters = _arrays(values, scale="weight", bias="bias", mean="running_mean", variance="running_var")
    _require("mean" in parameters and "variance" in parameters, "no running statistics")
    parameters.setdefault("scale", torch.ones_like(parameters["mean"]))
    parameters.setdefault("bias", torch.zeros_like(parameters["mean"]))
    momentum = values.get("momentum", 0.1)
    _require(momentum is not None and momentum > 0, "a cumulative average")
    return Made(BatchNorm(float(values.get("eps", 1e-5)), 1 - momentum), [values["input"]], parameters)


def response_norm(values: Values, shape: Shape) -> Made:
    """LocalResponseNorm, whose alpha is divided by its size."""
    _shape(values["input"], 4)
    layer = ResponseNorm(values["size"], float(values.get("alpha", 1e-4)), float(values.get("beta", 0.75)),
                         float(values.get("k", 1.0)), alpha_is_divided_by_size=True)
    return Made(layer, [values["input"]])


def dropout(values: Values, shape: Shape) -> Made | None:
    """Dropout: the identity at inference, kept for training on."""
    rate = values.get("p", 0.5)
    return Made(Dropout(rate), [values["input"]]) if 0 < rate < 1 else None


def softmax(values: Values, shape: Shape) -> Made:
    """Softmax over the classes of (N, classes)."""
    _shape(values["input"], 2)
    _require(values.get("dim") in (1, -1), f"dim {values.get('dim')}")
    return Made(Softmax(), [values["input"]])


def add(values: Values, shape: Shape) -> Made:
    """Sum of two tensors of one shape."""
    _require(values.get("alpha", 1) == 1, "alpha")
    pair = [values["input"], values.get("other")]
    _require(_shape(pair[0]) == _shape(pair[1]), "tensors of different shapes")
    return Made(Add(), pair)


def concat(values: Values, shape: Shape) -> Made:
    """Tensors side by side on the channel axis."""
    tensors = values["tensors"]
    rank = len(_shape(tensors[0]))
    _require(rank in (2, 4), f"inputs of {rank} dimensions")
    _require(values.get("dim", 0) in (1, 1 - rank), f"dim {values.get('dim', 0)}")
    return Made(Concat(), list(tensors))


def mean(values: Values, shape: Shape) -> Made:
    """Mean over rows and columns."""
    before = _shape(values["input"], 4)
    axes = values.get("dim")
    axes = axes if isinstance(axes, (tuple, list)) else [axes]
    _require(all(isinstance(axis, int) for axis in axes) and sorted(axis % 4 for axis in axes) == [2, 3],
             f"dim {values.get('dim')}")
    if len(shape) == 4:
        return Made(WholePool((before[2], before[3])), [values["input"]])
    return Made(GlobalAveragePool(), [values["input"]])


def reshape(values: Values, shape: Shape) -> Made | None:
    """Any change of shape that takes maps apart.

    What is not maps is a vector here, whatever its shape there: the order of its numbers is the same.
    """
    before = _shape(values["input"])
    if before == shape or (len(before) != 4 and len(shape) != 4):
        _require(before[0] == shape[0], f"from {before} to {shape}, which moves values between images")
        return None
    _require(len(shape) != 4, f"from {before} to {shape}")
    _require(before[0] == shape[0], f"from {before} to {shape}, which moves values between images")
    return Made(Flatten(), [values["input"]])


def identity(values: Values, shape: Shape) -> None:
    """Whatever leaves the numbers alone."""
    _shape(values["input"])


LAYERS: dict[str, Callable[[Values, Shape], Made | None]] = {
    "conv2d": convolution, "linear": linear, "relu": relu, "max_pool2d": max_pool, "avg_pool2d": average_pool,
    "adaptive_avg_pool2d": adaptive("average"), "adaptive_max_pool2d": adaptive("maximum"),
    "batch_norm": batch_norm, "local_response_norm": response_norm, "dropout": dropout, "softmax": softmax,
    "add": add, "cat": concat, "mean": mean, "reshape": reshape, "identity": identity,
}
