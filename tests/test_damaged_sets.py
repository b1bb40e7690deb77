"""Seeded random damage to data sets: a whole data set or an error of ours, never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_protocols import voc_folder
from test_readers import GRAY, LABELS, cifar_archive, cifar_folder, mnist_folder

from zfcore.data import ImageError, open_images

MUTANTS = 120  # of each file


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """A few bits flipped, bytes replaced or put in, or the end cut off."""
    found = bytearray(data)
    for _ in range(int(generator.integers(1, 4))):
        kind, place = int(generator.integers(4)), int(generator.integers(max(len(found), 1)))
        if kind == 0:
            found[place:place] = generator.integers(0, 256, int(generator.integers(1, 20)), dtype=np.uint8).tobytes()
        elif kind == 1:
            found = found[:place]
        elif found and kind == 2:
            found[place] ^= 1 << int(generator.integers(8))
        elif found:
            found[place] = int(generator.choice(np.frombuffer(b"\x00\xff\x7f-<&\"", np.uint8)))
    return bytes(found)


@pytest.mark.parametrize("kind", ["mnist-images", "mnist-labels", "cifar-archive", "cifar-names", "npz", "csv",
                                  "voc-xml", "voc-list"])
def test_damage_is_an_error_of_ours_or_none(tmp_path: Path, kind: str) -> None:
    if kind.startswith("mnist"):
        source = f"mnist:{mnist_folder(tmp_path, packed=True)}"
        file = tmp_path / ("train-images-idx3-ubyte.gz" if kind == "mnist-images" else "train-labels-idx1-ubyte.gz")
    elif kind == "cifar-archive":
        file = cifar_archive(tmp_path / "c.tar.gz")
        source = f"cifar10:{file}"
    elif kind == "cifar-names":
        file = cifar_folder(tmp_path / "c") / "batches.meta.txt"
        source = f"cifar10:{tmp_path}/c"
    elif kind == "npz":
        file = tmp_path / "set.npz"
        np.savez_compressed(file, images=GRAY, labels=LABELS, class_names=np.array(list("abcdefghij")))
        source = str(file)
    elif kind == "csv":
        file = tmp_path / "list.csv"
        (tmp_path / "0.png").write_bytes(b"")
        file.write_text('path,label\n0.png,a\n"0.png",b\n0.png,c\n')
        source = str(file)
    else:
        place = voc_folder(tmp_path) / "VOCdevkit" / "VOC2012"
        file = place / ("Annotations/2008_000001.xml" if kind == "voc-xml" else "ImageSets/Main/trainval.txt")
        source = f"voc:{tmp_path}"
    whole, generator, errors = file.read_bytes(), np.random.default_rng(7), 0
    for _ in range(MUTANTS):
        file.write_bytes(damaged(whole, generator))
        try:
            open_images(source)
        except (ImageError, FileNotFoundError) as error:
            errors += 1
            assert str(error).count("\n") == 0 and str(tmp_path) in str(error)
    assert errors > MUTANTS // 10  # most damage is found; a flipped pixel or name is not
    file.write_bytes(whole)
    assert len(open_images(source)) > 0
