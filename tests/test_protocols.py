"""Caltech and PASCAL VOC as they are distributed, subsets, splits and folds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore.data import Arrays, Caltech, ImageError, Voc, folds, open_images, split, subset
from zfcore.data.voc import SIDES, read_annotation
from zfcore.preprocessing import Preprocessing

RANDOM = np.random.default_rng(8)
GRAY = RANDOM.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = RANDOM.integers(0, 10, 12).astype(np.uint8)


def picture(path: Path, level: int = 5, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 2 * level % 256, 9)).save(path)
    return path


# Caltech, parts and folds

def caltech_folder(root: Path) -> Path:
    for name, count in (("001.ak47", 5), ("056.dog", 7), ("002.flag", 6), ("257.clutter", 4)):
        for number in range(count):
            picture(root / "256_ObjectCategories" / name / f"{number:04d}.jpg", number)
    picture(root / "256_ObjectCategories" / "056.dog" / "greg" / "stray.jpg")
    (root / "256_ObjectCategories" / "056.dog" / "RENAME2").write_text("x")
    return root


def test_caltech(tmp_path: Path) -> None:
    root = caltech_folder(tmp_path)
    images = open_images(f"caltech:{root}")
    assert images.class_names == ["ak47", "flag", "dog"] and images.labels is not None
    assert np.bincount(images.labels).tolist() == [5, 6, 7] and images.names[0] == "001.ak47/0000.jpg"
    assert open_images(f"caltech:{root / '256_ObjectCategories'}:background").class_names[-1] == "clutter"
    with pytest.raises(ValueError, match="allowed: one of None, 'background'"):
        open_images(f"caltech:{root}:train")
    (root / "256_ObjectCategories" / "100.empty").mkdir()
    with pytest.raises(ImageError, match=r"100\.empty: a class without pictures"):
        Caltech(root)
    with pytest.raises(FileNotFoundError):
        Caltech(root / "none")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(ImageError, match="holds no folders"):
        Caltech(tmp_path / "hollow")


def test_folds_follow_the_protocol(tmp_path: Path) -> None:
    images = Caltech(caltech_folder(tmp_path))
    assert images.labels is not None
    found = folds(images, 3, count=4, most=2, seed=1)
    for train, test in found:
        assert np.bincount(images.labels[train]).tolist() == [3, 3, 3]
        assert np.bincount(images.labels[test]).tolist() == [2, 2, 2] and not set(train) & set(test)
    assert len({tuple(train) for train, _ in found}) > 1
    again = folds(images, 3, count=2, most=2, seed=1)
    assert all(np.array_equal(a, b) for pair, other in zip(again, found, strict=False)
               for a, b in zip(pair, other, strict=True))
    assert not np.array_equal(folds(images, 3, seed=2)[0][0], found[0][0])
    fewer = folds(images, 2, count=4, seed=1)  # nested: a curve over pictures a class adds pictures
    assert all(set(few) <= set(many) for (few, _), (many, _) in zip(fewer, found, strict=True))
    assert np.bincount(images.labels[fewer[0][1]]).tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="per_class is 5; allowed: at most 4, for class 'ak47' has 5 pictures"):
        folds(images, 5)
    unlabelled = subset(images, np.arange(3))
    unlabelled.labels = np.array([-1, -1, -1])
    with pytest.raises(ValueError, match="no class"):
        folds(unlabelled, 1)


def test_subsets_and_splits() -> None:
    images = Arrays(GRAY, LABELS % 3, class_names=["a", "b", "c"])
    part = subset(images, [5, 2, 2])
    assert part.names == ["image-00005", "image-00002", "image-00002"] and part.labels is not None
    assert part.labels.tolist() == [int(LABELS[index] % 3) for index in (5, 2, 2)]
    assert np.array_equal(part.load(0, Preprocessing("L"))[..., 0], GRAY[5])
    assert np.array_equal(part.pixels(1), GRAY[2, ..., None])
    assert np.array_equal(part.load(-1, Preprocessing("L"))[..., 0], GRAY[2])
    assert subset(images, LABELS == LABELS[0]).labels is not None
    manifests = {images.manifest(), part.manifest(), subset(images, [2, 5, 2]).manifest()}
    assert len(manifests) == 3 and subset(images, [5, 2, 2]).manifest() in manifests
    for indices, error in (([12], ValueError), ([-1], ValueError), ([0.5], TypeError), ([[1]], TypeError),
                           (np.ones(3, bool), ValueError)):
        with pytest.raises(error, match="subset"):
            subset(images, indices)
    with pytest.raises(IndexError):
        part.load(3, Preprocessing("L"))
    assert len(subset(images, [])) == 0
    train, held_out = split(images, 0.25, seed=4)
    assert sorted([*train.names, *held_out.names]) == images.names
    for label in range(3):
        total = int((images.labels == label).sum())
        assert int((held_out.labels == label).sum()) == round(total * 0.25)
    assert split(images, 0.25, seed=4)[1].names == held_out.names
    with pytest.raises(ValueError, match="split: held_out"):
        split(images, 1.0)
    with pytest.raises(ValueError, match="a class for every picture"):
        split(Arrays(GRAY))


# PASCAL VOC

def thing(name: str, box: tuple[Any, ...], difficult: Any = 0, extra: str = "") -> str:
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{extra}<bndbox>{sides}</bndbox></object>"


def annotation(*things: str) -> bytes:
    return f"<annotation>\n<folder>VOC</folder>\n{chr(10).join(things)}\n</annotation>".encode()


ANNOTATIONS = {
    "2008_000001": annotation(thing("person", (1, 1, 10, 10)), thing("dog", (1, 1, "40.700001", 20),
                              extra="<part><name>head</name><bndbox><xmin>x</xmin></bndbox></part>")),
    "2008_000002": annotation(thing("car", (1, 1, 50, 50), 1), thing("cat", (3, 3, 4, 4))),
    "2008_000003": annotation(thing("car", (1, 1, 50, 50), 1), thing("car", (1, 1, 5, 5))),
    "2008_000004": annotation(thing("sofa", (1, 1, 9, 9), 1)), "2008_000005": annotation(),
}


def voc_folder(root: Path) -> Path:
    place = root / "VOCdevkit" / "VOC2012"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    for name, data in ANNOTATIONS.items():
        (place / "Annotations" / f"{name}.xml").write_bytes(data)
        picture(place / "JPEGImages" / f"{name}.jpg")
    (place / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(ANNOTATIONS) + "\n")
    (place / "ImageSets" / "Main" / "val.txt").write_text("2008_000002\n")
    (place / "ImageSets" / "Main" / "cat_val.txt").write_text("2008_000002  1\n")
    return root


def test_pascal_voc(tmp_path: Path) -> None:
    images = Voc(voc_folder(tmp_path))
    named = [[images.class_names[column] for column in np.flatnonzero(row)] for row in images.targets]
    assert named == [["dog", "person"], ["cat"], ["car"], [], []]
    hard = [[images.class_names[column] for column in np.flatnonzero(row)] for row in images.difficult]
    assert hard == [[], ["car"], [], ["sofa"], []]
    assert images.labels is not None
    exclusive = [images.class_names[label] if label >= 0 else None for label in images.labels]
    assert exclusive == ["dog", "cat", "car", "sofa", None]
    assert images.load(0, Preprocessing("RGB")).shape == (4, 6, 3)
    assert len(open_images(f"voc:{tmp_path}/VOCdevkit/VOC2012:val")) == 1 and len(open_images(f"voc:{tmp_path}")) == 5
    for part in ("test", "../val", "cat_val/.."):
        with pytest.raises(FileNotFoundError, match="parts: trainval, val"):
            open_images(f"voc:{tmp_path}:{part}")
    place = tmp_path / "VOCdevkit" / "VOC2012"
    (place / "ImageSets" / "Main" / "val.txt").write_text("2008_000002\n../../x\n")
    with pytest.raises(ImageError, match=r"val\.txt: line 2: is '\.\./\.\./x'"):
        Voc(tmp_path, "val")
    os.unlink(place / "Annotations" / "2008_000003.xml")
    with pytest.raises(ImageError, match=r"2008_000003\.xml: cannot be read"):
        Voc(tmp_path)


BOMB = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
FETCH = b'<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>'


@pytest.mark.parametrize(("data", "said"), [
    (BOMB, "line 1: declares a document type; allowed: none"), (FETCH, "declares a document type"),
    (b"", "no well-formed XML"), (b"<annotation><object>", "no well-formed XML"), (b"\xff\xfe\0", "no well-formed XML"),
    (b"<annotation>&x;</annotation>", "no well-formed XML"), (b"<html/>", "is <html>; allowed: an <annotation>"),
    (b"<annotation>" + b"<a>" * 20, "levels"), (b"<annotation>" + b" " * 2**20, "allowed: at most 1048576"),
    (annotation(thing("unicorn", (1, 1, 2, 2))), "in line 3: name is 'unicorn'; allowed: one of aeroplane"),
    (annotation("", thing("cat", (1, "x", 2, 2))), "in line 4: bndbox/ymin is 'x'"),
    (annotation(thing("cat", (1, 1, "nan", 2))), "bndbox/xmax is 'nan'"),
    (annotation(thing("cat", (5, 1, 2, 2))), "xmin <= xmax"),
    (annotation(thing("cat", (1, 1, 2, 2), "maybe")), "difficult is 'maybe'"),
    (annotation("<object><name>cat</name></object>"), "bndbox/xmin is ''")])
def test_wrong_annotations(data: bytes, said: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_annotation(data, "x.xml")
    assert str(caught.value).startswith("x.xml: ") and said in str(caught.value)
