"""Changing training images at random, so that a network sees each one many ways; and views for a test.

An `Augmentation` says what may happen to a picture between its decoding and the network. Every random
number is drawn by (seed, epoch) for all positions of the epoch at once, so that what happens to the picture
at a position depends on nothing else: not on the batch, not on the thread that works on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from .. import checks
from ..preprocessing import CHANNELS, Preprocessing

__all__ = ["Augmentation", "Cutter", "Draws", "Shifts", "ten_crops", "ten_origins"]

VIEWS = ("random", "ten", "centre")
PLACES, COLORS = 1, 2  # which stream of (seed, epoch)


class Shifts:
    """Move every image by its own random number of pixels; what comes in from outside is `fill`.

    The same as random crops of a padded image (Krizhevsky et al. 2012, section 4.1).

    Parameters
    ----------
    most : largest shift in each direction, in pixels
    fill : value of the pixels that come in
    """

    def __init__(self, most: int, fill: float = 0) -> None:
        self.most, self.fill = checks.integer("Shifts", "most", most, 0), fill

    def __call__(self, images: Any, generator: np.random.Generator) -> np.ndarray:
        """Shifted copies of images (N, H, W, C); one generator state gives one result."""
        count, height, width = images.shape[:3]
        sides = (self.most, self.most)
        padded = np.pad(images, ((0, 0), sides, sides, (0, 0)), constant_values=self.fill)
        places = generator.integers(0, 2 * self.most + 1, (count, 2)).tolist()
        return np.stack([image[row:row + height, column:column + width]
                         for image, (row, column) in zip(padded, places, strict=True)])


@dataclass(frozen=True)
class Draws:
    """An epoch's random numbers, by position.

    Attributes
    ----------
    places : float64 (count, 3) in [0, 1): row, column and mirror
    colors : float64 (count, 3), normal
    """

    places: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture; JSON by `to_config` and `from_config`.

    A picture is resized and cut at its centre as the preprocessing says (or by `size`), its mean is
    subtracted, its colours are changed, it is padded, and a view of it is cut out and perhaps mirrored.
    The mean is subtracted where the pixel lies in the whole picture, as in the paper.

    Parameters
    ----------
    size : smallest side after resizing, in place of the preprocessing's, and side of the square that is
        kept of it (the papers': 256); None: as the preprocessing says
    crop : side or (height, width) of the view; None: the whole picture's
    pad : pixels around the picture before the view is cut out of it
    fill : pixel value 0..255 of that padding; None: the mean, which is 0 for the network
    mirror : mirror half of the views
    jitter : standard deviation of the multiples of each of `colors` that are added (Krizhevsky et al. 2012,
        section 4.1: 0.1); 0: colours are left alone
    colors : rows in RGB order, principal components of the data's colours times their weight
        (`Statistics.colors`); None: a `Feed` takes its data's
    views : "random" (any place), "ten" (one of the paper's ten: corners and centre, each perhaps mirrored)
        or "centre"
    """

    size: int | None = None
    crop: int | tuple[int, int] | None = None
    pad: int = 0
    fill: int | None = None
    mirror: bool = False
    jitter: float = 0.0
    colors: tuple[tuple[float, ...], ...] | None = None
    views: str = "random"

    def __post_init__(self) -> None:
        where = "Augmentation"
        if self.size is not None:
            object.__setattr__(self, "size", checks.integer(where, "size", self.size, 1))
        if self.crop is not None:
            height, width = checks.pair(where, "crop", self.crop, 1)
            object.__setattr__(self, "crop", height if height == width else (height, width))
        checks.integer(where, "pad", self.pad, 0, 65_535)
        if self.fill is not None:
            checks.integer(where, "fill", self.fill, 0, 255)
        checks.one_of(where, "views", self.views, VIEWS)
        if not isinstance(self.mirror, bool):
            checks.fail(where, "mirror", self.mirror, "True or False", TypeError)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)):
            checks.fail(where, "jitter", self.jitter, "a number >= 0", TypeError)
        checks.require(math.isfinite(self.jitter) and self.jitter >= 0, where, "jitter", self.jitter,
                       "a finite number >= 0")
        if self.views == "ten":
            checks.require(self.crop is not None and not self.mirror and self.pad == 0, where, "views", "ten",
                           "with a crop, no padding, and no mirror (five of the ten are mirrored)")
        if self.colors is not None:
            try:
                rows = np.asarray(self.colors, np.float64)
            except (TypeError, ValueError):
                rows = np.full((1, 1), np.nan)
            checks.require(rows.shape in ((1, 1), (3, 3)) and bool(np.isfinite(rows).all()), where, "colors",
                           self.colors, "three rows of three finite numbers (or one of one, for gray)")
            object.__setattr__(self, "colors", tuple(tuple(row) for row in rows.tolist()))

    def to_config(self) -> dict[str, Any]:
        """JSON values; `from_config` reads them."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Any) -> Augmentation:
        """The inverse of `to_config`; what is left out has its default; ValueError for anything else."""
        known = [each.name for each in fields(cls)]
        if not isinstance(config, Mapping) or set(config) - set(known):
            checks.fail("Augmentation", "config", config, f"an object with the keys {', '.join(known)}")
        values = dict(config)
        if isinstance(values.get("crop"), list):
            values["crop"] = tuple(values["crop"])
        return cls(**values)

    def loading(self, preprocessing: Preprocessing) -> Preprocessing:
        """How pictures are loaded before a view is cut out of them."""
        return preprocessing if self.size is None else replace(preprocessing, size=self.size, crop=self.size)

    def view_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the views of a picture."""
        return (height, width) if self.crop is None else checks.pair("Augmentation", "crop", self.crop, 1)

    def central(self, preprocessing: Preprocessing) -> Preprocessing:
        """How to load the central view at once: what a trained network's own preprocessing should be.

        A per-pixel mean is cut at its centre.
        """
        loading = self.loading(preprocessing)
        if self.crop is None:
            return loading
        mean, (height, width) = loading.mean, self.view_shape(0, 0)
        if mean.ndim == 3:
            checks.require(mean.shape[0] >= height and mean.shape[1] >= width, "Augmentation", "crop", self.crop,
                           f"at most the size of the per-pixel mean, {mean.shape[:2]}")
            row, column = (mean.shape[0] - height) // 2, (mean.shape[1] - width) // 2
            mean = mean[row:row + height, column:column + width]
        return replace(loading, mean=mean, crop=self.crop)

    def draws(self, seed: int, epoch: int, count: int) -> Draws:
        """The random numbers of the first `count` positions of an epoch."""
        return Draws(np.random.default_rng([seed, epoch, PLACES]).random((count, 3)),
                     np.random.default_rng([seed, epoch, COLORS]).standard_normal((count, 3)))

    def origins(self, height: int, width: int, places: np.ndarray) -> np.ndarray:
        """Where views of pictures of one size begin and whether they are mirrored.

        Parameters
        ----------
        height, width : of the pictures
        places : (count, 3) numbers in [0, 1)

        Returns
        -------
        int64 (count, 3) : row and column from the picture's first pixel, negative inside the padding; 1 where columns
            are reversed
        """
        tall, wide = self.view_shape(height, width)
        down, across = height + 2 * self.pad - tall, width + 2 * self.pad - wide
        checks.require(min(down, across) >= 0, "Augmentation", "crop", self.crop,
                       f"at most {height + 2 * self.pad} x {width + 2 * self.pad}, the picture and its padding")
        found = np.empty((len(places), 3), np.int64)
        if self.views == "ten":
            numbers = (places[:, 0] * 10).astype(np.int64)
            found[:, :2] = np.array(ten_origins(height, width, tall, wide))[numbers % 5]
            found[:, 2] = numbers >= 5
            return found
        found[:, 2] = (places[:, 2] < 0.5) & self.mirror
        if self.views == "centre":
            found[:, :2] = down // 2, across // 2
        else:
            found[:, :2] = places[:, :2] * (down + 1, across + 1)  # rounded down: they are not negative
        found[:, :2] -= self.pad
        return found

    def shifts(self, colors: np.ndarray, preprocessing: Preprocessing) -> np.ndarray | None:
        """What is added to each picture's channels.

        Parameters
        ----------
        colors : (count, 3) normal numbers
        preprocessing : says the order of the channels

        Returns
        -------
        float32 (count, channels) in the network's order, in pixel values before the scale; None: nothing
        """
        if self.jitter == 0:
            return None
        channels = CHANNELS[preprocessing.channels]
        rows = np.asarray(self.colors, np.float64)
        checks.require(rows.shape == (channels, channels), "Augmentation", "colors", self.colors,
                       f"{channels} rows for channels {preprocessing.channels!r}")
        added = self.jitter * colors[:, :channels] @ rows
        return (added[:, ::-1] if preprocessing.channels == "BGR" else added).astype(np.float32)


