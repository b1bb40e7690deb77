"""What a training loop eats: batches ready for the network, in an order that depends on the seed alone.

Threads decode and augment two batches ahead. Every picture of an epoch has a position; the order, the views
and the colours of an epoch come from (seed, epoch), and a picture's from its position there. So the batches
are the same bit for bit for any number of threads, and an epoch can be taken up again at any step.
"""

from __future__ import annotations

import collections
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import checks
from ..kernels.memory import empty
from ..kernels.threads import get_num_threads
from ..preprocessing import CHANNELS, Preprocessing
from .augmentation import Augmentation, Cutter, Draws
from .decode import ImageError, printable
from .opening import open_images
from .statistics import statistics

__all__ = ["Feed"]

AHEAD = 2  # batches that are worked on while the network is at an earlier one
PIECE = 2**18  # numbers that one thread prepares at a time: about 100 CIFAR pictures, or 2 of ImageNet's
MEMORY_LIMIT = 2 * 2**30


@dataclass
class _Batch:
    """A batch that threads fill: which pictures, their numbers, and the work that is under way."""

    chosen: np.ndarray
    numbers: np.ndarray
    work: list[Future[list[int]]]


class Feed:
    """Labelled pictures as a network's training batches.

    Parameters
    ----------
    images : a data set with labels, or what `open_images` takes
    preprocessing : how pixels become the network's input
    batch_size : pictures a step; the last step of an epoch may have fewer
    seed : of the order and of the augmentation
    augmentation : what happens to each picture; None: nothing
    shuffle : False: in the data set's order
    threads : that decode; None: as many as kernels use
    memory_limit : bytes of decoded pictures that are kept for the next epoch; what does not fit is decoded again

    Attributes
    ----------
    count : pictures in an epoch
    shape : (height, width, channels) of what the network gets
    skipped : {index: reason} of pictures left out so far, where the data set says `on_bad="skip"`; a batch is
        so much smaller, and its labels with it; it may be empty
    """

    def __init__(self, images: Any, preprocessing: Preprocessing, *, batch_size: int, seed: int = 0,
                 augmentation: Augmentation | None = None, shuffle: bool = True, threads: int | None = None,
                 memory_limit: int = MEMORY_LIMIT) -> None:
        where = "Feed"
        self.images = open_images(images)
        self.batch_size = checks.integer(where, "batch_size", batch_size, 1)
        self.seed = checks.integer(where, "seed", seed, 0)
        self.threads = None if threads is None else checks.integer(where, "threads", threads, 1)
        self.count, self.shuffle = len(self.images), bool(shuffle)
        checks.require(self.count > 0, where, "images", "an empty data set", "at least one image")
        labels = self.images.labels
        if labels is None or (labels < 0).any():
            checks.fail(where, "images.labels", None if labels is None else "-1 for some pictures",
                        "a class for every picture")
        self.labels = labels
        self.augmentation = augmentation or Augmentation()
        self.preprocessing = self.augmentation.loading(preprocessing)
        if self.augmentation.jitter and self.augmentation.colors is None:
            known = statistics(self.images, self.preprocessing, threads=threads)
            self.augmentation = replace(self.augmentation, colors=known.colors())
        self._cut = Cutter(self.augmentation, self.preprocessing)
        self.skipped: dict[int, str] = {}
        self._room = checks.integer(where, "memory_limit", memory_limit, 0)
        self._kept: list[np.ndarray | None] = [None] * self.count
        self._lock = threading.Lock()
        self.shape = self._view_shape()

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-self.count // self.batch_size)

    def _view_shape(self) -> tuple[int, int, int]:
        """What the first picture that can be read becomes."""
        channels = CHANNELS[self.preprocessing.channels]
        if self.augmentation.crop is not None:
            return *self.augmentation.view_shape(0, 0), channels
        for index in range(self.count):
            if (pixels := self._pixels(index)) is not None:
                return *self.augmentation.view_shape(*pixels.shape[:2]), channels
        raise ImageError("Feed: no picture of the data set can be read")

    def manifest(self) -> str:
        """SHA-256 over all that decides what the batches hold: data, preprocessing, augmentation, seed, sizes."""
        described = [self.images.manifest(), self.preprocessing.to_config(), self.augmentation.to_config(),
                     self.batch_size, self.seed, self.shuffle]
        digest = hashlib.sha256(json.dumps(described).encode())
        digest.update(np.ascontiguousarray(self.preprocessing.mean).tobytes())
        return digest.hexdigest()

    def order(self, number: int) -> np.ndarray:
        """int64 (count,): the pictures of an epoch by position."""
        if not self.shuffle:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, number]).permutation(self.count)

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The batches of one epoch.

        Parameters
        ----------
        number : from 0
        first_step : where to begin; what follows equals the whole epoch's

        Yields
        ------
        batch : float32 (n, height, width, channels), ready for the network
        labels : int64 (n,)

        Raises
        ------
        ImageError : a bad picture (with `on_bad="skip"`: only where all are)
        """
        checks.integer("Feed.epoch", "number", number, 0)
        checks.integer("Feed.epoch", "first_step", first_step, 0, len(self))
        return self._epoch(number, first_step)

    def _epoch(self, number: int, first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = self.order(number)
        draws = self.augmentation.draws(self.seed, number, self.count)
        steps = iter(range(first_step, len(self)))
        waiting: collections.deque[_Batch] = collections.deque()
        pool = ThreadPoolExecutor(self.threads or get_num_threads(), thread_name_prefix="zfcore-feed")
        try:
            for step in steps:
                waiting.append(self._begin(pool, order, draws, step))
                if len(waiting) > AHEAD:
                    yield self._end(waiting.popleft())
            while waiting:
                yield self._end(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, order: np.ndarray, draws: Draws, step: int) -> _Batch:
        """Hand the pictures of a step to the threads, in pieces cut by size."""
        begin = step * self.batch_size
        chosen = order[begin:begin + self.batch_size]
        numbers = empty((len(chosen), *self.shape), np.float32)
        piece = max(PIECE // int(np.prod(self.shape)), 1)
        work = [pool.submit(self._fill, numbers, chosen, draws, begin, start, min(start + piece, len(chosen)))
                for start in range(0, len(chosen), piece)]
        return _Batch(chosen, numbers, work)

    def _end(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """A finished batch, without the pictures that could not be read."""
        bad = [place for future in batch.work for place in future.result()]
        numbers, chosen = batch.numbers, batch.chosen
        if bad:
            if len(self.skipped) == self.count:
                raise ImageError(f"{self.skipped[int(chosen[0])]} (and no other of {self.count} pictures can be read)")
            numbers, chosen = np.delete(numbers, bad, axis=0), np.delete(chosen, bad)
        return numbers, self.labels[chosen]

    def _fill(self, numbers: np.ndarray, chosen: np.ndarray, draws: Draws, begin: int, start: int, stop: int
              ) -> list[int]:
        """Prepare the places `start` to `stop` of a batch; return those whose picture is bad."""
        bad, good, pictures = [], [], []
        for place in range(start, stop):
            index = int(chosen[place])
            if (pixels := self._pixels(index)) is None:
                bad.append(place)
                continue
            if self.augmentation.crop is None and pixels.shape != self.shape:
                raise ImageError(f"{printable(self.images.names[index])}: is {pixels.shape} where others are "
                                 f"{self.shape} (height, width, channels); allowed: one size for all (set the "
                                 "preprocessing's size and crop, or the augmentation's crop)")
            good.append(place)
            pictures.append(pixels)
        places = np.array(good, np.int64)
        self._cut(numbers, places, pictures, draws.places[begin + places],
                  self.augmentation.shifts(draws.colors[begin + places], self.preprocessing))
        return bad

    def _pixels(self, index: int) -> np.ndarray | None:
        """A decoded picture, kept where there is room; None: a bad one, left out."""
        if (known := self._kept[index]) is not None:
            return known
        try:
            pixels = self.images.load(index, self.preprocessing)
        except ImageError as error:
            if self.images.on_bad != "skip":
                raise
            self.skipped[index] = str(error)
            return None
        with self._lock:
            if pixels.nbytes <= self._room and self._kept[index] is None:
                self._room -= pixels.nbytes
                self._kept[index] = pixels
        return pixels
