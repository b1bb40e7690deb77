"""Readers of data sets as they are distributed: right files give right pictures, wrong ones say what and where."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore.data import (
    Arrays,
    ImageError,
    ImageList,
    PackedImages,
    cifar,
    mnist,
    open_images,
)
from zfcore.data.opening import path_of
from zfcore.preprocessing import Preprocessing

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
RANDOM = np.random.default_rng(8)
GRAY = RANDOM.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = RANDOM.integers(0, 10, 12).astype(np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def picture(path: Path, level: int = 5, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 2 * level % 256, 9)).save(path)
    return path


# IDX

def mnist_folder(folder: Path, packed: bool = False, mark: str = "-") -> Path:
    for stem in ("train", "t10k"):
        for kind, array in (("images", GRAY), ("labels", LABELS)):
            name, data = f"{stem}-{kind}{mark}idx{array.ndim}-ubyte", idx(array)
            (folder / (name + (".gz" if packed else ""))).write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_mnist_from_its_files(tmp_path: Path, packed: bool, mark: str) -> None:
    folder = mnist_folder(tmp_path, packed, mark)
    images = mnist(folder)
    assert np.array_equal(images.images[..., 0], GRAY) and images.labels is not None
    assert images.labels.tolist() == LABELS.tolist() and images.class_names == list("0123456789")
    fashion = open_images(f"fashion-mnist:{folder}:test")
    assert fashion.class_names is not None and fashion.class_names[9] == "Ankle boot"
    assert len(open_images(f"mnist:{folder}")) == 12
    name = next(folder.glob("train-images*"))
    assert open_images(f"idx:{name}").labels is None
    assert open_images(f"idx:{name}:{next(folder.glob('train-labels*'))}").labels is not None


def wrong_idx(data: bytes) -> list[tuple[bytes, str]]:
    """Damaged versions of an IDX file of images, and what the error must say."""
    return [
        (b"", "byte 0: begins with nothing"), (b"\x89PNG" + data[4:], "byte 0: begins with 89504e47"),
        (b"\0\0\x0d\x03" + data[4:], "byte 2: the type is 13"),
        (b"\0\0\x08\x01" + data[4:], "byte 3: has 1 dimensions"),
        (data[:9], "byte 9: ends within its header of 16"), (data[:-7], f"byte {len(data) - 7}: ends there"),
        (data + b"xy", f"byte {len(data)}: goes on after the 12 x 5 x 4"),
        (data[:4] + b"\xff" * 12, "declares 4294967295 x 4294967295 x 4294967295 bytes; allowed: at most"),
        (data[:4] + struct.pack(">3I", 1, 2**31, 1) + data[16:], "its header declares 1 x 2147483648 x 1"),
        (data[:4] + struct.pack(">3I", 3, 0, 4), "byte 8: declares pictures of 0 x 4 pixels"),
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("number", range(10))
def test_a_damaged_idx_file_says_where(tmp_path: Path, packed: bool, number: int) -> None:
    data, said = wrong_idx(idx(GRAY))[number]
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ImageError) as caught:
        open_images(f"idx:{path}")
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path, packed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for cut in (whole[:len(whole) // 2], whole[:12], whole[:-4], whole[:40] + b"\xff" * 20 + whole[60:]):
        path.write_bytes(cut)
        with pytest.raises(ImageError, match=r"train-images-idx3-ubyte\.gz: "):
            mnist(folder)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A small header before a gigabyte of zeros: reading stops one byte after what the header declares."""
    import tracemalloc

    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(idx(GRAY))
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ImageError, match="goes on after"):
        open_images(f"idx:{path}")
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    folder = mnist_folder(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:-1]))
    with pytest.raises(ImageError, match="has 11 labels for the 12 images"):
        mnist(folder)
    labels = LABELS.copy()
    labels[7] = 10
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(ImageError, match=r"byte 15: label 7 is 10; allowed: 0\.\.9"):
        mnist(folder)
    os.unlink(folder / "train-labels-idx1-ubyte")
    with pytest.raises(FileNotFoundError, match="train-labels"):
        mnist(folder)
    with pytest.raises(ValueError, match="mnist: part is 'validation'"):
        open_images(f"mnist:{folder}:validation")


# CIFAR

