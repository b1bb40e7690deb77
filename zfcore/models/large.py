"""ZFNet (Zeiler & Fergus 2013, figure 3), AlexNet (Krizhevsky et al. 2012) and VGG-16."""

from __future__ import annotations

from collections.abc import Sequence

from .. import checks
from ..layers import Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm, Softmax
from ..network import Network
from ..preprocessing import Preprocessing


def _classifier(net: Network, hidden: Sequence[int], classes: int) -> None:
    """Hidden fully connected layers from fc6 on, with dropout after each, the last one, and softmax."""
    net.add("flatten", Flatten())
    for number, units in enumerate(hidden, 6):
        net.add(f"fc{number}", Linear(units, activation="relu"))
        net.add(f"drop{number}", Dropout(0.5))
    net.add(f"fc{6 + len(hidden)}", Linear(classes))
    net.add("prob", Softmax())


def zfnet(classes: int = 1000, *, widths: Sequence[int] = (96, 256, 384, 384, 256),
          hidden: Sequence[int] = (4096, 4096), input_size: int = 224, channels: int = 3) -> Network:
    """ZFNet: dense convolutions, 7x7 filters at stride 2 in the first layer.

    Parameters
    ----------
    classes : units of the last layer
    widths : filters of conv1 to conv5; (96, 256, 512, 1024, 512) is the paper's wider variant
    hidden : units of the hidden fully connected layers
    input_size, channels : of the images

    Returns
    -------
    Network with layers conv1, pool1, norm1, ... conv5, pool5, fc6, fc7, fc8, prob; without
    parameters until `initialize` or `load_parameters`. The paper gives no constants for its
    normalisation: AlexNet's are used.
    """
    checks.require(len(widths) == 5, "zfnet", "widths", widths, "five numbers of filters")
    net = Network("zfnet", (input_size, input_size, channels), scheme="zf",
                  preprocessing=Preprocessing("RGB" if channels == 3 else "L", mean=128.0, size=256,
                                              crop=input_size))
    net.add("conv1", Convolution(widths[0], 7, stride=2, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(widths[1], 5, stride=2, activation="relu"))
    net.add("pool2", MaxPool(3, 2, ceil_mode=True))
    net.add("norm2", ResponseNorm())
    for number in (3, 4, 5):
        net.add(f"conv{number}", Convolution(widths[number - 1], 3, padding=1, activation="relu"))
    net.add("pool5", MaxPool(3, 2))
    _classifier(net, hidden, classes)
    return net


def alexnet(classes: int = 1000, *, groups: int = 2, widths: Sequence[int] = (96, 256, 384, 384, 256),
            hidden: Sequence[int] = (4096, 4096), norm_first: bool = True, k: float = 2.0,
            alpha_is_divided_by_size: bool = False, pool_ceil_mode: bool = False) -> Network:
    """AlexNet on 227x227 images.

    Parameters
    ----------
    classes : units of the last layer
    groups : of conv2, conv4 and conv5: 2 as published, 1 for the dense variant
    widths, hidden : filters of conv1 to conv5, units of the hidden fully connected layers
    norm_first : response norm before pooling (the paper; Caffe's AlexNet), or after it (CaffeNet)
    k, alpha_is_divided_by_size : of the response norm; Caffe's files have k=1 and alpha / n
    pool_ceil_mode : Caffe's pooling; on 227x227 images the sizes are the same

    Returns
    -------
    Network with layers conv1, norm1, pool1, ... fc8, prob; no parameters yet
    """
    checks.require(len(widths) == 5, "alexnet", "widths", widths, "five numbers of filters")
    net = Network("alexnet" if groups > 1 else "alexnet-dense", (227, 227, 3), scheme="krizhevsky",
                  preprocessing=Preprocessing("RGB", mean=128.0, size=256, crop=227))
    for number, width in enumerate(widths, 1):
        window, stride, padding = {1: (11, 4, 0), 2: (5, 1, 2)}.get(number, (3, 1, 1))
        split = groups if number in (2, 4, 5) else 1
        net.add(f"conv{number}", Convolution(width, window, stride, padding, groups=split, activation="relu"))
        if number in (1, 2):
            norm = ResponseNorm(k=k, alpha_is_divided_by_size=alpha_is_divided_by_size)
            stages = [(f"norm{number}", norm), (f"pool{number}", MaxPool(3, 2, ceil_mode=pool_ceil_mode))]
            for name, layer in stages if norm_first else stages[::-1]:
                net.add(name, layer)
    net.add("pool5", MaxPool(3, 2, ceil_mode=pool_ceil_mode))
    _classifier(net, hidden, classes)
    return net


def vgg16(classes: int = 1000, *, hidden: Sequence[int] = (4096, 4096)) -> Network:
    """VGG-16 (Simonyan & Zisserman 2014, configuration D) on 224x224 images.

    Layers are conv1_1, conv1_2, pool1, conv2_1, ... pool5, fc6, fc7, fc8, prob.
    """
    net = Network("vgg16", (224, 224, 3), scheme="he", preprocessing=Preprocessing(
        "BGR", mean=(103.939, 116.779, 123.68), size=256, crop=224))
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for number in range(1, count + 1):
            net.add(f"conv{block}_{number}", Convolution(width, 3, padding=1, activation="relu"))
        net.add(f"pool{block}", MaxPool(2, 2))
    _classifier(net, hidden, classes)
    return net
