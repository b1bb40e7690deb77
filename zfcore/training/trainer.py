"""Fitting a network to labelled images in memory: the training loop over arrays, without a directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from .feeds import ArrayFeed
from .loop import Epoch, Observer, Training
from .optimizers import SGD, Optimizer

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["fit"]


class _Told(Observer):
    """Hand each finished epoch to a function."""

    def __init__(self, callback: Callable[[Epoch], object] | None) -> None:
        self.callback = callback

    def finished(self, training: Training, epoch: Epoch) -> None:
        if self.callback is not None:
            self.callback(epoch)


def fit(
    net: Network,
    images: Any,
    labels: Any,
    *,
    epochs: int,
    batch_size: int = 128,
    optimizer: Optimizer | None = None,
    seed: int = 0,
    schedule: Callable[[int], float] | None = None,
    augment: Callable[[Any, np.random.Generator], Any] | None = None,
    validation: tuple[Any, Any] | None = None,
    captured: bool = False,
    progress: bool = True,
    callback: Callable[[Epoch], object] | Observer | None = None,
) -> list[Epoch]:
    """Fit a network's parameters, in place, to labelled images in memory.

    Parameters
    ----------
    net : an initialised network whose output has one value a class; a closing softmax is left out
    images : (N, H, W, C), uint8 pixels (preprocessed batch by batch) or floats that are already
    labels : integers (N,)
    epochs : passes over the images
    batch_size : images a step; the last batch of an epoch may be smaller
    optimizer : None: SGD with momentum 0.9, rate 0.01 and filter renormalisation at 0.1, the ZF recipe
    seed : of the order of the images and of dropout
    schedule : learning rate of each epoch, from 0; None: the optimizer's stays
    augment : changes a batch of images before it is preprocessed, with a generator of the batch's own
    validation : (images, labels) to evaluate after each epoch
    captured : launch steps as one CUDA graph, see `Training`
    progress : show a bar on stderr
    callback : called with each finished Epoch; or an Observer of the training

    Returns
    -------
    list of Epoch

    Raises
    ------
    NonFiniteLoss : the loss became NaN or infinite; parameters are those before that step
    """
    checks.integer("fit", "epochs", epochs, 1)
    classes = net.tensor_shape(net.logits)[-1]
    feed = ArrayFeed(images, labels, net.preprocessing, batch_size=batch_size, seed=seed, augment=augment,
                     classes=classes, where="fit")
    checked = validation and ArrayFeed(*validation, net.preprocessing, batch_size=batch_size, shuffle=False,
                                       classes=classes, where="fit")
    training = Training(net, feed, SGD(radius=0.1) if optimizer is None else optimizer,
                        None if schedule is None else lambda epoch, errors: schedule(epoch), seed, checked or None,
                        captured=captured)
    observer = callback if isinstance(callback, Observer) else _Told(callback)
    return training.run(epochs, observer=observer, progress=progress)
