"""The 1,797 handwritten digits that scikit-learn ships: real images that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .. import checks
from .parts import stratified
from .sets import Arrays

ORIGIN = ("optical recognition of handwritten digits, test part (E. Alpaydin and C. Kaynak, 1998, "
          "UCI Machine Learning Repository; in scikit-learn as load_digits)")


def whole(size: int = 32) -> Arrays:
    """All digits in scikit-learn's order.

    The 8 x 8 pictures of 17 gray levels (ink is bright) are brought to 0..255 and enlarged to
    `size` x `size` with a bicubic filter.

    Parameters
    ----------
    size : side of the pictures
    """
    from sklearn.datasets import load_digits

    checks.integer("digits", "size", size, 1)
    source = load_digits()
    small = np.rint(source.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
                       for image in small])
    names = [f"digit-{index:04d}" for index in range(len(images))]
    return Arrays(images, source.target.astype(np.int64), names, class_names=[str(digit) for digit in range(10)])


def digits(size: int = 32, *, held_out: float = 1 / 3, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Handwritten digits as (training, held-out) data sets, split by class with a seed.

    Parameters
    ----------
    size : side of the pictures, see `whole`
    held_out : share of each class
    seed : of the split
    """
    checks.require(0 < held_out < 1, "digits", "held_out", held_out, "a share between 0 and 1")
    source = whole(size)
    assert source.labels is not None
    labels, mask = source.labels, stratified(source.labels, held_out, seed)

    def part(chosen: np.ndarray) -> Arrays:
        names = [source.names[index] for index in np.flatnonzero(chosen)]
        return Arrays(source.images[chosen], labels[chosen], names, class_names=source.class_names)

    return part(~mask), part(mask)
