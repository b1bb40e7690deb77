"""A data set from what users have at hand, or from a word that says what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from .caltech import Caltech
from .cifar import cifar
from .decode import printable
from .digits import digits, whole
from .idx import FASHION, idx_images, mnist
from .listed import ImageList
from .sets import Arrays, ImageFiles, ImageFolder, Images
from .stored import npz_images
from .voc import Voc

__all__ = ["KINDS", "open_images", "path_of"]


def _idx(path: str, part: str | None, on_bad: str) -> Images:
    return idx_images(path, part)


def _mnist(path: str, part: str | None, on_bad: str) -> Images:
    return mnist(path, part or "train")


def _fashion(path: str, part: str | None, on_bad: str) -> Images:
    return mnist(path, part or "train", FASHION)


def _cifar(classes: int, coarse: bool = False) -> Callable[[str, str | None, str], Images]:
    def opened(path: str, part: str | None, on_bad: str) -> Images:
        return cifar(path, part or "train", classes, coarse)

    return opened


def _caltech(path: str, part: str | None, on_bad: str) -> Images:
    checks.one_of("open_images", "what follows the folder of Caltech", part, (None, "background"))
    return Caltech(path, background=part is not None, on_bad=on_bad)


def _voc(path: str, part: str | None, on_bad: str) -> Images:
    return Voc(path, part or "trainval", on_bad=on_bad)


KINDS: dict[str, Callable[[str, str | None, str], Images]] = {
    "idx": _idx, "mnist": _mnist, "fashion-mnist": _fashion, "cifar10": _cifar(10), "cifar100": _cifar(100),
    "cifar100-coarse": _cifar(100, True), "caltech": _caltech, "voc": _voc,
}


def _divided(text: str) -> tuple[str, str | None]:
    """Path and part of "path:part"; a path that exists has no part."""
    head, colon, part = text.rpartition(":")
    return (text, None) if os.path.exists(text) or not colon or not head else (head, part or None)


def path_of(source: str) -> str:
    """The file or folder that a text for `open_images` names.

    Parameters
    ----------
    source : such as "mnist.npz:train", "cifar10:folder:test" or a path
    """
    if os.path.exists(source):
        return source
    kind, colon, rest = source.partition(":")
    return _divided(rest if colon and kind in KINDS else source)[0]


def open_images(source: Any, *, on_bad: str = "fail") -> Images:
    """A data set from what users have at hand.

    A path that exists always means that path. Otherwise a text may be

    - `set.npz:train`: a part of an archive of arrays or of packed JPEGs
    - `mnist:DIR:train`, `fashion-mnist:DIR:test`: the four IDX files, plain or gzip
    - `idx:IMAGES:LABELS`, or `idx:IMAGES`: any IDX files
    - `cifar10:DIR:train`, `cifar100:DIR:test`, `cifar100-coarse:DIR:test`: the binary version's folder or archive
    - `caltech:DIR`, or `caltech:DIR:background` with the background class
    - `voc:DIR:trainval`: PASCAL VOC
    - `digits`, `digits:train`, `digits:test`: scikit-learn's

    Parameters
    ----------
    source : a data set already, a folder (a folder a class), a CSV of path and label, a picture, an `.npz`, a
        text as above, a list of paths, or a uint8 array
    on_bad : "fail" or "skip" bad pictures

    Raises
    ------
    FileNotFoundError : nothing is there
    ImageError : what is there is no whole data set
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
    if os.path.exists(path):
        return _file(path, on_bad)
    kind, colon, rest = path.partition(":")
    if colon and rest and kind in KINDS:
        return KINDS[kind](*_divided(rest), on_bad)
    if kind == "digits" and rest in ("", "train", "test"):
        return digits()[0 if rest == "train" else 1] if rest else whole()
    head, part = _divided(path)
    if part and head.lower().endswith(".npz"):
        return npz_images(head, part, on_bad=on_bad)
    raise FileNotFoundError(f"{printable(path)}: no such file or folder of images")


def _file(path: str, on_bad: str) -> Images:
    """What one file holds."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return npz_images(path, on_bad=on_bad)
    if suffix == ".csv":
        return ImageList(path, on_bad=on_bad)
    return ImageFiles([path], root=os.path.dirname(path) or ".", on_bad=on_bad)
