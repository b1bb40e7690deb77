"""Correspondence against plain loops; boxes in files' pixels; bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore import layers
from zfcore.network import Network
from zfcore.pictures import correspondence_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.correspondence import RANDOM, SAME, Correspondence, correspondence, read_parts

SHAPE = (20, 18, 3)
LAYERS = ["conv1", "conv2", "conv2.pre", "fc"]
IMAGES = np.random.default_rng(1).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
PARTS = {"eye": [[2, 3, 7, 8], [1, 0, 5, 5], [0, 0, 4, 4], [15, 13, 30, 40]],
         "<nose>": [[8, 8, 12, 12], [9, 7, 13, 12], [8, 8, 11, 11], [0, 17, 1, 18]]}


def network() -> Network:
    net = Network("small", SHAPE, preprocessing=Preprocessing("BGR", mean=[100.0, 110.0, 120.0], scale=0.02,
                                                              size=SHAPE[:2]))
    net.add("conv1", layers.Convolution(5, 3, stride=2, padding=1, activation="relu"))
    net.add("conv2", layers.Convolution(6, 3, padding=1, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(7))
    return net.initialize(0, "he")


NET = network()


@pytest.fixture(scope="module")
def found() -> Correspondence:
    return correspondence(NET, IMAGES, PARTS, LAYERS, draws=3, fill=99, seed=4, progress=False)


def test_equals_plain_loops(found: Correspondence) -> None:
    prepare = NET.preprocessing.apply  # type: ignore[union-attr]
    assert found.boxes.shape == (8, 4, 4) and found.rows == ("eye", "<nose>", RANDOM, SAME)
    assert found.boxes[0, 3].tolist() == [15, 13, 20, 18]  # cut at the border
    for place, boxes in enumerate(found.boxes):
        hidden = IMAGES.copy()
        for image, (top, left, bottom, right) in zip(hidden, boxes, strict=True):
            for row, column in itertools.product(range(top, bottom), range(left, right)):
                image[row, column] = 99
        for number, layer in enumerate(LAYERS):
            change = NET.features(prepare(IMAGES), [layer])[layer] - NET.features(prepare(hidden), [layer])[layer]
            signs = [[(value > 0) - (value < 0) for value in each.ravel().tolist()] for each in change]
            assert np.allclose(found.zeros[number, place], [each.count(0) / len(each) for each in signs])
            for pair, (first, second) in enumerate(itertools.combinations(signs, 2)):
                both = list(zip(first, second, strict=True))
                assert found.distances[number, place, pair] == pytest.approx(sum(a != b for a, b in both) / len(both))
                opposite, shared = sum(a * b < 0 for a, b in both), sum(a * b != 0 for a, b in both)
                value = found.opposed[number, place, pair]
                assert value == pytest.approx(opposite / shared) if shared else np.isnan(value)


def test_random_masks(found: Correspondence) -> None:
    assert found.row_of.tolist() == [0, 1, 2, 2, 2, 3, 3, 3]
    drawn = found.boxes[2:]
    sides = drawn[..., 2:] - drawn[..., :2]
    sizes = found.boxes[:2, :, 2:] - found.boxes[:2, :, :2]
    assert (sides == np.rint(sizes.mean(axis=(0, 1)))).all()
    assert (drawn[..., :2] >= 0).all() and (drawn[..., 2:] <= SHAPE[:2]).all()
    assert (drawn[3:] == drawn[3:, :1]).all() and not (drawn[:3] == drawn[:3, :1]).all()
    again = correspondence(NET, IMAGES, PARTS, LAYERS, draws=3, fill=99, seed=4, batch_size=1, progress=False)
    for name, value in vars(found).items():
        assert np.array_equal(value, getattr(again, name), equal_nan=name == "opposed"), name
    other = correspondence(NET, IMAGES, PARTS, "conv1", draws=3, seed=5, progress=False)
    assert not np.array_equal(other.boxes[2:], drawn)
    assert correspondence(NET, IMAGES, PARTS, "conv1", draws=0, progress=False).rows == ("eye", "<nose>")


def test_equal_images_agree_wholly() -> None:
    images = np.repeat(IMAGES[:1], 3, axis=0)
    same = correspondence(NET, images, {"eye": [[2, 3, 7, 8]] * 3}, LAYERS, draws=2, progress=False)
    table = same.summary["layers"]["conv2"]
    for row in ("eye", SAME):
        assert table[row]["mean"] == table[row]["deviation"] == table[row]["opposed"] == 0
    assert table[RANDOM]["mean"] > 0 and same.summary["sets"] == [1, 2, 2]


def test_table_and_picture_and_files(found: Correspondence, tmp_path: Path) -> None:
    lines = found.table().splitlines()
    assert len(lines) == 5 and lines[0].startswith("part") and "conv2.pre zeros" in lines[0]
    found.save(tmp_path / "a")
    again = Correspondence.load(tmp_path / "a")
    assert again.table() == found.table() and again.layers == found.layers
    assert np.array_equal(correspondence_picture(again), correspondence_picture(found))


def test_boxes_are_in_the_files_pixels(tmp_path: Path) -> None:
    net = network()
    net.preprocessing = Preprocessing("RGB", size=24, crop=SHAPE[:2])
    for number, size in enumerate(((48, 96), (72, 48))):  # height, width: brought to 24 x 48 and 36 x 24
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    # In network pixels (4, 6, 10, 12): plus the crop's corner, times 2.
    boxes = [[(2 + 4) * 2, (15 + 6) * 2, (2 + 10) * 2, (15 + 12) * 2], [(8 + 4) * 2, (3 + 6) * 2, (8 + 10) * 2, 30]]
    (tmp_path / "parts.json").write_text(json.dumps({"images": ["0.png", "1.png"], "parts": {"eye": boxes}}))
    images, parts = read_parts(tmp_path / "parts.json")
    result = correspondence(net, images, parts, "conv1", draws=0, progress=False)
    assert result.boxes[0].tolist() == [[4, 6, 10, 12], [4, 6, 10, 12]]


@pytest.mark.parametrize(("arguments", "word"), [
    ({"images": IMAGES[:1]}, "two images"), ({"images": IMAGES[:0]}, "two images"), ({"layers": "conv9"}, "conv1"),
    ({"layers": []}, "layers"), ({"layers": ["fc", "fc"]}, "each once"), ({"draws": -1}, "draws"),
    ({"fill": 256}, "fill"), ({"fill": -1}, "fill"), ({"seed": -1}, "seed"), ({"batch_size": 0}, "batch_size"),
    ({"parts": {}}, "one named part"), ({"parts": {RANDOM: PARTS["eye"]}}, RANDOM),
    ({"parts": {"eye": PARTS["eye"][:3]}}, "4 boxes"), ({"parts": {"eye": "x"}}, "4 boxes"),
    ({"parts": {"eye": [[0, 0, 1, np.nan]] * 4}}, "4 boxes"), ({"parts": {"eye": [[5, 5, 5, 9]] * 4}}, "top < bottom"),
    ({"parts": {"eye": [[50, 5, 60, 9]] * 4}}, "top < bottom")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        correspondence(NET, **{"images": IMAGES, "parts": PARTS, "layers": "conv1", "progress": False, **arguments})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": 3, "parts": {}}', '{"images": [1], "parts": {}}',
                                  '{"images": ["a"], "parts": []}', "[" * 100_000])
def test_bad_files_of_parts(tmp_path: Path, text: str) -> None:
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(ValueError, match=r"parts\.json"):
        read_parts(tmp_path / "parts.json")
