"""From the bytes of a picture to uint8 pixels, whatever kind of picture it is.

Every kind is brought to 8-bit gray or RGB in one documented way:

- the format is told by the content, never by the file's name, and only `FORMATS` are tried;
- EXIF orientation is applied; of an animation the first frame counts;
- 16-bit gray is divided by 257 and rounded (65535 becomes 255); of 16-bit colour, which Pillow reads,
  the high bytes count;
- transparency is composited on a background, white unless asked otherwise;
- palettes, CMYK, YCbCr and Lab become RGB; black-and-white becomes gray.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import (  # each plugin's import registers its format: nothing else is ever tried
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from .. import checks

_PLUGINS = (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, BmpImagePlugin.BmpImageFile,
            GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile,
            PpmImagePlugin.PpmImageFile)
FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS)
MAX_PIXELS = 89_478_485  # a quarter GiB as RGB: above this Pillow, too, suspects a decompression bomb
WHITE = 255

_ORIENTATION = 0x0112
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
          4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
          7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


class ImageError(ValueError):
    """A picture that cannot be used; the message begins with its path or name."""


def printable(name: str) -> str:
    """`name` on one line for messages: control characters and undecodable bytes are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def decode(data: bytes, name: str = "image", *, background: int = WHITE, max_pixels: int = MAX_PIXELS
           ) -> np.ndarray:
    """Decode one picture.

    Parameters
    ----------
    data : the content of a file in one of `FORMATS`
    name : its path, for error messages
    background : gray level 0..255 behind transparent pixels
    max_pixels : a picture that declares more is refused before it is decoded

    Returns
    -------
    uint8 array (height, width, 1) for gray or (height, width, 3) for RGB

    Raises
    ------
    ImageError : empty, truncated, too large, or no picture in a known format
    """
    picture = decoded(data, name, background=background, max_pixels=max_pixels)
    return np.array(picture).reshape(picture.height, picture.width, -1)


def decoded(data: bytes, name: str = "image", *, background: int = WHITE, max_pixels: int = MAX_PIXELS
            ) -> Image.Image:
    """Like `decode`, but a Pillow image (mode L or RGB), which `fit` resizes without another copy."""
    shown = printable(name)
    if not data:
        raise ImageError(f"{shown}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(f"{shown}: declares {width} x {height} pixels; "
                                 f"allowed: at most {max_pixels}")
            picture.load()
            return _pixels(_upright(picture), background)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{shown}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{shown}: not a picture in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        raise ImageError(f"{shown}: cannot be decoded ({type(error).__name__}: {error})") from error


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; unreadable EXIF counts as none."""
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF does not spoil a picture whose pixels are whole
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _pixels(picture: Image.Image, background: int) -> Image.Image:
    """A decoded Pillow image of any mode in mode L or RGB."""
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no defined range; convert them to 8 or 16 bits")
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ValueError("32-bit pixels beyond 0..65535 have no defined range")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        ground = Image.new("RGBA", layers.size, (background, background, background, 255))
        flat = Image.alpha_composite(ground, layers)
        gray = picture.mode in ("L", "LA", "La", "1")
        picture = flat.getchannel(0) if gray else flat.convert("RGB")
    wanted = "L" if picture.mode in ("1", "L") else "RGB"
    return picture if picture.mode == wanted else picture.convert(wanted)


def resized(height: int, width: int, size: Any) -> tuple[int, int]:
    """Size after the resize step: `size` is None, the smallest side's length, or an exact (height, width)."""
    if size is None:
        return height, width
    if isinstance(size, (tuple, list)):
        return int(size[0]), int(size[1])
    side = int(size)
    if height <= width:
        return side, max(side * width // height, 1)
    return max(side * height // width, 1), side


def fit(pixels: np.ndarray | Image.Image, *, size: Any = None, crop: Any = None, gray: bool = False,
        name: str = "image") -> np.ndarray:
    """Resize (bilinear, antialiased), crop at the centre and bring to gray or RGB.

    Only the part that survives the crop is ever computed, so that a picture of 1 x 10,000 pixels
    with its smallest side brought to 256 takes no more memory than any other.

    Parameters
    ----------
    pixels : uint8 (height, width, 1 or 3), or a Pillow image of mode L or RGB
    size : None, the length of the smallest side, or an exact (height, width)
    crop : None, one length or (height, width): the part at the centre that is kept
    gray : whether the network wants one channel (Pillow's luma) or three
    name : for error messages

    Returns
    -------
    uint8 (crop height, crop width, 1 or 3)
    """
    height, width = pixels.shape[:2] if isinstance(pixels, np.ndarray) else (pixels.height, pixels.width)
    tall, wide = resized(height, width, size)
    crop_tall, crop_wide = (tall, wide) if crop is None else checks.pair("fit", "crop", crop, 1)
    if crop_tall > tall or crop_wide > wide:
        raise ImageError(f"{printable(name)}: is {tall} x {wide} (height x width) before the crop; "
                         f"allowed: at least {crop_tall} x {crop_wide}")
    top, left = (tall - crop_tall) // 2, (wide - crop_wide) // 2
    if (tall, wide) == (height, width):
        whole = pixels if isinstance(pixels, np.ndarray) else np.array(pixels).reshape(height, width, -1)
        cropped = whole[top:top + crop_tall, left:left + crop_wide]
    else:
        down, across = height / tall, width / wide
        box = (left * across, top * down, min((left + crop_wide) * across, width),
               min((top + crop_tall) * down, height))
        if isinstance(pixels, np.ndarray):
            pixels = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        cropped = np.asarray(pixels.resize((crop_wide, crop_tall), Image.Resampling.BILINEAR, box=box))
        cropped = cropped.reshape(crop_tall, crop_wide, -1)
    if gray and cropped.shape[2] == 3:
        cropped = np.asarray(Image.fromarray(np.ascontiguousarray(cropped)).convert("L"))[:, :, None]
    elif not gray and cropped.shape[2] == 1:
        cropped = np.repeat(cropped, 3, axis=2)
    return np.ascontiguousarray(cropped)


def read(path: str | os.PathLike[str], name: str) -> bytes:
    """A file's bytes; ImageError with its name where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(f"{printable(name)}: cannot be read ({error.strerror or error})") from error


def decoder_version() -> str:
    """Name and version of what decodes: pixels of a JPEG may differ between versions."""
    from PIL import __version__, features

    return f"Pillow {__version__}, libjpeg {features.version('jpg') or 'none'}"
