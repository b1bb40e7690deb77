"""How networks do on labelled images: loss, top-1, top-5, confusion; one network or several averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .. import checks
from .feeds import ArrayFeed, Feed

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Evaluation", "evaluate", "measure"]


@dataclass(frozen=True)
class Evaluation:
    """How a network, or an average of several, does on labelled images.

    Attributes
    ----------
    loss : mean cross-entropy
    accuracy : share of images whose label is the first most probable class
    top5 : share of images whose label is among the five most probable classes
    predictions : int64 (N,), the most probable classes
    labels : int64 (N,)
    classes : how many there are
    members : of an average of several networks: how each does alone
    """

    loss: float
    accuracy: float
    predictions: np.ndarray
    top5: float
    labels: np.ndarray
    classes: int
    members: tuple[Evaluation, ...] = ()

    @property
    def confusion(self) -> np.ndarray:
        """int64 (classes, classes): images of the class of the row that were taken for the column's."""
        table = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(table, (self.labels, self.predictions), 1)
        return table

    @property
    def accuracies(self) -> np.ndarray:
        """float64 (classes,): accuracy on the images of each class; NaN where there are none."""
        counts = np.bincount(self.labels, minlength=self.classes)
        hits = np.bincount(self.labels[self.labels == self.predictions], minlength=self.classes)
        return np.divide(hits, counts, out=np.full(self.classes, np.nan), where=counts > 0)


def _answers(net: Network, batch: Any, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's loss, and its classes' probabilities, averaged over its crops if it has several."""
    views = batch.shape[1] if batch.ndim == 5 else 1
    batch = net.ops.backend.asarray(batch.reshape(-1, *batch.shape[-3:]))
    logits = net.forward(batch, to=net.logits).output
    targets = net.ops.backend.asarray(np.repeat(labels, views))
    losses, probabilities = (net.ops.backend.to_numpy(array) for array in
                             net.ops.softmax_cross_entropy(logits, targets))
    if views > 1:
        probabilities = probabilities.reshape(len(labels), views, -1).mean(axis=1, dtype=np.float64)
        losses = _losses(probabilities, labels)
    return losses, probabilities


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of averaged probabilities."""
    own = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(own, np.finfo(np.float64).tiny))


def measure(nets: Network | Sequence[Network], feeds: Feed | Sequence[Feed], *, progress: bool = False,
            between: Callable[[], object] | None = None) -> Evaluation:
    """Measure a network, or several whose probabilities are averaged, on a feed, without dropout.

    Averaging several networks is how the papers' ensembles are made (Zeiler & Fergus 2014, Table 2).

    Parameters
    ----------
    nets : one network, or several with the same classes
    feeds : unshuffled: one, or one for each network with the same images in the same batches. A batch
        (N, crops, H, W, C) holds several crops of each image, whose probabilities are averaged
    progress : show a bar on stderr
    between : called after each batch; what it raises ends the measurement
    """
    where = "measure"
    nets = list(nets) if isinstance(nets, Sequence) else [nets]
    sources = list(feeds) if isinstance(feeds, Sequence) else [feeds]
    checks.require(len(nets) > 0 and len(sources) in (1, len(nets)), where, "feeds", len(sources),
                   f"one, or one for each of {len(nets)} networks")
    sizes = [net.tensor_shape(net.logits)[-1] for net in nets]
    checks.require(len(set(sizes)) == 1, where, "nets", sizes, "networks with the same number of classes")
    counts = sorted({(feed.count, len(feed)) for feed in sources})
    checks.require(len(counts) == 1, where, "feeds", counts, "the same (images, batches) for all")
    checks.require(counts[0][0] > 0, where, "feeds", "no images", "at least one image")
    tallies = [_Tally() for _ in range(len(nets) + (len(nets) > 1))]
    targets = []
    with tqdm(total=counts[0][0], desc="evaluating", unit="img", disable=not progress, leave=False) as bar:
        for batches in zip(*(feed.epoch(0) for feed in sources), strict=True):
            labels = batches[0][1]
            if any(not np.array_equal(other, labels) for _, other in batches):
                raise ValueError("measure: feeds have other labels; allowed: the same images in the same order")
            if not len(labels):  # none of the batch's images could be read
                continue
            if labels.min() < 0 or labels.max() >= sizes[0]:
                checks.fail(where, "labels", (int(labels.min()), int(labels.max())),
                            f"classes from 0 to {sizes[0] - 1}")
            answers = [_answers(net, batches[place % len(batches)][0], labels) for place, net in enumerate(nets)]
            if len(nets) > 1:
                mean = np.asarray(np.mean([each for _, each in answers], axis=0, dtype=np.float64))
                answers.append((_losses(mean, labels), mean))
            for tally, (losses, probabilities) in zip(tallies, answers, strict=True):
                tally.add(losses, probabilities, labels)
            targets.append(labels)
            bar.update(len(labels))
            if between is not None:
                between()
    found = [tally.result(np.concatenate(targets).astype(np.int64), sizes[0]) for tally in tallies]
    return found[0] if len(found) == 1 else replace(found[-1], members=tuple(found[:-1]))


class _Tally:
    """What is kept of each image: its loss, its label's rank, and the most probable class."""

    def __init__(self) -> None:
        self.losses: list[np.ndarray] = []
        self.ranks: list[np.ndarray] = []
        self.predictions: list[np.ndarray] = []

    def add(self, losses: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Take a batch's."""
        own = probabilities[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(probabilities.shape[1]) < labels[:, None]  # of equal ones the first counts as more probable
        self.ranks.append(((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1))
        self.losses.append(losses)
        self.predictions.append(probabilities.argmax(axis=1))

    def result(self, labels: np.ndarray, classes: int) -> Evaluation:
        """Over all batches."""
        predicted = np.concatenate(self.predictions).astype(np.int64)
        loss = float(np.concatenate(self.losses).mean(dtype=np.float64))
        return Evaluation(loss, float((predicted == labels).mean()), predicted,
                          float((np.concatenate(self.ranks) < 5).mean()), labels, classes)


def evaluate(net: Network, images: Any, labels: Any, *, batch_size: int = 128,
             progress: bool = False) -> Evaluation:
    """Measure a network on labelled images in memory, without dropout.

    Parameters
    ----------
    net : a network whose output has one value a class
    images : (N, H, W, C), uint8 pixels or preprocessed floats
    labels : integers (N,)
    batch_size : images at a time; the result does not depend on it
    progress : show a bar on stderr
    """
    feed = ArrayFeed(images, labels, net.preprocessing, batch_size=batch_size, shuffle=False,
                     classes=net.tensor_shape(net.logits)[-1], where="evaluate")
    return measure(net, feed, progress=progress)
