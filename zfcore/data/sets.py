"""Data sets: where pictures, their names and their classes come from.

A data set is a list of pictures that are decoded when asked for. Names are kept as they are, also
those with markup, line breaks or bytes that are no UTF-8; whoever prints them escapes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from .decode import ImageError, decode, decoded, decoder_version, fit, printable, read

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp",
            ".ppm", ".pgm", ".pbm", ".pnm")


class Images:
    """What every data set offers.

    Attributes
    ----------
    names : one for each picture
    labels : int64 array of class numbers, -1 where a picture has none; or None
    class_names : the classes' names, or None
    on_bad : "fail" (a bad picture raises ImageError) or "skip" (a scan leaves it out and records it)
    """

    def __init__(self, names: Any, labels: Any = None, class_names: Any = None,
                 on_bad: str = "fail") -> None:
        where = type(self).__name__
        checks.one_of(where, "on_bad", on_bad, ("fail", "skip"))
        self.names = [str(name) for name in names]
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.on_bad = on_bad
        self.labels: np.ndarray | None = None
        if labels is not None:
            given = np.asarray(labels)
            if given.dtype.kind not in "iu" and given.size:
                checks.fail(where, "labels.dtype", str(given.dtype), "integers", TypeError)
            checks.shape(where, "labels", given, (len(self.names),))
            most = 2**31 if self.class_names is None else len(self.class_names)
            lowest, highest = (int(given.min()), int(given.max())) if given.size else (0, -1)
            checks.require(lowest >= -1 and highest < most, where, "labels", (lowest, highest),
                           f"0..{most - 1}, or -1 for none")
            self.labels = given.astype(np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names)} classes"
        return f"<{type(self).__name__}: {len(self)} images{classes}>"

    def pixels(self, index: int) -> np.ndarray:
        """The decoded picture `index`: uint8 (height, width, 1 or 3), gray or RGB."""
        raise NotImplementedError

    def _picture(self, index: int) -> Any:
        """The decoded picture, as an array or a Pillow image: whatever `fit` takes with the fewest copies."""
        return self.pixels(index)

    def _content(self) -> list[Any]:
        """What, beside names and classes, tells this data set from others; JSON values."""
        raise NotImplementedError

    def load(self, index: int, preprocessing: Any) -> np.ndarray:
        """Picture `index` at the network's size: uint8 (height, width, channels), gray or RGB.

        `preprocessing` says how: its `size` (resize), `crop` (centre crop) and `channels`. The
        order is RGB for a BGR network too: `preprocessing.apply` turns it.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}.load: index is {index}; allowed: 0..{len(self) - 1}")
        return fit(self._picture(index), size=preprocessing.size, crop=preprocessing.crop,
                   gray=preprocessing.channels == "L", name=self.names[index])

    def manifest(self) -> str:
        """SHA-256 over names, classes, content (a file's size stands for it) and the decoder's version."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
        labels = None if self.labels is None else self.labels.tolist()
        kind = type(self).__name__
        described = [kind, len(self), labels, self.class_names, self._content(), decoder_version()]
        digest.update(json.dumps(described).encode())
        return digest.hexdigest()


class Arrays(Images):
    """Pictures from memory: uint8 (N, height, width), (N, height, width, 1) or (N, height, width, 3) RGB."""

    def __init__(self, images: Any, labels: Any = None, names: Sequence[str] | None = None, *,
                 class_names: Sequence[str] | None = None) -> None:
        array = np.asarray(images)
        if array.dtype != np.uint8:
            checks.fail("Arrays", "images.dtype", str(array.dtype),
                        "uint8 pixels 0..255 (preprocessing comes later)", TypeError)
        array = array[..., None] if array.ndim == 3 else array
        if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
            checks.fail("Arrays", "images.shape", np.shape(images),
                        "(N, height, width) or (N, height, width, 1 or 3)")
        if names is None:
            names = [f"image-{index:05d}" for index in range(len(array))]
        checks.require(len(names) == len(array), "Arrays", "len(names)", len(names),
                       f"one a picture ({len(array)})")
        super().__init__(names, labels, class_names)
        self.images = array

    def pixels(self, index: int) -> np.ndarray:
        """The picture as it was given, (height, width, 1 or 3)."""
        return self.images[index]

    def _content(self) -> list[Any]:
        whole = hashlib.sha256()
        for image in self.images:
            whole.update(np.ascontiguousarray(image).data)
        return [list(self.images.shape), whole.hexdigest()]


class ImageFiles(Images):
    """A list of picture files.

    Parameters
    ----------
    paths : the files, in the order that counts
    root : names are given relative to this folder, with forward slashes
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], labels: Any = None, *,
                 class_names: Sequence[str] | None = None, root: str | os.PathLike[str] | None = None,
                 on_bad: str = "fail") -> None:
        self.paths = [os.fsdecode(path) for path in paths]
        names = [(os.path.relpath(path, root) if root is not None else path).replace(os.sep, "/")
                 for path in self.paths]
        super().__init__(names, labels, class_names, on_bad)

    def pixels(self, index: int) -> np.ndarray:
        """The file, decoded."""
        return decode(read(self.paths[index], self.paths[index]), self.paths[index])

    def _picture(self, index: int) -> Any:
        return decoded(read(self.paths[index], self.paths[index]), self.paths[index])

    def _content(self) -> list[Any]:
        return [os.stat(path).st_size if os.path.exists(path) else None for path in self.paths]


