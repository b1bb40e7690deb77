"""Feature inversion: an image that a layer cannot tell from a given one."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..network import Network, unchanging
from .penalties import total_variation
from .progress import bar
from .result import Synthesis, channels_of
from .steps import Climber, amplitude

__all__ = ["inversion"]


@unchanging
def inversion(network: Network, x: np.ndarray, layer: str, *, steps: int = 200, rate: float = 0.05,
              variation: float = 0.3, beta: float = 2.0, noise: float = 0.1, jitter: int = 0, seed: int = 0,
              batch_size: int = 32, progress: bool = False) -> Synthesis:
    """Minimise ||Phi(I) - Phi_0||^2 / ||Phi_0||^2 + variation * R_beta(I) / (height * width).

    Phi is a layer's tensor, Phi_0 its value for the given image, R_beta total variation in amplitudes (64 gray
    levels in the network's numbers). Mahendran & Vedaldi, *Understanding Deep Image Representations by Inverting
    Them* (2015), equations 1 to 5; Adam instead of their momentum, its rate falling to zero by a cosine.

    Parameters
    ----------
    network : with parameters
    x : images (N, height, width, channels), preprocessed
    layer : any tensor: "conv3", "fc7", "conv5.pre"
    steps, rate : of Adam, the rate in amplitudes
    variation, beta : weight and exponent of R_beta
    noise : standard deviation of the start, in amplitudes
    jitter : the image is shifted by up to so many pixels for each gradient (the target is not: it makes the
        result smoother and less exact)
    seed : of the start; row i does not depend on the others
    batch_size : images in one walk
    progress : show a bar on stderr

    Returns
    -------
    Synthesis whose scores are the relative errors ||Phi(I) - Phi_0||^2 / ||Phi_0||^2

    Raises
    ------
    ValueError : a layer that does not exist, settings out of range, or an image whose features are all zero
    """
    where = "inversion"
    checks.integer(where, "steps", steps, 0)
    checks.integer(where, "jitter", jitter, 0)
    checks.integer(where, "batch_size", batch_size, 1)
    for name, value in (("rate", rate), ("variation", variation), ("beta", beta), ("noise", noise)):
        checks.require(np.isfinite(value) and value >= 0, where, name, value, "a finite number >= 0")
    network._check_input(x)
    network.tensor_shape(layer)
    images, errors = np.empty(x.shape, x.dtype), np.zeros((steps + 1, len(x)), np.float32)
    size = x.dtype.type(amplitude(network))
    settings = {"layer": layer, "steps": steps, "rate": rate, "variation": variation, "beta": beta,
                "noise": noise, "jitter": jitter, "seed": seed}
    with bar(steps * -(-len(x) // batch_size), f"inversion of {layer}", progress) as shown:
        for first in range(0, len(x), batch_size):
            part = slice(first, min(first + batch_size, len(x)))
            wanted = network.forward(x[part], to=layer).output
            norms = np.square(wanted, dtype=np.float64).reshape(len(wanted), -1).sum(axis=1)
            if not norms.all():
                checks.fail(where, "layer", layer, f"one that image {first + int(np.argmin(norms))} excites at all")
            begin = np.stack([np.random.default_rng([seed, row]).standard_normal(x.shape[1:], np.float32)
                              for row in range(part.start, part.stop)]).astype(x.dtype) * x.dtype.type(noise)
            images[part], errors[:, part] = _descend(network, begin, wanted, norms, layer, size, settings, shown)
    return Synthesis("inversion", images, errors, [layer] * len(x), np.zeros(len(x), bool), settings,
                     channels_of(network))


def _descend(network: Network, x: np.ndarray, wanted: np.ndarray, norms: np.ndarray, layer: str,
             size: np.floating, settings: dict[str, Any], shown: Any) -> tuple[np.ndarray, np.ndarray]:
    climber = Climber("adam", settings["rate"])
    errors = np.zeros((settings["steps"] + 1, len(x)), np.float32)
    shifts = np.random.default_rng([settings["seed"], 1_000_003])
    scale = (2 / norms).astype(x.dtype).reshape(-1, *(1,) * (wanted.ndim - 1))
    weight = x.dtype.type(settings["variation"] / (x.shape[1] * x.shape[2]))
    low, high = (None, None)
    if network.preprocessing is not None:
        low, high = (limit / size for limit in network.preprocessing.limits(x.shape[1:]))

    def distances(found: np.ndarray) -> np.ndarray:
        return np.square(found - wanted, dtype=np.float64).reshape(len(x), -1).sum(axis=1) / norms

    for number in range(settings["steps"]):
        climber.rate = settings["rate"] * 0.5 * (1 + np.cos(np.pi * number / settings["steps"]))
        reach = settings["jitter"]
        shift = tuple(shifts.integers(-reach, reach + 1, 2).tolist()) if reach else (0, 0)
        forward = network.forward(np.roll(x, shift, axis=(1, 2)) * size, to=layer, cache=True, parameters=False)
        errors[number] = distances(forward.output)
        slope = network.backward(forward, (forward.output - wanted) * scale, parameters=False).input
        slope = np.roll(slope, (-shift[0], -shift[1]), axis=(1, 2)) * size
        if weight:
            slope = slope + weight * total_variation(x, settings["beta"])[1]
        climber.step(x, -slope)
        if low is not None:
            np.clip(x, low, high, out=x)
        shown.update()
    x = x * size
    errors[-1] = distances(network.forward(x, to=layer).output)
    return x, errors
