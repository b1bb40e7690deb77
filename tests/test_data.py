"""Data sets: names, classes, order, reading ahead, hashes, packed sets, digits."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore.data import (
    Arrays,
    ImageError,
    ImageFiles,
    ImageFolder,
    Images,
    PackedImages,
    Stream,
    digits,
    open_images,
)
from zfcore.preprocessing import Preprocessing

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
RGB = Preprocessing("RGB", size=(12, 10))


def png(color: int = 0, size: tuple[int, int] = (9, 7)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (color, 2 * color % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def folder_of(root: Path, *names: str | bytes) -> Path:
    for index, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(png(index + 1))
    return root


def test_a_folder_is_listed_in_byte_order_with_its_classes(tmp_path: Path) -> None:
    folder_of(tmp_path, "b/2.png", "b/10.png", "a/z.JPEG", "B/x.png", "a/deep/er/y.png", "top.png")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(png())
    images = ImageFolder(tmp_path)
    assert images.names == ["B/x.png", "a/deep/er/y.png", "a/z.JPEG", "b/10.png", "b/2.png", "top.png"]
    assert images.class_names == ["B", "a", "b"]
    assert images.labels is not None and images.labels.tolist() == [0, 1, 1, 2, 2, -1]
    assert images.ignored == 2 and len(images) == 6


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    images = ImageFolder(folder_of(tmp_path, "1.png", "2.png"))
    assert images.labels is None and images.class_names is None


def test_strange_names_survive(tmp_path: Path) -> None:
    names: list[str | bytes] = ["<script>alert(1)</script>/<b>.png", "line\nbreak/x\ty.png",
                                "-dash/--force.png", b"caf\xe9/\xff\xfe.png", "quote'\"&/\u202e.png"]
    images = ImageFolder(folder_of(tmp_path, *names))
    assert {os.fsencode(name) for name in images.names} == {os.fsencode(name) for name in names}
    assert images.class_names is not None and "<script>alert(1)<" in images.class_names
    for index in range(len(images)):
        assert images.load(index, RGB).shape == (12, 10, 3)
    assert len(images.manifest()) == 64


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    folder_of(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    assert ImageFolder(tmp_path).names == ["a/1.png"]


def test_no_folder_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        ImageFolder(tmp_path / "nothing-here")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match="file.txt"):
        ImageFolder(tmp_path / "file.txt")
    with pytest.raises(ImageError, match="no file in it"):
        ImageFolder(tmp_path)


def test_the_manifest_tells_data_sets_apart(tmp_path: Path) -> None:
    folder_of(tmp_path / "one", "a/1.png", "b/2.png")
    folder_of(tmp_path / "two", "a/1.png", "b/2.png")
    first = ImageFolder(tmp_path / "one").manifest()
    assert first == ImageFolder(tmp_path / "two").manifest() == ImageFolder(tmp_path / "one").manifest()
    os.rename(tmp_path / "two" / "b", tmp_path / "two" / "c")
    assert ImageFolder(tmp_path / "two").manifest() != first
    (tmp_path / "one" / "a" / "1.png").write_bytes(png(1) + b" ")
    assert ImageFolder(tmp_path / "one").manifest() != first
    images = np.zeros((2, 4, 4), np.uint8)
    base = Arrays(images).manifest()
    changed = images.copy()
    changed[1, 3, 3] = 1
    others = [Arrays(changed), Arrays(images[:1]), Arrays(images, [0, 1]), Arrays(images, names=["x", "y"])]
    assert len({base, *(other.manifest() for other in others)}) == 5


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"images": np.zeros((2, 4, 4), np.float32)}, TypeError, "uint8"),
        ({"images": np.zeros((4, 4), np.uint8)}, ValueError, "images.shape"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, ValueError, "images.shape"),
        ({"images": np.zeros((2, 0, 4), np.uint8)}, ValueError, "images.shape"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0]}, ValueError, "labels.shape"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.5, 1]}, TypeError, "integers"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, 5], "class_names": ["a"]}, ValueError, "-1"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, -2]}, ValueError, "labels is .-2, 0."),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 2**63], np.uint64)}, ValueError,
         "9223372036854775808"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "names": ["a"]}, ValueError, "names"),
    ],
)
def test_bad_arrays_are_refused(arguments: dict[str, Any], error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        Arrays(**arguments)


def test_an_index_outside_is_an_index_error() -> None:
    images = Arrays(np.zeros((2, 4, 4), np.uint8))
    for index in (2, -3):
        with pytest.raises(IndexError, match="allowed: 0..1"):
            images.load(index, RGB)


class Slow(Images):
    """Counts how many pictures are decoded and not yet consumed."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), on_bad: str = "fail") -> None:
        super().__init__([f"picture {index}" for index in range(count)], on_bad=on_bad)
        self.bad, self.loaded = bad, 0

    def load(self, index: int, preprocessing: Any) -> np.ndarray:
        self.loaded += 1
        if index in self.bad:
            raise ImageError(f"{self.names[index]}: broken")
        return np.full((2, 2, 1), index, np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_the_stream_keeps_order_and_hash(threads: int, batch_size: int) -> None:
    stream = Stream(Slow(20), RGB, batch_size=batch_size, threads=threads)
    batches = list(stream)
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(20))
    assert np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches]).tolist() == list(range(20))
    assert all(len(batch.indices) == batch_size for batch in batches[:-1])
    parts = [Stream(Slow(20), RGB, begin=begin, end=end) for begin, end in ((0, 7), (7, 7), (7, 20))]
    for part in parts:
        list(part)
    assert sum(part.pixel_hash for part in parts) % 2**256 == stream.pixel_hash != 0


