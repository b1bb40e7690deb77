"""Images in: folders, files, arrays and packed sets, decoded to network-sized uint8 pixels."""

from __future__ import annotations

from .decode import FORMATS, ImageError, decode, fit
from .digits import digits
from .sets import Arrays, ImageFiles, ImageFolder, Images, PackedImages, open_images
from .stream import Batch, Stream

__all__ = ["FORMATS", "Arrays", "Batch", "ImageError", "ImageFiles", "ImageFolder", "Images", "PackedImages",
           "Stream", "decode", "digits", "fit", "open_images"]
