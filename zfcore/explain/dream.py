"""DeepDream: more of whatever a layer sees in an image, over octaves, on images of any size."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..network import Network, unchanging
from .progress import bar
from .resize import resize_maps
from .result import Synthesis, channels_of
from .steps import amplitude
from .targets import Targets, of_units, pull

__all__ = ["dream"]


@unchanging
def dream(network: Network, x: np.ndarray, target: Any, *, octaves: int = 4, scale: float = 1.4, steps: int = 10,
          rate: float = 0.03, jitter: int = 16, tile: int = 512, seed: int = 0,
          progress: bool = False) -> Synthesis:
    """Climb a layer's mean square over growing sizes of one image, keeping its detail.

    At each octave the image is at size / scale ** k; every step adds rate * g / mean |g| (in amplitudes of 64
    gray levels); what the octave added is enlarged and put on the next one. Images larger than a tile are
    worked on in tiles whose borders move with the jitter. Mordvintsev, Olah & Tyka, *Inceptionism* (2015).

    Parameters
    ----------
    network : with parameters; only layers up to the target are used, so that convolutional ones take any size
    x : one image (1, height, width, channels), preprocessed, of any size
    target : a layer (the mean of its activations' squares) or a map ("conv5:42": its mean)
    octaves, scale : how many sizes, and the ratio between them
    steps, rate : for each octave
    jitter : pixels by which the image is shifted, at random, for each step
    tile : the longest side that is walked at once
    seed : of the jitter
    progress : show a bar on stderr

    Returns
    -------
    Synthesis: one image of x's shape; scores: one before each step and after the last, each at its octave's size

    Raises
    ------
    ValueError : a target that needs more than convolutions, or octaves too small for it
    """
    where = "dream"
    checks.floats(where, "x", x, 4)
    checks.require(len(x) == 1 and x.shape[3] == network.input_shape[2], where, "x.shape", tuple(x.shape),
                   f"(1, height, width, {network.input_shape[2]})")
    for name, value, least in (("octaves", octaves, 1), ("steps", steps, 1), ("jitter", jitter, 0),
                               ("tile", tile, 16), ("seed", seed, 0)):
        checks.integer(where, name, value, least)
    checks.require(scale > 1, where, "scale", scale, "a number above 1")
    checks.require(np.isfinite(rate) and rate > 0, where, "rate", rate, "a finite number above 0")
    targets = of_units(network, [target])
    if targets.single or len(network.tensor_shape(targets.tensor)) != 3:
        checks.fail(where, "target", str(target), "a layer of maps, or a map of one: conv5 or conv5:42")
    walker = _Walker(network, targets, tile)
    shifts = np.random.default_rng([seed, 0])
    size = x.dtype.type(amplitude(network))
    sides = [tuple(max(round(side / scale**power), 1) for side in x.shape[1:3])
             for power in reversed(range(octaves))]
    added, history = np.zeros((1, *sides[0], x.shape[3]), x.dtype), []
    low, high = (-np.inf, np.inf)
    if network.preprocessing is not None:
        limits = [limit.mean(axis=(0, 1)) for limit in network.preprocessing.limits(network.input_shape)]
        low, high = limits
    with bar(octaves * steps, "dream", progress) as shown:
        for number, side in enumerate(sides):
            base = _reduced(x, side)
            image = np.clip(base + resize_maps(added, side), low, high)
            for _ in range(steps):
                shift = tuple(shifts.integers(-jitter, jitter + 1, 2).tolist()) if jitter else (0, 0)
                score, slope = walker.pull(np.roll(image, shift, axis=(1, 2)))
                slope = np.roll(slope, (-shift[0], -shift[1]), axis=(1, 2))
                history.append(score)
                strength = np.abs(slope).mean()
                if strength == 0:
                    checks.fail(where, "target", str(target), f"one that this image excites (octave {number})")
                image = np.clip(image + x.dtype.type(rate) * size * slope / strength, low, high).astype(x.dtype)
                shown.update()
            added = image - base
    history.append(walker.pull(image)[0])
    settings = {"octaves": octaves, "scale": scale, "steps": steps, "rate": rate, "jitter": jitter, "tile": tile,
                "seed": seed}
    return Synthesis("dream", image, np.array(history, np.float32)[:, None], targets.names(), np.zeros(1, bool),
                     settings, channels_of(network))


def _reduced(x: np.ndarray, side: tuple[int, ...]) -> np.ndarray:
    """The image at a smaller size, by halves first: bilinear reduction alone would skip pixels."""
    while x.shape[1] >= 2 * side[0] and x.shape[2] >= 2 * side[1]:
        even = x[:, :x.shape[1] // 2 * 2, :x.shape[2] // 2 * 2]
        x = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    return resize_maps(x, side)


class _Walker:
    """Gradients of images of any size, in tiles of nearly equal sizes; networks by size."""

    def __init__(self, network: Network, targets: Targets, tile: int) -> None:
        self.network, self.targets, self.tile = network, targets, tile
        self.networks: dict[tuple[int, int], Network] = {}

    def _at(self, height: int, width: int) -> Network:
        if (height, width) not in self.networks:
            self.networks[height, width] = self.network.at_size(height, width, self.targets.tensor)
        return self.networks[height, width]

    def pull(self, image: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean score over the tiles, and the gradient of every tile at its place."""
        cuts = [np.linspace(0, side, -(-side // self.tile) + 1).round().astype(int) for side in image.shape[1:3]]
        slope, scores = np.empty_like(image), []
        for top, bottom in zip(cuts[0][:-1], cuts[0][1:], strict=True):
            for left, right in zip(cuts[1][:-1], cuts[1][1:], strict=True):
                part = np.ascontiguousarray(image[:, top:bottom, left:right])
                score, found = pull(self._at(bottom - top, right - left), part, self.targets)
                slope[:, top:bottom, left:right] = found
                scores.append(score[0])
        return float(np.mean(scores)), slope
