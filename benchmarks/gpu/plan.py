"""What is measured: the layers of the plan's networks, the precisions, their sizes and costs. No PyTorch here.

Every shape comes from a network; the tests give small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from zfcore import Network, checks, models
from zfcore.geometry import output_size

SWITCH = 1  # bytes


@dataclass(frozen=True)
class Precision:
    """What factors are made of, ours and the peers' alike.

    Attributes
    ----------
    name : as `zfcore.checks.PRECISIONS` has it; its place there is the extension's number
    dtype : of the tensors
    bound : of a result's error (root mean square, relative): who is above it computes something else
    """

    name: str
    dtype: str
    bound: float

    @property
    def number(self) -> int:
        """As the extension counts precisions."""
        return checks.PRECISIONS.index(self.name)

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 2


STRICT = Precision("float32", "float32", 2e-5)
TF32 = Precision("tf32", "float32", 2e-3)
FLOAT16 = Precision("float16", "float16", 2e-3)
BFLOAT16 = Precision("bfloat16", "bfloat16", 1.2e-2)
PRECISIONS = (STRICT, TF32, FLOAT16, BFLOAT16)
SHORT = (TF32, FLOAT16, BFLOAT16)  # the tensor cores'


def variants(precision: Precision) -> dict[str, int]:
    """Our contenders of a precision, each with the extension's number: strict float32 may have a second one."""
    more = {"zfcore, tf32x3": checks.PRECISIONS.index("tf32x3")} if (
        precision is STRICT and "tf32x3" in checks.PRECISIONS) else {}
    return {"zfcore": precision.number, **more}


@dataclass(frozen=True)
class Pool:
    """Max pooling of maps (height, width, channels)."""

    height: int
    width: int
    channels: int
    window: tuple[int, int]
    stride: tuple[int, int]
    ceil: bool

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the pooled maps."""
        rows, columns = (output_size(size, window, stride, 0, 0, ceil_mode=self.ceil) for size, window, stride in zip(
            (self.height, self.width), self.window, self.stride, strict=True))
        return rows, columns

    @property
    def cells(self) -> int:
        """Numbers in an image's maps."""
        return self.height * self.width * self.channels

    @property
    def pooled(self) -> int:
        """And in its pooled ones."""
        return self.outputs[0] * self.outputs[1] * self.channels

    def bytes(self, batch: int, size: int) -> float:
        """What pooling, its gradient or unpooling moves at least: both maps and the switches."""
        return float(batch * (size * (self.cells + self.pooled) + SWITCH * self.pooled))


@dataclass(frozen=True)
class Conv:
    """A convolution of maps (height, width, channels); padding (top, bottom, left, right)."""

    height: int
    width: int
    channels: int
    filters: int
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the maps made."""
        sizes = zip((self.height, self.width), self.window, self.stride, self.padding[::2], self.padding[1::2],
                    strict=True)
        rows, columns = (output_size(*each) for each in sizes)
        return rows, columns

    @property
    def weights(self) -> int:
        """Numbers in the filters."""
        return self.filters * self.window[0] * self.window[1] * self.channels // self.groups

    @property
    def inputs(self) -> int:
        """Numbers in an image's maps."""
        return self.height * self.width * self.channels

    @property
    def made(self) -> int:
        """Numbers in the maps made of it."""
        return self.outputs[0] * self.outputs[1] * self.filters

    def gflop(self, batch: int) -> float:
        """The products and sums of each of the three directions, in 10^9."""
        return 2e-9 * batch * self.outputs[0] * self.outputs[1] * self.weights

    def bytes(self, batch: int, size: int) -> float:
        """What each of the three directions moves at least: both maps and the filters."""
        return float(size * (batch * (self.inputs + self.made) + self.weights))


