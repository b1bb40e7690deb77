"""Images in: folders, files, arrays and packed sets, decoded to network-sized uint8 pixels; training batches."""

from __future__ import annotations

from .augmentation import Augmentation, Shifts, ten_crops
from .caltech import Caltech
from .cifar import cifar
from .decode import FORMATS, ImageError, decode, fit
from .digits import digits
from .feed import Feed
from .idx import idx_images, mnist
from .listed import ImageList
from .opening import open_images
from .parts import Subset, folds, split, subset
from .readable import readable
from .sets import Arrays, ImageFiles, ImageFolder, Images, PackedImages
from .statistics import Statistics, statistics, with_mean
from .stored import npz_images
from .stream import Batch, Stream
from .voc import Voc

__all__ = ["FORMATS", "Arrays", "Augmentation", "Batch", "Caltech", "Feed", "ImageError", "ImageFiles", "ImageFolder",
           "ImageList", "Images", "PackedImages", "Shifts", "Statistics", "Stream", "Subset", "Voc", "cifar", "decode",
           "digits", "fit", "folds", "idx_images", "mnist", "npz_images", "open_images", "readable", "split",
           "statistics", "subset", "ten_crops", "with_mean"]
