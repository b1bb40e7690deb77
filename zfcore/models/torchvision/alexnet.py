"""AlexNet in torchvision's form (Krizhevsky 2014, "One weird trick"): no groups, no response norm."""

from __future__ import annotations

from ...layers import Convolution, Dropout, Flatten, Linear, MaxPool
from ...network import Network
from .common import Architecture, adapt, finish, start

MODULES = {"conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8",
           "conv5": "features.10", "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}


def alexnet(classes: int = 1000, *, hidden: int = 4096, input_size: int = 224) -> Network:
    """conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5, fc6, fc7, fc8, prob; no parameters yet."""
    net = start("alexnet", input_size)
    net.add("conv1", Convolution(64, 11, stride=4, padding=2, activation="relu"))
    net.add("pool1", MaxPool(3, 2))
    net.add("conv2", Convolution(192, 5, padding=2, activation="relu"))
    net.add("pool2", MaxPool(3, 2))
    for number, width in ((3, 384), (4, 256), (5, 256)):
        net.add(f"conv{number}", Convolution(width, 3, padding=1, activation="relu"))
    net.add("pool5", MaxPool(3, 2))
    adapt(net, "avgpool", 6)
    net.add("flatten", Flatten())
    for number in (6, 7):
        net.add(f"drop{number}", Dropout(0.5))
        net.add(f"fc{number}", Linear(hidden, activation="relu"))
    net.add("fc8", Linear(classes))
    return finish(net)


ARCHITECTURES = {"alexnet": Architecture(alexnet, lambda net: dict(MODULES), "classifier.6")}
