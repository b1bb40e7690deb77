"""The classifiers whose weights torchvision and timm publish, and the keys of their files.

`ARCHITECTURES["torchvision/resnet18"].build(classes, input_size=224)` makes a Network without
parameters; `zfcore.load(path, architecture="torchvision/resnet18")` fills it from a file.
"""

from __future__ import annotations

from . import alexnet, densenet, resnet, squeezenet, vgg
from .common import Architecture, imagenet

ARCHITECTURES: dict[str, Architecture] = {
    f"torchvision/{name}": architecture
    for family in (alexnet, vgg, resnet, squeezenet, densenet)
    for name, architecture in family.ARCHITECTURES.items()
}

__all__ = ["ARCHITECTURES", "Architecture", "imagenet"]
