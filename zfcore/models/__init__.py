"""Built-in architectures: functions that return a Network without parameters.

`build(name)` makes one by its name; `net.initialize(seed)` gives it random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import checks
from ..network import Network
from .large import alexnet, vgg16, zfnet
from .scaled import zfnet_cifar, zfnet_cifar_small, zfnet_mnist
from .small import convnetjs, digits, five_class, mnist
from .torchvision import ARCHITECTURES


def alexnet_dense(classes: int = 1000) -> Network:
    """AlexNet without groups.

    Parameters
    ----------
    classes : units of the last layer
    """
    return alexnet(classes, groups=1)


MODELS: dict[str, Callable[..., Network]] = {
    "zfnet": zfnet, "alexnet": alexnet, "alexnet-dense": alexnet_dense,
    "alexnet-torchvision": ARCHITECTURES["torchvision/alexnet"].build,  # another name of the same
    "vgg16": vgg16, "mnist": mnist, "five-class": five_class, "convnetjs": convnetjs, "digits": digits,
    "zfnet-cifar": zfnet_cifar, "zfnet-cifar-small": zfnet_cifar_small, "zfnet-mnist": zfnet_mnist,
    **{name: architecture.build for name, architecture in ARCHITECTURES.items()},
}

__all__ = ["MODELS", "alexnet", "alexnet_dense", "build", "convnetjs", "digits", "five_class", "mnist",
           "vgg16", "zfnet", "zfnet_cifar", "zfnet_cifar_small", "zfnet_mnist"]


def build(name: str, **options: Any) -> Network:
    """Make a built-in architecture by its name.

    Parameters
    ----------
    name : one of MODELS
    options : those of the architecture's function, such as `classes`
    """
    checks.one_of("models.build", "name", name, MODELS)
    return MODELS[name](**options)
