"""Invariance against plain loops: resampling, distances, probabilities; bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zfcore import layers, models
from zfcore.network import Network
from zfcore.pictures import invariance_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.invariance import KINDS, Invariance, ends, invariance, transformed

SHAPE = (17, 14, 3)
IMAGES = np.random.default_rng(1).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
AMOUNTS: dict[str, Any] = {"translations": [-3, 0, 2.5], "scales": [1, 1.3], "rotations": [0, 25, 90, 360]}


def network() -> Network:
    net = Network("small", SHAPE, class_names=["a", "<b>", "c"], preprocessing=Preprocessing("BGR", 110.0, 0.02))
    net.add("conv1", layers.Convolution(5, 3, stride=2, padding=1, activation="relu"))
    net.add("conv2", layers.Convolution(6, 3, padding=1, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(3))
    net.add("prob", layers.Softmax())
    return net.initialize(0, "he")


NET = network()


def naive(image: np.ndarray, kind: str, amount: float, border: str) -> np.ndarray:
    """Pixel by pixel: where does it come from, and the mean of the four pixels around."""
    height, width, _ = image.shape
    result = np.empty_like(image)

    def pixel(row: int, column: int) -> np.ndarray:
        if border == "edge":
            return image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)].astype(float)
        return image[row, column].astype(float) if 0 <= row < height and 0 <= column < width else np.full(3, 128.0)

    for r in range(height):
        for c in range(width):
            y, x = r - (height - 1) / 2, c - (width - 1) / 2
            if kind == "translation":
                y -= amount
            elif kind == "scale":
                y, x = y / amount, x / amount
            else:
                turn = math.radians(amount)
                y, x = y * math.cos(turn) + x * math.sin(turn), x * math.cos(turn) - y * math.sin(turn)
            y, x = round(y + (height - 1) / 2, 9), round(x + (width - 1) / 2, 9)
            top, left = math.floor(y), math.floor(x)
            down, right = y - top, x - left
            value = (pixel(top, left) * (1 - down) * (1 - right) + pixel(top, left + 1) * (1 - down) * right
                     + pixel(top + 1, left) * down * (1 - right) + pixel(top + 1, left + 1) * down * right)
            result[r, c] = np.rint(value)
    return result


@pytest.mark.parametrize("border", ["fill", "edge"])
@pytest.mark.parametrize(("kind", "amount"), [
    ("translation", 3), ("translation", -2.5), ("translation", 40), ("scale", 1.37), ("scale", 0.6), ("rotation", 33),
    ("rotation", 180), ("rotation", -75)])
def test_resampling_equals_plain_loops(kind: str, amount: float, border: str) -> None:
    found, expected = transformed(IMAGES[0], kind, amount, border), naive(IMAGES[0], kind, amount, border)
    assert np.abs(found.astype(int) - expected).max() <= 1  # rounding of a half
    assert (found == expected).mean() > 0.99


def test_directions_and_identities() -> None:
    image = IMAGES[0]
    for kind, amount in (("translation", 0), ("scale", 1), ("rotation", 0), ("rotation", 360)):
        assert np.array_equal(transformed(image, kind, amount), image)
    down = transformed(image, "translation", 4)
    assert np.array_equal(down[4:], image[:-4]) and (down[:4] == 128).all()
    square = image[:14]
    assert np.array_equal(transformed(square, "rotation", 90), np.rot90(square))  # counter-clockwise
    assert np.array_equal(transformed(image, "rotation", 180), image[::-1, ::-1])


@pytest.fixture(scope="module")
def found() -> Invariance:
    return invariance(NET, IMAGES, ["conv1", "conv2.pre", "fc"], labels=["<b>", 2], progress=False, **AMOUNTS)


def test_equals_plain_loops(found: Invariance) -> None:
    prepare = NET.preprocessing.apply  # type: ignore[union-attr]
    for kind in KINDS:
        amounts, distances, chances = found.series(kind)
        assert amounts.tolist() == AMOUNTS[f"{kind}s"]
        for index, image in enumerate(IMAGES):
            for place, amount in enumerate(amounts):
                x = prepare(np.stack([image, transformed(image, kind, amount)]))
                kept = NET.forward(x, keep=found.layers).kept
                for number, layer in enumerate(found.layers):
                    first, second = kept[layer].astype(float)
                    assert distances[number, index, place] == pytest.approx(np.sqrt(((second - first) ** 2).sum()))
                assert chances is not None and chances[index, place] == NET(x)[1, (1, 2)[index]]
    assert found.translation_distances[:, :, 1].max() == 0 and found.rotation_distances[:, :, [0, 3]].max() == 0
    assert found.labels == (1, 2) and found.summary["classes"] == ["<b>", "c"]
    norms = [np.linalg.norm(kept.astype(float)) for kept in NET.features(prepare(IMAGES), ["fc"])["fc"]]
    assert np.allclose(found.norms[2], norms)
    assert np.allclose(found.relative["scale"] * found.norms[:, :, None], found.scale_distances)


def test_batches_do_not_matter_and_results_load(found: Invariance, tmp_path: Path) -> None:
    again = invariance(NET, IMAGES, ["conv1", "conv2.pre", "fc"], labels=[1, 2], batch_size=1, progress=False,
                       **AMOUNTS)
    again.save(tmp_path / "a")
    loaded = Invariance.load(tmp_path / "a")
    for name, value in vars(found).items():
        other = getattr(loaded, name)
        assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name
    for relative in (False, True):
        assert np.array_equal(invariance_picture(found, relative), invariance_picture(loaded, relative))


def test_the_most_probable_class_is_the_default_and_maps_have_none() -> None:
    own = invariance(NET, IMAGES, "conv1", progress=False, **AMOUNTS)
    expected = NET(NET.preprocessing.apply(IMAGES)).argmax(axis=1)  # type: ignore[union-attr]
    assert own.labels == tuple(expected.tolist())
    net = Network("maps", SHAPE, preprocessing=Preprocessing("RGB"))
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    maps = invariance(net.initialize(0), IMAGES[0], "conv1", progress=False, **AMOUNTS)
    assert maps.labels is None and maps.scale_probabilities is None and "probability" not in maps.summary
    assert invariance_picture(maps).ndim == 3


def test_an_early_and_a_late_layer() -> None:
    assert ends(NET) == ["conv1", "conv2"] and ends(models.build("zfnet")) == ["conv1", "fc7"]
    assert ends(models.build("digits")) == ["conv1", "fc4"] and ends(models.build("convnetjs")) == ["conv1", "pool3"]


@pytest.mark.parametrize(("arguments", "word"), [
    ({"layers": "conv9"}, "conv1"), ({"layers": []}, "layers"), ({"layers": ["fc", "fc"]}, "each once"),
    ({"images": IMAGES[:0]}, "one image"), ({"labels": [1]}, "2 classes"), ({"labels": [1, 3]}, "0 to 2"),
    ({"labels": ["a", "d"]}, "<b>"), ({"translations": []}, "translations"), ({"scales": [0]}, "above 0"),
    ({"scales": [np.inf]}, "scales"), ({"rotations": "x"}, "rotations"), ({"border": "wrap"}, "edge"),
    ({"fill": 256}, "fill"), ({"batch_size": 0}, "batch_size")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        invariance(NET, **{"images": IMAGES, "layers": "conv1", "progress": False, **AMOUNTS, **arguments})
