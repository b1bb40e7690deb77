"""The pixels behind a layer's strongest activations, cut out of their images late: often only when they are read.

Early in a scan most entries are soon replaced, and patches that overlap take more memory than their images (300 of
AlexNet's 46 MB, their patches 480 MB). So the images of the last batches lie on a shelf that all layers share. Only
when it is full, patches are cut of the entries still standing; where it never was, they are cut when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..kernels.memory import empty, release

NOBODY = -1  # the image of an entry that is not filled: fewer images than entries
RECENT = 64 * 2**20  # bytes of images that are kept until patches are cut from them
PIECE = 16 * 2**20  # bytes of patches that are cut at a time where they are only passed on


class Shelf:
    """Images from which patches can still be cut.

    Attributes
    ----------
    nbytes : what they take
    """

    def __init__(self) -> None:
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []
        self.nbytes = 0

    def put(self, numbers: np.ndarray, pixels: np.ndarray) -> None:
        """Add images.

        Parameters
        ----------
        numbers : int64 (n,), rising, in the data set; none is on the shelf yet
        pixels : uint8 (n, height, width, channels)
        """
        self._batches.append((numbers, pixels))
        self.nbytes += pixels.nbytes

    def only(self, wanted: np.ndarray) -> Shelf:
        """Another shelf with the `wanted` of these images, of which whole batches are not copied."""
        result = Shelf()
        for numbers, pixels in self._batches:
            mine = np.isin(numbers, wanted)
            if mine.any():
                result.put(*((numbers, pixels) if mine.all() else (numbers[mine], pixels[mine])))
        return result

    def cut(self, patches: np.ndarray, places: np.ndarray, images: np.ndarray, origins: np.ndarray) -> None:
        """patches[places[i]] = the part of image number images[i] at origins[i], 0 outside the image.

        Parameters
        ----------
        patches : uint8 (P, height, width, channels)
        places : int64 (n,), every one at most once
        images : int64 (n,); those that are not on the shelf are passed over
        origins : int32 (n, 2), row and column; may be negative
        """
        from ..kernels.crop import cut_patches

        for numbers, pixels in self._batches:
            mine = np.flatnonzero(np.isin(images, numbers))
            if len(mine):
                cut_patches(patches, places[mine], pixels, np.searchsorted(numbers, images[mine]), origins[mine])


class Uncut:
    """A layer's patches before anybody has read them: where they lie, and the images that they lie in.

    Parameters
    ----------
    images : int64 (maps, k), NOBODY where there is no patch
    origins : int32 (maps, k, 2)
    size : (height, width, channels)
    shelf : holds the images

    Attributes
    ----------
    shape, dtype, nbytes : those of the array that they would be
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images: np.ndarray, origins: np.ndarray, size: tuple[int, int, int], shelf: Shelf) -> None:
        self._images, self._origins, self._shelf = images, origins, shelf
        self.shape = (*images.shape, *size)
        self.nbytes = math.prod(self.shape)

    def of(self, maps: np.ndarray) -> np.ndarray:
        """Cut the patches of some maps: uint8 (n, k, height, width, channels)."""
        images, origins = self._images[maps], self._origins[maps]
        shape = (*images.shape, *self.shape[2:])
        if math.prod(shape) <= PIECE:
            found = empty(shape, np.uint8)
        else:
            release()  # the scan's activations, say: they would only add to what all patches take
            found = np.empty(shape, np.uint8)
        found[images == NOBODY] = 0
        places = np.flatnonzero(images != NOBODY)
        self._shelf.cut(found.reshape(-1, *self.shape[2:]), places, images.ravel()[places],
                        origins.reshape(-1, 2)[places])
        return found

    def pieces(self) -> Iterator[np.ndarray]:
        """All patches, some maps at a time, for those who pass them on."""
        maps = self.shape[0]
        step = max(PIECE * maps // max(self.nbytes, 1), 1)
        for begin in range(0, maps, step):
            yield self.of(np.arange(begin, min(begin + step, maps)))
