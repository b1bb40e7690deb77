"""VGG-11, 13, 16, 19 (Simonyan & Zisserman 2014, configurations A, B, D, E), also with batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...layers import BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool, ReLU
from ...network import Network
from .common import Architecture, adapt, finish, start

WIDTHS = (64, 128, 256, 512, 512)
# Convolutions in each of the five blocks, by the number of layers with weights.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CLASSIFIER = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
# timm keeps the hidden layers as convolutions over the last maps.
TIMM = ((r"^pre_logits\.fc1\.", "classifier.0."), (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."))


def vgg(depth: int, norm: bool = False, classes: int = 1000, *, widths: Sequence[int] = WIDTHS,
        hidden: int = 4096, input_size: int = 224) -> Network:
    """VGG with `depth` layers with weights.

    Parameters
    ----------
    depth : 11, 13, 16 or 19
    norm : whether batch normalisation follows every convolution
    classes, hidden : units of the last and of the two hidden layers
    widths : filters in each block
    input_size : side of the images

    Returns
    -------
    Network with layers conv1_1, [norm1_1, relu1_1,] ... pool1, conv2_1, ... pool5, fc6, fc7, fc8, prob
    """
    net = start(f"vgg{depth}{'_bn' if norm else ''}", input_size)
    for block, (width, count) in enumerate(zip(widths, DEPTHS[depth], strict=True), 1):
        for number in range(1, count + 1):
            place = f"{block}_{number}"
            net.add(f"conv{place}", Convolution(width, 3, padding=1, activation=None if norm else "relu"))
            if norm:
                net.add(f"norm{place}", BatchNorm())
                net.add(f"relu{place}", ReLU())
        net.add(f"pool{block}", MaxPool(2, 2))
    adapt(net, "avgpool", 7)
    net.add("flatten", Flatten())
    for number in (6, 7):
        net.add(f"fc{number}", Linear(hidden, activation="relu"))
        net.add(f"drop{number}", Dropout(0.5))
    net.add("fc8", Linear(classes))
    return finish(net)


def modules(net: Network) -> dict[str, str]:
    """Paths in torchvision: `features` counts every convolution, norm, ReLU and pool."""
    paths, place = {}, 0
    for name, node in net.nodes.items():
        if isinstance(node.layer, (Convolution, BatchNorm)):
            paths[name] = f"features.{place}"
        if isinstance(node.layer, (Convolution, BatchNorm, ReLU, MaxPool)):
            place += 1
            place += node.layer.activation is not None
    return paths | CLASSIFIER


ARCHITECTURES = {
    f"vgg{depth}{'_bn' if norm else ''}": Architecture(partial(vgg, depth, norm), modules, "classifier.6",
                                                       TIMM)
    for depth in DEPTHS for norm in (False, True)
}
