"""Reading ahead: pictures are decoded by threads while the network works on earlier ones."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import checks
from ..kernels.threads import get_num_threads
from .decode import ImageError, printable
from .sets import Images


@dataclass
class Batch:
    """Some network-sized pictures: `indices` int64 (n,), `pixels` uint8 (n, height, width, channels)."""

    indices: np.ndarray
    pixels: np.ndarray


@dataclass
class Stream:
    """Iterate over the pictures `begin` to `end` of a data set in batches, in their order.

    At most two batches and one picture a thread are held at a time, however large the set is. Bad
    pictures raise ImageError or, where the data set says `on_bad="skip"`, are noted in `skipped`
    (index -> reason) and left out; batches stay full.

    Attributes
    ----------
    skipped : what was left out so far
    pixel_hash : sum modulo 2**256 of SHA-256(index, shape, pixels) of what was read so far, so that
        the hashes of disjoint parts add up to the whole's (against accidents, not against forgery)
    """

    images: Images
    preprocessing: Any
    batch_size: int = 32
    begin: int = 0
    end: int | None = None
    threads: int | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    pixel_hash: int = 0

    def __post_init__(self) -> None:
        checks.integer("Stream", "batch_size", self.batch_size, 1)
        self.end = len(self.images) if self.end is None else self.end
        checks.require(0 <= self.begin <= self.end <= len(self.images), "Stream", "(begin, end)",
                       (self.begin, self.end), f"a range within 0..{len(self.images)}")
        if self.threads is not None:
            checks.integer("Stream", "threads", self.threads, 1)

    def _load(self, index: int) -> tuple[np.ndarray | None, int, str]:
        """One picture and its hash; or the reason why it is left out."""
        try:
            pixels = self.images.load(index, self.preprocessing)
        except ImageError as error:
            if self.images.on_bad != "skip":
                raise
            return None, 0, str(error)
        digest = hashlib.sha256(f"{index} {pixels.shape}".encode())
        digest.update(pixels.data)
        return pixels, int.from_bytes(digest.digest(), "big"), ""

    def __iter__(self) -> Iterator[Batch]:
        assert self.end is not None
        threads = self.threads or get_num_threads()
        ahead = self.batch_size + threads
        waiting: collections.deque[tuple[int, Future[Any]]] = collections.deque()
        following = iter(range(self.begin, self.end))
        pool = ThreadPoolExecutor(threads, thread_name_prefix="zfcore-decode")
        try:
            for index in following:
                waiting.append((index, pool.submit(self._load, index)))
                if len(waiting) == ahead:
                    break
            indices: list[int] = []
            pixels: list[np.ndarray] = []
            while waiting:
                index, future = waiting.popleft()
                picture, digest, reason = future.result()
                if (after := next(following, None)) is not None:
                    waiting.append((after, pool.submit(self._load, after)))
                if picture is None:
                    self.skipped[index] = reason
                    continue
                if pixels and picture.shape != pixels[0].shape:
                    raise ImageError(f"{printable(self.images.names[index])}: is {picture.shape} where the "
                                     f"pictures before it are {pixels[0].shape} (height, width, channels); "
                                     "allowed: one size for all (set the preprocessing's size and crop)")
                self.pixel_hash = (self.pixel_hash + digest) % 2**256
                indices.append(index)
                pixels.append(picture)
                if len(pixels) == self.batch_size:
                    yield Batch(np.array(indices, np.int64), np.stack(pixels))
                    indices, pixels = [], []
            if pixels:
                yield Batch(np.array(indices, np.int64), np.stack(pixels))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
