"""Feature evolution: what is recorded at an epoch is the strongest activation of that epoch's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zfcore import layers
from zfcore.data import Arrays
from zfcore.network import Network
from zfcore.pictures import evolution_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.evolution import Evolution, Recorder
from zfcore.training import SGD, fit

SHAPE = (17, 14, 3)
IMAGES = np.random.default_rng(1).integers(0, 256, (12, *SHAPE), dtype=np.uint8)
LABELS = np.arange(12) % 2
MAPS = {"conv1": [4, 0], "conv2": [1], "fc": [1]}


def network() -> Network:
    net = Network("small", SHAPE, preprocessing=Preprocessing("BGR", 120.0, 0.02))
    net.add("conv1", layers.Convolution(5, 3, stride=2, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", layers.Convolution(6, 3, padding=1, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(2))
    return net.initialize(0, "he")


def train(callback: Any, epochs: int = 3) -> Network:
    net = network() if not isinstance(callback, Recorder) else callback.network
    fit(net, IMAGES, LABELS, epochs=epochs, batch_size=5, optimizer=SGD(0.01), progress=False, callback=callback)
    return net


@pytest.fixture(scope="module")
def found() -> Evolution:
    recorder = Recorder(network(), IMAGES, MAPS, epochs=(3, 1, 64), batch_size=5)
    train(recorder)
    return recorder.result()


def test_equals_a_plain_search_of_that_epochs_network(found: Evolution) -> None:
    assert found.epochs == (1, 3)
    seen = {1: {}, 3: {}}  # type: dict[int, dict[str, np.ndarray]]
    net = network()

    def look(epoch: Any) -> None:
        if epoch.number + 1 in seen:
            x = net.preprocessing.apply(IMAGES)  # type: ignore[union-attr]
            place = (1, 3).index(epoch.number + 1)
            for layer, maps in MAPS.items():
                tensor = net.features(x, [layer])[layer]
                for line, index in enumerate(maps):
                    flat = tensor[..., index].reshape(len(x), -1)
                    image, position = np.unravel_index(flat.argmax(), flat.shape)
                    assert found.values[layer][line, place] == flat.max()
                    assert found.images[layer][line, place] == image
                    if tensor.ndim == 4:
                        row, column = divmod(int(position), tensor.shape[2])
                        assert (found.rows[layer][line, place], found.columns[layer][line, place]) == (row, column)
                    if flat.max() > 0:
                        unit = f"{layer}:{index}"
                        whole = net.project(x[image:image + 1], unit, crop=False).pixels[0]
                        tile = found.projections[layer][line, place]
                        assert np.count_nonzero(tile) == np.count_nonzero(whole)
                        assert tile.sum(dtype=float) == pytest.approx(whole.sum(dtype=float), abs=1e-5)
            seen[epoch.number + 1] = {"done": x}

    fit(net, IMAGES, LABELS, epochs=3, batch_size=5, optimizer=SGD(0.01), progress=False, callback=look)
    assert all(seen.values())


def test_recording_changes_nothing() -> None:
    plain, watched = network(), Recorder(network(), IMAGES, MAPS, epochs=(1, 2))
    fit(plain, IMAGES, LABELS, epochs=2, batch_size=5, optimizer=SGD(0.01), progress=False)
    train(watched, 2)
    for name, value in plain.parameters().items():
        assert np.array_equal(value, watched.network.parameters()[name]), name


def test_patches_are_the_receptive_fields(found: Evolution) -> None:
    padded = np.pad(IMAGES, ((0, 0), (20, 20), (20, 20), (0, 0)))
    patches, origins = found.patches["conv2"], found.origins["conv2"]
    for line, place in np.ndindex(patches.shape[:2]):
        row, column = origins[line, place] + 20
        image = padded[found.images["conv2"][line, place]]
        assert np.array_equal(patches[line, place],
                              image[row:row + patches.shape[2], column:column + patches.shape[3]])


def test_saved_and_loaded(found: Evolution, tmp_path: Path) -> None:
    found.save(tmp_path / "a")
    again = Evolution.load(tmp_path / "a")
    for name, value in vars(found).items():
        other = getattr(again, name)
        if isinstance(value, dict):
            assert list(value) == list(other) and all(np.array_equal(value[key], other[key]) for key in value), name
        else:
            assert value == other, name
    assert again.summary == found.summary
    assert np.array_equal(evolution_picture(again), evolution_picture(found))
    assert evolution_picture(found, patches=False).shape[0] < evolution_picture(found).shape[0]


@pytest.mark.parametrize(("arguments", "word"), [
    ({"maps": {"conv9": [0]}}, "conv1"), ({"maps": {}}, "one layer"), ({"maps": {"conv1": []}}, "one map"),
    ({"maps": {"conv1": [5]}}, "0 to 4"), ({"maps": {"conv1": [0, 0]}}, "each once"), ({"epochs": []}, "epochs"),
    ({"epochs": [0]}, "epochs"), ({"rule": "x"}, "deconvnet"), ({"batch_size": 0}, "batch_size"),
    ({"images": IMAGES[:0]}, "empty")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Recorder(network(), **{"images": Arrays(IMAGES), "maps": MAPS, **arguments})


def test_nothing_recorded_is_said() -> None:
    with pytest.raises(ValueError, match="one or more"):
        Recorder(network(), IMAGES, MAPS, epochs=[7]).result()
