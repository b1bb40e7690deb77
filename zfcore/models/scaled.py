"""ZFNet scaled to small images: its eight layers, overlapping pools and response norm, at 32x32 and 28x28."""

from __future__ import annotations

from collections.abc import Sequence

from .. import checks
from ..layers import Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm, Softmax
from ..network import Network
from ..preprocessing import Preprocessing


def _scaled(name: str, preprocessing: Preprocessing, shape: tuple[int, int, int], classes: int,
            widths: Sequence[int], windows: Sequence[int], hidden: Sequence[int], dropout: float) -> Network:
    """Layers as ZFNet's; strides of 1, for images of this size have no pixels to spare."""
    checks.require(len(widths) == 5, name, "widths", widths, "five numbers of filters")
    checks.require(len(windows) == 2, name, "windows", windows, "two sides of filters, of conv1 and conv2")
    net = Network(name, shape, scheme="zf-scaled", preprocessing=preprocessing)
    for number, (width, window) in enumerate(zip(widths, (*windows, 3, 3, 3), strict=True), 1):
        net.add(f"conv{number}", Convolution(width, window, padding="same", activation="relu"))
        if number < 3:
            net.add(f"pool{number}", MaxPool(3, 2, ceil_mode=True))
            net.add(f"norm{number}", ResponseNorm())
    net.add("pool5", MaxPool(3, 2, ceil_mode=True))
    net.add("flatten", Flatten())
    for number, units in enumerate(hidden, 6):
        net.add(f"fc{number}", Linear(units, activation="relu"))
        net.add(f"drop{number}", Dropout(dropout))
    net.add(f"fc{6 + len(hidden)}", Linear(classes))
    net.add("prob", Softmax())
    return net


def zfnet_cifar(classes: int = 10, *, widths: Sequence[int] = (32, 64, 96, 96, 64), windows: Sequence[int] = (5, 3),
                hidden: Sequence[int] = (512, 512), dropout: float = 0.5) -> Network:
    """ZFNet for 32x32 colour images: 32 -> 16 -> 8 -> 4 by 3x3 pools at stride 2, then fc6, fc7, fc8.

    Parameters
    ----------
    classes : units of the last layer
    widths : filters of conv1 to conv5
    windows : sides of conv1's and conv2's filters
    hidden : units of the hidden fully connected layers
    dropout : after each of them

    Returns
    -------
    Network with the layers' names of `zfnet`, without parameters. Pixels minus 128; a data set's per-pixel
    mean takes its place where one is trained.
    """
    return _scaled("zfnet-cifar", Preprocessing("RGB", mean=128.0, size=(32, 32)), (32, 32, 3), classes, widths,
                   windows, hidden, dropout)


def zfnet_cifar_small(classes: int = 10) -> Network:
    """`zfnet_cifar` with a third to a half of its maps and a quarter of its hidden units, quick to train many times."""
    net = zfnet_cifar(classes, widths=(16, 24, 32, 32, 24), hidden=(128, 128))
    net.name = "zfnet-cifar-small"
    return net


def zfnet_mnist(classes: int = 10, *, widths: Sequence[int] = (16, 32, 48, 48, 32), windows: Sequence[int] = (5, 3),
                hidden: Sequence[int] = (256, 256), dropout: float = 0.5) -> Network:
    """ZFNet for 28x28 gray images: 28 -> 14 -> 7 -> 3 by 3x3 pools at stride 2; see `zfnet_cifar`."""
    net = _scaled("zfnet-mnist", Preprocessing("L", mean=33.0, size=(28, 28)), (28, 28, 1), classes, widths, windows,
                  hidden, dropout)
    net.class_names = [str(digit) for digit in range(10)] if classes == 10 else None
    return net
