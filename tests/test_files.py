"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from zfcore.files import atomic_folder, atomic_write, refuse_existing


def test_write_replaces_at_the_very_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write(target, b"one")

    def writer(file: object) -> None:
        assert target.read_bytes() == b"one"
        file.write(b"two")  # type: ignore[attr-defined]
        assert target.read_bytes() == b"one"

    atomic_write(target, writer)
    assert target.read_bytes() == b"two" and os.listdir(tmp_path) == ["a.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write(target, b"one")

    def writer(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, writer)
    assert target.read_bytes() == b"one" and os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(FileNotFoundError, match="folder"):
        atomic_write(tmp_path / "no" / "a.txt", b"")


@pytest.mark.parametrize(("number", "named"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_full_disk_is_named(tmp_path: Path, number: int, named: bool) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, "the system's words")

    with pytest.raises(OSError, match="words") as written:
        atomic_write(tmp_path / "a.txt", fails)
    with pytest.raises(OSError, match="words") as filled, atomic_folder(tmp_path / "b"):
        fails()
    for caught, name in ((written, "a.txt"), (filled, "b")):
        assert str(caught.value).endswith(f"words: {str(tmp_path / name)!r}") == named
    assert os.listdir(tmp_path) == []


def test_what_the_disk_changed_is_found_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    assert atomic_write(target, b"one") == hashlib.sha256(b"one").hexdigest()
    kept = os.fsync

    def flips_a_bit(descriptor: int) -> None:
        os.pwrite(descriptor, b"O", 0)
        kept(descriptor)

    monkeypatch.setattr(os, "fsync", flips_a_bit)
    for writer in (b"other", lambda file: file.write(b"other")):
        with pytest.raises(OSError, match="read back is not what was written"):
            atomic_write(target, writer)
        assert target.read_bytes() == b"one" and os.listdir(tmp_path) == ["a.txt"]


def test_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "x").write_text("1")
        assert not target.exists()
    assert (target / "inner" / "x").read_text() == "1"
    with pytest.raises(FileExistsError, match="--force"), atomic_folder(target):
        pytest.fail("work begins although the folder exists")
    with pytest.raises(ZeroDivisionError), atomic_folder(target, force=True) as folder:
        (folder / "y").write_text("2")
        raise ZeroDivisionError
    assert os.listdir(target) == ["inner"]
    with atomic_folder(target, force=True) as folder:
        (folder / "y").write_text("2")
    assert os.listdir(target) == ["y"] and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("fails", ["replace", "rename"])
def test_an_interrupt_between_the_renames_brings_the_old_folder_back(tmp_path: Path, fails: str,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as folder:
        (folder / "old").write_text("1")
    once, kept = [True], getattr(os, fails)

    def interrupted(source: Path, destination: Path) -> None:
        if once and once.pop():
            raise SystemExit(143)
        kept(source, destination)

    monkeypatch.setattr(os, fails, interrupted)
    with pytest.raises(SystemExit), atomic_folder(target, force=True) as folder:
        (folder / "new").write_text("2")
    assert os.listdir(target) == ["old"] and os.listdir(tmp_path) == ["out"]


def test_folder_refuses_to_replace_other_things(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "file", force=True):
        pytest.fail("a file is no folder")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "link", force=True):
        pytest.fail("a link is no folder")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "no" / "out"):
        pytest.fail("the parent is missing")
    assert (tmp_path / "file").read_text() == "kept"


def test_refuse_existing(tmp_path: Path) -> None:
    assert refuse_existing(tmp_path / "new") == tmp_path / "new"
    assert refuse_existing(tmp_path, force=True) == tmp_path
    with pytest.raises(FileExistsError, match="force=True"):
        refuse_existing(str(tmp_path))
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        refuse_existing(tmp_path / "dangling")
