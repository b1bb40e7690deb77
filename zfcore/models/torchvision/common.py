"""What torchvision's classifiers share: the input, pools that adapt, and how their files name things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ... import checks
from ...layers import AveragePool, Softmax
from ...network import Network
from ...preprocessing import Preprocessing

# Means and standard deviations of ImageNet's pixels, for pixels in [0, 1].
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """One network as files in PyTorch's form know it.

    Attributes
    ----------
    build : (classes, input_size) to a Network without parameters
    modules : path of the PyTorch module of every layer with parameters, by the layer's name
    head : path of the module whose outputs are the classes
    aliases : (pattern, replacement) that turn other spellings of a key into these
    """

    build: Callable[..., Network]
    modules: Callable[[Network], dict[str, str]]
    head: str
    aliases: tuple[tuple[str, str], ...] = ()


def imagenet(input_size: int = 224) -> Preprocessing:
    """torchvision's and timm's usual preprocessing: RGB, smallest side 256, centre crop 224."""
    return Preprocessing("RGB", mean=[255 * value for value in MEAN],
                         scale=[1 / (255 * value) for value in DEVIATION],
                         size=round(input_size * 256 / 224), crop=input_size)


def start(name: str, input_size: int) -> Network:
    """An empty network for square RGB images."""
    checks.integer(name, "input_size", input_size, 1)
    return Network(f"torchvision/{name}", (input_size, input_size, 3), scheme="he",
                   preprocessing=imagenet(input_size))


def adapt(net: Network, name: str, size: int) -> None:
    """PyTorch's adaptive average pool to size x size: nothing at the standard input."""
    height, width, _ = net.shapes[net.output]
    if height % size or width % size:
        checks.fail(net.name, "input_size", net.input_shape[0],
                    f"one whose last maps ({height} x {width}) can be divided into {size} x {size}")
    if (height, width) != (size, size):
        net.add(name, AveragePool((height // size, width // size)))


def finish(net: Network) -> Network:
    """Probabilities on top."""
    net.add("prob", Softmax())
    return net


def same_names(net: Network) -> dict[str, str]:
    """Layers with parameters that are called as PyTorch calls them."""
    return {node.name: node.name for node in net.nodes.values()
            if node.layer.parameter_shapes(*(net.shapes[item] for item in node.inputs))}
