"""The 1,797 handwritten digits that scikit-learn ships: real images that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .. import checks
from .sets import Arrays

ORIGIN = ("optical recognition of handwritten digits, test part (E. Alpaydin and C. Kaynak, 1998, "
          "UCI Machine Learning Repository; in scikit-learn as load_digits)")


def stratified(labels: np.ndarray, held_out: float, seed: int) -> np.ndarray:
    """Mask of held-out items: of every class the same share (rounded), drawn with `seed`."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[generator.permutation(members)[:round(len(members) * held_out)]] = True
    return mask


def digits(size: int = 32, *, held_out: float = 1 / 3, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Handwritten digits as (training, held-out) data sets, split by class with a seed.

    The 8 x 8 pictures of 17 gray levels (ink is bright) are brought to 0..255 and enlarged to
    `size` x `size` with a bicubic filter.
    """
    from sklearn.datasets import load_digits

    checks.integer("digits", "size", size, 1)
    checks.require(0 < held_out < 1, "digits", "held_out", held_out, "a share between 0 and 1")
    source = load_digits()
    small = np.rint(source.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
                       for image in small])
    labels = source.target.astype(np.int64)
    mask = stratified(labels, held_out, seed)
    classes = [str(digit) for digit in range(10)]

    def part(chosen: np.ndarray) -> Arrays:
        names = [f"digit-{index:04d}" for index in np.flatnonzero(chosen)]
        return Arrays(images[chosen], labels[chosen], names, class_names=classes)

    return part(~mask), part(mask)
