"""ResNet-18, 34 and 50 (He et al. 2015), in torchvision's form: a bottleneck strides in its 3x3 filters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...layers import Add, BatchNorm, Convolution, GlobalAveragePool, Linear, MaxPool, ReLU
from ...network import Network
from .common import Architecture, finish, same_names, start

# Blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
EXPANSION = 4


def _block(net: Network, name: str, width: int, stride: int, bottleneck: bool) -> None:
    """Two or three convolutions beside a short cut; the block's name is the rectified sum's."""
    entry = net.output
    if bottleneck:
        stages = [(width, 1, 1), (width, 3, stride), (EXPANSION * width, 1, 1)]
    else:
        stages = [(width, 3, stride), (width, 3, 1)]
    for number, (filters, window, step) in enumerate(stages, 1):
        net.add(f"{name}.conv{number}", Convolution(filters, window, step, window // 2, bias=False))
        net.add(f"{name}.bn{number}", BatchNorm())
        if number < len(stages):
            net.add(f"{name}.relu{number}", ReLU())
    result = net.output
    short = entry
    if net.shapes[entry] != net.shapes[result]:
        net.add(f"{name}.downsample.0", Convolution(stages[-1][0], 1, stride, bias=False), entry)
        short = net.add(f"{name}.downsample.1", BatchNorm())
    net.add(name, Add(activation="relu"), (result, short))


def resnet(depth: int, classes: int = 1000, *, widths: Sequence[int] = (64, 128, 256, 512),
           input_size: int = 224) -> Network:
    """ResNet with `depth` layers with weights.

    Parameters
    ----------
    depth : 18, 34 or 50
    classes : units of the last layer
    widths : filters in the stages (a bottleneck's output has 4 times as many)
    input_size : side of the images

    Returns
    -------
    Network with layers conv1, bn1, relu, maxpool, layer1.0.conv1, ... layer1.0 (the first block's
    output), ... layer4.1, avgpool, fc, prob; no parameters yet
    """
    counts, bottleneck = DEPTHS[depth]
    net = start(f"resnet{depth}", input_size)
    net.add("conv1", Convolution(widths[0], 7, stride=2, padding=3, bias=False))
    net.add("bn1", BatchNorm())
    net.add("relu", ReLU())
    net.add("maxpool", MaxPool(3, 2, padding=1))
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            _block(net, f"layer{stage}.{number}", width, stride, bottleneck)
    net.add("avgpool", GlobalAveragePool())
    net.add("fc", Linear(classes))
    return finish(net)


ARCHITECTURES = {f"resnet{depth}": Architecture(partial(resnet, depth), same_names, "fc") for depth in DEPTHS}
