"""Training on adversarial examples: every batch beside the same images, changed to raise the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import backends, checks
from ..network import Network
from .steps import amplitude

__all__ = ["AdversarialFeed", "fast_gradient"]


def fast_gradient(network: Network, x: np.ndarray, labels: Any, size: float = 8.0, *, limits: bool = True,
                  batch_size: int = 128) -> np.ndarray:
    """The images after one step up the loss: x + size * sign(d loss / d x), loss the cross-entropy of the labels.

    To first order the change of that largest magnitude that raises the loss most. Goodfellow, Shlens & Szegedy,
    *Explaining and Harnessing Adversarial Examples* (2015), section 4.

    Parameters
    ----------
    network : with classes; dropout drops nothing here
    x : images (N, height, width, channels), preprocessed
    labels : integers (N,)
    size : of the change of every number, in gray levels of 255; in the network's numbers where it records no
        preprocessing
    limits : keep the images within what pixels can show
    batch_size : images in one walk; the result does not depend on it

    Returns
    -------
    changed images, of x's shape

    Raises
    ------
    ValueError : labels that are no classes, or a size below zero
    """
    where = "fast_gradient"
    network._check_input(x)
    checks.require(np.isfinite(size) and size >= 0, where, "size", size, "a finite number >= 0")
    checks.integer(where, "batch_size", batch_size, 1)
    shape = network.tensor_shape(network.logits)
    checks.require(len(shape) == 1, where, "network", network.name, "a network with classes")
    wanted = np.asarray(labels)
    checks.require(wanted.dtype.kind in "iu", where, "labels.dtype", str(wanted.dtype), "integers")
    checks.shape(where, "labels", wanted, (len(x),))
    inside = (wanted >= 0) & (wanted < shape[0])
    checks.require(bool(inside.all()), where, "labels", wanted[~inside][:1].tolist(), f"0 to {shape[0] - 1}")
    step = x.dtype.type(size / 64 * amplitude(network) if network.preprocessing is not None else size)
    changed = np.empty_like(x, order="C")
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        forward = network.forward(x[part], to=network.logits, cache=True, parameters=False)
        _, probabilities = network.ops.softmax_cross_entropy(forward.output, wanted[part].astype(np.int64))
        signal = network.ops.softmax_cross_entropy_gradient(probabilities, wanted[part].astype(np.int64))
        slope = backends.to_numpy(network.backward(forward, signal, parameters=False).input)
        changed[part] = x[part] + step * np.sign(slope)
    if limits and network.preprocessing is not None:
        np.clip(changed, *network.preprocessing.limits(x.shape[1:]), out=changed)
    return changed


class AdversarialFeed:
    """Batches of another feed, each with its own adversarial examples behind it, made by the network as it is then.

    A step on such a batch descends the mean of the loss and of the adversarial loss: Goodfellow et al. (2015),
    section 6, with their alpha of one half. It is a feed like the one it wraps: `zfcore.training.Training` takes
    it, and so does a loop of `train_step`.

    Parameters
    ----------
    network : that is being trained
    feed : batches (N, height, width, channels), preprocessed, and labels (N,) from `feed.epoch(number, first_step)`
    size : of the change, in gray levels (see `fast_gradient`)
    """

    def __init__(self, network: Network, feed: Any, size: float = 8.0) -> None:
        checks.require(np.isfinite(size) and size >= 0, "AdversarialFeed", "size", size, "a finite number >= 0")
        self.network, self.feed, self.size = network, feed, size

    @property
    def count(self) -> int:
        """Images an epoch: the feed's and as many adversarial ones."""
        return 2 * int(self.feed.count)

    def __len__(self) -> int:
        return len(self.feed)

    def manifest(self) -> str:
        """Hash of the feed's data."""
        return str(self.feed.manifest())

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of 2 N images; those of one epoch depend on the steps taken in between."""
        for batch, labels in self.feed.epoch(number, first_step):
            changed = fast_gradient(self.network, batch, labels, self.size) if len(labels) else batch
            yield np.concatenate([batch, changed]), np.concatenate([labels, labels])
