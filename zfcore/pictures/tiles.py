"""Tiles: signed arrays as shades around gray, sizes, grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from .. import checks

GRAY = 128  # zero in a signed picture, and what lies outside an image


def in_rgb_order(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Turn (..., channels) from a network's order ("RGB", "BGR", "L") to RGB or gray."""
    checks.one_of("in_rgb_order", "channels", channels, ("RGB", "BGR", "L"))
    return pixels[..., ::-1] if channels == "BGR" else pixels


def symmetric_scale(values: np.ndarray, percentile: float = 100.0) -> float:
    """The magnitude that becomes black or white: the largest, or a percentile of the magnitudes above zero.

    1 where everything is zero. Values that are not finite are refused: they would make an all-gray
    or all-white picture without a word.
    """
    checks.require(0 < percentile <= 100, "symmetric_scale", "percentile", percentile, "above 0, at most 100")
    magnitudes = np.abs(values)
    if not np.isfinite(magnitudes).all():
        checks.fail("symmetric_scale", "values", "not finite", "finite numbers")
    magnitudes = magnitudes[magnitudes > 0]
    return float(np.percentile(magnitudes, percentile)) if magnitudes.size else 1.0


def signed(values: np.ndarray, scale: float | np.ndarray | None = None) -> np.ndarray:
    """Shades of signed values: 128 is zero, 255 is `scale` and more, 1 is -`scale` and less.

    Parameters
    ----------
    values : any shape
    scale : one number, or an array that broadcasts; None: the largest magnitude of all values

    Returns
    -------
    uint8 array of the same shape
    """
    scale = symmetric_scale(values) if scale is None else scale
    checks.require(bool(np.all(np.asarray(scale) > 0)), "signed", "scale", scale, "numbers above 0")
    return (np.rint(np.clip(values / scale, -1, 1) * 127) + GRAY).astype(np.uint8)


def stretched(images: np.ndarray, channels: str = "RGB") -> np.ndarray:
    """Images in a network's numbers, each brought to the range of a screen by its own extremes.

    Parameters
    ----------
    images : float (N, height, width, channels)
    channels : their order: "RGB", "BGR" or "L"

    Returns
    -------
    uint8 of the same shape, RGB or gray
    """
    values = np.asarray(in_rgb_order(images, channels), np.float64)
    low, high = (each(values, axis=(1, 2, 3), keepdims=True) for each in (np.min, np.max))
    return np.rint((values - low) / np.where(high > low, high - low, 1) * 255).astype(np.uint8)


def enlarge(tiles: np.ndarray, smallest: int) -> np.ndarray:
    """Repeat pixels of (..., height, width, channels) by the least integer that makes the longer side
    at least `smallest`."""
    factor = max(-(-smallest // max(tiles.shape[-3:-1])), 1)
    return tiles.repeat(factor, axis=-3).repeat(factor, axis=-2) if factor > 1 else tiles


def resize_tiles(tiles: np.ndarray, smallest: int, largest: int) -> np.ndarray:
    """Bring uint8 tiles (n, height, width, channels) to a size for looking at.

    Small ones are enlarged by a whole factor, pixel by pixel, so that nothing is invented; tiles
    whose longer side is above `largest` are reduced by averaging.
    """
    tiles = enlarge(tiles, smallest)
    height, width = tiles.shape[1:3]
    factor = largest / max(height, width)
    if factor >= 1 or not len(tiles):
        return tiles
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    reduced = [np.asarray(_image(tile).resize(size, Image.Resampling.BOX)) for tile in tiles]
    return np.stack(reduced).reshape(len(tiles), size[1], size[0], tiles.shape[3])


def grid(tiles: np.ndarray, columns: int | None = None, *, gap: int = 1, background: Any = 255) -> np.ndarray:
    """Lay tiles out in rows, from left to right.

    Parameters
    ----------
    tiles : uint8 (n, height, width, channels)
    columns : tiles in a row; None: about as many as rows
    gap : pixels between tiles; there is none around them
    background : one value or one for each channel

    Returns
    -------
    uint8 (rows * height + gaps, columns * width + gaps, channels)
    """
    if tiles.ndim != 4 or tiles.dtype != np.uint8:
        checks.fail("grid", "tiles", f"{tiles.dtype} {tiles.shape}", "uint8 (n, height, width, channels)")
    count, height, width, channels = tiles.shape
    columns = columns or max(int(np.ceil(np.sqrt(count))), 1)
    checks.integer("grid", "columns", columns, 1)
    checks.integer("grid", "gap", gap, 0)
    rows = max(-(-count // columns), 1)
    sheet = np.empty((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8)
    sheet[...] = background
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top:top + height, left:left + width] = tile
    return sheet


def _image(pixels: np.ndarray) -> Image.Image:
    """Pillow image of uint8 (height, width, 1 or 3)."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
