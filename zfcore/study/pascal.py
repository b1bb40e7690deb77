"""PASCAL VOC on fixed features: average precision of each class (Zeiler & Fergus 2014, section 5.2, Table 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..data import Voc, open_images
from . import results
from .classifiers import STRENGTHS, average_precision, check_choice, chosen_strength, fit_scores, prepared
from .features import compared, features
from .saved import Saved

__all__ = ["Pascal", "pascal"]

LOSSES = ("exclusive", "multi-label")


@dataclass
class Pascal(Saved):
    """Average precisions of linear classifiers on the features of layers.

    Attributes
    ----------
    networks : what each network is called
    layers : names of tensors
    sizes : {layer: int64 shape of one picture's features}
    precisions : float64 (networks, layers, classes), NaN for a class without test pictures
    strengths : float64 (networks, layers), what the training pictures chose
    class_names : the classes
    loss : "exclusive" or "multi-label"
    classifier, pooling, cells, seed : the settings
    pictures : int64 (2,), of training and test
    network_hashes, images_manifests : SHA-256 of each network, of the training and the test set
    """

    kind: ClassVar[str] = "pascal"

    networks: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: dict[str, np.ndarray]
    precisions: np.ndarray
    strengths: np.ndarray
    class_names: list[str]
    loss: str
    classifier: str
    pooling: str
    cells: int
    seed: int
    pictures: np.ndarray
    network_hashes: tuple[str, ...]
    images_manifests: tuple[str, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Per-class and mean average precision by network and layer."""
        found: dict[str, Any] = {"classifier": self.classifier, "loss": self.loss, "pooling": self.pooling,
                                 "cells": self.cells, "pictures": np.asarray(self.pictures).tolist(), "precision": {}}
        for number, name in enumerate(self.networks):
            for place, layer in enumerate(self.layers):
                values = np.asarray(self.precisions[number, place])
                classes = {each: None if np.isnan(value) else float(value)
                           for each, value in zip(self.class_names, values, strict=True)}
                found["precision"].setdefault(name, {})[layer] = {"mean": float(np.nanmean(values)),
                                                                  "classes": classes}
        return found


def pascal(networks: Any, train: Any, test: Any, layers: Sequence[str] | str, *, loss: str = "exclusive",
           classifier: str = "softmax", strengths: Sequence[float] = STRENGTHS, pooling: str = "average",
           cells: int = 6, seed: int = 0, batch_size: int = 32, threads: int | None = None, scratch: Any = None,
           progress: bool = True) -> Pascal:
    """Train linear classifiers on one part of PASCAL VOC and judge them on another.

    Parameters
    ----------
    networks : a network, or {name: network} to compare, all with parameters and a preprocessing
    train, test : `data.Voc`, or what `open_images` makes one of ("voc:DIR:train")
    layers : names of tensors that every network has
    loss : "exclusive": one class a picture, as the paper did though pictures hold several objects (`Voc.labels`);
        "multi-label": every class against the rest, difficult objects counting as absent. A class that no
        training picture shows has the same score everywhere
    classifier : "softmax" or "svm"
    strengths : weights of the loss to choose from, on held-out parts of the training pictures
    pooling, cells : how maps are brought down, see `features`
    seed : of the held-out parts
    batch_size, threads : pictures at a time, threads that decode
    scratch : folder for the features while they are used
    progress : show bars on stderr

    Returns
    -------
    Pascal
    """
    where = "pascal"
    given, names = compared(where, networks, layers)
    checks.one_of(where, "loss", loss, LOSSES)
    check_choice(where, classifier, strengths)
    sources = [open_images(part) for part in (train, test)]
    for argument, source in zip(("train", "test"), sources, strict=True):
        if not isinstance(source, Voc):
            checks.fail(where, argument, repr(source), "PASCAL VOC: a Voc, or a text such as voc:DIR:train", TypeError)
    own, other = sources
    assert isinstance(own, Voc) and isinstance(other, Voc) and own.labels is not None and own.class_names is not None
    precisions = np.full((len(given), len(names), own.targets.shape[1]), np.nan)
    chosen = np.zeros(precisions.shape[:2])
    sizes: dict[str, np.ndarray] = {}
    for number, network in enumerate(given.values()):
        known, unknown = (features(network, source, names, pooling=pooling, cells=cells, batch_size=batch_size,
                                   threads=threads, scratch=scratch, progress=progress) for source in sources)
        sizes = known.sizes(where, sizes)
        for place, layer in enumerate(names):
            rows = np.flatnonzero(own.labels[known.indices] >= 0) if loss == "exclusive" else slice(None)
            present, exclusive = np.unique(own.labels[known.indices][rows], return_inverse=True)
            targets = exclusive if loss == "exclusive" else own.targets[known.indices].astype(np.int64)
            checks.require(len(present) > 1, where, "train", f"{len(present)} class", "two classes or more")
            values, judged = prepared(known.values[layer][rows], unknown.values[layer])
            strength = chosen_strength(classifier, values, targets, strengths, seed)
            scores = np.zeros((len(judged), own.targets.shape[1]))
            columns = present if loss == "exclusive" else np.arange(own.targets.shape[1])
            scores[:, columns] = fit_scores(classifier, values, targets, judged, strength)
            chosen[number, place] = strength
            for label in range(own.targets.shape[1]):
                precisions[number, place, label] = average_precision(
                    scores[:, label], other.targets[unknown.indices, label] > 0,
                    other.difficult[unknown.indices, label])
    return Pascal(tuple(given), tuple(names), sizes, precisions, chosen, list(own.class_names), loss, classifier,
                  pooling, cells, seed, np.array([len(own), len(other)]),
                  tuple(results.network_hash(network) for network in given.values()),
                  (own.manifest(), other.manifest()))
