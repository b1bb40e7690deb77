"""Architecture selection: measures against plain sums and made-up filters whose answer is known."""

from __future__ import annotations

import cmath
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_alexnet

from zfcore import layers
from zfcore.data import Arrays
from zfcore.network import Network
from zfcore.pictures import architecture_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.architecture import GRID, Architecture, _phases, architecture, spectra
from zfcore.study.scan import scan

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 40, 36, 3), dtype=np.uint8)


def network(window: int = 7, stride: int = 2, name: str = "small", seed: int = 0) -> Network:
    net = Network(name, (40, 36, 3), preprocessing=Preprocessing("BGR", 120.0, 0.02))
    net.add("conv1", layers.Convolution(6, window, stride=stride, padding=2, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", layers.Convolution(5, 3, padding=1, activation="relu"))
    return net.initialize(seed, "he")


def waves(size: int, frequency: float, count: int = 6) -> np.ndarray:
    """Filters of one frequency (cycles per pixel), at several angles, with a soft border."""
    place = np.arange(size) - (size - 1) / 2
    soft = np.hanning(size + 2)[1:-1]
    found = []
    for turn in np.linspace(0, math.pi / 2, count):
        phase = 2 * math.pi * frequency * (place[:, None] * math.sin(turn) + place * math.cos(turn))
        found.append(np.cos(phase) * soft[:, None] * soft)
    return np.repeat(np.stack(found)[..., None], 3, axis=3).astype(np.float32)


@pytest.fixture(scope="module")
def found() -> Architecture:
    return architecture([network(), network(11, 4, "<b>other", 1)], IMAGES, maps=3, top=2, progress=False)


def test_spectra_equal_plain_sums() -> None:
    weight = np.random.default_rng(0).standard_normal((2, 3, 5, 2))
    found = spectra(weight)
    for row, column in ((0, 0), (3, 60), (17, 40), (63, 1)):
        value = 0.0
        for channel in range(2):
            total = sum(weight[1, r, c, channel] * cmath.exp(-2j * math.pi * (row * r + column * c) / GRID)
                        for r in range(3) for c in range(5))
            value += abs(total) ** 2
        assert found[1, row, column] == pytest.approx(value / (GRID**2 * (weight[1] ** 2).sum()))
    assert np.allclose(found.sum(axis=(1, 2)), 1) and not spectra(np.zeros((1, 3, 3, 1))).any()
    with pytest.raises(ValueError, match="64"):
        spectra(np.zeros((1, 65, 3, 1)))


@pytest.mark.parametrize(("frequency", "band"), [(0.03, 0), (0.17, 1), (0.4, 2)])
def test_bands_find_the_frequency(frequency: float, band: int) -> None:
    net = network(11, 2)
    net.nodes["conv1"].layer.parameters["weight"][:] = waves(11, frequency)
    bands = architecture([net], IMAGES, progress=False).bands["small"]
    assert (bands.argmax(axis=1) == band).all() and np.allclose(bands.sum(axis=1), 1)


def test_aliasing_tells_a_stride_of_4_from_2() -> None:
    """The same filters of 0.18 cycles per pixel: stride 2 carries up to 0.25, stride 4 up to 0.125."""
    nets = [network(11, 2, "two"), network(11, 4, "four")]
    for net in nets:
        net.nodes["conv1"].layer.parameters["weight"][:] = waves(11, 0.18)
    rows = architecture(nets, IMAGES, progress=False).summary["networks"]
    assert rows["two"]["bands"] == rows["four"]["bands"]
    assert rows["two"]["folded"] < 0.2 and rows["four"]["folded"] > 0.6
    assert rows["two"]["aliased"] < 0.2 and rows["four"]["aliased"] > 0.6


def test_aliased_equals_plain_sums() -> None:
    net = network(3, 2)
    image = IMAGES[:1, :9, :8]
    net2 = Network("tiny", (9, 8, 3), preprocessing=net.preprocessing)
    net2.add("conv1", layers.Convolution(2, 3, stride=2, activation="relu"))
    net2.add("conv2", layers.Convolution(2, 1, activation="relu"))
    found = architecture([net2.initialize(0, "he")], image, progress=False).aliased["tiny"]
    weight, x = net2.nodes["conv1"].layer.parameters["weight"], net2.preprocessing.apply(image)[0]  # type: ignore
    for index in range(2):
        response = np.array([[(x[r:r + 3, c:c + 3] * weight[index]).sum(dtype=float) for c in range(6)]
                             for r in range(7)])
        taper = np.outer(np.hanning(7), np.hanning(6))
        response = (response - (response * taper).sum() / taper.sum()) * taper
        total = beyond = 0.0
        for row in range(7):
            for column in range(6):
                value = abs(sum(response[r, c] * cmath.exp(-2j * math.pi * (row * r / 7 + column * c / 6))
                                for r in range(7) for c in range(6))) ** 2
                total += value
                if max(min(row, 7 - row) / 7, min(column, 6 - column) / 6) > 0.25:
                    beyond += value
        assert found[index] == pytest.approx(beyond / total, rel=1e-4)


def test_a_grid_in_projections_is_found() -> None:
    flat = np.ones((2, 1, 16, 16, 3), np.float32)
    comb = flat.copy()
    comb[:, :, ::4] = 0
    origins = np.array([[[0, 0]], [[-3, 5]]])
    even, uneven = _phases(flat, origins, 4), _phases(comb, origins * 4, 4)
    assert even.std() == pytest.approx(0) and uneven.std() / uneven.mean() == pytest.approx(math.sqrt(1 / 3))
    assert np.isclose(uneven[0], 0).all()  # the empty rows are those of phase 0, wherever a tile begins


def test_dead_filters() -> None:
    net = network()
    parameters = net.nodes["conv1"].layer.parameters
    parameters["weight"][1] *= 1e-3  # weak
    parameters["bias"][2] = -1e3  # silent
    parameters["weight"][3] = 0  # weak and silent
    parameters["bias"][3] = 0
    parameters["bias"][1] = 1
    row = architecture([net], IMAGES, progress=False).summary["networks"]["small"]
    assert (row["weak"], row["silent"], row["dead"], row["filters"]) == (2, 2, 3, 6)


def test_projections_are_the_atlas_s(found: Architecture) -> None:
    atlas = scan(network(), Arrays(IMAGES), "conv2", 2, progress=False)
    order = np.argsort(-atlas["conv2"].values[:, 0], kind="stable")[:3]
    assert np.array_equal(found.maps["small"], order)
    assert np.array_equal(found.projections["small"], atlas.project(layers=["conv2"], maps=order)["conv2"])
    assert np.array_equal(found.patches["small"], atlas["conv2"].patches[order]) and found.images == 6


def test_saved_and_loaded(found: Architecture, tmp_path: Path) -> None:
    found.save(tmp_path / "a")
    again = Architecture.load(tmp_path / "a")
    assert again.labels == ("small", "<b>other") and again.strides == (2, 4) and again.summary == found.summary
    assert np.array_equal(architecture_picture(again), architecture_picture(found))


@pytest.mark.parametrize(("arguments", "word"), [
    ({"networks": []}, "one network"), ({"labels": ["a", "b"]}, "1 different"), ({"maps": 0}, "maps"),
    ({"top": 0}, "top"), ({"edges": (0.3, 0.2)}, "edges"), ({"edges": (0.1, 0.5)}, "edges"),
    ({"rule": "x"}, "deconvnet"), ({"images": IMAGES[:0]}, "empty"), ({"batch_size": 0}, "batch_size"),
    ({"spectrum_images": 0}, "spectrum_images")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        architecture(**{"networks": [network()], "images": IMAGES, "progress": False, **arguments})


def test_networks_that_do_not_fit() -> None:
    net = Network("one", (40, 36, 3), preprocessing=Preprocessing("RGB"))
    net.add("conv1", layers.Convolution(2, 3))
    with pytest.raises(ValueError, match="two or more"):
        architecture([net.initialize(0)], IMAGES)


def test_alexnets_stride_is_too_large_for_its_filters() -> None:
    """The real first layer has its energy at middle frequencies, and a stride of 4 cannot carry half of it."""
    net = real_alexnet.alexnet()
    net.preprocessing = Preprocessing("BGR", mean=net.preprocessing.mean)  # type: ignore[union-attr]
    images = real_alexnet.photographs(list(range(0, 300, 60)))
    row = architecture([net], Arrays(images), top=1, maps=2, progress=False).summary["networks"]["alexnet_conv_pq"]
    assert row["bands"]["mid"] > 0.3 and row["folded"] > 0.5 and 0.2 < row["aliased"] < 0.4
