"""An atlas as tables: classes among the strongest activations, and CSV files of all units and all entries."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..data.decode import printable
from .atlas import Atlas


def histogram(atlas: Atlas, layer: str) -> tuple[list[int], np.ndarray]:
    """Which classes the images of a layer's entries are of.

    Parameters
    ----------
    atlas : of labelled images
    layer : one of its layers

    Returns
    -------
    classes : the class numbers that occur, rising; -1 for images without a class
    counts : int64 (maps, classes), entries of each map
    """
    part = atlas[layer]
    labels = np.array([atlas.labels.get(int(image), -1) for image in part.images.ravel()]).reshape(part.images.shape)
    found = np.unique(labels[part.filled])
    counts = np.stack([((labels == each) & part.filled).sum(axis=1) for each in found], axis=1) if len(found) else \
        np.zeros((part.maps, 0), np.int64)
    return found.tolist(), counts.astype(np.int64)


def class_text(atlas: Atlas, label: int) -> str:
    """A class's name on one line, its number where it has none, nothing for -1."""
    if label < 0:
        return ""
    names = atlas.class_names
    return printable(names[label]) if names and label < len(names) else str(label)


def units_csv(atlas: Atlas) -> str:
    """A line for every map: its strongest activation, whether it is dead, the classes of its entries.

    Columns: layer, map, dead, value, image, row, column, class, entries, mean_value, commonest_class,
    commonest_share, classes ("name:count" joined by "; ", the commonest first).
    """
    lines: list[Sequence[Any]] = [("layer", "map", "dead", "value", "image", "row", "column", "class", "entries",
                                   "mean_value", "commonest_class", "commonest_share", "classes")]
    for layer, part in atlas.layers.items():
        numbers, counts = histogram(atlas, layer)
        for index in range(part.maps):
            filled = part.filled[index]
            if not filled[0]:
                lines.append((layer, index, "", "", "", "", "", "", 0, "", "", "", ""))
                continue
            order = [place for place in np.argsort(-counts[index], kind="stable")
                     if counts[index, place] and numbers[place] >= 0]
            classes = "; ".join(f"{class_text(atlas, numbers[place])}:{counts[index, place]}" for place in order)
            image = int(part.images[index, 0])
            lines.append((
                layer, index, int(part.dead[index]), _number(part.values[index, 0]), _name(atlas, image),
                part.rows[index, 0], part.columns[index, 0], class_text(atlas, atlas.labels.get(image, -1)),
                int(filled.sum()), _number(part.values[index, filled].mean(dtype=np.float64)),
                class_text(atlas, numbers[order[0]]) if order else "",
                _number(counts[index, order[0]] / filled.sum()) if order else "", classes))
    return csv_text(lines)


def entries_csv(atlas: Atlas) -> str:
    """A line for every entry: layer, map, rank, value, image, index, class, row, column, top, left (of the patch)."""
    lines: list[Sequence[Any]] = [("layer", "map", "rank", "value", "image", "index", "class", "row", "column", "top",
                                   "left")]
    for layer, part in atlas.layers.items():
        for index, rank in np.argwhere(part.filled).tolist():
            image = int(part.images[index, rank])
            top, left = part.origins[index, rank].tolist()
            lines.append((layer, index, rank, _number(part.values[index, rank]), _name(atlas, image), image,
                          class_text(atlas, atlas.labels.get(image, -1)), part.rows[index, rank],
                          part.columns[index, rank], top, left))
    return csv_text(lines)


def _name(atlas: Atlas, image: int) -> str:
    return printable(atlas.names.get(image, str(image)))


def _number(value: Any) -> str:
    return f"{float(value):.9g}"


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Comma-separated, quoted where needed. A text that a spreadsheet would run as a formula begins with a quote."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for line in lines:
        writer.writerow(["'" + cell if _looks_like_a_formula(cell) else cell for cell in line])
    return stream.getvalue()


def _looks_like_a_formula(text: Any) -> bool:
    if not isinstance(text, str) or text[:1] not in ("=", "@", "+", "-"):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
