"""The files that the documentation's commands speak of, small: models, photographs, data sets."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import zfcore
from zfcore import Network, Preprocessing, layers, models
from zfcore.data import Arrays, digits
from zfcore.demo import write_examples
from zfcore.study.scan import scan

SIDE = 64
KINDS = ("cat", "dog")


def network(classes: int, name: str, stride: int = 2) -> Network:
    """Five convolutions with the paper's names on pictures of 64 x 64."""
    names = [*KINDS, "espresso", *map(str, range(3, classes))]
    net = Network(name, (SIDE, SIDE, 3), scheme="he", class_names=names[:classes],
                  preprocessing=Preprocessing("RGB", mean=118.0, scale=0.02, size=(SIDE, SIDE)))
    net.add("conv1", layers.Convolution(8, 5, stride=stride, padding=2, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", layers.Convolution(12, 3, padding=1, activation="relu"))
    net.add("conv3", layers.Convolution(12, 3, padding=1, activation="relu"))
    net.add("conv4", layers.Convolution(12, 3, padding=1, activation="relu"))
    net.add("conv5", layers.Convolution(64, 3, padding=1, activation="relu"))
    net.add("pool5", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("flat", layers.Flatten())
    net.add("fc7", layers.Linear(16, activation="relu"))
    net.add("fc8", layers.Linear(classes))
    net.add("prob", layers.Softmax())
    return net.initialize(1)


def photograph(number: int, side: int = 72) -> Image.Image:
    """A smooth picture with a shape in it."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def folder(path: Path, classes: int = 2, each: int = 4) -> None:
    """Photographs in a folder a class."""
    for label in range(classes):
        (path / KINDS[label]).mkdir(parents=True)
        for number in range(each):
            photograph(100 * label + number).save(path / KINDS[label] / f"{number}.jpg", quality=90)


def packed(path: Path, classes: int = 10, each: int = 4) -> None:
    """CIFAR-10's shape as a packed .npz with the parts train and test."""
    arrays = {"class_names": np.array([f"kind{index}" for index in range(classes)])}
    for part in ("train", "test"):
        files, labels = [], []
        for index in range(classes * each):
            stream = io.BytesIO()
            photograph(index + (0 if part == "train" else 500), 32).save(stream, "JPEG")
            files.append(stream.getvalue())
            labels.append(index % classes)
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = np.array(labels)
    np.savez(path, **arrays)


def mnist(path: Path, each: int = 4) -> None:
    """MNIST's shape as arrays."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"{part}_images"] = generator.integers(0, 256, (10 * each, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(10 * each) % 10).astype(np.uint8)
    np.savez(path, **arrays)


def build(root: Path) -> None:
    """Write everything into `root`."""
    zfcore.save(network(300, "small"), root / "model.safetensors")
    for name in ("a", "b", "c", "alexnet"):
        net = network(2, name)
        net.class_names = list(KINDS)
        net.preprocessing = Preprocessing("RGB", mean=118.0, scale=0.02, size=72, crop=SIDE)
        zfcore.save(net, root / f"{name}.safetensors")
    zfcore.save(network(2, "stride 4", 4), root / "stride4.safetensors")
    zfcore.save(network(2, "stride 2", 2), root / "stride2.safetensors")
    for name in ("photos", "million"):
        folder(root / name)
    folder(root / "flowers", each=12)
    folder(root / "photos-of-one-kind", 1, 8)
    for number, name in enumerate(("cat.jpg", "dog.jpg", "photo.jpg", "chelsea.png")):
        photograph(number, SIDE).save(root / name)
    box = [[10, 10, 26, 26], [12, 8, 28, 24], [9, 11, 25, 27]]
    pictures = [f"photos/cat/{number}.jpg" for number in range(3)]
    (root / "dogs.json").write_text(json.dumps({"images": pictures, "parts": {"left eye": box, "nose": box[::-1]}}))
    packed(root / "cifar.npz")
    for name in ("set.npz", "tiny.npz"):
        packed(root / name, 2, 32)
    folder(root / "101_ObjectCategories", 2, 32)
    mnist(root / "mnist.npz")
    shutil.copytree(Path(__file__).parents[1] / "examples" / "recipes", root / "examples" / "recipes")
    _digits(root)


def _digits(root: Path) -> None:
    """What `zfcore demo` leaves, with a network that nobody trained, and the quick start's own network."""
    training, held_out = digits()
    net = models.build("digits").initialize(0, "he")
    demo = root / "zfcore-demo"
    demo.mkdir()
    zfcore.save(net, demo / "model.safetensors")
    write_examples(held_out, demo / "digits")
    few = Arrays(held_out.images[:12], held_out.labels[:12], class_names=held_out.class_names)  # type: ignore[index]
    scan(net, few, ["conv2"], 2, progress=False).save(demo / "atlas")
    write_examples(training, root / "digits", 2)
    write_examples(training, root / "three", 1)
    for name, label in (("two", 2), ("seven", 7)):
        shutil.copy(demo / "digits" / str(label) / "1.png", root / f"{name}.png")
    box = [[12, 10, 20, 22]] * 3
    (root / "eights.json").write_text(json.dumps({
        "images": [f"zfcore-demo/digits/8/{number}.png" for number in (1, 2, 3)],
        "parts": {"crossing": box, "upper loop": [[2, 10, 10, 22]] * 3}}))
    mine = Network("mine", (24, 24, 1), scheme="he",
                   preprocessing=Preprocessing("L", mean=64.0, scale=1 / 64, size=(24, 24)))
    mine.add("conv1", layers.Convolution(16, 5, padding=2, activation="relu"))
    mine.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    mine.add("conv2", layers.Convolution(32, 3, padding=1, activation="relu"))
    mine.add("flatten", layers.Flatten())
    mine.add("fc3", layers.Linear(10))
    zfcore.save(mine.initialize(0), root / "mine.safetensors")
