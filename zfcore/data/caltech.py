"""Caltech-101 (Fei-Fei et al. 2006) and Caltech-256 (Griffin et al. 2007): a folder for each class."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .decode import ImageError, printable
from .sets import SUFFIXES, ImageFiles

__all__ = ["Caltech"]

ROOTS = ("101_ObjectCategories", "256_ObjectCategories")
BACKGROUND = ("BACKGROUND_Google", "257.clutter")


class Caltech(ImageFiles):
    """The object categories, without the background class unless it is asked for.

    Only pictures that lie directly in a class's folder count (two folders of Caltech-256 hold strays). Names
    lose the number in front ("056.dog" is "dog"). `folds` draws the protocol's training and test pictures.

    Raises
    ------
    FileNotFoundError : no such folder
    ImageError : no class in it, or a class without pictures
    """

    def __init__(self, path: str | os.PathLike[str], *, background: bool = False, on_bad: str = "fail") -> None:
        root, shown = Path(path), printable(os.fsdecode(path))
        if not root.is_dir():
            raise FileNotFoundError(f"{shown}: no such folder")
        root = next((root / name for name in ROOTS if (root / name).is_dir()), root)
        folders = sorted((each for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")
                          and (background or each.name not in BACKGROUND)), key=os.fsencode)
        if not folders:
            raise ImageError(f"{shown}: holds no folders, one for each class")
        paths: list[Path] = []
        labels: list[int] = []
        for number, folder in enumerate(folders):
            files = sorted((each for each in folder.iterdir() if each.name.lower().endswith(SUFFIXES)
                            and not each.name.startswith(".") and each.is_file()), key=os.fsencode)
            if not files:
                raise ImageError(f"{printable(str(folder))}: a class without pictures")
            paths += files
            labels += [number] * len(files)
        names = [re.sub(r"^\d{3}\.", "", folder.name) for folder in folders]
        super().__init__(paths, labels, class_names=names, root=root, on_bad=on_bad)