def test_the_stream_reads_ahead_but_not_far() -> None:
    images = Slow(1000)
    stream = iter(Stream(images, RGB, batch_size=4, threads=2))
    next(stream)
    assert 4 <= images.loaded <= 4 + 4 + 2
    stream.close()  # type: ignore[attr-defined]
    assert images.loaded <= 4 + 4 + 2


def test_bad_pictures_fail_or_are_recorded() -> None:
    with pytest.raises(ImageError, match="picture 5: broken"):
        list(Stream(Slow(9, bad=(5,)), RGB, batch_size=2))
    stream = Stream(Slow(9, bad=(0, 5, 8), on_bad="skip"), RGB, batch_size=2)
    batches = list(stream)
    assert [batch.indices.tolist() for batch in batches] == [[1, 2], [3, 4], [6, 7]]
    assert sorted(stream.skipped) == [0, 5, 8] and "broken" in stream.skipped[5]


def test_pictures_of_different_sizes_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(paths, ((4, 4), (5, 4)), strict=True):
        path.write_bytes(png(1, size))
    with pytest.raises(ImageError, match=r"b\.png.*one size for all"):
        list(Stream(ImageFiles(paths), Preprocessing("RGB")))


@pytest.mark.parametrize(("key", "value"), [("batch_size", 0), ("begin", -1), ("end", 99), ("threads", 0)])
def test_bad_stream_settings(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Stream(Slow(3), RGB, **{key: value})


def packed(path: Path, prefix: str = "", **extra: Any) -> Path:
    files = [png(index) for index in range(3)]
    offsets = np.cumsum([0, *map(len, files)])
    stored = {f"{prefix}jpeg": np.frombuffer(b"".join(files), np.uint8), f"{prefix}offsets": offsets,
              f"{prefix}labels": np.array([2, 0, 1])}
    np.savez(path, **{**stored, **extra})
    return path


def test_packed_sets(tmp_path: Path) -> None:
    images = PackedImages(packed(tmp_path / "set.npz", filenames=np.array(["x", "<y>", "z"]),
                                 class_names=np.array(["a", "b", "c"])))
    assert images.names == ["x", "<y>", "z"] and images.class_names == ["a", "b", "c"]
    assert images.load(2, RGB)[0, 0].tolist() == [2, 4, 7]
    train = open_images(f"{packed(tmp_path / 'parts.npz', 'train_')}:train")
    assert train.names == ["train-00000", "train-00001", "train-00002"]
    assert train.manifest() != images.manifest()
    with pytest.raises(ImageError, match="parts train"):
        PackedImages(tmp_path / "parts.npz")


def test_bad_packed_sets(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PackedImages(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ImageError, match="text.npz: not a readable"):
        PackedImages(tmp_path / "text.npz")
    whole = packed(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ImageError, match="cut.npz"):
        PackedImages(tmp_path / "cut.npz")
    np.savez(tmp_path / "objects.npz", jpeg=np.array([{}]), offsets=np.array([0, 1]))
    with pytest.raises(ImageError, match="objects.npz"):
        PackedImages(tmp_path / "objects.npz")
    for offsets in ([0, 5, 3, 9], [-1, 2, 3, 4], [0, 1, 2, 10**9]):
        with pytest.raises(ImageError, match="offsets"):
            PackedImages(packed(tmp_path / "offsets.npz", offsets=np.array(offsets)))
    for key, wrong in (("labels", np.array([0.5, 1, 2])), ("labels", np.array([0, 1])), ("labels", np.array(0)),
                       ("filenames", np.array("x")), ("class_names", np.array("x")), ("class_names", np.ones(3)),
                       ("offsets", np.array(["a", "b", "c", "d"])), ("offsets", np.arange(4) * 1j),
                       ("jpeg", np.array(0, np.uint8))):
        with pytest.raises(ImageError, match=f"wrong.npz: .*{key}"):
            PackedImages(packed(tmp_path / "wrong.npz", **{key: wrong}))


def test_digits_are_split_by_class_with_a_seed() -> None:
    train, held_out = digits()
    assert (len(train), len(held_out)) == (1198, 599)
    assert train.labels is not None and held_out.labels is not None
    assert train.images.shape[1:] == (32, 32, 1) and train.images.max() == 255
    for digit in range(10):
        both = int((train.labels == digit).sum() + (held_out.labels == digit).sum())
        assert abs((held_out.labels == digit).sum() - both / 3) <= 0.5
    assert not set(train.names) & set(held_out.names)
    assert digits()[1].manifest() == held_out.manifest() != digits(seed=1)[1].manifest()
    with pytest.raises(ValueError, match="held_out"):
        digits(held_out=1.0)


def test_anything_can_be_opened(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    assert isinstance(open_images(tmp_path), ImageFolder)
    assert open_images(str(tmp_path / "a.png")).names == ["a.png"]
    assert len(open_images([tmp_path / "a.png", str(tmp_path / "b.png")])) == 2
    assert isinstance(open_images(np.zeros((1, 2, 2), np.uint8)), Arrays)
    images = open_images(tmp_path)
    assert open_images(images) is images
    with pytest.raises(FileNotFoundError, match="none"):
        open_images(tmp_path / "none")
    for source in (None, 3, [], [1, 2]):
        with pytest.raises(TypeError, match="open_images"):
            open_images(source)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are absent")
def test_real_packed_sets() -> None:
    photographs = open_images(SHARED / "imagenet300_warp256_jpeg.npz")
    assert len(photographs) == 300 and photographs.names[0].endswith("goldfish.JPEG")
    cropped = photographs.load(0, Preprocessing("BGR", size=(256, 256), crop=227))
    assert np.array_equal(cropped, photographs.pixels(0)[14:241, 14:241])
    assert open_images(f"{SHARED}/cifar10_jpegq75.npz:test").class_names is not None
