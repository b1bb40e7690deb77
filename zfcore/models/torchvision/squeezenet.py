"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016): fire modules, and a classifier that is a convolution."""

from __future__ import annotations

from functools import partial

from ...layers import Concat, Convolution, Dropout, GlobalAveragePool, MaxPool
from ...network import Network
from .common import Architecture, finish, start

# First convolution (filters, side); the fire modules' squeeze widths; modules that a pool precedes.
SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)
VERSIONS = {"1_0": ((96, 7), (2, 5, 9)), "1_1": ((64, 3), (2, 4, 6))}


def squeezenet(version: str = "1_1", classes: int = 1000, *, input_size: int = 224) -> Network:
    """SqueezeNet.

    Parameters
    ----------
    version : "1_0" or "1_1", which pools earlier and is 2.4 times cheaper
    classes : filters of the last convolution
    input_size : side of the images

    Returns
    -------
    Network with layers conv1, pool1, fire2.squeeze, fire2.expand1x1, fire2.expand3x3, fire2, ... fire9,
    drop9, conv10, avgpool, prob; no parameters yet
    """
    (filters, side), pooled = VERSIONS[version]
    net = start(f"squeezenet{version}", input_size)
    net.add("conv1", Convolution(filters, side, stride=2, activation="relu"))
    for number, squeeze in enumerate(SQUEEZE, 2):
        if number in pooled:
            net.add(f"pool{number - 1}", MaxPool(3, 2, ceil_mode=True))
        name = f"fire{number}"
        narrow = net.add(f"{name}.squeeze", Convolution(squeeze, 1, activation="relu"))
        one = net.add(f"{name}.expand1x1", Convolution(4 * squeeze, 1, activation="relu"), narrow)
        wide = Convolution(4 * squeeze, 3, padding=1, activation="relu")
        three = net.add(f"{name}.expand3x3", wide, narrow)
        net.add(name, Concat(), (one, three))
    net.add("drop9", Dropout(0.5))
    net.add("conv10", Convolution(classes, 1, activation="relu"))
    net.add("avgpool", GlobalAveragePool())
    return finish(net)


def modules(net: Network) -> dict[str, str]:
    """Paths in torchvision: `features` counts the first convolution, its ReLU, pools and fire modules."""
    paths, place = {"conv1": "features.0", "conv10": "classifier.1"}, 2
    for name, node in net.nodes.items():
        if isinstance(node.layer, MaxPool):
            place += 1
        elif isinstance(node.layer, Concat):
            paths |= {f"{name}.{part}": f"features.{place}.{part}"
                      for part in ("squeeze", "expand1x1", "expand3x3")}
            place += 1
    return paths


ARCHITECTURES = {f"squeezenet{version}": Architecture(partial(squeezenet, version), modules, "classifier.1")
                 for version in VERSIONS}