COLOR = RANDOM.integers(0, 256, (15, 32, 32, 3), dtype=np.uint8)
CLASSES = RANDOM.integers(0, 10, 15)
FINE = RANDOM.integers(0, 100, 15)


def records(images: np.ndarray, *labels: np.ndarray) -> bytes:
    """A naive writer: labels, then red, green and blue rows."""
    written = bytearray()
    for place, image in enumerate(images):
        written += bytes(int(each[place]) for each in labels)
        for channel in range(3):
            for row in image:
                written += bytes(int(pixel[channel]) for pixel in row)
    return bytes(written)


def cifar_files() -> dict[str, bytes]:
    files = {f"data_batch_{number}.bin": records(COLOR[3 * number - 3:3 * number], CLASSES[3 * number - 3:3 * number])
             for number in range(1, 6)}
    names = "\n".join(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
    return files | {"test_batch.bin": records(COLOR[:4], CLASSES[:4]), "batches.meta.txt": names.encode() + b"\n\n"}


CIFAR_FILES = cifar_files()


def cifar_folder(folder: Path, **changed: bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in {**CIFAR_FILES, **changed}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def cifar_archive(path: Path, extra: Callable[[Any], None] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in CIFAR_FILES.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if extra is not None:
            extra(archive)
    return path


def test_cifar_10(tmp_path: Path) -> None:
    folder = cifar_folder(tmp_path / "cifar-10-batches-bin")
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as archive:
        for name, data in CIFAR_FILES.items():
            archive.writestr(f"batches/{name}", data)
    for place in (folder, tmp_path, cifar_archive(tmp_path / "c.tar.gz"), tmp_path / "cifar.zip"):
        images = cifar(place)
        assert np.array_equal(images.images, COLOR) and images.labels is not None
        assert images.labels.tolist() == CLASSES.tolist() and images.class_names is not None
        assert images.class_names[9] == "truck" and images.names[3] == "train-00003"
    assert len(open_images(f"cifar10:{folder}:test")) == 4
    os.unlink(folder / "batches.meta.txt")
    assert cifar(folder).class_names == images.class_names


def test_cifar_100(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(records(COLOR, CLASSES, FINE))
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(f"coarse {number}" for number in range(20)))
    fine, coarse = open_images(f"cifar100:{tmp_path}"), open_images(f"cifar100-coarse:{tmp_path}:train")
    assert fine.labels is not None and fine.labels.tolist() == FINE.tolist() and fine.class_names is None
    assert coarse.labels is not None and coarse.labels.tolist() == CLASSES.tolist()
    assert coarse.class_names is not None and coarse.class_names[7] == "coarse 7"
    assert isinstance(fine, Arrays) and np.array_equal(fine.images, COLOR)


def test_damaged_cifar_says_where(tmp_path: Path) -> None:
    third = CIFAR_FILES["data_batch_3.bin"]
    bad_label = bytearray(third)
    bad_label[3073] = 10
    for data, said in ((third[:-1], r"data_batch_3.bin: byte 9218: ends within record 2"), (b"", "byte 0: ends within"),
                       (bytes(bad_label), r"data_batch_3.bin: byte 3073: the label of record 1 is 10; allowed: 0..9")):
        with pytest.raises(ImageError, match=said):
            cifar(cifar_folder(tmp_path / "bad", **{"data_batch_3.bin": data}))
    with pytest.raises(ImageError, match=r"batches.meta.txt: has 2 names; allowed: 10"):
        cifar(cifar_folder(tmp_path / "names", **{"batches.meta.txt": b"a\nb\n"}))
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_2.bin, data_batch_5.bin"):
        cifar(cifar_folder(tmp_path / "few", **{"data_batch_2.bin": None, "data_batch_5.bin": None}))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "data_batch_1").write_bytes(b"\x80\x02}")
    with pytest.raises(FileNotFoundError, match="never read: take the binary version"):
        cifar(pickled)
    with pytest.raises(FileNotFoundError, match="no such folder or archive"):
        open_images(f"cifar10:{tmp_path}/none:train")


def hostile(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> Callable[[Any], None]:
    def add(archive: Any) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", size
        archive.addfile(member, io.BytesIO(bytes(size)))

    return add


@pytest.mark.parametrize(("name", "kind"), [
    ("../data_batch_1.bin", tarfile.REGTYPE), ("/data_batch_1.bin", tarfile.REGTYPE), ("a/../../b", tarfile.REGTYPE),
    ("a\\..\\b", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE)])
def test_archives_that_lead_outside_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    with pytest.raises(ImageError, match="is a link or lies outside"):
        cifar(cifar_archive(tmp_path / "c.tar.gz", hostile(name, kind)))
    assert sorted(os.listdir(tmp_path)) == ["c.tar.gz"]


def test_other_bad_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cifar_archive(tmp_path / "c.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "text.tar.gz").write_text("no archive")
    for name in ("cut.tar.gz", "text.tar.gz"):
        with pytest.raises(ImageError, match=f"{name}: cannot be read"):
            cifar(tmp_path / name)
    with pytest.raises(ImageError, match="is there twice"):
        cifar(cifar_archive(tmp_path / "twice.tar.gz", hostile("other/data_batch_1.bin", size=4)))
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        entry = zipfile.ZipInfo("data_batch_1.bin")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ImageError, match="is a link"):
        cifar(tmp_path / "link.zip")
    from zfcore.data import archive as module

    with pytest.raises(ImageError, match="more than 10000 bytes"):
        module.files_of(tmp_path / "c.tar.gz", ["data_batch_1.bin"], max_bytes=10_000)
    monkeypatch.setattr(module, "MEMBERS", 3)
    with pytest.raises(ImageError, match="3 members"):
        cifar(tmp_path / "c.tar.gz")


# Arrays in an .npz

def test_arrays_in_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, train_images=GRAY, train_labels=LABELS, test_images=GRAY[:3], x_other=COLOR,
                        y_other=CLASSES[:, None], class_names=np.array(list("abcdefghij")))
    images = open_images(f"{path}:train")
    assert isinstance(images, Arrays) and np.array_equal(images.images[..., 0], GRAY) and images.labels is not None
    assert images.labels.tolist() == LABELS.tolist() and images.class_names == list("abcdefghij")
    assert open_images(f"{path}:test").labels is None and images.names[2] == "train-00002"
    other = open_images(f"{path}:other")
    assert other.labels is not None and other.labels.tolist() == CLASSES.tolist()
    with pytest.raises(ImageError, match=r"holds no array images; it has the parts other, test, train: name one"):
        open_images(path)
    np.savez(path, images=COLOR, labels=CLASSES)
    assert len(open_images(path)) == 15


@pytest.mark.parametrize(("arrays", "said"), [
    ({"images": GRAY.astype(np.float32)}, r"images is float32 \(12, 5, 4\); allowed: uint8"),
    ({"images": GRAY[0]}, r"images is uint8 \(5, 4\)"), ({"images": GRAY[..., None, None]}, "images is uint8"),
    ({"images": GRAY, "labels": LABELS[1:]}, r"labels is uint8 \(11,\); allowed: integers \(12,\)"),
    ({"images": GRAY, "labels": LABELS / 2}, "labels is float64"),
    ({"images": GRAY, "labels": LABELS, "class_names": np.array(["a"])}, "labels is .*allowed: 0..0, or -1"),
    ({"images": GRAY, "class_names": np.ones(3)}, "class_names is float64"),
    ({"images": np.array([{}])}, "holds Python objects")])
def test_wrong_arrays_in_an_npz(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ImageError, match=rf"set\.npz: .*{said}"):
        open_images(tmp_path / "set.npz")


def test_hostile_npz(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"

    def written(name: str, data: bytes) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        return path

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20)})
    with pytest.raises(ImageError, match=r"uint8 \(1048576, 1048576\), so 1099511627904 bytes"):
        open_images(written("images.npy", head.getvalue()))
    for data in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\0\xff\xff{", b"no array at all"):
        with pytest.raises(ImageError, match="set.npz: cannot be read"):
            open_images(written("images.npy", data))
    with pytest.raises(ImageError, match=r"'\.\./x' is no array"):
        open_images(written("../x", b"y"))
    np.savez(path, images=GRAY)
    whole = bytearray(path.read_bytes())
    whole[200] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ImageError, match="CRC"):
        open_images(path)
    path.write_bytes(whole[:-30])
    with pytest.raises(ImageError, match="set.npz"):
        open_images(path)


