"""Make what the gallery's experiments train on: `python docs/pictures/prepare.py work`.

Crops of the six photographs, a class a photograph, and two untrained networks that tell from which
photograph a crop comes. They are the same but for their first two convolutions: 11x11 at stride 4 as
in AlexNet's first layer, 7x7 at stride 2 as in ZFNet's. And two faces and their mirror images, with
the places of eyes and noses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import zfcore
from zfcore.layers import Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

PHOTOGRAPHS = Path(__file__).parent / "photographs"
SIDE = 64  # of a crop as the networks see it
EACH = 200  # crops a photograph
FACE = 227  # side of a face, pixels
PART = 24  # half the side of a part's box
FACES = {  # photograph: the square that holds the face (left, top, side), then both eyes and the nose (x, y)
    "astronaut": ((123, 47, 70), ((142.6, 70.6), (173.4, 72.4), (157.6, 88.0))),
    "chelsea": ((85, 5, 228), ((136.7, 91.7), (254.0, 109.0), (211.7, 195.0)))}


def crops(folder: Path) -> list[str]:
    """Cut squares of 64 to 160 pixels at random places, half of them mirrored; returns the classes' names."""
    generator = np.random.default_rng(0)
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    for file in files:
        photograph = Image.open(file).convert("RGB")
        (folder / file.stem).mkdir(parents=True)
        for number in range(EACH):
            size = int(generator.integers(SIDE, 161))
            left, top = (int(generator.integers(0, extent - size + 1)) for extent in photograph.size)
            crop = photograph.crop((left, top, left + size, top + size)).resize((SIDE, SIDE), Image.Resampling.BOX)
            if generator.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            crop.save(folder / file.stem / f"{number:03}.png")
    return [file.stem for file in files]


def network(name: str, classes: list[str]) -> Network:
    """An untrained network; its first filters start small against what they will learn, as in the paper."""
    small = name == "stride2"
    net = Network(name, (SIDE, SIDE, 3), scheme="he", class_names=classes,
                  preprocessing=Preprocessing("RGB", mean=115.0, scale=1 / 16, size=(SIDE, SIDE)))
    net.add("conv1", Convolution(32, 7, stride=2, padding=1, activation="relu") if small else
            Convolution(32, 11, stride=4, padding=2, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(64, 5, stride=2, activation="relu") if small else
            Convolution(64, 5, padding=2, activation="relu"))
    net.add("pool2", MaxPool(3, 2, ceil_mode=True))
    net.add("conv3", Convolution(64, 3, padding=1, activation="relu"))
    net.add("flatten", Flatten())
    net.add("drop", Dropout(0.5))
    net.add("fc4", Linear(len(classes)))
    net.add("prob", Softmax())
    net.initialize(0)
    net.parameters()["conv1.weight"] *= np.float32(0.05)
    return net


def faces(folder: Path) -> None:
    """Cut out the faces, and write faces.json: boxes (top, left, bottom, right) of eyes and noses."""
    (folder / "faces").mkdir()
    images: list[str] = []
    parts: dict[str, list[list[float]]] = {"left of the eyes": [], "right of the eyes": [], "nose": []}
    for name, ((left, top, side), points) in FACES.items():
        photograph = Image.open(PHOTOGRAPHS / f"{name}.jpg").convert("RGB")
        face = photograph.crop((left, top, left + side, top + side)).resize((FACE, FACE), Image.Resampling.BICUBIC)
        places = [((x - left) * FACE / side, (y - top) * FACE / side) for x, y in points]
        mirrored = [(FACE - x, y) for x, y in (places[1], places[0], places[2])]
        for suffix, picture, found in (("", face, places),
                                       ("-mirrored", face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored)):
            images.append(f"faces/{name}{suffix}.png")
            picture.save(folder / images[-1])
            for part, (x, y) in zip(parts, found, strict=True):
                parts[part].append([y - PART, x - PART, y + PART, x + PART])
    (folder / "faces.json").write_text(json.dumps({"images": images, "parts": parts}, indent=1))


def main(folder: Path) -> None:
    """Write everything into a new folder."""
    classes = crops(folder / "crops")
    for name in ("stride2", "stride4"):
        zfcore.save(network(name, classes), folder / f"{name}.safetensors")
    faces(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