class Cutter:
    """Cuts views out of pictures, ready for the network; what does not change from picture to picture is kept.

    Only the view is computed; its numbers are those of the whole picture at its place, bit for bit.

    Parameters
    ----------
    augmentation : which views, and what lies around the picture
    preprocessing : mean and scale, in the network's order
    """

    def __init__(self, augmentation: Augmentation, preprocessing: Preprocessing) -> None:
        channels = CHANNELS[preprocessing.channels]
        mean, scale = preprocessing.mean, preprocessing.scale
        self.augmentation, self.per_pixel = augmentation, mean.ndim == 3
        spread = mean if self.per_pixel else np.broadcast_to(mean, (1, 1, channels))
        self.mean = np.ascontiguousarray(spread, np.float32)
        self.scale = np.ascontiguousarray(np.broadcast_to(scale, channels), np.float32)
        flat = mean.mean(axis=(0, 1)) if self.per_pixel else mean
        outside = 0 if augmentation.fill is None else (np.float32(augmentation.fill) - flat) * scale
        self.outside = np.ascontiguousarray(np.broadcast_to(outside, channels), np.float32)
        self.backwards = preprocessing.channels == "BGR"

    def __call__(self, targets: np.ndarray, chosen: np.ndarray, pictures: Sequence[np.ndarray], places: np.ndarray,
                 shifts: np.ndarray | None = None) -> None:
        """Write one view of each picture; those of one size, all in one call of a kernel.

        Parameters
        ----------
        targets : float32 (n, height, width, channels), contiguous, of which `chosen` are overwritten
        chosen : int64 (count,)
        pictures : uint8 (H, W, channels) each, loaded with `Augmentation.loading`
        places : (count, 3) numbers in [0, 1): which views
        shifts : float32 (count, channels), what is added before the scale
        """
        from ..kernels.views import cut_views

        if len({picture.shape for picture in pictures}) > 1:
            for at, picture in enumerate(pictures):
                one = slice(at, at + 1)
                self(targets, chosen[one], [picture], places[one], None if shifts is None else shifts[one])
            return
        if not len(pictures):
            return
        if self.per_pixel:
            checks.shape("Augmentation", "the per-pixel mean", self.mean, pictures[0].shape)
        pixels = np.stack(pictures) if len(pictures) > 1 else np.ascontiguousarray(pictures[0])[None]
        if shifts is None:
            shifts = np.zeros((len(pictures), len(self.scale)), np.float32)
        cut_views(targets, chosen, pixels, self.mean, shifts, self.scale, self.outside,
                  self.augmentation.origins(*pixels.shape[1:3], places), self.backwards)