# CSV

def test_a_csv_of_pictures(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "pictures" / f"{number}.png", number)
    path = tmp_path / "list.csv"
    path.write_text("path,label\npictures/2.png,zebra\npictures/0.png,ant\n\n\"pictures/1.png\",zebra\n")
    images = open_images(path)
    assert isinstance(images, ImageList) and images.class_names == ["ant", "zebra"] and images.labels is not None
    assert images.labels.tolist() == [1, 0, 1] and images.names == [f"pictures/{n}.png" for n in (2, 0, 1)]
    assert images.pixels(0)[0, 0].tolist() == [2, 4, 9]
    path.write_text("pictures/1.png,4\npictures/0.png,\n")
    images = ImageList(path)
    assert images.class_names is None and images.labels is not None and images.labels.tolist() == [4, -1]
    path.write_text("pictures/1.png\n")
    assert ImageList(path).labels is None
    path.write_bytes("\ufeffid,Class,note,FILE\n7,caf\u00e9,x,pictures/1.png\n8,b,y,pictures/2.png\n".encode())
    images = ImageList(path)
    assert images.class_names == ["b", "caf\u00e9"] and images.labels is not None and images.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("text", "said"), [
    ("", "lists no pictures"), ("path,label\n", "lists no pictures"),
    ("a,b,c\n", "line 1: has 3 columns and does not say which is the path"),
    ("path,label\n0.png,a\n0.png\n", "line 3: has 1 fields; allowed: 2"),
    ("path,label\n\n,a\n", "line 3: the path is ''"), ("path,label\n0.png,a\nnone.png,b\n", "line 3: .*no such file"),
    ("0.png,-2\n", "line 1: the label is -2"), ('path,label\n"0.png,a\n', "line 2: "), ("0.png\0,1\n", "line 1: ")])
