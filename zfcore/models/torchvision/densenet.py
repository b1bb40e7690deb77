"""DenseNet-121 (Huang et al. 2016): every layer reads the maps of all layers before it in its block."""

from __future__ import annotations

from collections.abc import Sequence

from ...layers import AveragePool, BatchNorm, Concat, Convolution, GlobalAveragePool, Linear, MaxPool, ReLU
from ...network import Network
from .common import Architecture, finish, same_names, start

# The published files spell denselayer1.norm.1 for denselayer1.norm1.
OLD = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)


def densenet121(classes: int = 1000, *, blocks: Sequence[int] = (6, 12, 24, 16), growth: int = 32,
                first: int = 64, input_size: int = 224) -> Network:
    """DenseNet with bottlenecks of 4 * growth maps and compression by half between blocks.

    Parameters
    ----------
    classes : units of the last layer
    blocks : dense layers in each block
    growth : maps that a dense layer adds
    first : filters of the first convolution
    input_size : side of the images

    Returns
    -------
    Network with layers conv0, norm0, relu0, pool0, denseblock1.denselayer1.norm1, ...
    denseblock1.denselayer1 (all maps so far), ... transition1.pool, ... norm5, relu5, avgpool,
    classifier, prob; no parameters yet
    """
    net = start("densenet121", input_size)
    net.add("conv0", Convolution(first, 7, stride=2, padding=3, bias=False))
    net.add("norm0", BatchNorm())
    net.add("relu0", ReLU())
    net.add("pool0", MaxPool(3, 2, padding=1))
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            name, entry = f"denseblock{block}.denselayer{number}", net.output
            for part, (filters, window) in enumerate(((4 * growth, 1), (growth, 3)), 1):
                net.add(f"{name}.norm{part}", BatchNorm())
                net.add(f"{name}.relu{part}", ReLU())
                net.add(f"{name}.conv{part}", Convolution(filters, window, padding=window // 2, bias=False))
            net.add(name, Concat(), (entry, net.output))
        if block < len(blocks):
            name = f"transition{block}"
            net.add(f"{name}.norm", BatchNorm())
            net.add(f"{name}.relu", ReLU())
            net.add(f"{name}.conv", Convolution(net.shapes[net.output][2] // 2, 1, bias=False))
            net.add(f"{name}.pool", AveragePool(2))
    net.add("norm5", BatchNorm())
    net.add("relu5", ReLU())
    net.add("avgpool", GlobalAveragePool())
    net.add("classifier", Linear(classes))
    return finish(net)


def modules(net: Network) -> dict[str, str]:
    """All but the classifier are inside `features`."""
    return {name: name if name == "classifier" else f"features.{name}" for name in same_names(net)}


ARCHITECTURES = {"densenet121": Architecture(densenet121, modules, "classifier", OLD)}
