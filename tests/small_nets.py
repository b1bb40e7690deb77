"""Small networks with classes for the tests of explanations."""

from __future__ import annotations

from zfcore import Network, Preprocessing, layers


def classifier(channels: int = 3, size: int = 20, seed: int = 0) -> Network:
    """Two stages, response norm, a hidden layer, five classes, softmax."""
    net = Network("classifier", (size, size + 3, channels), scheme="he",
                  preprocessing=Preprocessing("RGB" if channels == 3 else "L", mean=100.0, scale=1 / 64,
                                              size=(size, size + 3)))
    net.add("conv1", layers.Convolution(6, 3, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", layers.ResponseNorm(3, 0.2, 0.75, 1.0))
    net.add("conv2", layers.Convolution(8, 3, padding=1, activation="relu"))
    net.add("pool2", layers.MaxPool(2, 2))
    net.add("flatten", layers.Flatten())
    net.add("fc3", layers.Linear(16, activation="relu"))
    net.add("fc4", layers.Linear(5))
    net.add("prob", layers.Softmax())
    return net.initialize(seed)


def pooled(channels: int = 3, size: int = 20, seed: int = 0, *, linear: bool = True) -> Network:
    """Two convolutions, a global average pool and, with `linear`, a fully connected layer above it."""
    net = Network("pooled", (size, size, channels), scheme="he")
    net.add("conv1", layers.Convolution(6, 3, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(2, 2))
    net.add("conv2", layers.Convolution(8 if linear else 5, 3, padding=1, activation="relu"))
    net.add("pool", layers.GlobalAveragePool())
    if linear:
        net.add("fc", layers.Linear(5))
    net.add("prob", layers.Softmax())
    return net.initialize(seed)
