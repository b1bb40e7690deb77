"""Pictures of an atlas in the manner of the paper's Fig. 2: projections beside their patches.

They take arrays, not an `Atlas`: pictures know nothing of studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .. import checks
from .tiles import GRAY, enlarge, grid, in_rgb_order, resize_tiles, signed, symmetric_scale

PAPER, INK, FAINT = (255, 255, 255), (28, 30, 34), (128, 132, 140)
PERCENTILE = 99.8  # of a map's magnitudes: a few extreme pixels must not dim all nine pictures


def outside_gray(patches: np.ndarray, origins: np.ndarray, extent: Sequence[int]) -> np.ndarray:
    """Patches (n, height, width, channels) with the cells outside their image made gray."""
    shown = np.array(patches)
    height, width = shown.shape[1:3]
    for tile, (row, column) in zip(shown, np.asarray(origins).tolist(), strict=True):
        top, left = min(max(-row, 0), height), min(max(-column, 0), width)
        bottom, right = max(min(extent[0] - row, height), 0), max(min(extent[1] - column, width), 0)
        tile[:top], tile[bottom:], tile[:, :left], tile[:, right:] = GRAY, GRAY, GRAY, GRAY
    return shown


def card_pictures(projections: np.ndarray, patches: np.ndarray, origins: np.ndarray, extent: Sequence[int],
                  channels: str = "RGB", *, filled: np.ndarray | None = None, smallest: int = 64,
                  largest: int = 96, gap: int = 1, background: Any = 255, scale: float | None = None
                  ) -> tuple[np.ndarray, np.ndarray, float]:
    """One map's projections and patches, each as a nearly square grid.

    Parameters
    ----------
    projections : float (k, height, width, channels), in the network's order of channels
    patches : uint8 (k, height, width, channels), RGB or gray
    origins : int (k, 2), the patches' first cells in their images
    extent : (height, width) of the images
    channels : the network's order: "RGB", "BGR" or "L"
    filled : bool (k,), False for entries that show nothing; None: all do
    smallest, largest : limits of a tile's side in pixels
    gap, background : between tiles
    scale : magnitude shown as black or white, one for all k; None: their 99.8th percentile

    Returns
    -------
    projections, patches : uint8 grids of one size
    scale : the one that was used
    """
    scale = symmetric_scale(projections, PERCENTILE) if scale is None else scale
    shades = signed(in_rgb_order(projections, channels), scale)
    shown = outside_gray(patches, origins, extent)
    if filled is not None:
        shown[~np.asarray(filled)] = GRAY
    columns = max(int(np.ceil(np.sqrt(len(shown)))), 1)
    sheets = [grid(resize_tiles(tiles, smallest, largest), columns, gap=gap, background=background)
              for tiles in (shades, shown)]
    return sheets[0], sheets[1], scale


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def atlas_picture(cards: Sequence[tuple[np.ndarray, np.ndarray]], labels: Sequence[str],
                  notes: Sequence[str] | None = None, *, columns: int | None = None, title: str = ""
                  ) -> np.ndarray:
    """A sheet of maps: for each a label, its projections and, to their right, its patches.

    Parameters
    ----------
    cards : (projections, patches) for each map, as `card_pictures` gives them, all of one size
    labels : a short name for each, such as "conv5:120"
    notes : a second text for each, set faintly at the right, such as the strongest value
    columns : maps in a row; None: chosen so that the sheet is a little taller than wide
    title : a heading

    Returns
    -------
    uint8 (height, width, 3)
    """
    checks.require(len(cards) > 0 and len(labels) == len(cards), "atlas_picture", "(cards, labels)",
                   (len(cards), len(labels)), "one label a card, at least one card")
    height, width = cards[0][0].shape[:2]
    size = int(np.clip(width / 14, 11, 18))
    head, middle, gutter, margin = round(size * 1.7), max(width // 48, 3), 2 * size, 2 * size
    wide, tall = 2 * width + middle, height + head
    columns = columns or max(round(np.sqrt(len(cards) * tall / wide * 0.9)), 1)
    columns = min(columns, len(cards))
    rows = -(-len(cards) // columns)
    above = round(size * 2.6) if title else 0
    sheet = Image.new("RGB", (2 * margin + columns * wide + (columns - 1) * gutter,
                              2 * margin + above + rows * tall + (rows - 1) * gutter), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((margin, margin), title, INK, _font(round(size * 1.45)))
    for index, ((projections, patches), label) in enumerate(zip(cards, labels, strict=True)):
        left = margin + index % columns * (wide + gutter)
        top = margin + above + index // columns * (tall + gutter)
        pen.text((left, top), label, INK, _font(size))
        if notes is not None:
            pen.text((left + wide, top), notes[index], FAINT, _font(size), anchor="ra")
        sheet.paste(Image.fromarray(_rgb(projections)), (left, top + head))
        sheet.paste(Image.fromarray(_rgb(patches)), (left + width + middle, top + head))
    return np.asarray(sheet)


def filter_picture(weight: np.ndarray, channels: str = "RGB", *, each: bool = False,
                   columns: int | None = None, smallest: int = 44, gap: int = 2, background: Any = 255
                   ) -> np.ndarray:
    """A first layer's filters as a grid, gray is zero.

    Parameters
    ----------
    weight : float (filters, height, width, 1 or 3)
    channels : the network's order: "RGB", "BGR" or "L"
    each : scale every filter by its own largest magnitude, instead of all by one
    columns, gap, background : see `grid`
    smallest : least side of a tile in pixels

    Returns
    -------
    uint8 (height, width, 1 or 3)
    """
    if weight.ndim != 4 or weight.shape[3] not in (1, 3):
        checks.fail("filter_picture", "weight.shape", weight.shape, "(filters, height, width, 1 or 3)")
    scale: Any = symmetric_scale(weight)
    if each:
        scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
    tiles = enlarge(signed(in_rgb_order(weight, channels), scale), smallest)
    if columns is None:  # about twice as wide as tall, without a gap at the end if that can be had
        wide = max(round(np.sqrt(len(weight) * 2)), 1)
        even = [count for count in range(1, len(weight) + 1)
                if len(weight) % count == 0 and wide / 1.5 <= count <= wide * 1.5]
        columns = min(even, key=lambda count: abs(count - wide), default=wide)
    return grid(tiles, columns, gap=gap, background=background)
