"""Adversarial examples as training images: their formula, the mixed loss, and what training on them gains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from small_nets import classifier

from zfcore import explain, training


class Batches:
    """One batch an epoch."""

    count = 6

    def __init__(self, x: np.ndarray, labels: np.ndarray) -> None:
        self.x, self.labels = x, labels

    def __len__(self) -> int:
        return 1

    def manifest(self) -> str:
        return "these"

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not first_step:
            yield self.x, self.labels


def given() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((6, 20, 23, 3)).astype(np.float32), generator.integers(0, 5, 6)


def test_fast_gradient_by_autograd() -> None:
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = classifier()
    x, labels = given()
    twin = Twin(net, x)
    loss = torch.nn.functional.cross_entropy(twin.tensors[net.logits], torch.tensor(labels))
    (slope,) = torch.autograd.grad(loss, twin.input)
    expected = x + np.float32(3 / 64) * np.sign(slope.numpy().transpose(0, 2, 3, 1)).astype(np.float32)
    found = explain.fast_gradient(net, x, labels, 3, limits=False, batch_size=4)
    clear = np.abs(slope.numpy().transpose(0, 2, 3, 1)) > 1e-6  # elsewhere rounding decides the sign
    assert clear.mean() > 0.5
    np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-6)
    np.testing.assert_array_equal(explain.fast_gradient(net, x, labels, 0, limits=False), x)
    assert net.preprocessing is not None
    low, high = net.preprocessing.limits(x.shape[1:])
    limited = explain.fast_gradient(net, x, labels, 200)
    assert (limited >= low).all() and (limited <= high).all() and (limited == high).any()


def test_a_feed_doubles_its_batches_with_the_network_as_it_is() -> None:
    net = classifier()
    x, labels = given()
    feed = explain.AdversarialFeed(net, Batches(x, labels), 4)
    assert feed.count == 12 and len(feed) == 1 and feed.manifest() == "these"
    batches = feed.epoch(0)
    net.parameters()["fc4.weight"][:] *= -1  # after the call, before the batch
    batch, given_labels = next(batches)
    np.testing.assert_array_equal(batch[:6], x)
    np.testing.assert_array_equal(batch[6:], explain.fast_gradient(net, x, labels, 4))
    np.testing.assert_array_equal(given_labels, [*labels, *labels])
    assert not list(feed.epoch(0, 1))


@pytest.mark.parametrize(("changes", "word"), [({"size": -1}, "size"), ({"size": np.inf}, "size"),
                                               ({"labels": [0, 1, 2, 3, 4, 5]}, "0 to 4"),
                                               ({"labels": [0.0] * 6}, "integers"), ({"labels": [0]}, "labels"),
                                               ({"batch_size": 0}, "batch_size")])
def test_refusals(changes: dict, word: str) -> None:
    x, labels = given()
    with pytest.raises(ValueError, match=word):
        explain.fast_gradient(classifier(), x, **{"labels": labels, **changes})


def test_digits_become_harder_to_change() -> None:
    pytest.importorskip("sklearn")
    from zfcore import Network, Preprocessing, layers
    from zfcore.data import digits

    train, held_out = digits(8)
    size, accuracies = 24.0, {}
    for mixed in (False, True):
        net = Network("small", (8, 8, 1), scheme="he", preprocessing=Preprocessing("L", mean=128.0, scale=1 / 64))
        net.add("conv1", layers.Convolution(16, 3, padding=1, activation="relu"))
        net.add("pool1", layers.MaxPool(2, 2))
        net.add("conv2", layers.Convolution(32, 3, padding=1, activation="relu"))
        net.add("flatten", layers.Flatten())
        net.add("fc3", layers.Linear(10))
        net.initialize(0)
        x, labels = net.preprocessing.apply(train.images), train.labels
        optimizer = training.Adam(2e-3)
        for epoch in range(5):
            order = np.random.default_rng(epoch).permutation(len(x))
            for start in range(0, len(x), 32):
                feed = Batches(x[order[start:start + 32]], labels[order[start:start + 32]])
                for batch, wanted in (explain.AdversarialFeed(net, feed, size) if mixed else feed).epoch(epoch):
                    training.train_step(net, batch, wanted, optimizer)
        test = net.preprocessing.apply(held_out.images)
        changed = explain.fast_gradient(net, test, held_out.labels, size)
        accuracies[mixed] = [training.evaluate(net, images, held_out.labels).accuracy for images in (test, changed)]
    assert accuracies[False][0] > 0.93 and accuracies[True][0] > 0.93, accuracies
    assert accuracies[True][1] > accuracies[False][1] + 0.1, accuracies
