"""Image files."""

from __future__ import annotations

import io
import os

import numpy as np

from .. import checks
from ..files import atomic_write
from .tiles import _image


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file's content, for uint8 (height, width), (height, width, 1) or (height, width, 3)."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        checks.fail("png", "pixels", f"{pixels.dtype} {pixels.shape}", "uint8 (height, width, 1 or 3)")
    stream = io.BytesIO()
    _image(pixels).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Write a PNG file, completely or not at all.

    Parameters
    ----------
    path : the file; replaced if it exists
    pixels : uint8 (height, width), (height, width, 1) or (height, width, 3)
    """
    atomic_write(path, png_bytes(pixels))


def encode_small(pixels: np.ndarray, limit: int, lossy: str = "JPEG") -> tuple[bytes, str]:
    """A PNG where it takes at most `limit` bytes, else a JPEG (or WebP) of good quality.

    Photographs as PNG would make a page of hundreds of them ten times as large.

    Parameters
    ----------
    pixels : as for `png`
    limit : bytes
    lossy : "JPEG", or "WEBP", which takes a third less

    Returns
    -------
    (content, suffix) : suffix is ".png", ".jpg" or ".webp"
    """
    checks.one_of("encode_small", "lossy", lossy, ("JPEG", "WEBP"))
    if pixels.size <= 8 * limit:  # else a PNG would not do, and trying takes long
        content = png_bytes(pixels)
        if len(content) <= limit:
            return content, ".png"
    stream = io.BytesIO()
    picture = _image(pixels[:, :, None] if pixels.ndim == 2 else pixels)
    if lossy == "WEBP":
        picture.save(stream, "WEBP", quality=72, method=3)
        return stream.getvalue(), ".webp"
    picture.save(stream, "JPEG", quality=80, subsampling=0)
    return stream.getvalue(), ".jpg"
