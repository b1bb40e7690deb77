"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009); the Python version is pickled and refused.

A record is one label (CIFAR-100: a coarse and a fine one) and 3,072 pixels: 32 x 32 of red, then of green,
then of blue.
"""

from __future__ import annotations

import os

import numpy as np

from .. import checks
from .archive import files_of
from .decode import ImageError, printable
from .sets import Arrays

__all__ = ["CIFAR10", "cifar"]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
FILES = {10: {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]},
         100: {"train": ["train.bin"], "test": ["test.bin"]}}
PICKLED = ("data_batch_1", "train", "batches.meta", "meta")


def cifar(path: str | os.PathLike[str], part: str = "train", classes: int = 10, coarse: bool = False) -> Arrays:
    """CIFAR from the folder of its `.bin` files, the folder above, or the archive as it is distributed.

    Parameters
    ----------
    path : folder, or cifar-10-binary.tar.gz; nothing is unpacked
    part : "train" or "test"
    classes : 10 or 100
    coarse : of CIFAR-100, the 20 coarse classes

    Raises
    ------
    FileNotFoundError : files are missing
    ImageError : a file that is cut, or a label that does not exist, with its byte
    """
    checks.one_of("cifar", "classes", classes, FILES)
    checks.one_of("cifar", "part", part, FILES[classes])
    checks.require(not coarse or classes == 100, "cifar", "coarse", coarse, "False for CIFAR-10")
    shown = printable(os.fsdecode(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"{shown}: no such folder or archive")
    wanted = FILES[classes][part]
    names_file = "batches.meta.txt" if classes == 10 else f"{'coarse' if coarse else 'fine'}_label_names.txt"
    found = files_of(path, [*wanted, names_file])
    if missing := [name for name in wanted if name not in found]:
        pickled = os.path.isdir(path) and any(os.path.isfile(os.path.join(path, name)) for name in PICKLED)
        raise FileNotFoundError(f"{shown}: lacks {', '.join(missing)}" + (
            "; it holds the pickled Python version, which is never read: take the binary version" if pickled else ""))
    labelled, count = (1 if classes == 10 else 2), (20 if coarse else classes)
    names = _names(shown, names_file, found.get(names_file), count) or (list(CIFAR10) if classes == 10 else None)
    images, labels = [], []
    for name in wanted:
        pixels, numbers = _records(f"{shown}/{name}", found[name], labelled)
        place = 0 if coarse or classes == 10 else 1
        if (wrong := numbers[:, place] >= count).any():
            record = int(wrong.argmax())
            raise ImageError(f"{shown}/{name}: byte {record * (labelled + PIXELS) + place}: the label of record "
                             f"{record} is {numbers[record, place]}; allowed: 0..{count - 1}")
        images.append(pixels)
        labels.append(numbers[:, place])
    total = sum(map(len, images))
    return Arrays(np.concatenate(images), np.concatenate(labels), [f"{part}-{index:05d}" for index in range(total)],
                  class_names=names)


def _records(where: str, data: bytes, labelled: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 32, 32, 3) and labels (n, labelled) of a file."""
    size = labelled + PIXELS
    if len(data) % size or not data:
        raise ImageError(f"{where}: byte {len(data)}: ends within record {len(data) // size} (a record is {labelled} + "
                         f"{PIXELS} bytes)")
    table = np.frombuffer(data, np.uint8).reshape(-1, size)
    planes = table[:, labelled:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), table[:, :labelled]


def _names(shown: str, file: str, text: bytes | None, count: int) -> list[str] | None:
    """Class names out of a text file, one a line."""
    if text is None:
        return None
    lines = [line.strip() for line in text.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    if len(lines) != count:
        raise ImageError(f"{shown}/{file}: has {len(lines)} names; allowed: {count}")
    return lines