class ImageFolder(ImageFiles):
    """Every picture in a folder and its sub-folders; a first-level sub-folder is a class.

    Files are taken by suffix (`SUFFIXES`, any case), in the order of their names' bytes, whatever
    the language settings; hidden files and other suffixes are passed over (`ignored` counts them).
    What lies directly in the folder has no class (-1). Links are followed, a folder only once.

    Raises
    ------
    FileNotFoundError, NotADirectoryError : no such folder
    ImageError : no picture in it
    """

    def __init__(self, path: str | os.PathLike[str], *, on_bad: str = "fail") -> None:
        root = os.fsdecode(path)
        if not os.path.isdir(root):
            kind = NotADirectoryError if os.path.exists(root) else FileNotFoundError
            raise kind(f"{printable(root)}: no such folder of images")
        self.ignored = 0

        def order(found: str) -> list[bytes]:
            return [os.fsencode(part) for part in os.path.relpath(found, root).split(os.sep)]

        paths = sorted(self._walk(root), key=order)
        if not paths:
            raise ImageError(f"{printable(root)}: no file in it ends in {', '.join(SUFFIXES)}")
        parts = [os.path.relpath(found, root).split(os.sep) for found in paths]
        classes = sorted({part[0] for part in parts if len(part) > 1}, key=os.fsencode)
        number = {name: index for index, name in enumerate(classes)}
        labels = [number[part[0]] if len(part) > 1 else -1 for part in parts] if classes else None
        super().__init__(paths, labels, class_names=classes or None, root=root, on_bad=on_bad)

    def _walk(self, root: str) -> list[str]:
        found, seen = [], set()
        for folder, folders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            visible = [] if real in seen else [name for name in folders if not name.startswith(".")]
            folders[:] = sorted(visible, key=os.fsencode)
            if real in seen:
                continue
            seen.add(real)
            for name in files:
                if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                    self.ignored += 1
                else:
                    found.append(os.path.join(folder, name))
        return found


class PackedImages(Images):
    """An `.npz` of pictures: JPEG files joined into one array of bytes, with offsets and labels.

    Arrays `jpeg` (uint8), `offsets` (N + 1) and `labels`; with `part` (say "train") the arrays
    `train_jpeg`, `train_offsets` and `train_labels`. Optional `filenames` and `class_names`.
    Never unpickled.
    """

    def __init__(self, path: str | os.PathLike[str], part: str | None = None, *,
                 on_bad: str = "fail") -> None:
        self.path, prefix = Path(path), f"{part}_" if part else ""
        shown = printable(str(path))
        if not self.path.exists():
            raise FileNotFoundError(f"{shown}: no such file")
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                wanted = [prefix + key for key in ("jpeg", "offsets", "labels")]
                wanted += ["filenames", "class_names"]
                stored = {key: archive[key] for key in archive.files if key in wanted}
                parts = sorted(key[:-5] for key in archive.files if key.endswith("_jpeg"))
        except Exception as error:  # a broken archive raises nearly anything
            raise ImageError(f"{shown}: not a readable .npz archive ({error})") from error
        if f"{prefix}jpeg" not in stored or f"{prefix}offsets" not in stored:
            hint = f"; it has the parts {', '.join(parts)}: name one" if parts else ""
            raise ImageError(f"{shown}: holds no packed images ({prefix}jpeg and {prefix}offsets){hint}")
        for key, array in stored.items():
            texts = key in ("filenames", "class_names")
            if array.ndim != 1 or array.dtype.kind not in ("US" if texts else "iu") and array.size:
                raise ImageError(f"{shown}: {key} is {array.dtype} of {array.ndim} dimensions; "
                                 f"allowed: {'texts' if texts else 'integers'} of one")
        self.blob, self.offsets = stored[f"{prefix}jpeg"], stored[f"{prefix}offsets"].astype(np.int64)
        rising = len(self.offsets) > 0 and bool((np.diff(self.offsets) >= 0).all())
        if self.blob.dtype != np.uint8 or not rising or self.offsets[0] < 0 or self.offsets[-1] > len(self.blob):
            raise ImageError(f"{shown}: {prefix}offsets do not cut {prefix}jpeg "
                             f"({self.blob.dtype}, {self.blob.shape}) into files")
        count = len(self.offsets) - 1
        named = prefix == "" and len(stored.get("filenames", ())) == count
        stem = part or "image"
        names = stored["filenames"] if named else [f"{stem}-{index:05d}" for index in range(count)]
        try:
            super().__init__(names, stored.get(f"{prefix}labels"), stored.get("class_names"), on_bad)
        except ValueError as error:
            raise ImageError(f"{shown}: {error}") from None

    def pixels(self, index: int) -> np.ndarray:
        """The packed file, decoded."""
        return decode(*self._packed(index))

    def _picture(self, index: int) -> Any:
        return decoded(*self._packed(index))

    def _packed(self, index: int) -> tuple[bytes, str]:
        """A file's content, and its name for errors."""
        index %= len(self)
        data = self.blob[self.offsets[index]:self.offsets[index + 1]].tobytes()
        return data, f"{self.path}[{self.names[index]}]"

    def _content(self) -> list[Any]:
        return [hashlib.sha256(self.blob.data).hexdigest(), hashlib.sha256(self.offsets.data).hexdigest()]
