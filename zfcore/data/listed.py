"""A CSV of pictures and their classes."""

from __future__ import annotations

import csv
import io
import os
import re

from .decode import ImageError, printable, read
from .sets import ImageFiles

__all__ = ["ImageList"]

PATHS, LABELS = ("path", "file", "filename", "image"), ("label", "class", "class_name", "target")
MAX_BYTES = 2**30


class ImageList(ImageFiles):
    """Pictures listed in a CSV: a path, and a class, in each line.

    A first line that names the columns (`path,label`; also file, filename, image; class, class_name,
    target) may stand above; other columns are then passed over. Without it there are one or two columns.
    Paths are relative to the CSV's folder. Where every label is a whole number, it is the class; otherwise
    labels are names, and classes are numbered in the order of the names' bytes. An empty label is none (-1).

    Raises
    ------
    FileNotFoundError : no such CSV
    ImageError : a line that has other columns, no path, or names a file that does not exist (unless bad
        pictures are skipped); with the line's number
    """

    def __init__(self, path: str | os.PathLike[str], *, on_bad: str = "fail") -> None:
        shown = printable(os.fsdecode(path))
        if not os.path.exists(path):
            raise FileNotFoundError(f"{shown}: no such file")
        if os.path.getsize(path) > MAX_BYTES:
            raise ImageError(f"{shown}: has {os.path.getsize(path)} bytes; allowed: at most {MAX_BYTES}")
        root = os.path.dirname(os.fsdecode(path)) or "."
        text = read(path, os.fsdecode(path)).decode("utf-8-sig", "surrogateescape")
        files, given, lines = [], [], []
        columns: tuple[int, int | None] | None = None
        width = 0
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in rows:
                if not row:
                    continue
                if columns is None:
                    columns, is_header = _columns(row, f"{shown}: line {rows.line_num}")
                    width = len(row)
                    if is_header:
                        continue
                if len(row) != width:
                    raise ImageError(f"{shown}: line {rows.line_num}: has {len(row)} fields; allowed: {width}, as in "
                                     "the first")
                name = row[columns[0]].strip()
                if not name or "\0" in name:
                    raise ImageError(f"{shown}: line {rows.line_num}: the path is {name!r}; allowed: a file's path")
                place = os.path.join(root, name)
                if on_bad == "fail" and not os.path.isfile(place):
                    raise ImageError(f"{shown}: line {rows.line_num}: {printable(place)}: no such file")
                files.append(place)
                lines.append(rows.line_num)
                given.append("" if columns[1] is None else row[columns[1]].strip())
        except csv.Error as error:
            raise ImageError(f"{shown}: line {rows.line_num}: {error}") from error
        if not files:
            raise ImageError(f"{shown}: lists no pictures")
        labels, classes = _classes(given, lines, shown)
        super().__init__(files, labels, class_names=classes, root=root, on_bad=on_bad)


def _columns(first: list[str], where: str) -> tuple[tuple[int, int | None], bool]:
    """Where path and label stand, and whether the first line only says so."""
    words = [cell.strip().lower() for cell in first]
    paths = [place for place, word in enumerate(words) if word in PATHS]
    labels = [place for place, word in enumerate(words) if word in LABELS]
    if len(paths) == 1 and len(labels) <= 1:
        return (paths[0], labels[0] if labels else None), True
    if len(first) > 2:
        raise ImageError(f"{where}: has {len(first)} columns and does not say which is the path; allowed: one or two, "
                         f"or a first line with one of {', '.join(PATHS)} and one of {', '.join(LABELS)}")
    return (0, 1 if len(first) == 2 else None), False


def _classes(given: list[str], lines: list[int], shown: str) -> tuple[list[int] | None, list[str] | None]:
    """Class numbers, and names unless labels are numbers."""
    if not any(given):
        return None, None
    if all(re.fullmatch(r"-?\d{1,9}", label) for label in given if label):
        numbers = [int(label) if label else -1 for label in given]
        if (wrong := next((place for place, number in enumerate(numbers) if number < -1), None)) is not None:
            raise ImageError(f"{shown}: line {lines[wrong]}: the label is {numbers[wrong]}; allowed: 0 and above, "
                             "or -1 for none")
        return numbers, None
    names = sorted({label for label in given if label}, key=os.fsencode)
    number = {name: index for index, name in enumerate(names)}
    return [number.get(label, -1) for label in given], names