def ten_origins(height: int, width: int, tall: int, wide: int) -> list[tuple[int, int]]:
    """First pixels of the corners' and the centre's crops: top left, top right, bottom left, bottom right, centre.

    Parameters
    ----------
    height, width : of the picture
    tall, wide : of the crops
    """
    checks.require(1 <= tall <= height and 1 <= wide <= width, "ten_crops", "size", (tall, wide),
                   f"at most the pictures' {height} x {width}")
    down, across = height - tall, width - wide
    return [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]


def ten_crops(pixels: Any, size: int | tuple[int, int]) -> Any:
    """The ten sub-crops of Krizhevsky et al. (2012) and Zeiler & Fergus (2014): corners, centre, and mirrored.

    Parameters
    ----------
    pixels : (n, H, W, C), of any type; preprocess them first, and a per-pixel mean lies where it should
    size : side or (height, width) of the crops

    Returns
    -------
    (n, 10, height, width, C) : top left, top right, bottom left, bottom right, centre; then the same mirrored
    """
    checks.require(getattr(pixels, "ndim", 0) == 4, "ten_crops", "pixels.shape", np.shape(pixels), "(n, H, W, C)")
    tall, wide = checks.pair("ten_crops", "size", size, 1)
    origins = ten_origins(pixels.shape[1], pixels.shape[2], tall, wide)
    found = np.empty((len(pixels), 10, tall, wide, pixels.shape[3]), pixels.dtype)
    for number, (row, column) in enumerate(origins):
        found[:, number] = pixels[:, row:row + tall, column:column + wide]
        found[:, number + 5] = found[:, number, :, ::-1]
    return found
