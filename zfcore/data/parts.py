"""Parts of data sets: subsets, a stratified split, the folds of the Caltech protocol."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .. import checks
from .sets import Images

__all__ = ["Subset", "folds", "split", "stratified", "subset"]


class Subset(Images):
    """Some pictures of a data set, in a given order.

    Attributes
    ----------
    source : the whole
    indices : int64, which
    """

    def __init__(self, source: Images, indices: Any) -> None:
        given = np.asarray(indices)
        if given.dtype == bool:
            checks.shape("subset", "indices", given, (len(source),))
            given = np.flatnonzero(given)
        if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
            checks.fail("subset", "indices", f"{given.dtype} {given.shape}", "a list of integers, or a mask", TypeError)
        given = given.astype(np.int64)
        if given.size:
            checks.require(0 <= int(given.min()) and int(given.max()) < len(source), "subset", "indices",
                           (int(given.min()), int(given.max())), f"0..{len(source) - 1}")
        labels = None if source.labels is None else source.labels[given]
        super().__init__([source.names[index] for index in given.tolist()], labels, source.class_names, source.on_bad)
        self.source, self.indices = source, given

    def pixels(self, index: int) -> np.ndarray:
        """The whole's picture."""
        return self.source.pixels(int(self.indices[index]))

    def load(self, index: int, preprocessing: Any) -> np.ndarray:
        """As the whole loads it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"Subset.load: index is {index}; allowed: 0..{len(self) - 1}")
        return self.source.load(int(self.indices[index]), preprocessing)

    def _content(self) -> list[Any]:
        return [self.source.manifest(), hashlib.sha256(self.indices.tobytes()).hexdigest()]


def subset(images: Images, indices: Any) -> Images:
    """Some pictures of a data set.

    Parameters
    ----------
    images : the whole
    indices : integers in the order wanted, or a mask of all
    """
    return Subset(images, indices)


def stratified(labels: np.ndarray, held_out: float, seed: int) -> np.ndarray:
    """Mask of held-out items: of every class the same share (rounded), drawn with `seed`.

    Parameters
    ----------
    labels : a class for each item
    held_out : share
    seed : of the draw
    """
    generator = np.random.default_rng(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[generator.permutation(members)[:round(len(members) * held_out)]] = True
    return mask


def _labelled(where: str, images: Images) -> np.ndarray:
    if images.labels is None:
        checks.fail(where, "images.labels", None, "a class for every picture")
    return images.labels


def split(images: Images, held_out: float = 0.2, seed: int = 0) -> tuple[Images, Images]:
    """(training, held-out) parts of a data set: of every class the same share, drawn with a seed.

    Parameters
    ----------
    images : with labels
    held_out : share of each class, rounded to whole pictures
    seed : of the draw
    """
    checks.require(0 < held_out < 1, "split", "held_out", held_out, "a share between 0 and 1")
    checks.integer("split", "seed", seed, 0)
    labels = _labelled("split", images)
    checks.require(not (labels < 0).any(), "split", "images.labels", "-1 for some pictures",
                   "a class for every picture")
    mask = stratified(labels, held_out, seed)
    checks.require(bool(mask.any() and not mask.all()), "split", "held_out", held_out,
                   f"a share that leaves pictures on both sides (there are {len(images)})")
    return Subset(images, ~mask), Subset(images, mask)


def folds(images: Images, per_class: int, count: int = 5, most: int = 50, seed: int = 0
          ) -> list[tuple[np.ndarray, np.ndarray]]:
    """The Caltech protocol: so many training pictures a class, the others (at most so many) for the test.

    Fei-Fei et al. 2006, as Zeiler & Fergus 2014, section 5.2, use it. Every fold draws every class anew; fewer
    pictures per class are the first of more, with the same seed. A class's draw does not depend on others.

    Parameters
    ----------
    images : with labels; pictures without a class (-1) are in no fold
    per_class : training pictures of each class
    count : number of folds
    most : test pictures of a class, at most
    seed : of the draw

    Returns
    -------
    list of (training, test) : sorted indices

    Raises
    ------
    ValueError : a class that has too few pictures, by its name
    """
    where = "folds"
    for name, value in (("per_class", per_class), ("count", count), ("most", most)):
        checks.integer(where, name, value, 1)
    checks.integer(where, "seed", seed, 0)
    labels = _labelled(where, images)
    classes = np.unique(labels[labels >= 0])
    checks.require(len(classes) > 0, where, "images.labels", "no class", "at least one class")
    members = {int(label): np.flatnonzero(labels == label) for label in classes}
    for label, indices in members.items():
        name = images.class_names[label] if images.class_names else str(label)
        checks.require(len(indices) > per_class, where, "per_class", per_class,
                       f"at most {len(indices) - 1}, for class {name!r} has {len(indices)} pictures")
    found = []
    for fold in range(count):
        train, test = [], []
        for label, indices in members.items():
            drawn = np.random.default_rng([seed, fold, label]).permutation(indices)
            train.append(drawn[:per_class])
            test.append(drawn[per_class:per_class + most])
        found.append((np.sort(np.concatenate(train)), np.sort(np.concatenate(test))))
    return found
