"""Arrays of pictures in an .npz: `train_images` and `train_labels`, say."""

from __future__ import annotations

import os

import numpy as np

from .archive import npz_arrays, npz_headers
from .decode import ImageError, printable
from .sets import Arrays, Images, PackedImages

__all__ = ["npz_images"]

IMAGES = ("{}_images", "x_{}")  # x_train and y_train: as Keras's copies have it
LABELS = ("{}_labels", "y_{}")


def npz_images(path: str | os.PathLike[str], part: str | None = None, *, on_bad: str = "fail") -> Images:
    """The pictures of an .npz archive, whichever way they are stored.

    Either packed files (`PackedImages`: jpeg, offsets, labels) or uint8 arrays: `images` and `labels`, with a
    part `train_images` and `train_labels` (or `x_train` and `y_train`). `class_names` may name the classes.

    Parameters
    ----------
    path : the archive; never unpickled, and checked before anything is read
    part : such as "train"
    on_bad : "fail" or "skip" bad packed pictures

    Raises
    ------
    FileNotFoundError : no such file
    ImageError : no whole archive, or nothing of the kind in it (parts that are there are named)
    """
    shown = printable(os.fsdecode(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"{shown}: no such file")
    headers = npz_headers(path)
    if (f"{part}_jpeg" if part else "jpeg") in headers or any(name.endswith("jpeg") for name in headers):
        return PackedImages(path, part, on_bad=on_bad)
    pairs = [(image.format(part), label.format(part)) for image, label in zip(IMAGES, LABELS, strict=True)]
    pairs = pairs if part else [("images", "labels")]
    found = next((pair for pair in pairs if pair[0] in headers), None)
    if found is None:
        parts = sorted({name.removesuffix("_images").removeprefix("x_") for name in headers
                        if name.endswith("_images") or name.startswith("x_")})
        raise ImageError(f"{shown}: holds no array {' or '.join(pair[0] for pair in pairs)}"
                         + (f"; it has the parts {', '.join(map(printable, parts))}: name one" if parts else ""))
    dtype, shape = headers[found[0]]
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape[1:] or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise ImageError(f"{shown}: {found[0]} is {dtype} {shape}; allowed: uint8 (N, height, width) or (N, height, "
                         "width, 1 or 3)")
    labelled, named = found[1] in headers, "class_names" in headers
    if labelled and (headers[found[1]][0].kind not in "iu" or headers[found[1]][1] not in ((shape[0],), (shape[0], 1))):
        raise ImageError(f"{shown}: {found[1]} is {headers[found[1]][0]} {headers[found[1]][1]}; allowed: integers "
                         f"({shape[0]},), one a picture")
    if named and (headers["class_names"][0].kind not in "US" or len(headers["class_names"][1]) != 1):
        raise ImageError(f"{shown}: class_names is {headers['class_names'][0]}; allowed: texts of one dimension")
    arrays = npz_arrays(path, [found[0], *([found[1]] if labelled else []), *(["class_names"] if named else [])])
    stem = part or "image"
    try:
        return Arrays(arrays[found[0]], arrays[found[1]].reshape(-1) if labelled else None,
                      [f"{stem}-{index:05d}" for index in range(shape[0])],
                      class_names=arrays["class_names"].astype(str).tolist() if named else None)
    except ValueError as error:
        raise ImageError(f"{shown}: {error}") from None
