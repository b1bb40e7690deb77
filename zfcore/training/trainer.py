"""The training loop: a walk up, softmax cross-entropy, the walk down under the gradient rule, a step.

Everything random comes from the seed: epoch e is shuffled by the generator of (seed, e), batch b of it
is augmented by that of (seed, e, b), and dropout's masks are keyed by the seed and counted by the step.
So a run is the same bit for bit every time, for any number of threads, and can be taken up again at any
epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .. import checks
from .optimizers import SGD, Optimizer

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Epoch", "Evaluation", "NonFiniteLoss", "evaluate", "fit", "train_step"]


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the step that showed it was not taken.

    Attributes
    ----------
    layer : the first layer, in the order of computation, with a value that is not finite
    step : the step at which it was seen, from 0
    """

    def __init__(self, layer: str, step: int) -> None:
        super().__init__(f"the loss is not finite at step {step}; the first values that are not finite come "
                         f"from {layer!r} (a smaller learning rate, or inputs of a smaller scale?)")
        self.layer, self.step = layer, step


@dataclass(frozen=True)
class Evaluation:
    """How a network does on labelled images.

    Attributes
    ----------
    loss : mean cross-entropy
    accuracy : share of images whose label is the first most probable class
    predictions : int64 (N,), those classes
    """

    loss: float
    accuracy: float
    predictions: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What happened in one pass over the training images.

    Attributes
    ----------
    number : from 0
    learning_rate : of its steps
    loss, accuracy : means over the epoch's batches, as they were met, dropout included
    validation : on the validation images after the epoch, or None
    seconds : wall-clock time
    """

    number: int
    learning_rate: float
    loss: float
    accuracy: float
    validation: Evaluation | None
    seconds: float


def _labelled(where: str, images: Any, labels: Any, classes: int) -> np.ndarray:
    """Check labels against images; return them as int64."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        checks.fail(where, "labels.dtype", str(array.dtype), "integers", TypeError)
    checks.require(len(images) > 0, where, "len(images)", len(images), "at least one image")
    checks.shape(where, "labels", array, (len(images),))
    lowest, highest = int(array.min()), int(array.max())
    checks.require(lowest >= 0 and highest < classes, where, "labels", (lowest, highest),
                   f"classes from 0 to {classes - 1}")
    return array.astype(np.int64)


def _prepared(net: Network, batch: Any) -> Any:
    """Images as the network takes them: 8-bit pixels are preprocessed, floats already are."""
    if batch.dtype != np.uint8:
        return batch
    if net.preprocessing is None:
        checks.fail("fit", "images.dtype", "uint8", "floats, or a network with a preprocessing", TypeError)
    return net.preprocessing.apply(batch)


