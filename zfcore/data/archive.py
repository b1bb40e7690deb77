"""Files in folders, archives and gzip: read into memory with limits, never unpacked to disk.

What an archive or a compressed file says of its own size is checked before anything of that size is
allocated, and nothing is read beyond what was expected, so that a bomb costs nothing.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np

from .decode import ImageError, printable

MAX_BYTES = 4 * 2**30  # of what one file may become in memory
MEMBERS = 100_000
BROKEN = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile,
          tarfile.TarError)


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[str]:
    """Turn what a damaged file makes the libraries raise into ImageError; yields the name to show."""
    shown = printable(os.fsdecode(path))
    try:
        yield shown
    except (ImageError, FileNotFoundError):
        raise
    except BROKEN as error:
        raise ImageError(f"{shown}: cannot be read ({str(error) or type(error).__name__})") from error


@contextmanager
def uncompressed(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of what it holds if it is compressed by gzip (told by content)."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as inner:
                yield cast(IO[bytes], inner)
        else:
            yield file


def take(file: IO[bytes], count: int) -> bytes:
    """Up to `count` bytes; memory grows with what is there, not with what was asked for."""
    parts, left = [], count
    while left > 0 and (part := file.read(min(left, 2**22))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def files_of(path: str | os.PathLike[str], names: Collection[str], max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """Files by their last name, out of a folder, one of its sub-folders, or a .zip or .tar (.gz, .bz2, .xz).

    Parameters
    ----------
    path : the folder or the archive
    names : which; what is not there is left out
    max_bytes : of all members together; an archive that declares more is refused

    Raises
    ------
    ImageError : a damaged archive; one that holds links, absolute paths or `..`, or a name twice
    """
    root = Path(path)
    if root.is_dir():
        folders = [root, *sorted(each for each in root.iterdir() if each.is_dir())]
        place = next((each for each in folders if any((each / name).is_file() for name in names)), root)
        return {name: (place / name).read_bytes() for name in names if (place / name).is_file()}
    with reading(path) as shown:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = [(each.filename, each.file_size, each.external_attr >> 28 != 0xA, each)  # 0xA: a link
                           for each in archive.infolist()]
                return _wanted(shown, names, max_bytes, members, archive.open)
        with tarfile.open(path) as tar:
            return _wanted(shown, names, max_bytes,
                           ((each.name, each.size, each.isfile() or each.isdir(), each) for each in tar),
                           tar.extractfile)


def _wanted(shown: str, names: Collection[str], max_bytes: int, members: Any, opened: Any) -> dict[str, bytes]:
    """The wanted members of an archive, all of which are looked at."""
    found: dict[str, bytes] = {}
    total = 0
    for number, (name, size, plain, member) in enumerate(members):
        where = f"{shown}: its member {printable(name)!r}"
        parts = PurePosixPath(name.replace("\\", "/"))
        if not plain or parts.is_absolute() or ".." in parts.parts:
            raise ImageError(f"{where} is a link or lies outside; allowed: files and folders inside the archive")
        total += size
        if total > max_bytes or number >= MEMBERS:
            raise ImageError(f"{shown}: holds more than {max_bytes} bytes or {MEMBERS} members")
        if parts.name in names and not name.endswith("/"):
            if parts.name in found:
                raise ImageError(f"{where} is there twice")
            with opened(member) as file:
                found[parts.name] = take(file, size + 1)
            if len(found[parts.name]) != size:
                raise ImageError(f"{where} has {len(found[parts.name])} bytes; the archive says {size}")
    return found


def npz_headers(path: str | os.PathLike[str]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of every array of an .npz, without reading the arrays.

    Raises
    ------
    ImageError : no archive, an array whose declared size is not what is stored, objects (never unpickled)
    """
    found = {}
    with reading(path) as shown, zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            where = f"{shown}: the array {printable(name)!r}"
            if name == member.filename or name in found:
                raise ImageError(f"{shown}: {printable(member.filename)!r} is no array, or is there twice")
            with archive.open(member) as file:
                head = io.BytesIO(take(file, 2**16))
            version = np.lib.format.read_magic(head)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(head)
            if dtype.hasobject:
                raise ImageError(f"{where} holds Python objects; allowed: numbers and texts")
            expected = head.tell() + math.prod(shape) * dtype.itemsize
            if expected != member.file_size or expected > MAX_BYTES:
                raise ImageError(f"{where} is {dtype} {shape}, so {expected} bytes with its header; stored are "
                                 f"{member.file_size}, allowed: at most {MAX_BYTES}")
            found[name] = (dtype, shape)
    return found


def npz_arrays(path: str | os.PathLike[str], names: Collection[str]) -> dict[str, np.ndarray]:
    """Some arrays of an .npz whose headers were checked (`npz_headers`)."""
    with reading(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}
