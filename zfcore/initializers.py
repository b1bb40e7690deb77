"""Random weights: the papers' and He's. Each parameter has its own stream, by its name.

So a layer's numbers depend on the seed and on its name, not on which layers stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from . import checks

# zf: Zeiler & Fergus 2013, section 3.1: "weights initialized to 1e-2 and biases to 0" (a normal of that
# standard deviation). krizhevsky: Krizhevsky et al. 2012, section 5: the same weights, biases 1 in the
# second, fourth and fifth convolution and the hidden fully connected layers. he: He et al. 2015. zf-scaled:
# zf for small networks, in which 1e-2 lets the signal die out: 1e-2 where the pixels come in, 1e-2 for 4096
# inputs as to the paper's layers 7 and 8, and more for fewer, so that their sum spreads as much.
SCHEMES = ("zf", "krizhevsky", "he", "zf-scaled")
_FIXED = {"scale": 1.0, "variance": 1.0, "mean": 0.0, "slope": 0.25}  # slope: He et al. 2015


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers that belong to `name` under `seed`."""
    checks.integer("initialize", "seed", seed, 0)
    return np.random.default_rng(np.random.SeedSequence([int(seed), *name.encode()]))


def ones_of_krizhevsky(kinds: Mapping[str, str]) -> set[str]:
    """Layers whose biases the "krizhevsky" scheme sets to 1.

    Parameters
    ----------
    kinds : name of each layer and its type's name, in order
    """
    convolutions = [name for name, kind in kinds.items() if kind == "Convolution"]
    linear = [name for name, kind in kinds.items() if kind == "Linear"]
    return {name for place, name in enumerate(convolutions, 1) if place in (2, 4, 5)} | set(linear[:-1])


def draw(scheme: str, layer: str, parameter: str, shape: tuple[int, ...], seed: int,
         bias: float = 0.0, first: bool = False) -> np.ndarray:
    """One parameter's initial float32 array.

    Parameters
    ----------
    scheme : one of SCHEMES
    layer, parameter : their names choose the stream
    shape : weights are (filters, ..., inputs): all axes but the first are a unit's inputs
    seed : >= 0
    bias : the value of biases
    first : whether the layer's input is the image
    """
    checks.one_of("initialize", "scheme", scheme, SCHEMES)
    if parameter == "bias":
        return np.full(shape, bias, np.float32)
    if parameter in _FIXED:
        return np.full(shape, _FIXED[parameter], np.float32)
    deviation = 1e-2
    if scheme == "he":
        deviation = math.sqrt(2.0 / math.prod(shape[1:]))
    elif scheme == "zf-scaled" and not first:
        deviation *= math.sqrt(4096 / math.prod(shape[1:]))
    values = stream(seed, f"{layer}.{parameter}").standard_normal(shape, dtype=np.float32)
    values *= np.float32(deviation)
    return values
