"""Layers: dataclasses with `forward` and `backward`, which takes a rule.

A layer's configuration is its fields, its arrays are in `parameters`, and what `backward` needs is
returned by `forward`. Reversing anything is the network's walk, not the layers' business.
"""

from .base import INFERENCE, REGISTRY, Layer, Run, Shape, from_config
from .normalization import BatchNorm, ContrastNorm, ResponseNorm
from .pointwise import Add, Concat, Dropout, Flatten, ReLU, Softmax
from .pooling import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .weighted import Convolution, Linear

__all__ = [
    "INFERENCE", "REGISTRY", "Add", "AveragePool", "BatchNorm", "Concat", "ContrastNorm", "Convolution",
    "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Layer", "Linear", "MaxPool", "ReLU",
    "ResponseNorm", "Run", "Shape", "Softmax", "from_config",
]
