"""A family of small random networks, and another implementation of any network: PyTorch's operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from zfcore import Network, layers


def _stage(net: Network, rng: np.random.Generator, number: int, kinds: list[str]) -> None:
    """Add one random stage on top of the last layer; ValueError if its sizes do not fit."""
    name, top = f"l{number}", net.output
    channels = net.tensor_shape(top)[-1]
    kind = str(rng.choice(kinds))

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    if kind == "convolution":
        groups = 2 if channels % 2 == 0 and rng.random() < 0.3 else 1
        net.add(name, layers.Convolution(
            pick(2, 4, 6), pick(1, 2, 3, (3, 2), 5), pick(1, 1, 2, (2, 1)),
            pick(0, 1, 2, (1, 0, 0, 2), "same"), pick(1, 1, 2), groups, pick(True, False),
            pick("relu", "relu", None)))
    elif kind == "max":
        net.add(name, layers.MaxPool(pick(2, 3, (2, 3)), pick(1, 2, 2, 3), pick(0, 1, (0, 1)),
                                     pick(True, False)))
    elif kind == "average":
        net.add(name, layers.AveragePool(pick(2, 3), pick(1, 2, 3), pick(0, 1), pick(True, False),
                                         pick("valid", "padded", "window")))
    elif kind == "response":
        net.add(name, layers.ResponseNorm(min(pick(2, 3, 5), channels), 0.3, 0.75, 1.5, pick(True, False)))
    elif kind == "contrast":
        net.add(name, layers.ContrastNorm(pick(2, 3), 0.2, 0.75, 1.0, pick(True, False),
                                          pick("divisive", "subtractive")))
    elif kind == "batch":
        net.add(name, layers.BatchNorm())
    elif kind == "relu":
        net.add(name, layers.ReLU())
    elif kind == "dropout":
        net.add(name, layers.Dropout(0.5))
    else:
        left = net.add(f"{name}a", layers.Convolution(channels, 3, padding=1, activation="relu"), top)
        right = pick(top, net.add(f"{name}b", layers.Convolution(channels, pick(1, 5), padding="same"), top))
        pieces = [left, right] if rng.random() < 0.5 else [right, left]
        net.add(name, layers.Add(pick("relu", None)) if kind == "add" else layers.Concat(), pieces)


KINDS = "convolution max average response contrast batch relu dropout add concat"


def random_network(seed: int, kinds: str = KINDS, stages: int = 5,
                   sizes: tuple[int, int] = (18, 34)) -> tuple[Network, np.random.Generator]:
    """A random network with random parameters, and the generator to go on with."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(*sizes)), int(rng.integers(*sizes)), int(rng.integers(1, 4)))
    net = Network(f"random{seed}", shape)
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    net.add("first", layers.Convolution(4, 3, stride, padding, activation="relu"))
    for number in range(stages):
        try:
            _stage(net, rng, number, kinds.split())
        except ValueError:
            continue  # a window larger than what is left of the map
    net.initialize(seed, "he")
    for node in net.nodes.values():
        for name, value in node.layer.parameters.items():
            if name in ("bias", "mean"):
                value[:] = 0.1 * rng.standard_normal(value.shape)
            elif name in ("scale", "variance"):
                value[:] = 0.5 + rng.random(value.shape)
    return net, rng


def images(net: Network, rng: np.random.Generator, count: int, dtype: Any = np.float32) -> np.ndarray:
    """Standard normal images for a network."""
    return rng.standard_normal((count, *net.input_shape)).astype(dtype)
