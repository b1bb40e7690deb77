"""One form for a module's call, a function's, a tensor method's and an exported operator's.

Each becomes a name and arguments by name: ("conv2d", {"input": node, "weight": tensor, ...}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

Arguments = dict[str, Any]

# Arguments in order, as torch.nn.functional has them.
_POOL = ("input", "kernel_size", "stride", "padding")
SIGNATURES: dict[str, tuple[str, ...]] = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("input", "weight", "bias"),
    "relu": ("input", "inplace"),
    "max_pool2d": (*_POOL, "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": (*_POOL, "ceil_mode", "count_include_pad", "divisor_override"),
    "adaptive_avg_pool2d": ("input", "output_size"),
    "adaptive_max_pool2d": ("input", "output_size", "return_indices"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    "local_response_norm": ("input", "size", "alpha", "beta", "k"),
    "dropout": ("input", "p", "training", "inplace"),
    "softmax": ("input", "dim"),
    "relu6": ("input", "inplace"),
    "hardtanh": ("input", "min_val", "max_val", "inplace"),
    "clamp": ("input", "min", "max"),
    "leaky_relu": ("input", "negative_slope", "inplace"),
    "prelu": ("input", "weight"),
    "sigmoid": ("input",),
    "tanh": ("input",),
    "silu": ("input", "inplace"),
    "hardsigmoid": ("input", "inplace"),
    "hardswish": ("input", "inplace"),
    "log_softmax": ("input", "dim"),
    "add": ("input", "other", "alpha"),
    "sub": ("input", "other", "alpha"),
    "mul": ("input", "other"),
    "div": ("input", "other", "rounding_mode"),
    "conv_transpose2d": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "interpolate": ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor",
                    "antialias"),
    "pad": ("input", "pad", "mode", "value"),
    "getitem": ("input", "index"),
    "chunk": ("input", "chunks", "dim"),
    "split": ("input", "sizes", "dim"),
    "transpose": ("input", "dim0", "dim1"),
    "permute": ("input", "dims"),
    "cat": ("tensors", "dim"),
    "mean": ("input", "dim", "keepdim"),
    "identity": ("input",),
    "reshape": ("input",),
}
# The same by other names; a trailing underscore (in place) is dropped before.
SAME = {
    "iadd": "add", "isub": "sub", "subtract": "sub", "imul": "mul", "multiply": "mul", "truediv": "div",
    "itruediv": "div", "divide": "div", "clip": "clamp", "swapaxes": "transpose",
    "concat": "cat", "concatenate": "cat", "flatten": "reshape", "view": "reshape",
    "squeeze": "reshape", "unsqueeze": "reshape", "contiguous": "identity", "clone": "identity",
    "detach": "identity", "float": "identity", "to": "identity", "alias": "identity",
    "dropout2d": "identity", "feature_dropout": "identity",  # whole maps drop in training only
}
# torch.batch_norm and its exported operator have another order than torch.nn.functional's.
_LOW_BATCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


def _fields(*names: str) -> Callable[[nn.Module], Arguments]:
    return lambda module: {name: getattr(module, name) for name in names}


def _padding(mode: str) -> Callable[[nn.Module], Arguments]:
    return lambda module: {"pad": module.padding, "mode": mode, "value": getattr(module, "value", 0.0)}


# Of a module's class: the function that it calls, and the arguments that it holds.
MODULES: dict[str, tuple[str, Callable[[nn.Module], Arguments]]] = {
    "Conv2d": ("conv2d", _fields(*SIGNATURES["conv2d"][1:], "padding_mode")),
    "Linear": ("linear", _fields("weight", "bias")),
    "ReLU": ("relu", _fields()),
    "MaxPool2d": ("max_pool2d", _fields(*_POOL[1:], "dilation", "ceil_mode", "return_indices")),
    "AvgPool2d": ("avg_pool2d", _fields(*_POOL[1:], "ceil_mode", "count_include_pad", "divisor_override")),
    "AdaptiveAvgPool2d": ("adaptive_avg_pool2d", _fields("output_size")),
    "AdaptiveMaxPool2d": ("adaptive_max_pool2d", _fields("output_size", "return_indices")),
    "BatchNorm2d": ("batch_norm", _fields("running_mean", "running_var", "weight", "bias", "momentum", "eps")),
    "BatchNorm1d": ("batch_norm", _fields("running_mean", "running_var", "weight", "bias", "momentum", "eps")),
    "ReLU6": ("relu6", _fields()),
    "Hardtanh": ("hardtanh", _fields("min_val", "max_val")),
    "LeakyReLU": ("leaky_relu", _fields("negative_slope")),
    "PReLU": ("prelu", _fields("weight")),
    "Sigmoid": ("sigmoid", _fields()),
    "Tanh": ("tanh", _fields()),
    "SiLU": ("silu", _fields()),
    "Hardsigmoid": ("hardsigmoid", _fields()),
    "Hardswish": ("hardswish", _fields()),
    "LogSoftmax": ("log_softmax", _fields("dim")),
    "ConvTranspose2d": ("conv_transpose2d", _fields("weight", "bias", "stride", "padding", "output_padding",
                                                    "groups", "dilation")),
    "Upsample": ("interpolate", _fields(*SIGNATURES["interpolate"][1:6])),
    "UpsamplingNearest2d": ("interpolate", _fields(*SIGNATURES["interpolate"][1:6])),
    "UpsamplingBilinear2d": ("interpolate", _fields(*SIGNATURES["interpolate"][1:6])),
    "ZeroPad2d": ("pad", _padding("constant")),
    "ConstantPad2d": ("pad", _padding("constant")),
    "ReflectionPad2d": ("pad", _padding("reflect")),
    "ReplicationPad2d": ("pad", _padding("replicate")),
    "LocalResponseNorm": ("local_response_norm", _fields("size", "alpha", "beta", "k")),
    "Dropout": ("dropout", _fields("p")),
    "Dropout2d": ("identity", _fields()),
    "Softmax": ("softmax", _fields("dim")),
    "Flatten": ("reshape", _fields()),
    "Unflatten": ("reshape", _fields()),
    "Identity": ("identity", _fields()),
}


def described(graph: fx.GraphModule, node: fx.Node) -> str:
    """What a call is, for people: "Conv2d", "torch.sigmoid", "Tensor.sigmoid"."""
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))).__name__
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    return str(getattr(node.target, "__name__", node.target))


def call(graph: fx.GraphModule, node: fx.Node) -> tuple[str, Arguments] | None:
    """The call in one form; None if it is none of those known.

    Parameters
    ----------
    graph : that holds the modules
    node : one of its calls
    """
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        known = MODULES.get(type(module).__name__)
        if known is None or not type(module).__module__.startswith("torch.nn."):
            return None
        return known[0], {"input": node.args[0] if node.args else node.kwargs["input"], **known[1](module)}
    name = str(node.target) if node.op == "call_method" else described(graph, node).split(".")[0]
    name = name.rstrip("_") if not name.startswith("_") else name
    name = SAME.get(name, name)
    if name not in SIGNATURES:
        return None
    order = SIGNATURES[name]
    if name == "batch_norm" and getattr(node.target, "__module__", "") != "torch.nn.functional":
        order = _LOW_BATCH_NORM
    arguments = dict(zip(order, node.args, strict=False))
    if name == "permute" and len(node.args) > 2:  # x.permute(0, 2, 1): each axis is an argument
        arguments["dims"] = node.args[1:]
    arguments |= {{"self": "input", "axis": "dim"}.get(key, key): value for key, value in node.kwargs.items()}
    return name, arguments