def _first_bad_layer(net: Network, batch: Any, seed: int, step: int) -> str:
    """Name of the first layer with a parameter or an output that is not finite."""
    if not np.isfinite(batch).all():
        return "input"
    nodes = net.below([net.logits])
    kept = net.forward(batch, keep=[node.name for node in nodes], to=net.logits, training=True, seed=seed,
                       step=step).kept
    for node in nodes:
        if not all(np.isfinite(array).all() for array in (*node.layer.parameters.values(), kept[node.name])):
            return node.name
    return nodes[-1].name


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
    progress: bool = True,
    callback: Callable[[Epoch], object] | None = None,
) -> list[Epoch]:
    """Fit a network's parameters, in place, to labelled images.

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
    progress : show a bar on stderr
    callback : called with each finished Epoch

    Returns
    -------
    list of Epoch

    Raises
    ------
    NonFiniteLoss : the loss became NaN or infinite; parameters are those before that step
    """
    checks.integer("fit", "epochs", epochs, 1)
    checks.integer("fit", "batch_size", batch_size, 1)
    checks.integer("fit", "seed", seed, 0)
    targets = _labelled("fit", images, labels, net.tensor_shape(net.logits)[-1])
    optimizer = SGD(radius=0.1) if optimizer is None else optimizer
    history = []
    total = -(-len(targets) // batch_size)
    with tqdm(total=epochs * total, desc="training", unit="batch", disable=not progress) as bar:
        for number in range(epochs):
            start = time.perf_counter()
            if schedule is not None:
                optimizer.learning_rate = float(schedule(number))
            order = np.random.default_rng([seed, number]).permutation(len(targets))
            loss, hits = 0.0, 0
            for place in range(total):
                chosen = order[place * batch_size : (place + 1) * batch_size]
                step = number * total + place
                batch = images[chosen]
                if augment is not None:
                    batch = augment(batch, np.random.default_rng([seed, number, place]))
                batch = _prepared(net, batch)
                losses, right = train_step(net, batch, targets[chosen], optimizer, seed=seed, step=step)
                loss, hits = loss + losses, hits + right
                bar.update()
            checked = evaluate(net, *validation, batch_size=batch_size) if validation else None
            epoch = Epoch(number, optimizer.learning_rate, loss / len(targets), hits / len(targets), checked,
                          time.perf_counter() - start)
            history.append(epoch)
            shown = {"loss": f"{epoch.loss:.4f}", "accuracy": f"{epoch.accuracy:.4f}"}
            if checked:
                shown["validation"] = f"{checked.accuracy:.4f}"
            bar.set_postfix(shown)
            if callback is not None:
                callback(epoch)
    return history


def train_step(net: Network, batch: Any, labels: np.ndarray, optimizer: Optimizer, *, seed: int = 0,
               step: int = 0) -> tuple[float, int]:
    """Walk up, walk down, update the parameters once.

    Parameters
    ----------
    net : an initialised network
    batch : (N, H, W, C), preprocessed
    labels : integers (N,)
    optimizer : what moves the parameters, in place
    seed, step : of dropout: another step drops other units

    Returns
    -------
    loss : summed over the batch, before the step
    hits : right answers before the step
    """
    ops = net.ops
    classes = np.asarray(labels)
    batch, labels = ops.backend.asarray(batch), ops.backend.asarray(labels)
    forward = net.forward(batch, to=net.logits, cache=True, training=True, seed=seed, step=step)
    losses, probabilities = ops.softmax_cross_entropy(forward.output, labels)
    loss = float(ops.backend.to_numpy(losses).sum(dtype=np.float64))
    if not np.isfinite(loss):
        raise NonFiniteLoss(_first_bad_layer(net, batch, seed, step), step)
    signal = ops.softmax_cross_entropy_gradient(probabilities, labels)
    gradients = net.backward(forward, signal, inputs=False).gradients
    optimizer.step(ops, net.parameters(), gradients)
    return loss, int((ops.backend.to_numpy(probabilities).argmax(axis=1) == classes).sum())


def evaluate(net: Network, images: Any, labels: Any, *, batch_size: int = 128,
             progress: bool = False) -> Evaluation:
    """Measure loss and accuracy on labelled images, without dropout.

    Parameters
    ----------
    net : a network whose output has one value a class
    images : (N, H, W, C), uint8 pixels or preprocessed floats
    labels : integers (N,)
    batch_size : images at a time; the result does not depend on it
    progress : show a bar on stderr
    """
    checks.integer("evaluate", "batch_size", batch_size, 1)
    targets = _labelled("evaluate", images, labels, net.tensor_shape(net.logits)[-1])
    losses, predictions = [], []
    for start in tqdm(range(0, len(targets), batch_size), desc="evaluating", disable=not progress):
        index = slice(start, start + batch_size)
        batch = net.ops.backend.asarray(_prepared(net, images[index]))
        logits = net.forward(batch, to=net.logits).output
        each, probabilities = net.ops.softmax_cross_entropy(logits, net.ops.backend.asarray(targets[index]))
        losses.append(net.ops.backend.to_numpy(each))
        predictions.append(net.ops.backend.to_numpy(probabilities).argmax(axis=1))
    predicted = np.concatenate(predictions).astype(np.int64)
    loss = float(np.concatenate(losses).mean(dtype=np.float64))
    return Evaluation(loss, float((predicted == targets).mean()), predicted)
