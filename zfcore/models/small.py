"""Small networks: those of the student study, ConvNetJS's, and the demo's."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm, Softmax
from ..network import Network
from ..preprocessing import Preprocessing


def mnist(classes: int = 10, *, dropout: float = 0.3) -> Network:
    """The student study's MNIST net: two stages of 3x3 convolution at stride 2 and 2x2 pooling.

    Padding is "same", 28 -> 14 -> 7 -> 4 -> 2; then 128 units, dropout and the classes.
    """
    net = Network("mnist", (28, 28, 1), scheme="he",
                  preprocessing=Preprocessing("L", scale=1 / 255, size=(28, 28)),
                  class_names=[str(digit) for digit in range(10)] if classes == 10 else None)
    for number, width in enumerate((32, 64), 1):
        net.add(f"conv{number}", Convolution(width, 3, stride=2, padding="same", activation="relu"))
        net.add(f"pool{number}", MaxPool(2, 2))
    net.add("flatten", Flatten())
    net.add("fc3", Linear(128, activation="relu"))
    net.add("drop3", Dropout(dropout))
    net.add("fc4", Linear(classes))
    net.add("prob", Softmax())
    return net


def five_class(classes: int = 5, *, dropout: float = 0.3) -> Network:
    """The student study's net for goldfish, husky, lemon, ostrich and green snake on 224x224 images.

    Four times 3x3 convolution at stride 2, 2x2 pooling ("same") and batch norm: 32, 64, 128, 128 maps.
    """
    names = ["goldfish", "husky", "lemon", "ostrich", "green snake"]
    net = Network("five-class", (224, 224, 3), scheme="he", class_names=names if classes == 5 else None,
                  preprocessing=Preprocessing("RGB", scale=1 / 255, size=(224, 224)))
    for number, width in enumerate((32, 64, 128, 128), 1):
        net.add(f"conv{number}", Convolution(width, 3, stride=2, padding="same", activation="relu"))
        net.add(f"pool{number}", MaxPool(2, 2, padding="same"))
        net.add(f"norm{number}", BatchNorm())
    net.add("flatten", Flatten())
    net.add("fc5", Linear(128, activation="relu"))
    net.add("drop5", Dropout(dropout))
    net.add("fc6", Linear(classes))
    net.add("prob", Softmax())
    return net


def convnetjs(classes: int = 10, *, window: int = 5) -> Network:
    """ConvNetJS's CIFAR-10 net: three stages of convolution, ReLU and 2x2 pooling with 16, 20, 20 maps.

    Parameters
    ----------
    classes : units of the last layer
    window : side of the filters: 5 in the public code, 7 on the lecture's slide
    """
    net = Network("convnetjs", (32, 32, 3), scheme="he",
                  preprocessing=Preprocessing("RGB", mean=127.5, scale=1 / 255, size=(32, 32)))
    for number, width in enumerate((16, 20, 20), 1):
        net.add(f"conv{number}", Convolution(width, window, padding=window // 2, activation="relu"))
        net.add(f"pool{number}", MaxPool(2, 2))
    net.add("flatten", Flatten())
    net.add("fc4", Linear(classes))
    net.add("prob", Softmax())
    return net


def digits(classes: int = 10, *, input_size: int = 32, widths: Sequence[int] = (24, 48, 64),
           hidden: int = 128) -> Network:
    """The demo's ZF-style net: three stages of convolution, ReLU and overlapping 3x3 pooling at stride 2.

    Response norm across maps follows the first two pools, then come a hidden layer with dropout 0.5 and
    the classes. Pixels (gray, 0 to 255) become numbers of the order of 10, their mean about 0.
    """
    net = Network("digits", (input_size, input_size, 1), scheme="he",
                  preprocessing=Preprocessing("L", mean=79.0, scale=1 / 8, size=(input_size, input_size)),
                  class_names=[str(digit) for digit in range(10)] if classes == 10 else None)
    for number, (width, window) in enumerate(zip(widths, (5, 3, 3), strict=True), 1):
        net.add(f"conv{number}", Convolution(width, window, padding=window // 2, activation="relu"))
        net.add(f"pool{number}", MaxPool(3, 2, ceil_mode=True))
        if number < 3:
            net.add(f"norm{number}", ResponseNorm())
    net.add("flatten", Flatten())
    net.add("fc4", Linear(hidden, activation="relu"))
    net.add("drop4", Dropout(0.5))
    net.add("fc5", Linear(classes))
    net.add("prob", Softmax())
    return net
