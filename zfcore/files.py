"""Writing files so that a reader never meets half of one: all of it appears, or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO


def refuse_existing(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Return `path` as a Path; FileExistsError if something is there and `force` is not set."""
    target = Path(path)
    if not force and os.path.lexists(target):
        raise FileExistsError(f"{target} exists already; force=True (--force) replaces it")
    return target


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable, where the system can sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _parent(target: Path) -> Path:
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: its folder {target.parent} does not exist")
    return target.parent


def _creation_mask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give errors of a full disk, which name no file, the name of what is written."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


class Sink:
    """What a writer of `atomic_write` gets: it takes bytes one after the other and counts their SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        """Append bytes, or any contiguous buffer."""
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        self.digest.update(view)
        self._file.write(view)
        return view.nbytes


def _read_back(file: BufferedRandom) -> str:
    """SHA-256 of what lies in a synced file; past the system's cache, where it can be asked to drop it."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: str | os.PathLike[str], writer: Callable[[Sink], object] | bytes) -> str:
    """Write a file completely or not at all: a temporary file beside it, fsync, reading back, rename.

    Parameters
    ----------
    path : the file; what was there is replaced at the very end
    writer : bytes, or a function that gets an object whose `write` appends bytes

    Returns
    -------
    SHA-256 of the file, in hexadecimal digits

    Raises
    ------
    OSError : what was read back is not what was written, or the system's own errors; what was there stays
    """
    target = Path(path)
    prefix = f".{target.name[:100]}."
    descriptor, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=_parent(target))
    try:
        with naming(target), os.fdopen(descriptor, "w+b") as file:
            sink = Sink(file)
            if isinstance(writer, (bytes, bytearray, memoryview)):
                sink.write(writer)
            else:
                writer(sink)
            file.flush()
            os.fsync(file.fileno())
            expected, found = sink.digest.hexdigest(), _read_back(file)
        if found != expected:
            raise OSError(f"{target}: what was read back is not what was written (SHA-256 {found[:16]}..., "
                          f"not {expected[:16]}...); the disk or its driver is at fault, nothing was replaced")
        os.chmod(temporary, 0o666 & ~_creation_mask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)
    return expected


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], refusal: str) -> Iterator[None]:
    """Keep other processes out while the block runs; the lock ends with the process, however that ends.

    Parameters
    ----------
    path : the lock's file; made, and left there
    refusal : what the BlockingIOError says where another process holds the lock
    """
    with open(path, "w") as file:
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BlockingIOError(refusal) from None
        yield


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Fill a result folder completely or not at all.

    Yields a temporary folder beside `path`; when the block ends without an error, its files are
    synced and it takes the name `path`. With `force` an existing folder is replaced at that very
    end (moved aside, then deleted), otherwise it raises FileExistsError before any work.

    Examples
    --------
    >>> with atomic_folder("out") as folder:
    ...     (folder / "summary.json").write_text("{}")
    """
    target = refuse_existing(path, force)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileExistsError(f"{target} is not a folder; remove it or choose another name")
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=_parent(target)))
    try:
        with naming(target):
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        os.fsync(file.fileno())
                _sync_folder(Path(folder))
        os.chmod(temporary, 0o777 & ~_creation_mask())
        _replace_folder(temporary, target, force)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def _replace_folder(temporary: Path, target: Path, force: bool) -> None:
    """Rename `temporary` to `target`; an old folder is moved aside, and back if the rename fails."""
    if not target.exists():
        os.rename(temporary, target)
        return
    refuse_existing(target, force)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=".old", dir=target.parent))
    try:
        os.replace(target, aside)  # rename(2) takes an empty folder's place
        os.rename(temporary, target)
    except BaseException:  # an interrupt, too
        if not target.exists():
            os.rename(aside, target)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)
