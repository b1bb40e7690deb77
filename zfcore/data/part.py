"""A part of a data set: chosen pictures of it, and splitting one in two by class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks
from .digits import stratified
from .sets import Images

__all__ = ["Part", "split"]


class Part(Images):
    """Some pictures of a data set, in a given order.

    Parameters
    ----------
    images : the whole
    indices : int (n,): which of its pictures
    """

    def __init__(self, images: Images, indices: Sequence[int] | np.ndarray) -> None:
        chosen = np.asarray(indices)
        checks.require(chosen.ndim == 1 and (chosen.dtype.kind in "iu" or not chosen.size), "Part", "indices", indices,
                       "integers")
        chosen = chosen.astype(np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(images)):
            raise IndexError(f"Part: indices go from {chosen.min()} to {chosen.max()}; allowed: 0..{len(images) - 1}")
        labels = None if images.labels is None else images.labels[chosen]
        super().__init__([images.names[index] for index in chosen], labels, images.class_names, images.on_bad)
        self.whole, self.indices = images, chosen

    def pixels(self, index: int) -> np.ndarray:
        """The picture as the whole gives it."""
        return self.whole.pixels(int(self.indices[index]))

    def _content(self) -> list[Any]:
        return [self.whole.manifest(), hashlib.sha256(self.indices.data).hexdigest()]


def split(images: Images, share: float, seed: int = 0) -> tuple[Part, Part]:
    """A data set in two parts, each with the same share of every class.

    Parameters
    ----------
    images : with a class for every picture
    share : of each class that goes into the second part, rounded; above 0 and below 1
    seed : of what goes where

    Returns
    -------
    (the rest, the share) : both keep the pictures' order
    """
    checks.require(0 < share < 1, "split", "share", share, "a number above 0 and below 1")
    if images.labels is None or (images.labels < 0).any():
        checks.fail("split", "images.labels", None if images.labels is None else "-1 for some pictures",
                    "a class for every picture")
    assert images.labels is not None
    out = stratified(images.labels, share, seed)
    checks.require(bool(out.any() and not out.all()), "split", "share", share,
                   f"one that leaves pictures on both sides ({len(images)} pictures)")
    return Part(images, np.flatnonzero(~out)), Part(images, np.flatnonzero(out))
