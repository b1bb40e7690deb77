"""A data set from what users have at hand."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import checks
from .decode import printable
from .sets import Arrays, ImageFiles, ImageFolder, Images, PackedImages

__all__ = ["open_images"]


def open_images(source: Any, *, on_bad: str = "fail") -> Images:
    """A data set from what users have at hand.

    `source` is a data set already, a folder, a picture, a packed `.npz` (`"set.npz:train"` names
    its part), a list of paths, or a uint8 array.
    """
    if isinstance(source, Images):
        return source
    if isinstance(source, np.ndarray):
        return Arrays(source)
    if isinstance(source, (list, tuple)):
        if source and all(isinstance(item, (str, os.PathLike)) for item in source):
            return ImageFiles(source, on_bad=on_bad)
        checks.fail("open_images", "source", source, "a non-empty list of paths", TypeError)
    if not isinstance(source, (str, os.PathLike)):
        checks.fail("open_images", "source", type(source).__name__,
                    "a path, paths, a uint8 array or a data set", TypeError)
    path = os.fsdecode(source)
    if os.path.isdir(path):
        return ImageFolder(path, on_bad=on_bad)
    head, colon, part = path.rpartition(":")
    if colon and head.lower().endswith(".npz") and not os.path.exists(path):
        return PackedImages(head, part, on_bad=on_bad)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{printable(path)}: no such file or folder of images")
    if path.lower().endswith(".npz"):
        return PackedImages(path, on_bad=on_bad)
    return ImageFiles([path], root=os.path.dirname(path) or ".", on_bad=on_bad)
