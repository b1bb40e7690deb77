"""Images in: folders, files, arrays and packed sets, decoded to network-sized uint8 pixels; training batches."""

from __future__ import annotations

from .augmentation import Augmentation, Shifts, ten_crops
from .decode import FORMATS, ImageError, decode, fit
from .digits import digits
from .feed import Feed
from .opening import open_images
from .part import Part, split
from .sets import Arrays, ImageFiles, ImageFolder, Images, PackedImages
from .statistics import Statistics, statistics, with_mean
from .stream import Batch, Stream

__all__ = ["FORMATS", "Arrays", "Augmentation", "Batch", "Feed", "ImageError", "ImageFiles", "ImageFolder", "Images",
           "PackedImages", "Part", "Shifts", "Statistics", "Stream", "decode", "digits", "fit", "open_images", "split",
           "statistics", "ten_crops", "with_mean"]
