"""PASCAL VOC (Everingham et al. 2010), 2007 to 2012: pictures with several objects, described in XML."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from .decode import ImageError, printable, read
from .sets import ImageFiles

__all__ = ["CLASSES", "Thing", "Voc", "read_annotation"]

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
MAX_BYTES, DEEPEST = 2**20, 16
OBJECT = ("annotation", "object")
SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Thing:
    """One annotated object.

    Attributes
    ----------
    name : its class
    difficult : whether the annotators marked it so; such objects do not count in the competition
    box : (xmin, ymin, xmax, ymax) in pixels, from 1
    """

    name: str
    difficult: bool
    box: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        """Of its box, in pixels."""
        return (self.box[2] - self.box[0] + 1) * (self.box[3] - self.box[1] + 1)


def read_annotation(data: bytes, where: str) -> list[Thing]:
    """The objects of an annotation, in the file's order.

    A document type is refused, so no entity is ever expanded or fetched.

    Parameters
    ----------
    data : the content of an XML file
    where : its path, for errors

    Raises
    ------
    ImageError : no well-formed annotation, with the line and the field
    """
    shown = printable(where)
    if len(data) > MAX_BYTES:
        raise ImageError(f"{shown}: has {len(data)} bytes; allowed: at most {MAX_BYTES}")
    parser = expat.ParserCreate()
    path: list[str] = []
    texts: dict[tuple[str, ...], str] = {}
    things: list[Thing] = []

    def refuse(*_: Any) -> None:
        raise ImageError(f"{shown}: line {parser.CurrentLineNumber}: declares a document type; allowed: none")

    def begin(name: str, _: dict[str, str]) -> None:
        path.append(name)
        if len(path) > DEEPEST or path[0] != "annotation":
            raise ImageError(f"{shown}: line {parser.CurrentLineNumber}: is <{printable(name)}>; allowed: an "
                             f"<annotation> of at most {DEEPEST} levels")
        if tuple(path) == OBJECT:
            texts.clear()

    def text(part: str) -> None:
        if tuple(path[:2]) == OBJECT:
            texts[tuple(path)] = texts.get(tuple(path), "") + part

    def end(_: str) -> None:
        if tuple(path) == OBJECT:
            things.append(_thing(texts, f"{shown}: the object that ends in line {parser.CurrentLineNumber}"))
        path.pop()

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ImageError(f"{shown}: no well-formed XML ({error})") from error
    return things


def _thing(texts: dict[tuple[str, ...], str], where: str) -> Thing:
    """An object from its fields."""
    name = texts.get((*OBJECT, "name"), "").strip()
    if name not in CLASSES:
        raise ImageError(f"{where}: name is {name!r}; allowed: one of {', '.join(CLASSES)}")
    difficult = texts.get((*OBJECT, "difficult"), "0").strip()
    if difficult not in ("0", "1"):
        raise ImageError(f"{where}: difficult is {difficult!r}; allowed: 0 or 1")
    box = []
    for side in SIDES:
        value = texts.get((*OBJECT, "bndbox", side), "").strip()
        if not re.fullmatch(r"-?\d{1,6}(\.\d{1,30})?", value):
            raise ImageError(f"{where}: bndbox/{side} is {value!r}; allowed: a number of pixels")
        box.append(float(value))
    if box[2] < box[0] or box[3] < box[1]:
        raise ImageError(f"{where}: bndbox is {box}; allowed: xmin <= xmax and ymin <= ymax")
    return Thing(name, difficult == "1", (box[0], box[1], box[2], box[3]))


class Voc(ImageFiles):
    """A part of PASCAL VOC, for classification.

    Attributes
    ----------
    targets : uint8 (pictures, 20): 1 where an object of the class is annotated, one not difficult
    difficult : bool (pictures, 20): only difficult objects of the class; the competition leaves them out
    labels : the paper's exclusive reading, one class a picture: that of the largest box that is not
        difficult, or, where all are, of the largest (our choice: the paper does not say); -1 for none
    """

    def __init__(self, path: str | os.PathLike[str], part: str = "trainval", *, on_bad: str = "fail") -> None:
        root, shown = Path(path), printable(os.fsdecode(path))
        if not root.is_dir():
            raise FileNotFoundError(f"{shown}: no such folder")
        years = sorted((*root.glob("VOC20??"), *root.glob("VOCdevkit/VOC20??")))
        root = root if (root / "ImageSets").is_dir() or not years else years[-1]
        listed = root / "ImageSets" / "Main" / f"{part}.txt"
        if re.fullmatch(r"\w{1,40}", part) is None or not listed.is_file():
            parts = sorted(each.stem for each in (root / "ImageSets" / "Main").glob("*.txt") if "_" not in each.stem)
            raise FileNotFoundError(f"{shown}: has no ImageSets/Main/{printable(part)}.txt; "
                                    f"parts: {', '.join(parts) or 'none'}")
        names = []
        lines = read(listed, str(listed)).decode("ascii", "backslashreplace").splitlines()
        for number, line in enumerate(lines, 1):
            if not re.fullmatch(r"\s*[\w-]{1,60}\s*", line):
                raise ImageError(f"{printable(str(listed))}: line {number}: is {line!r}; allowed: a picture's name")
            names.append(line.strip())
        if not names:
            raise ImageError(f"{printable(str(listed))}: lists no pictures")
        self.targets = np.zeros((len(names), len(CLASSES)), np.uint8)
        self.difficult = np.zeros((len(names), len(CLASSES)), bool)
        labels = []
        for row, name in enumerate(names):
            place = root / "Annotations" / f"{name}.xml"
            things = read_annotation(read(place, str(place)), str(place))
            for thing in things:
                column = CLASSES.index(thing.name)
                self.targets[row, column] |= not thing.difficult
                self.difficult[row, column] |= thing.difficult
            best = max(things, key=lambda each: (not each.difficult, each.area), default=None)
            labels.append(-1 if best is None else CLASSES.index(best.name))
        self.difficult &= self.targets == 0
        pictures = [root / "JPEGImages" / f"{name}.jpg" for name in names]
        super().__init__(pictures, labels, class_names=CLASSES, root=root / "JPEGImages", on_bad=on_bad)

    def _content(self) -> list[Any]:
        return [*super()._content(), self.targets.tolist(), self.difficult.tolist()]
