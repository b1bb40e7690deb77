"""Numbers as colours: heat maps with their scale, maps of classes, and sheets of titled panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .. import checks
from .atlas import FAINT, INK, PAPER, _font, _rgb

# Nine colours of viridis (Smith and van der Walt, CC0): even steps of lightness, also for the color-blind.
VIRIDIS = np.array([(68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129),
                    (92, 200, 99), (170, 220, 50), (253, 231, 37)], np.float64)
# Twelve that stay apart (after Tol's and Brewer's qualitative schemes); the rest is gray.
DISTINCT = np.array([(51, 34, 136), (221, 204, 119), (17, 119, 51), (204, 102, 119), (136, 204, 238), (170, 68, 153),
                     (153, 153, 51), (136, 34, 85), (68, 170, 153), (102, 17, 0), (230, 120, 30), (102, 153, 204)],
                    np.uint8)
NONE = (200, 200, 200)  # cells without a number


def viridis(values: np.ndarray, lowest: float | None = None, highest: float | None = None) -> np.ndarray:
    """Shades from dark blue (lowest) to yellow (highest).

    Parameters
    ----------
    values : (height, width); NaN is gray
    lowest, highest : the values at the ends of the scale; None: the smallest and the largest

    Returns
    -------
    uint8 (height, width, 3)
    """
    checks.require(values.ndim == 2, "viridis", "values.shape", values.shape, "(height, width)")
    known = np.isfinite(values)
    low = float(values[known].min(initial=np.inf)) if lowest is None else lowest
    high = float(values[known].max(initial=-np.inf)) if highest is None else highest
    share = np.zeros(values.shape)
    if high > low:
        share[known] = np.clip((values[known] - low) / (high - low), 0, 1)
    steps = np.arange(len(VIRIDIS)) / (len(VIRIDIS) - 1)
    shades = np.stack([np.interp(share, steps, VIRIDIS[:, channel]) for channel in range(3)], axis=-1)
    shades[~known] = NONE
    return np.rint(shades).astype(np.uint8)


def classes(numbers: np.ndarray) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int], int]]]:
    """A map of class numbers in colours, the commonest classes in the most distinct ones.

    Parameters
    ----------
    numbers : int (height, width)

    Returns
    -------
    pixels : uint8 (height, width, 3)
    legend : (class, colour, cells) for each class that has a colour of its own, the commonest first
    """
    found, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    rank = np.empty(len(found), np.intp)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    palette = np.array([DISTINCT[place] if place < len(DISTINCT) else NONE for place in rank], np.uint8)
    order = np.argsort(rank)[:len(DISTINCT)]
    legend = [(int(found[place]), (int(palette[place, 0]), int(palette[place, 1]), int(palette[place, 2])),
               int(counts[place])) for place in order]
    return palette[places.reshape(numbers.shape)], legend


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """RGB pixels whose longer side is `side`: enlarged cell by cell, reduced by averaging."""
    pixels = _rgb(pixels)
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    how = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how))


def titled_panels(items: Sequence[tuple[str, np.ndarray, str]], *, columns: int | None = None, side: int = 220,
           title: str = "", font: int = 13) -> np.ndarray:
    """A sheet of pictures, each under its heading and over its note.

    Parameters
    ----------
    items : (heading, uint8 pixels (height, width, 1 or 3), note); a note may have several lines
    columns : in a row; None: all in one
    side : longer side of each picture on the sheet; 0 leaves the pictures as they are
    title : over the sheet
    font : size of the text

    Returns
    -------
    uint8 (height, width, 3)
    """
    checks.require(len(items) > 0, "titled_panels", "items", items, "one picture or more")
    shown = [(head, fitted(pixels, side) if side else _rgb(pixels), note) for head, pixels, note in items]
    columns = min(columns or len(items), len(items))
    rows = [shown[begin:begin + columns] for begin in range(0, len(shown), columns)]
    line, gap = round(font * 1.45), 2 * font
    text, small = _font(font), _font(max(font - 2, 9))

    def length(words: str, kind: Any) -> int:
        return max((int(np.ceil(kind.getlength(each))) for each in words.split("\n")), default=0)

    widths = [max(max(row[place][1].shape[1], length(row[place][0], text), length(row[place][2], small))
                  for row in rows if place < len(row)) for place in range(columns)]
    heights = [max(picture.shape[0] for _, picture, _ in row) for row in rows]
    notes = [max(note.count("\n") + 1 if note else 0 for _, _, note in row) * line for row in rows]
    above = 2 * line if title else 0
    across = max(sum(widths) + gap * (columns - 1), length(title, _font(font + 4)) if title else 0)
    sheet = Image.new("RGB", (2 * gap + across,
                              2 * gap + above + sum(line + h + n for h, n in zip(heights, notes, strict=True))
                              + gap * (len(rows) - 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((gap, gap), title, INK, _font(font + 4))
    top = gap + above
    for row, tall, below in zip(rows, heights, notes, strict=True):
        left = gap
        for (head, picture, note), wide in zip(row, widths, strict=False):
            pen.text((left, top), head, INK, text)
            sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, top + line))
            for number, words in enumerate(note.split("\n") if note else ()):
                pen.text((left, top + line + tall + number * line + 3), words, FAINT, small)
            left += wide + gap
        top += line + tall + below + gap
    return np.asarray(sheet)


def legend_picture(entries: Sequence[tuple[str, tuple[int, int, int]]], size: int = 13) -> np.ndarray:
    """Names beside their colours, one a line: uint8 (height, width, 3)."""
    font = _font(size)
    line = round(size * 1.6)
    width = max((int(font.getlength(name)) for name, _ in entries), default=0) + 2 * line
    sheet = Image.new("RGB", (max(width, 1), max(line * len(entries), 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (name, color) in enumerate(entries):
        pen.rectangle((0, number * line + 3, line - 6, (number + 1) * line - 4), fill=color)
        pen.text((line, number * line + 1), name, INK, font)
    return np.asarray(sheet)
