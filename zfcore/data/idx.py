"""IDX files, plain or gzip: MNIST and Fashion-MNIST as they are distributed (LeCun, Cortes and Burges).

Two zero bytes, a type (8: unsigned bytes), the number of dimensions, each as a big-endian 32-bit number,
then the values, the last dimension fastest.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np

from .. import checks
from .archive import MAX_BYTES, reading, take, uncompressed
from .decode import ImageError, printable
from .sets import Arrays

__all__ = ["DIGITS", "FASHION", "idx_images", "mnist", "read_idx"]

UNSIGNED_BYTES = 8
DIGITS = tuple(str(digit) for digit in range(10))
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
STEMS = {"train": "train", "test": "t10k"}


def read_idx(path: str | os.PathLike[str], dimensions: int, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The uint8 array of an IDX file.

    Parameters
    ----------
    path : the file; gzip is told by its content
    dimensions : how many it must have: 3 for images, 1 for labels
    max_bytes : a file that declares more is refused before anything is allocated

    Raises
    ------
    FileNotFoundError : no such file
    ImageError : another type or number of dimensions, too few or too many bytes, broken gzip
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{printable(os.fsdecode(path))}: no such file")
    with reading(path) as shown, uncompressed(path) as file:
        head = take(file, 4 + 4 * dimensions)
        if len(head) < 4 or head[:2] != b"\0\0":
            raise ImageError(f"{shown}: byte 0: begins with {head[:4].hex() or 'nothing'}; allowed: "
                             f"0000{UNSIGNED_BYTES:02x}{dimensions:02x}, an IDX file of unsigned bytes")
        if head[2] != UNSIGNED_BYTES:
            raise ImageError(f"{shown}: byte 2: the type is {head[2]}; allowed: {UNSIGNED_BYTES}, unsigned bytes")
        if head[3] != dimensions:
            raise ImageError(f"{shown}: byte 3: has {head[3]} dimensions; allowed: {dimensions}")
        if len(head) < 4 + 4 * dimensions:
            raise ImageError(f"{shown}: byte {len(head)}: ends within its header of {4 + 4 * dimensions} bytes")
        shape = struct.unpack(f">{dimensions}I", head[4:])
        count = math.prod(shape)
        if count > max_bytes:
            raise ImageError(f"{shown}: byte 4: declares {' x '.join(map(str, shape))} bytes; allowed: at most "
                             f"{max_bytes} in all")
        values = take(file, count + 1)
    if len(values) < count:
        raise ImageError(f"{shown}: byte {len(head) + len(values)}: ends there, where its header declares "
                         f"{' x '.join(map(str, shape))} values, {len(head) + count} bytes in all")
    if len(values) > count:
        raise ImageError(f"{shown}: byte {len(head) + count}: goes on after the {' x '.join(map(str, shape))} values "
                         "that its header declares")
    return np.frombuffer(values, np.uint8).reshape(shape)


def idx_images(images: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None,
               class_names: tuple[str, ...] | None = None) -> Arrays:
    """Gray images from an IDX file, with their labels from another.

    Parameters
    ----------
    images, labels : the files; labels None: pictures have no classes
    class_names : of the labels
    """
    pixels = read_idx(images, 3)
    if 0 in pixels.shape[1:]:
        raise ImageError(f"{printable(os.fsdecode(images))}: byte 8: declares pictures of {pixels.shape[1]} x "
                         f"{pixels.shape[2]} pixels; allowed: at least 1 x 1")
    if labels is None:
        return Arrays(pixels)
    found = read_idx(labels, 1)
    if len(found) != len(pixels):
        raise ImageError(f"{printable(os.fsdecode(labels))}: has {len(found)} labels for the {len(pixels)} images of "
                         f"{printable(os.fsdecode(images))}")
    if class_names is not None and len(found) and found.max() >= len(class_names):
        place = int((found >= len(class_names)).argmax())
        raise ImageError(f"{printable(os.fsdecode(labels))}: byte {8 + place}: label {place} is {found[place]}; "
                         f"allowed: 0..{len(class_names) - 1}")
    return Arrays(pixels, found, class_names=class_names)


def mnist(folder: str | os.PathLike[str], part: str = "train", class_names: tuple[str, ...] = DIGITS) -> Arrays:
    """MNIST or Fashion-MNIST from the folder that holds its four files, plain or `.gz`.

    Parameters
    ----------
    folder : with train-images-idx3-ubyte and so on (or train-images.idx3-ubyte)
    part : "train" or "test" (the files that begin with t10k)
    class_names : `DIGITS` or `FASHION`
    """
    checks.one_of("mnist", "part", part, STEMS)
    root, found = Path(folder), []
    for kind, rank in (("images", 3), ("labels", 1)):
        stem = f"{STEMS[part]}-{kind}"
        names = [f"{stem}{mark}idx{rank}-ubyte{end}" for mark in ("-", ".") for end in ("", ".gz")]
        place = next((root / name for name in names if (root / name).is_file()), None)
        if place is None:
            raise FileNotFoundError(f"{printable(str(folder))}: holds none of {', '.join(names)}")
        found.append(place)
    return idx_images(found[0], found[1], class_names)
