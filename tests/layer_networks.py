"""A small network for every kind of layer, at awkward sizes."""

from __future__ import annotations

import numpy as np

from zfcore import Network
from zfcore.layers import (
    Add,
    AveragePool,
    BatchNorm,
    Clip,
    Concat,
    ContrastNorm,
    Convolution,
    Divide,
    Dropout,
    Expand,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool,
    MaxUnpool,
    Multiply,
    Pad,
    PReLU,
    Rearrange,
    ReLU,
    Resize,
    ResponseNorm,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
    Subtract,
    Tanh,
    TransposedConvolution,
)


def filled(network, seed=0):
    """Random parameters, biases and statistics among them."""
    network.initialize(seed, "he")
    random = np.random.default_rng(seed)
    for key, value in network.parameters().items():
        if value.ndim == 1 or key.endswith((".scale", ".slope")):
            value[...] = 0.5 + random.random(value.shape, np.float32)
    return network


def chain(*layers, shape=(9, 8, 4)):
    network = Network("chain", shape)
    for place, layer in enumerate(layers):
        network.add(f"layer{place}", layer)
    return network


def fork(layer, *others, shape=(9, 8, 4)):
    """A layer with several inputs, on convolutions of the image."""
    network = Network("fork", shape)
    names = [network.add(f"conv{place}", Convolution(6, 3, padding=1), "input") for place in range(2)]
    network.add("joined", layer, names)
    for place, other in enumerate(others):
        network.add(f"then{place}", other)
    return network


CASES = {
    "convolution": lambda: chain(Convolution(6, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), 2, activation="relu")),
    "same": lambda: chain(Convolution(6, 3, stride=2, padding="same", bias=False)),
    "transposed": lambda: chain(TransposedConvolution(6, 3, 2, (1, 0, 1, 1), output_padding=1, groups=2,
                                                      activation="relu")),
    "max pool": lambda: chain(MaxPool(3, 2, ceil_mode=True), MaxPool(3, 1, (1, 0, 0, 1))),
    "average valid": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True), AveragePool(2, 1, (1, 0, 1, 0))),
    "average padded": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True, divisor="padded"),
                                    AveragePool(2, 1, (1, 0, 1, 0), divisor="padded")),
    "average padded beyond": lambda: chain(AveragePool(2, 2, 1, ceil_mode=True, divisor="padded")),
    "average window": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True, divisor="window"),
                                    AveragePool(2, 2, ceil_mode=True, divisor="window")),
    "global": lambda: chain(GlobalAveragePool(), Softmax()),
    "global max": lambda: chain(GlobalMaxPool(), LogSoftmax()),
    "response norm": lambda: chain(ResponseNorm(3, 0.3, 0.6, 1.5),
                                   ResponseNorm(3, 0.3, alpha_is_divided_by_size=True)),
    "even response norm": lambda: chain(ResponseNorm(4, 0.3), ResponseNorm(2, 0.3, mirrored=True)),
    "contrast norm": lambda: chain(ContrastNorm(3, 0.4, k=1.5, alpha_is_divided_by_area=False),
                                   ContrastNorm(4, 0.4, mode="subtractive")),
    "batch norm": lambda: chain(BatchNorm(1e-3), ReLU(), Flatten(), BatchNorm(), Linear(5)),
    "flattened": lambda: chain(MaxPool(2), Flatten(), Dropout(0.3), Linear(7, activation="relu"),
                               Linear(3, bias=False), Softmax()),
    "elementwise": lambda: chain(LeakyReLU(0.2), Sigmoid(), Clip(0.4, 0.6), Tanh(), Clip(None, 0.45),
                                 Clip(0.4, None)),
    "slopes": lambda: chain(PReLU(), PReLU((9, 8, 4)), Scale((8, 1)), Scale((), bias=False), Flatten(),
                            PReLU(), Scale((), scale=False)),
    "sum": lambda: fork(Add("relu"), Convolution(2, 1)),
    "difference": lambda: fork(Subtract()),
    "product": lambda: fork(Multiply()),
    "quotient": lambda: fork(Divide()),
    "joined": lambda: fork(Concat(), Slice(2, 9), Pad((1, 0, 2, -1), (1, 2), value=0.5)),
    "mirrored": lambda: chain(Pad((1, 2, 3, 0), mode="reflect"), Pad((1, 2, 3, 0), mode="edge")),
    "nearest": lambda: chain(Resize((18, 16))),
    "linear": lambda: chain(Resize((13, 5), "linear")),
    "by scales": lambda: chain(Resize((13, 12), "linear", scales=(1.5, 1.5))),
    "shuffled": lambda: chain(Rearrange((72, 2, 2), (0, 2, 1), (9, 8, 4))),
    "rearranged": lambda: chain(Rearrange((72, 4), (1, 0), (288,)), Linear(3),
                                Rearrange((3,), (0,), (1, 1, 3)), Expand((2, 2, 3))),
}
def unpooling():
    network = Network("unpool", (8, 6, 3))
    network.add("pool", MaxPool(2))
    network.add("conv", Convolution(3, 1))
    network.add("unpool", MaxUnpool(2), ("conv", "input"))
    return network