def test_wrong_csvs(tmp_path: Path, text: str, said: str) -> None:
    picture(tmp_path / "0.png")
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ImageError, match=rf"list\.csv: {said}"):
        open_images(path)


def test_missing_pictures_of_a_csv_can_be_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text("0.png,1\nnone.png,0\n")
    images = open_images(tmp_path / "list.csv", on_bad="skip")
    assert len(images) == 2 and len(images.manifest()) == 64
    with pytest.raises(ImageError, match=r"none\.png: cannot be read"):
        images.load(1, Preprocessing("RGB"))


# All of them by a text

def test_digits_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, whole = (open_images(name) for name in ("digits:train", "digits:test", "digits"))
    assert (len(train), len(test), len(whole)) == (1198, 599, 1797)
    assert sorted([*train.names, *test.names]) == whole.names
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "digits" / "a" / "1.png")
    assert len(open_images("digits")) == 1  # what is there hides a name


def test_paths_with_colons_and_what_a_text_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "voc:a" / "1.png")
    assert len(open_images("voc:a")) == 1
    mnist_folder(tmp_path / "voc:a")
    assert len(open_images("mnist:voc:a:test")) == len(open_images("mnist:voc:a")) == 12
    for text, path in (("mnist:voc:a:test", "voc:a"), ("voc:a", "voc:a"), ("set.npz:train", "set.npz"), ("x", "x"),
                       ("cifar10:some/where:test", "some/where"), ("caltech:dir", "dir")):
        assert path_of(text) == path
    for text in ("voc:", "unknown:voc:a", "set.npz:train", "digits:all", "", "mnist:", "cifar10:none"):
        with pytest.raises((FileNotFoundError, ImageError)):
            open_images(text)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are absent")
def test_real_archives() -> None:
    digits = open_images(f"{SHARED}/mnist.npz:test")
    assert isinstance(digits, Arrays) and digits.images.shape == (10_000, 28, 28, 1) and digits.labels is not None
    assert np.bincount(digits.labels).tolist()[:3] == [980, 1135, 1032]
    tiny = open_images(f"{SHARED}/tiny_imagenet20_jpeg.npz:val")
    assert isinstance(tiny, PackedImages) and len(tiny) == 1000
    with pytest.raises(ImageError, match="parts test, train"):
        open_images(f"{SHARED}/mnist.npz")
