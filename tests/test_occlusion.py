"""Occlusion against running every occluded image; its picture, its command, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_alexnet

from zfcore import layers
from zfcore.data import Arrays
from zfcore.geometry import window_starts as starts
from zfcore.network import Network
from zfcore.pictures import occlusion_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.occlusion import Occlusion, occlusion
from zfcore.study.results import ResultError
from zfcore.study.scan import scan

SHAPE = (23, 20, 3)
NAMES = ["first", "<b>second</b>", "third\n"]


def network(softmax: bool = True) -> Network:
    mean = np.random.default_rng(5).uniform(90, 130, SHAPE)
    net = Network("small", SHAPE, class_names=NAMES, preprocessing=Preprocessing("BGR", mean=mean, scale=0.05))
    net.add("conv1", layers.Convolution(5, 3, stride=2, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", layers.ResponseNorm(3, alpha=0.1))
    net.add("conv2", layers.Convolution(7, 3, padding=1, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(3))
    if softmax:
        net.add("prob", layers.Softmax())
    return net.initialize(1, "he")


NET = network()
IMAGE = np.random.default_rng(2).integers(0, 256, SHAPE, dtype=np.uint8)


def every_image(fill: Any, window: tuple[int, int], rows: Any, columns: Any) -> np.ndarray:
    """All occluded images, preprocessed as whole images."""
    found = []
    for row in rows:
        for column in columns:
            image = IMAGE.copy()
            image[row:row + window[0], column:column + window[1]] = fill
            found.append(image)
    return NET.preprocessing.apply(np.stack(found))  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 7}, {"local": False}])
@pytest.mark.parametrize(("window", "stride", "fill"), [((6, 5), (4, 3), 128), ((23, 20), (1, 1), (9, 200, 30)),
                                                        ((1, 2), (9, 30), 0)])
def test_equals_running_every_occluded_image(window: Any, stride: Any, fill: Any, options: dict[str, Any]) -> None:
    found = occlusion(NET, IMAGE, "conv2", window=window, stride=stride, fill=fill, progress=False, **options)
    rows, columns = starts(23, window[0], stride[0]), starts(20, window[1], stride[1])
    assert rows[-1] == 23 - window[0] and columns[-1] == 20 - window[1] and rows[0] == columns[0] == 0
    kept = NET.forward(every_image(fill, window, rows, columns), keep=["conv2", "prob"]).kept
    whole = NET.forward(NET.preprocessing.apply(IMAGE[None]), keep=["conv2", "prob"]).kept  # type: ignore[union-attr]
    chosen = int(whole["conv2"][0].max(axis=(0, 1)).argmax())
    sums = [np.ascontiguousarray(maps[..., chosen]).sum(dtype=np.float64) for maps in kept["conv2"]]
    shape = (len(rows), len(columns))
    assert found.map == chosen and np.array_equal(found.activity, np.reshape(sums, shape))
    assert np.array_equal(found.probabilities, kept["prob"].reshape(*shape, 3))
    assert found.label == whole["prob"][0].argmax()
    assert np.array_equal(found.most_probable, kept["prob"].argmax(axis=1).reshape(shape))
    assert np.array_equal(found.probability, kept["prob"][:, found.label].reshape(shape))


def test_maps_before_their_relu_vectors_and_chosen_maps() -> None:
    for layer, index in (("conv2.pre", 3), ("fc", 2), ("prob", 1)):
        found = occlusion(NET, IMAGE, layer, map=index, label="third\n", window=7, stride=6, progress=False,
                          rule="gradient" if layer == "prob" else "deconvnet")
        maps = NET.forward(every_image(128, (7, 7), found.rows, found.columns), keep=[layer]).kept[layer]
        sums = maps.reshape(len(maps), -1, maps.shape[-1])[..., index].sum(axis=1, dtype=np.float64)
        assert np.allclose(found.activity.ravel(), sums, rtol=1e-6) and found.map == index and found.label == 2


def test_logits_become_probabilities_and_maps_have_none() -> None:
    found = occlusion(network(False), IMAGE, "conv2", window=9, stride=7, progress=False)
    assert np.allclose(found.probabilities.sum(axis=2), 1)  # type: ignore[union-attr]
    assert np.array_equal(found.probabilities, occlusion(NET, IMAGE, "conv2", window=9, stride=7,
                                                         progress=False).probabilities)
    net = Network("maps", SHAPE, preprocessing=Preprocessing("RGB"))
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    found = occlusion(net.initialize(0), IMAGE, window=9, stride=7, progress=False)
    assert found.probabilities is None and found.probability is None and found.label is None
    assert "class" not in found.summary and occlusion_picture(found).shape[2] == 3


def test_pixels_get_the_mean_of_the_squares_that_cover_them() -> None:
    found = occlusion(NET, IMAGE, "conv2", window=(8, 5), stride=(5, 4), progress=False)
    pixels = found.in_pixels(found.activity)
    for row, column in ((0, 0), (7, 4), (22, 19), (11, 10)):
        covering = [found.activity[i, j] for i, r in enumerate(found.rows) for j, c in enumerate(found.columns)
                    if r <= row < r + 8 and c <= column < c + 5]
        assert pixels[row, column] == pytest.approx(np.mean(covering))
    # Squares' centres lie at rows 3.5, 8.5, 13.5, 18.5 and columns 2, 6, 10, 14, 17.
    assert found.nearest(np.arange(20).reshape(4, 5))[[0, 5, 7, 22], [0, 3, 13, 19]].tolist() == [0, 0, 8, 19]
    assert np.isnan(occlusion(NET, IMAGE, window=1, stride=9, progress=False).in_pixels(np.zeros((4, 4)))).any()


def test_saved_and_loaded(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    images[4] = IMAGE
    atlas = scan(NET, Arrays(images), "conv2", 6, progress=False)
    found = occlusion(NET, IMAGE, "conv2", window=8, stride=6, atlas=atlas, progress=False)
    own = (atlas["conv2"].images[found.map] == 4).sum()
    assert found.top_values is not None and len(found.top_values) == 5 and own == 1  # its own patch is left out
    found.save(tmp_path / "a")
    again = Occlusion.load(tmp_path / "a")
    for name, value in vars(found).items():
        assert np.array_equal(value, getattr(again, name)) if isinstance(value, np.ndarray) \
            else value == getattr(again, name), name
    assert again.summary == found.summary and found.summary["most_probable"]
    assert np.array_equal(occlusion_picture(again), occlusion_picture(found))
    (tmp_path / "a" / "rows.npy").write_bytes(b"")
    with pytest.raises(ResultError, match=r"rows\.npy"):
        Occlusion.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        Occlusion.load(tmp_path / "b")


@pytest.mark.parametrize(("arguments", "word"), [
    ({"layer": "conv9"}, "conv1, pool1"), ({"layer": "input"}, "conv1"), ({"map": 7}, "0 to 6"), ({"map": -1}, "map"),
    ({"window": 24}, "23 x 20"), ({"window": (3, 21)}, "23 x 20"), ({"window": 0}, "window"), ({"stride": 0}, "stride"),
    ({"fill": 256}, "fill"), ({"fill": (1, 2)}, "fill"), ({"fill": 0.5}, "fill"), ({"label": 3}, "0 to 2"),
    ({"label": "cat"}, "first"), ({"batch_size": 0}, "batch_size"), ({"rule": "magic"}, "deconvnet"),
    ({"image": np.stack([IMAGE, IMAGE])}, "one picture"), ({"image": np.zeros((0, *SHAPE), np.uint8)}, "one picture"),
    ({"image": np.zeros((1, 5, 5, 3), np.uint8)}, "network's input")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        occlusion(NET, **{"image": IMAGE, "layer": "conv2", "window": 8, "progress": False, **arguments})


def test_a_network_without_preprocessing_or_convolution_says_so() -> None:
    net = Network("bare", SHAPE)
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(2))
    with pytest.raises(ValueError, match="preprocessing"):
        occlusion(net.initialize(0), IMAGE)
    net.preprocessing = Preprocessing("RGB")
    with pytest.raises(ValueError, match="no convolution"):
        occlusion(net, IMAGE, window=5)


def test_the_dogs_face_is_what_its_map_needs() -> None:
    """A real AlexNet: covering the dog's face silences the map that found it."""
    path = real_alexnet.data("photos", "cat_dog.png")
    found = occlusion(real_alexnet.alexnet(), path, "conv5", stride=32, progress=False)
    row, column = found.summary["activity"]["lowest_at"]
    assert found.map == 91 and found.activity.min() < 0.3 * found.whole_activity
    assert row <= 40 and 70 <= column <= 110
