"""From a recipe, a network and pictures to the feeds of a training or an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..data import Feed, Images, ten_crops, with_mean
from .recipes import Recipe

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["TenCrops", "class_count", "held_out_feed", "training_feed"]


def class_count(images: Images) -> int:
    """How many classes a data set has; ValueError if there is no picture, or one without a class.

    Parameters
    ----------
    images : the training set
    """
    if not len(images):
        raise ValueError("there are no pictures; allowed: at least one")
    labels = np.full(len(images), -1) if images.labels is None else images.labels
    if (labels < 0).any():
        few = np.flatnonzero(labels < 0)
        which = "pictures have no class" if len(few) == len(labels) else (
            f"{len(few)} of {len(labels)} pictures have no class, such as {images.names[few[0]]!r}")
        raise ValueError(f"{which}; allowed: a folder with a folder for each class, or another data set with labels")
    return len(images.class_names) if images.class_names is not None else int(labels.max()) + 1


def _fits(where: str, net: Network, feed: Feed) -> None:
    """Refuse, before anything is computed, pictures that are not the network's: of another size, or class."""
    checks.require(feed.shape == net.input_shape, where, "pictures' shape", feed.shape,
                   f"the network's input, {net.input_shape}")
    classes, highest = net.tensor_shape(net.logits)[-1], int(feed.labels.max())
    checks.require(highest < classes, where, "pictures' highest class", highest, f"0 to {classes - 1}, the network's")


def training_feed(net: Network, images: Images, recipe: Recipe, *, seed: int = 0, own_mean: bool = True,
                  **options: Any) -> Feed:
    """The training images as the recipe wants them; sets the network's preprocessing to what fits.

    Parameters
    ----------
    net : its preprocessing says how pictures are loaded; it becomes that of the central view, with the
        training images' mean if the recipe says so
    images : with classes
    recipe : augmentation, mean, batch size
    seed : of the order and of the augmentation
    own_mean : False keeps the network's mean whatever the recipe says: a pretrained one expects it
    options : of `data.Feed`
    """
    where = "training_feed"
    if net.preprocessing is None:
        checks.fail(where, "the network's preprocessing", None, "how pixels become its input")
    assert net.preprocessing is not None
    augmentation = recipe.make_augmentation(net)
    loading = augmentation.loading(net.preprocessing)
    if own_mean and "mean" in recipe.network:
        loading = with_mean(images, loading, recipe.network["mean"])
    feed = Feed(images, loading, augmentation=augmentation, batch_size=recipe.batch_size, seed=seed, **options)
    _fits(where, net, feed)
    net.preprocessing = augmentation.central(feed.preprocessing)
    return feed


def held_out_feed(net: Network, images: Images, *, batch_size: int = 128, crops: int = 1, **options: Any
                  ) -> Feed | TenCrops:
    """Pictures to evaluate a network on, in their order.

    Parameters
    ----------
    net : its preprocessing says how pictures become its input
    images : with classes
    batch_size : pictures at a time, all their crops together
    crops : 1, the central one, or the papers' 10
    options : of `data.Feed`
    """
    checks.one_of("held_out_feed", "crops", crops, (1, 10))
    if net.preprocessing is None:
        checks.fail("held_out_feed", "the network's preprocessing", None, "how pixels become its input")
    assert net.preprocessing is not None
    if crops == 10:
        return TenCrops(net, images, batch_size=max(batch_size // 10, 1), **options)
    feed = Feed(images, net.preprocessing, batch_size=batch_size, shuffle=False, **options)
    _fits("held_out_feed", net, feed)
    return feed


class TenCrops:
    """A feed of ten crops a picture: batches (n, 10, height, width, channels).

    The network's mean, if it is one per pixel, is that of the central crop and is subtracted from each.

    Parameters
    ----------
    net : its preprocessing must resize to more than it crops
    images : with classes
    batch_size : pictures at a time
    options : of `data.Feed`
    """

    def __init__(self, net: Network, images: Images, *, batch_size: int, **options: Any) -> None:
        assert net.preprocessing is not None
        self.preprocessing = net.preprocessing
        size = self.preprocessing.size
        if size is None or self.preprocessing.crop is None:
            raise ValueError("crops is 10; allowed: 1, as the network's preprocessing cuts no crop out of a larger "
                             f"picture (size {size}, crop {self.preprocessing.crop})")
        whole = replace(self.preprocessing, mean=0.0, scale=1.0, crop=size if isinstance(size, int) else None)
        self.feed = Feed(images, whole, batch_size=batch_size, shuffle=False, **options)
        self.size = net.input_shape[:2]
        self.count = self.feed.count

    def __len__(self) -> int:
        return len(self.feed)

    @property
    def skipped(self) -> dict[int, str]:
        """Pictures left out so far, and why."""
        return self.feed.skipped

    def manifest(self) -> str:
        """Hash of the pictures as they are loaded."""
        return self.feed.manifest()

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of crops and the pictures' labels."""
        for pixels, labels in self.feed.epoch(number, first_step):
            yield (ten_crops(pixels, self.size) - self.preprocessing.mean) * self.preprocessing.scale, labels
