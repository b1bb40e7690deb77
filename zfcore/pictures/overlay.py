"""Maps as colours, and over the photographs that they belong to; panels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .. import checks
from .atlas import FAINT, INK, PAPER, PERCENTILE, _font, _rgb
from .tiles import _image, enlarge, in_rgb_order, symmetric_scale
from .tiles import signed as signed_shades

# Dark to light, so that it reads in gray as well; and blue, white, red about zero.
HEAT = np.array([(0, 0, 4), (61, 9, 101), (137, 34, 106), (203, 65, 73), (245, 125, 21), (249, 201, 50),
                 (252, 255, 200)], np.float64)
SIGNED = np.array([(18, 56, 140), (80, 135, 205), (176, 206, 230), (247, 247, 247), (246, 188, 165),
                   (214, 96, 77), (140, 14, 38)], np.float64)


def _shade(position: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Colours between the anchors, float, for positions from 0 to 1."""
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(position, places, anchors[:, channel]) for channel in range(3)], axis=-1)


def heat(values: np.ndarray, scale: float | None = None, *, signed: bool = False) -> np.ndarray:
    """Colours of a map: black to white through red; signed ones blue, white (zero), red.

    Parameters
    ----------
    values : float (..., height, width)
    scale : the magnitude of the last colour; None: the 99.8th percentile of the magnitudes
    signed : whether zero is the middle; else values below zero are black

    Returns
    -------
    uint8 (..., height, width, 3)
    """
    scale = symmetric_scale(values, PERCENTILE) if scale is None else scale
    checks.require(scale > 0, "heat", "scale", scale, "a number above 0")
    position = np.clip(values / scale, -1 if signed else 0, 1)
    return np.rint(_shade(position / 2 + 0.5, SIGNED) if signed else _shade(position, HEAT)).astype(np.uint8)


def attribution_shades(values: np.ndarray, channels: str = "RGB", *, signed: bool = True, scale: float | None = None
                       ) -> np.ndarray:
    """One row of an attribution: signed pixels as shades about gray, a map as heat.

    Parameters
    ----------
    values : float (height, width), or (height, width, channels)
    channels : the network's order: "RGB", "BGR" or "L"
    signed : whether a map's values below zero mean something
    scale : the magnitude of the last shade; None: the 99.8th percentile of the magnitudes

    Returns
    -------
    uint8 (height, width, 1 or 3); of more channels than three, the greatest magnitude as heat
    """
    scale = symmetric_scale(values, PERCENTILE) if scale is None else scale
    if values.ndim == 3 and values.shape[2] in (1, 3):
        return signed_shades(in_rgb_order(values, channels), scale)
    return heat(np.abs(values).max(axis=2) if values.ndim == 3 else values, scale, signed=signed and values.ndim == 2)


def overlay(photograph: np.ndarray, values: np.ndarray, scale: float | None = None, *, signed: bool = False,
            strength: float = 0.75) -> np.ndarray:
    """A map over its photograph: the photograph in gray, coloured where the map is strong.

    Parameters
    ----------
    photograph : uint8 (height, width, 1 or 3)
    values : float (rows, columns), of any size: enlarged bilinearly
    scale : the magnitude of full colour; None: the largest of the map
    signed : red above zero and blue below; else hot colours above zero and nothing below
    strength : how much of the photograph full colour hides, 0 to 1

    Returns
    -------
    uint8 (height, width, 3)
    """
    checks.require(0 <= strength <= 1, "overlay", "strength", strength, "0 to 1")
    scale = symmetric_scale(values) if scale is None else scale
    checks.require(scale > 0, "overlay", "scale", scale, "a number above 0")
    height, width = photograph.shape[:2]
    enlarged = np.asarray(Image.fromarray(np.asarray(values, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR))
    position = np.clip(enlarged / scale, -1 if signed else 0, 1)
    gray = np.asarray(_image(_rgb(photograph)).convert("L"), np.float64)[..., None].repeat(3, axis=2)
    if signed:
        colour = np.where(position[..., None] > 0, SIGNED[-2], SIGNED[1])
    else:
        colour = _shade(0.35 + 0.55 * position, HEAT)
    share = strength * np.abs(position[..., None]) ** 0.8
    return np.rint(gray * (1 - share) + colour * share).astype(np.uint8)


def panels(rows: Sequence[Sequence[tuple[np.ndarray, str]]], *, titles: Sequence[str] = (), side: int = 224,
           title: str = "") -> np.ndarray:
    """Pictures of any sizes in rows, each brought to one height, with a note under each.

    Parameters
    ----------
    rows : for each row its (uint8 picture, note); notes may be empty
    titles : headings of the columns
    side : the longer side of a picture in pixels; small ones are enlarged by whole factors
    title : a heading

    Returns
    -------
    uint8 (height, width, 3)
    """
    checks.require(len(rows) > 0 and all(len(row) > 0 for row in rows), "panels", "rows", len(rows),
                   "one row or more, none of them empty")
    shown = [[(_fit(picture, side), note) for picture, note in row] for row in rows]
    count = max(map(len, shown))
    widths = [max([row[column][0].width for row in shown if column < len(row)]) for column in range(count)]
    heights = [max(picture.height for picture, _ in row) for row in shown]
    size, gap = max(side // 17, 11), max(side // 18, 8)
    noted = [size * 2 if any(note for _, note in row) else 0 for row in shown]
    head = (size * 3 if title else 0) + (size * 2 if titles else 0)
    sheet = Image.new("RGB", (2 * gap + sum(widths) + gap * (count - 1),
                              2 * gap + head + sum(heights) + sum(noted) + gap * (len(rows) - 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((gap, gap), title, INK, _font(round(size * 1.4)))
    lefts = [gap + sum(widths[:column]) + gap * column for column in range(count)]
    for column, text in enumerate(list(titles)[:count]):
        _write(pen, (lefts[column], gap + head - size * 2 + size // 3), text, widths[column], INK, size)
    top = gap + head
    for row, height, note_height in zip(shown, heights, noted, strict=True):
        for column, (picture, note) in enumerate(row):
            sheet.paste(picture, (lefts[column], top))
            _write(pen, (lefts[column], top + height + size // 3), note, widths[column], FAINT, size)
        top += height + note_height + gap
    return np.asarray(sheet)


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    """Enlarged by a whole factor, or reduced, until the longer side is about `side`."""
    checks.require(picture.dtype == np.uint8 and picture.ndim == 3, "panels", "picture",
                   f"{picture.dtype} {picture.shape}", "uint8 (height, width, 1 or 3)")
    picture = _rgb(picture)
    if max(picture.shape[:2]) <= side // 2:
        picture = enlarge(picture, side)
    image = _image(picture)
    factor = side / max(image.size)
    if factor != 1:
        image = image.resize((max(round(image.width * factor), 1), max(round(image.height * factor), 1)),
                             Image.Resampling.LANCZOS)
    return image


def _write(pen: Any, place: tuple[int, int], text: str, width: int, colour: Any, size: int) -> None:
    """A line of text, shortened to its column."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    font = _font(size)
    if pen.textlength(text, font=font) > width:
        while text and pen.textlength(text + "...", font=font) > width:
            text = text[:-1]
        text += "..."
    pen.text(place, text, colour, font)
