"""What a training set's pixels are like: the per-pixel mean, and the principal components of its colours.

One pass with bounded memory; sums are integers, so the result is exact and does not depend on the order or
the number of threads. It is kept in the user's cache folder under the data set's manifest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..files import atomic_write
from ..preprocessing import Preprocessing
from .decode import ImageError
from .sets import Images
from .stream import Stream

__all__ = ["Statistics", "statistics", "with_mean"]

VERSION = 1
WEIGHTS = ("eigenvalue", "deviation")


@dataclass(frozen=True)
class Statistics:
    """Of pictures at the network's size, in RGB or gray order.

    Attributes
    ----------
    count : pictures that were read
    skipped : pictures that could not be, where the data set says `on_bad="skip"`
    mean : float64 (height, width, channels), per pixel
    covariance : float64 (channels, channels) of the colours of all pixels
    """

    count: int
    skipped: int
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def channel_mean(self) -> np.ndarray:
        """float64 (channels,)."""
        return self.mean.mean(axis=(0, 1))

    def colors(self, weight: str = "eigenvalue") -> tuple[tuple[float, ...], ...]:
        """Principal components of the colours, a row each, times their weight, in pixel values 0..255.

        The component's entry of largest magnitude is positive.

        Parameters
        ----------
        weight : "eigenvalue": of pixels counted from 0 to 1, times 255 (Krizhevsky et al. 2012, section 4.1,
            which does not say the unit: counted to 255, colours would move by thousands); "deviation": its
            root, as in their published code
        """
        checks.one_of("Statistics.colors", "weight", weight, WEIGHTS)
        values, vectors = np.linalg.eigh(self.covariance)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1].T
        strongest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], 1)
        vectors = vectors * np.where(strongest < 0, -1, 1)
        scaled = values / 255 if weight == "eigenvalue" else np.sqrt(values)
        return tuple(tuple(row) for row in (scaled[:, None] * vectors).tolist())


def statistics(images: Images, preprocessing: Preprocessing, *, batch_size: int = 64, threads: int | None = None,
               cache: bool = True, progress: bool = True) -> Statistics:
    """Mean and covariance of a data set's pixels, in one pass.

    Parameters
    ----------
    images : the training set
    preprocessing : its size, crop and channels say how pictures are loaded; its mean and scale do not count
    batch_size, threads : pictures at a time, threads that decode; the result does not depend on them
    cache : look for the result of an earlier pass, and keep this one
    progress : show a bar on stderr

    Raises
    ------
    ImageError : no picture, a bad one, or pictures of several sizes
    """
    from tqdm import tqdm

    checks.require(len(images) > 0, "statistics", "images", "an empty data set", "at least one image")
    place = _place(images, preprocessing) if cache else None
    known = None if place is None else _kept(place)
    if known is not None and (images.on_bad == "skip" or not known.skipped):  # else the bad picture must be named
        return known
    stream = Stream(images, preprocessing, batch_size, threads=threads)
    total: Any = None
    products, count = np.zeros(0, np.int64), 0
    with tqdm(total=len(images), desc="mean image", unit="image", disable=not progress) as bar:
        for batch in stream:
            each = batch.pixels.sum(axis=0, dtype=np.int64)
            if count and each.shape != total.shape:
                raise ImageError(f"statistics: pictures of {each.shape} and of {total.shape}; allowed: one size for "
                                 "all (set the preprocessing's size and crop)")
            rows = batch.pixels.reshape(-1, each.shape[2]).astype(np.float64)
            square = (rows.T @ rows).astype(np.int64)  # whole numbers below 2**53: exact
            total, products = (total + each, products + square) if count else (each, square)
            count += len(batch.pixels)
            bar.update(len(batch.pixels))
    if not count:
        raise ImageError("statistics: no picture of the data set can be read")
    pixels = count * total.shape[0] * total.shape[1]
    center = total.sum(axis=(0, 1)) / pixels
    found = Statistics(count, len(stream.skipped), total / count, products / pixels - np.outer(center, center))
    if place is not None:
        _keep(place, found)
    return found


def with_mean(images: Images, preprocessing: Preprocessing, per: str = "pixel", **options: Any) -> Preprocessing:
    """The preprocessing with the data's own mean.

    Parameters
    ----------
    images : the training set
    preprocessing : how pictures are loaded
    per : "pixel" (the papers) or "channel"
    options : of `statistics`
    """
    checks.one_of("with_mean", "per", per, ("pixel", "channel"))
    known = statistics(images, preprocessing, **options)
    mean = known.mean if per == "pixel" else known.channel_mean
    return replace(preprocessing, mean=mean[..., ::-1] if preprocessing.channels == "BGR" else mean)


def _place(images: Images, preprocessing: Preprocessing) -> Path:
    from ..kernels.compile import cache_folder

    described = [VERSION, images.manifest(), preprocessing.size, preprocessing.crop, preprocessing.mode]
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    return cache_folder().parent / "statistics" / f"{digest}.npz"


def _kept(place: Path) -> Statistics | None:
    """What an earlier pass found; None where there is nothing, or nothing whole."""
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with open(place, "rb") as file, np.load(file, allow_pickle=False) as stored:
            mean, covariance = stored["mean"], stored["covariance"]
            count, skipped = (int(value) for value in stored["counts"])
        square = (mean.shape[-1],) * 2 if mean.ndim == 3 else ()
        if mean.dtype == covariance.dtype == np.float64 and covariance.shape == square:
            return Statistics(count, skipped, mean, covariance)
    return None


def _keep(place: Path, found: Statistics) -> None:
    """Keep a result for the next time; a cache that cannot be written is none."""
    with suppress(OSError):
        os.makedirs(place.parent, exist_ok=True)
        stream = io.BytesIO()
        np.savez(stream, mean=found.mean, covariance=found.covariance, counts=np.array([found.count, found.skipped]))
        atomic_write(place, stream.getvalue())
