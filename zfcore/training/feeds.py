"""Where batches come from: what a training asks of its data, and arrays in memory that offer it.

`data.Feed` offers the same for pictures that are decoded while the network works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from .. import checks
from ..preprocessing import Preprocessing

__all__ = ["ArrayFeed", "Feed"]


class Feed(Protocol):
    """Labelled batches, the same ones for the same epoch's number, whatever came before.

    Attributes
    ----------
    count : images an epoch
    """

    @property
    def count(self) -> int:
        """Images an epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def manifest(self) -> str:
        """Hash of the data."""

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
        """Batches (N, H, W, C), preprocessed, and their labels (N,), from batch `first_step` on; N may be 0."""


def labelled(where: str, images: Any, labels: Any, classes: int | None = None) -> np.ndarray:
    """Check labels against images; return them as int64."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        checks.fail(where, "labels.dtype", str(array.dtype), "integers", TypeError)
    checks.require(len(images) > 0, where, "len(images)", len(images), "at least one image")
    checks.shape(where, "labels", array, (len(images),))
    if classes is not None:
        lowest, highest = int(array.min()), int(array.max())
        checks.require(lowest >= 0 and highest < classes, where, "labels", (lowest, highest),
                       f"classes from 0 to {classes - 1}")
    return array.astype(np.int64)


class ArrayFeed:
    """Images and labels in memory as a feed.

    Epoch e is shuffled by the generator of (seed, e), batch b of it is changed by that of (seed, e, b).

    Parameters
    ----------
    images : (N, H, W, C), uint8 pixels (preprocessed batch by batch) or floats that are already
    labels : integers (N,)
    preprocessing : of uint8 pixels
    batch_size : images a batch; the last one of an epoch may be smaller
    seed : of the order
    augment : changes a batch of images before it is preprocessed, with a generator of the batch's own
    shuffle : False keeps the images' order
    classes : how many there are, to check the labels; None: they are not checked
    where : what an error says that it happened in
    """

    def __init__(self, images: Any, labels: Any, preprocessing: Preprocessing | None = None, *, batch_size: int = 128,
                 seed: int = 0, augment: Callable[[Any, np.random.Generator], Any] | None = None,
                 shuffle: bool = True, classes: int | None = None, where: str = "ArrayFeed") -> None:
        self.batch_size = checks.integer(where, "batch_size", batch_size, 1)
        self.seed = checks.integer(where, "seed", seed, 0)
        self.images, self.labels = images, labelled(where, images, labels, classes)
        if images.dtype == np.uint8 and preprocessing is None:
            checks.fail(where, "images.dtype", "uint8", "floats, or a network with a preprocessing", TypeError)
        self.preprocessing, self.augment, self.shuffle = preprocessing, augment, shuffle

    @property
    def count(self) -> int:
        """Images an epoch."""
        return len(self.labels)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def manifest(self) -> str:
        """SHA-256 of the images and labels."""
        images = np.ascontiguousarray(self.images)
        digest = hashlib.sha256(f"{images.dtype.str} {images.shape}".encode())
        digest.update(images.data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    def order(self, number: int) -> np.ndarray:
        """The images of epoch `number`, int (count,), by their place in it."""
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, number]).permutation(self.count)

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
        """Batches of epoch `number` from batch `first_step` on."""
        order = self.order(number)
        for place in range(first_step, len(self)):
            chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
            batch = self.images[chosen]
            if self.augment is not None:
                batch = self.augment(batch, np.random.default_rng([self.seed, number, place]))
            if batch.dtype == np.uint8:
                assert self.preprocessing is not None
                batch = self.preprocessing.apply(batch)
            yield batch, self.labels[chosen]