@dataclass(frozen=True)
class Dense:
    """A fully connected layer."""

    inputs: int
    outputs: int

    def gflop(self, rows: int) -> float:
        """Of each direction, in 10^9."""
        return 2e-9 * rows * self.inputs * self.outputs

    def bytes(self, rows: int, size: int) -> float:
        """Of each direction."""
        return float(size * (self.inputs * self.outputs + rows * (self.inputs + self.outputs)))


def built(net: Network) -> Iterator[tuple[str, Conv | Pool | Dense | tuple[int, ...], str]]:
    """A network's convolutions, max pools, fully connected layers and response norms (their shapes), with the name of
    the layer below."""
    for name, node in net.nodes.items():
        layer: Any = node.layer
        below = node.inputs[0]
        shape = net.tensor_shape(below)
        kind = type(layer).__name__
        if kind == "Convolution":
            yield name, Conv(*shape, layer.filters, layer._window, layer._stride, layer._padding(shape[:2]),
                             layer.groups), below
        elif kind == "MaxPool":
            yield name, Pool(*shape, layer._window, layer._stride, layer.ceil_mode), below
        elif kind == "Linear":
            yield name, Dense(math.prod(shape), node.shape[-1]), below
        elif kind == "ResponseNorm":
            yield name, tuple(shape), below


@dataclass(frozen=True)
class Plan:
    """The networks, and how thoroughly they are measured.

    Attributes
    ----------
    networks : without parameters; of the first one all layers are measured, of the others the convolutions
    batch : images; of training steps of networks in `batches`, theirs
    repeats : samples of a contender, 50 at least where results are to be quoted
    few : the least number of samples of a row whose rounds take long (whole steps)
    seconds : after which such a row has no further rounds
    rotate : bytes that one graph goes through, beyond the cache
    layer, maps, top, pictures : of the projections: the layer, its first maps, images of each, images to choose from
    sample : maps that the slow peers project; the rest is extrapolated
    product : side of the matrix products, and copy : bytes, that show the ceilings
    """

    networks: dict[str, Callable[[], Network]] = field(default_factory=lambda: {
        "ZFNet": models.zfnet, "AlexNet": models.alexnet, "VGG-16": models.vgg16})
    batch: int = 128
    batches: dict[str, int] = field(default_factory=lambda: {"VGG-16": 64})
    repeats: int = 60
    few: int = 12
    seconds: float = 12.0
    rotate: float = 180e6
    layer: str = "conv5"
    maps: int = 256
    top: int = 9
    pictures: int = 128
    sample: int = 6
    product: int = 8192
    copy: int = 2**28

    @property
    def first(self) -> tuple[str, Network]:
        """The network of which everything is measured."""
        name = next(iter(self.networks))
        return name, self.networks[name]()

    def convolutions(self) -> dict[str, Conv]:
        """The distinct convolutions of all networks, by names such as "ZFNet conv3"."""
        found: dict[Conv, str] = {}
        for title, make in self.networks.items():
            for name, layer, _ in built(make()):
                if isinstance(layer, Conv):
                    found.setdefault(layer, f"{title} {name}")
        return {name: layer for layer, name in found.items()}

    def pools(self) -> dict[str, Pool]:
        """The first network's."""
        return {name: layer for name, layer, _ in built(self.first[1]) if isinstance(layer, Pool)}

    def dense(self) -> dict[str, Dense]:
        """The first network's."""
        return {name: layer for name, layer, _ in built(self.first[1]) if isinstance(layer, Dense)}

    def norms(self) -> dict[str, tuple[int, ...]]:
        """The shapes (height, width, channels) that the first network normalises."""
        return {name: layer for name, layer, _ in built(self.first[1]) if isinstance(layer, tuple)}

    def stages(self) -> dict[str, tuple[Conv, Pool]]:
        """Convolutions whose maps go straight to a max pool, in the first network."""
        layers = list(built(self.first[1]))
        convolutions = {name: layer for name, layer, _ in layers if isinstance(layer, Conv)}
        return {below: (convolutions[below], layer) for _, layer, below in layers
                if isinstance(layer, Pool) and below in convolutions}
