"""Layers: dataclasses with `forward` and `backward`, which takes a rule.

A layer's configuration is its fields, its arrays are in `parameters`, and what `backward` needs is
returned by `forward`. Reversing anything is the network's walk, not the layers' business.
"""

from .arrange import Pad, Rearrange, Resize, Slice
from .base import INFERENCE, REGISTRY, Layer, Run, Shape, from_config
from .decoder import MaxUnpool, TransposedConvolution
from .elementwise import (
    Clip,
    Divide,
    Expand,
    LeakyReLU,
    LogSoftmax,
    Multiply,
    PReLU,
    Scale,
    Sigmoid,
    Subtract,
    Tanh,
)
from .normalization import BatchNorm, ContrastNorm, ResponseNorm
from .pointwise import Add, Concat, Dropout, Flatten, ReLU, Softmax
from .pooling import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .weighted import Convolution, Linear

__all__ = [
    "INFERENCE", "REGISTRY", "Add", "AveragePool", "BatchNorm", "Clip", "Concat", "ContrastNorm",
    "Convolution", "Divide", "Dropout", "Expand", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Layer",
    "LeakyReLU", "Linear", "LogSoftmax", "MaxPool", "MaxUnpool", "Multiply", "PReLU", "Pad", "ReLU",
    "Rearrange", "Resize", "ResponseNorm", "Run", "Scale", "Shape", "Sigmoid", "Slice", "Softmax", "Subtract",
    "Tanh", "TransposedConvolution", "from_config",
]
