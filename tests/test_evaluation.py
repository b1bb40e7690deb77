"""Measuring networks: top-5, confusion, crops and ensembles, against plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from zfcore.layers import Flatten, Linear, Softmax
from zfcore.network import Network
from zfcore.pictures import confusion_picture, viridis
from zfcore.training import ArrayFeed, evaluate, measure

CLASSES = 8


def network(seed: int, classes: int = CLASSES) -> Network:
    net = Network("linear", (3, 3, 1), scheme="he")
    net.add("flat", Flatten())
    net.add("fc", Linear(classes))
    net.add("prob", Softmax())
    return net.initialize(seed)


def data(count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.normal(0, 1, (count, 3, 3, 1)).astype(np.float32), generator.integers(0, CLASSES - 1, count)


def probabilities(net: Network, images: np.ndarray) -> np.ndarray:
    """float64 softmax of the linear layer."""
    values = net.parameters()
    logits = images.reshape(len(images), -1).astype(np.float64) @ values["fc.weight"].T.astype(np.float64)
    exponents = np.exp(logits + values["fc.bias"])
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_numbers_equal_plain_arithmetic() -> None:
    net, (images, labels) = network(0), data()
    found, plain = evaluate(net, images, labels, batch_size=7), probabilities(net, images)
    order = np.argsort(-plain, axis=1)
    assert (found.predictions == order[:, 0]).all() and (found.labels == labels).all()
    assert found.accuracy == (order[:, 0] == labels).mean()
    assert found.top5 == (order[:, :5] == labels[:, None]).any(axis=1).mean() and found.top5 < 1
    assert found.loss == pytest.approx(-np.log(plain[np.arange(50), labels]).mean(), rel=1e-5)
    assert found.confusion.sum() == 50 and found.confusion.trace() == round(found.accuracy * 50)
    assert found.confusion[2, 3] == ((labels == 2) & (order[:, 0] == 3)).sum()
    assert found.accuracies[2] == (order[labels == 2, 0] == 2).mean()
    assert np.isnan(found.accuracies[CLASSES - 1])  # no image of it


def test_equal_probabilities_rank_by_their_number() -> None:
    net = network(0)
    net.load_parameters({name: np.zeros_like(value) for name, value in net.parameters().items()})
    found = evaluate(net, data()[0][:CLASSES], np.arange(CLASSES))
    assert found.accuracy == 1 / CLASSES and found.top5 == 5 / CLASSES


def test_a_batch_without_readable_images_counts_nothing() -> None:
    net, (images, labels) = network(0), data()

    class Holes(ArrayFeed):
        def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
            for batch, numbers in super().epoch(number, first_step):
                yield batch, numbers
                yield batch[:0], numbers[:0]

    found = measure([net, net], Holes(images, labels, batch_size=9, shuffle=False))
    assert len(found.labels) == 50 and found.members[0].loss == evaluate(net, images, labels).loss


def test_an_ensemble_averages_probabilities() -> None:
    nets, (images, labels) = [network(seed) for seed in range(3)], data()
    feed = ArrayFeed(images, labels, batch_size=9, shuffle=False)
    found = measure(nets, feed)
    mean = np.mean([probabilities(net, images) for net in nets], axis=0)
    assert (found.predictions == mean.argmax(axis=1)).all()
    assert found.loss == pytest.approx(-np.log(mean[np.arange(50), labels]).mean(), rel=1e-5)
    assert [each.loss for each in found.members] == [evaluate(net, images, labels).loss for net in nets]
    assert measure([nets[0], nets[0]], feed).accuracy == found.members[0].accuracy
    assert measure(nets, [feed, feed, ArrayFeed(images, labels, batch_size=9, shuffle=False)]).loss == found.loss


class Crops:
    """A feed of three crops an image: the image, darker, brighter."""

    count = 50

    def __len__(self) -> int:
        return 5

    def manifest(self) -> str:
        return ""

    def epoch(self, number: int, first_step: int = 0):  # type: ignore[no-untyped-def]
        images, labels = data()
        for start in range(0, 50, 10):
            batch = images[start:start + 10]
            yield np.stack([batch, batch - 1, batch + 1], axis=1), labels[start:start + 10]


def test_crops_are_averaged() -> None:
    net, (images, labels) = network(4), data()
    mean = np.mean([probabilities(net, images + shift) for shift in (0, -1, 1)], axis=0)
    found = measure(net, Crops())
    assert (found.predictions == mean.argmax(axis=1)).all()
    assert found.loss == pytest.approx(-np.log(mean[np.arange(50), labels]).mean(), rel=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    images, labels = data()
    feed = ArrayFeed(images, labels, batch_size=9, shuffle=False)
    other = ArrayFeed(images, labels[::-1], batch_size=9, shuffle=False)
    for nets, feeds, word in (([], feed, "one, or one for each"), ([network(0)], [feed, feed], "one, or one for each"),
                              ([network(0), network(0, 9)], feed, "same number of classes"),
                              ([network(0), network(1)], [feed, other], "other labels"),
                              ([network(0), network(1)], [feed, ArrayFeed(images, labels, batch_size=10)], "the same"),
                              (network(0, 3), feed, "classes from 0 to 2")):
        with pytest.raises(ValueError, match=word):
            measure(nets, feeds)


def test_the_picture_of_a_confusion() -> None:
    table = np.array([[3, 1], [0, 4]])
    picture = confusion_picture(table, ["cats<b>", "dogs\n"])
    for share in (0.75, 0.25, 0.0, 1.0):
        color = viridis(np.array([[share]]), 0, 1)[0, 0]
        assert (picture == color).all(axis=2).sum() > 5000  # a cell, but for its number
    assert confusion_picture(np.eye(300, dtype=int), ["x"] * 300).shape[0] < 1000
    assert confusion_picture(np.zeros((1, 1), int), [""]).ndim == 3
    with pytest.raises(ValueError, match=r"table\.shape"):
        confusion_picture(table, ["a"])
