"""Feature generalisation: what a network learned, judged on another data set (Zeiler & Fergus 2014, section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..data import Augmentation, Feed, Images, folds, open_images, subset
from . import results
from .classifiers import STRENGTHS, check_choice, chosen_strength, class_accuracies, fit_scores, prepared
from .features import Features, compared, features
from .saved import Saved

__all__ = ["Transfer", "default_layers", "from_scratch", "transfer"]

MOST_LAYERS = 12


@dataclass
class Transfer(Saved):
    """Accuracies of linear classifiers on the features of layers, by the Caltech protocol.

    Attributes
    ----------
    networks : what each network is called, such as "pretrained" and "random weights"
    layers : names of tensors, the lowest first
    sizes : {layer: int64 shape of one picture's features}
    per_class : training pictures of each class
    classes : float64 (networks, layers, per_class, folds, classes), accuracy on each class's test pictures; NaN
        where none can be read
    strengths : float64 (networks, layers, per_class, folds), what the training pictures chose
    scratch : float64 (per_class, folds, classes), likewise, the same network trained from random weights on the same
        pictures; None: it was not
    scratch_epochs : for how many epochs
    class_names : or None
    classifier, pooling, cells, seed, most : the settings
    test_pictures : int64 (per_class,), of each fold
    network_hashes : SHA-256 of each network
    images_manifest : SHA-256 of the data set
    """

    kind: ClassVar[str] = "transfer"

    networks: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: dict[str, np.ndarray]
    per_class: tuple[int, ...]
    classes: np.ndarray
    strengths: np.ndarray
    scratch: np.ndarray | None
    scratch_epochs: int
    class_names: list[str] | None
    classifier: str
    pooling: str
    cells: int
    seed: int
    most: int
    test_pictures: np.ndarray
    network_hashes: tuple[str, ...]
    images_manifest: str

    @property
    def accuracies(self) -> np.ndarray:
        """float64 (networks, layers, per_class, folds): mean over the classes with test pictures."""
        return np.nanmean(np.asarray(self.classes), axis=-1)

    def table(self) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
        """Rows of (network, layer, means, deviations); both (per_class,), over the folds (n - 1; NaN for one fold)."""
        def row(name: str, layer: str, values: np.ndarray) -> tuple[str, str, np.ndarray, np.ndarray]:
            many = values.shape[1] > 1
            return name, layer, values.mean(axis=1), (values.std(axis=1, ddof=1) if many
                                                      else np.full(len(values), np.nan))

        rows = [row(name, layer, self.accuracies[number, place]) for number, name in enumerate(self.networks)
                for place, layer in enumerate(self.layers)]
        return rows if self.scratch is None else [
            *rows, row("from scratch", f"{self.scratch_epochs} epochs", np.nanmean(self.scratch, axis=-1))]

    @property
    def summary(self) -> dict[str, Any]:
        """Means and deviations by network and layer."""
        found: dict[str, Any] = {"classifier": self.classifier, "per_class": list(self.per_class),
                                 "folds": int(self.classes.shape[3]), "classes": int(self.classes.shape[4]),
                                 "test_pictures": np.asarray(self.test_pictures).tolist(), "pooling": self.pooling,
                                 "cells": self.cells, "accuracy": {}}
        for name, layer, means, deviations in self.table():
            found["accuracy"].setdefault(name, {})[layer] = {"mean": means.tolist(), "deviation": [
                None if np.isnan(value) else value for value in deviations.tolist()]}
        return found


def transfer(networks: Any, images: Any, layers: Sequence[str] | str, *, per_class: Sequence[int] = (15, 30),
             count: int = 5, most: int = 50, classifier: str = "softmax", strengths: Sequence[float] = STRENGTHS,
             pooling: str = "average", cells: int = 6, seed: int = 0, scratch_epochs: int = 0,
             learning_rate: float = 0.001, batch_size: int = 32, threads: int | None = None, scratch: Any = None,
             progress: bool = True) -> Transfer:
    """Train linear classifiers on fixed features, layer by layer, with few and many pictures a class.

    Parameters
    ----------
    networks : a network, or {name: network} to compare, all with parameters and a preprocessing
    images : labelled pictures, or what `data.open_images` takes
    layers : names of tensors that every network has
    per_class : training pictures of each class (the paper: 15, 30 and up to 60)
    count : folds; each draws training and test pictures anew
    most : test pictures of a class, at most
    classifier : "softmax" or "svm"
    strengths : weights of the loss to choose from, on held-out parts of each fold's training pictures
    pooling, cells : how maps are brought down, see `features`
    seed : of the folds, and of what is trained from scratch
    scratch_epochs : above 0: also train the first network from random weights, up to the last of `layers` and
        with a new softmax on it, on the same training pictures
    learning_rate : of that training (SGD with momentum 0.9, falling linearly, 32 pictures a step)
    batch_size, threads : pictures at a time, threads that decode; the result does not depend on them
    scratch : folder for the features while they are used
    progress : show bars on stderr

    Returns
    -------
    Transfer
    """
    from tqdm import tqdm

    where = "transfer"
    given, names = compared(where, networks, layers)
    amounts = [checks.integer(where, "per_class", each, 1) for each in per_class]
    checks.require(len(amounts) > 0 and amounts == sorted(set(amounts)), where, "per_class", per_class,
                   "rising numbers of pictures")
    check_choice(where, classifier, strengths)
    checks.integer(where, "scratch_epochs", scratch_epochs, 0)
    source = open_images(images)
    drawn = {amount: folds(source, amount, count, most, seed) for amount in amounts}
    assert source.labels is not None
    present = np.unique(source.labels[source.labels >= 0])
    checks.require(len(present) > 1, where, "images", f"{len(present)} class", "two classes or more")
    number_of = np.full(int(present.max()) + 1, -1)
    number_of[present] = np.arange(len(present))
    shape = (len(given), len(names), len(amounts), count)
    classes, chosen = np.zeros((*shape, len(present))), np.zeros(shape)
    sizes: dict[str, np.ndarray] = {}
    for place, network in enumerate(given.values()):
        found = features(network, source, names, pooling=pooling, cells=cells, batch_size=batch_size, threads=threads,
                         scratch=scratch, progress=progress)
        sizes = found.sizes(where, sizes)
        with tqdm(total=int(np.prod(shape[1:])), desc="classifiers", unit="fit", disable=not progress) as bar:
            for layer, name in enumerate(names):
                for column, amount in enumerate(amounts):
                    for fold, (train, test) in enumerate(drawn[amount]):
                        accuracy, strength = _judged(found, name, train, test, number_of, classifier, strengths, seed)
                        classes[place, layer, column, fold], chosen[place, layer, column, fold] = accuracy, strength
                        bar.update()
    own = None
    if scratch_epochs:
        own = np.stack([np.stack([
            from_scratch(next(iter(given.values())), source, train, test, names[-1], epochs=scratch_epochs, seed=seed,
                         learning_rate=learning_rate, threads=threads, progress=progress)
            for train, test in drawn[amount]]) for amount in amounts])
    named = None if source.class_names is None else [source.class_names[label] for label in present.tolist()]
    return Transfer(tuple(given), tuple(names), sizes, tuple(amounts), classes, chosen, own, scratch_epochs, named,
                    classifier, pooling, cells, seed, most,
                    np.array([len(drawn[amount][0][1]) for amount in amounts]),
                    tuple(results.network_hash(network) for network in given.values()), source.manifest())


def _judged(found: Features, layer: str, train: np.ndarray, test: np.ndarray, number_of: np.ndarray, classifier: str,
            strengths: Sequence[float], seed: int) -> tuple[np.ndarray, float]:
    """Accuracy of each class on a fold's test pictures, and the strength that was chosen."""
    assert found.labels is not None
    rows, others = (np.flatnonzero(np.isin(found.indices, part)) for part in (train, test))
    own, theirs = number_of[found.labels[rows]], number_of[found.labels[others]]
    checks.require(len(np.unique(own)) == number_of.max() + 1, "transfer", "images",
                   "a class none of whose training pictures in a fold can be read", "more per_class, or whole pictures")
    values, judged = prepared(found.values[layer][rows], found.values[layer][others])
    strength = chosen_strength(classifier, values, own, strengths, seed)
    return class_accuracies(fit_scores(classifier, values, own, judged, strength), theirs), strength


def from_scratch(network: Any, images: Images, train: np.ndarray, test: np.ndarray, layer: str, *, epochs: int,
                 learning_rate: float = 0.001, seed: int = 0, batch_size: int = 32, threads: int | None = None,
                 progress: bool = True) -> np.ndarray:
    """Train the same network, from random weights and with a softmax on `layer`, on a few pictures.

    The network is the given one's layers up to `layer`, weights drawn by He's scheme and inputs scaled to span
    about -2 to 2, which that scheme is made for; pictures are mirrored at random; SGD with momentum 0.9, the
    learning rate falling linearly to 0.

    Parameters
    ----------
    network : whose layers and preprocessing are taken
    images : labelled pictures
    train, test : indices of pictures
    layer : the last tensor that is taken
    epochs : passes over the training pictures
    learning_rate : of the first step
    seed : of weights, order and views
    batch_size : pictures a step
    threads : that decode
    progress : show a bar on stderr

    Returns
    -------
    float64 (classes,), accuracy on the test pictures of each class that occurs in `images`
    """
    from tqdm import tqdm

    from ..layers import Flatten, Linear
    from ..training import SGD, train_step

    checks.integer("from_scratch", "epochs", epochs, 1)
    assert images.labels is not None
    present, own = np.unique(images.labels[train], return_inverse=True)
    net = network.at_size(*network.input_shape[:2], to=layer)
    lowest, highest = network.preprocessing.limits(network.input_shape)
    narrower = 4 / (highest - lowest).mean()
    net.preprocessing = replace(network.preprocessing, scale=network.preprocessing.scale * narrower)
    if len(net.tensor_shape(net.output)) > 1:
        net.add("scratch-flat", Flatten())
    net.add("scratch", Linear(len(present)))
    net.initialize(seed, "he")
    pictures = subset(images, train)
    pictures.labels, pictures.class_names = own.astype(np.int64), None
    feed = Feed(pictures, net.preprocessing, batch_size=batch_size, seed=seed, threads=threads,
                augmentation=Augmentation(mirror=True))
    optimizer, step, steps = SGD(learning_rate), 0, epochs * len(feed)
    with tqdm(total=steps, desc="from scratch", unit="step", disable=not progress) as bar:
        for epoch in range(epochs):
            for batch, labels in feed.epoch(epoch):
                optimizer.learning_rate = learning_rate * (1 - step / steps)
                if len(labels):  # else none of the batch's pictures could be read
                    train_step(net, batch, labels, optimizer, seed=seed, step=step)
                step += 1
                bar.update()
    judged = features(net, subset(images, test), net.output, pooling="none", batch_size=batch_size, threads=threads,
                      progress=progress)
    assert judged.labels is not None
    return class_accuracies(judged.values[net.output], np.searchsorted(present, judged.labels))


def default_layers(network: Any) -> list[str]:
    """Every convolution and every fully connected layer below the classes, the lowest first.

    Parameters
    ----------
    network : any

    Raises
    ------
    ValueError : there are none, or more than a table can show
    """
    names = [row.name for row in network.layers()
             if row.type in ("Convolution", "Linear") and row.name != network.logits]
    checks.require(0 < len(names) <= MOST_LAYERS, "transfer", "layers", f"{len(names)} layers by default",
                   f"1 to {MOST_LAYERS}: name them (--layers)")
    return names
