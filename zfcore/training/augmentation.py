"""Changing training images at random, so that a network sees each one many ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks

__all__ = ["Shifts"]


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
