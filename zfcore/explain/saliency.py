"""What a score's derivative says about the pixels: saliency and its kin, under the three rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .. import checks, rules
from ..network import Network, unchanging
from ..rules import Rule
from .progress import bar
from .result import Attribution, channels_of
from .targets import Targets, pull, resolve

__all__ = ["deconvnet", "gradient", "gradient_times_input", "guided", "saliency", "smoothgrad"]


def walk(network: Network, x: np.ndarray, targets: Targets, rule: str | Rule, batch_size: int
         ) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) and signals at the pixels of any number of images, in batches."""
    checks.integer("explain", "batch_size", batch_size, 1)
    scores, signal = np.empty(len(x), x.dtype), np.empty_like(x, order="C")
    with network.while_frozen(len(x) > batch_size):
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            scores[part], signal[part] = pull(network, x[part], targets[part], rule)
    return scores, signal


def gradient(network: Network, x: np.ndarray, target: Any = None, *, rule: str | Rule = "gradient",
             batch_size: int = 32) -> Attribution:
    """The signal at the pixels that a score of 1 sends down: d score / d x, under a rule.

    Parameters
    ----------
    network : with parameters
    x : images (N, height, width, channels), preprocessed, gray or colour
    target : None (each row's top class), a class, a unit ("conv5:42@6,7"), a map ("conv5:42": its mean),
        a layer, or one of these for each row; class scores are those before the softmax
    rule : "gradient", "deconvnet", "guided" or a Rule
    batch_size : images in one walk; the result does not depend on it

    Returns
    -------
    Attribution, signed values (N, height, width, channels)

    Raises
    ------
    ValueError : a target that does not exist, or a rule that a layer does not have
    """
    kind = rules.get(rule)
    targets = resolve(network, target, x, batch_size)
    scores, signal = walk(network, x, targets, kind, batch_size)
    name = "gradient" if kind.is_gradient else kind.name
    return Attribution(name, signal, scores, targets.names(), True, {"rule": kind.name}, channels_of(network))


def saliency(network: Network, x: np.ndarray, target: Any = None, *, batch_size: int = 32) -> Attribution:
    """Saliency map: the greatest magnitude over the colours, max_c |d S / d x_c|.

    Simonyan, Vedaldi & Zisserman, *Deep Inside Convolutional Networks* (2013), section 3.

    Parameters
    ----------
    network, x, target, batch_size : as for `gradient`

    Returns
    -------
    Attribution, values (N, height, width), none below zero
    """
    found = gradient(network, x, target, batch_size=batch_size)
    return replace(found, method="saliency", values=_greatest_magnitude(found.values), signed=False, settings={})


def _greatest_magnitude(signal: np.ndarray) -> np.ndarray:
    """max over c of |signal[..., c]|, a colour at a time: reducing a last axis of three is eight times slower."""
    greatest = np.abs(signal[..., 0])
    for colour in range(1, signal.shape[-1]):
        np.maximum(greatest, np.abs(signal[..., colour]), out=greatest)
    return greatest


def gradient_times_input(network: Network, x: np.ndarray, target: Any = None, *, batch_size: int = 32
                         ) -> Attribution:
    """x * d S / d x: to first order what every number of the input adds to the score.

    Shrikumar et al., *Not Just a Black Box* (2016). With biases zero the values sum to the score in a
    network of convolutions, ReLUs and pools.

    Parameters
    ----------
    network, x, target, batch_size : as for `gradient`

    Returns
    -------
    Attribution, signed values (N, height, width, channels)
    """
    found = gradient(network, x, target, batch_size=batch_size)
    return replace(found, method="gradient-input", values=x * found.values, settings={})


@unchanging
def smoothgrad(network: Network, x: np.ndarray, target: Any = None, *, samples: int = 25, noise: float = 0.15,
               squared: bool = False, seed: int = 0, batch_size: int = 32, progress: bool = False) -> Attribution:
    """The mean gradient over noisy copies of each image.

    mean over i of d S(x + n_i) / d x, n_i ~ N(0, (noise * (max x - min x))^2), the spread taken image by
    image. Smilkov et al., *SmoothGrad* (2017).

    Parameters
    ----------
    network, x, target, batch_size : as for `gradient`; a target of None is the clean image's top class
    samples : copies of an image
    noise : standard deviation, as a part of the image's range
    squared : average the squares of the gradients instead
    seed : of the noise; row i has its own stream, so that it does not depend on the other rows
    progress : show a bar on stderr

    Returns
    -------
    Attribution, values (N, height, width, channels); signed unless `squared`. The scores are those of
    the clean images.
    """
    checks.integer("smoothgrad", "samples", samples, 1)
    checks.integer("smoothgrad", "seed", seed, 0)
    checks.require(np.isfinite(noise) and noise >= 0, "smoothgrad", "noise", noise, "a finite number >= 0")
    checks.integer("smoothgrad", "batch_size", batch_size, 1)
    targets = resolve(network, target, x, batch_size)
    spread = noise * (x.max(axis=(1, 2, 3)) - x.min(axis=(1, 2, 3))) if len(x) else np.zeros(0)
    total = np.zeros(x.shape, np.float64)
    generators = [np.random.default_rng([seed, row]) for row in range(len(x))]
    order = np.repeat(np.arange(len(x)), samples)
    with bar(len(order), "smoothgrad", progress, "image") as shown:
        for start in range(0, len(order), batch_size):
            rows = order[start:start + batch_size]
            noisy = np.stack([x[row] + x.dtype.type(spread[row]) * generators[row].standard_normal(
                x.shape[1:], np.float32).astype(x.dtype) for row in rows])
            for row, signal in zip(rows, pull(network, noisy, targets[rows])[1], strict=True):
                total[row] += np.square(signal) if squared else signal
            shown.update(len(rows))
    values = (total / samples).astype(x.dtype)
    scores = _scores(network, x, targets, batch_size)
    return Attribution("smoothgrad", values, scores, targets.names(), not squared,
                       {"samples": samples, "noise": noise, "squared": squared, "seed": seed}, channels_of(network))


def _scores(network: Network, x: np.ndarray, targets: Targets, batch_size: int) -> np.ndarray:
    """The targets' scores, without a walk down."""
    parts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    found = [targets[part].scores(network.forward(x[part], to=targets.tensor).output) for part in parts]
    return np.concatenate(found) if found else np.zeros(0, x.dtype)


def guided(network: Network, x: np.ndarray, target: Any = None, *, batch_size: int = 32) -> Attribution:
    """Guided backpropagation: the walk down in which a ReLU passes max(s, 0) where x > 0.

    Springenberg et al., *Striving for Simplicity* (2014).

    Parameters
    ----------
    network, x, target, batch_size : as for `gradient`

    Returns
    -------
    Attribution, signed values (N, height, width, channels)
    """
    return gradient(network, x, target, rule="guided", batch_size=batch_size)


def deconvnet(network: Network, x: np.ndarray, target: Any = None, *, batch_size: int = 32) -> Attribution:
    """The deconvnet of a class or of units: a ReLU passes max(s, 0), normalisation passes all.

    Zeiler & Fergus (2014), section 2.1, with a signal of 1 at the score.

    Parameters
    ----------
    network, x, target, batch_size : as for `gradient`

    Returns
    -------
    Attribution, signed values (N, height, width, channels)
    """
    return gradient(network, x, target, rule="deconvnet", batch_size=batch_size)
