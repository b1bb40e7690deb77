"""Feature evolution: what is recorded at an epoch is the strongest activation of that epoch's network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore import layers
from zfcore.data import Arrays, Feed, ImageFiles, Subset
from zfcore.network import Network
from zfcore.pictures import evolution_picture
from zfcore.preprocessing import Preprocessing
from zfcore.study.evolution import Evolution, Recorder
from zfcore.training import SGD, Observer, Training, fit

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
    recorder = Recorder(network(), IMAGES, MAPS, epochs=(3, 1, 64), batch_size=5, look="after")
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


class Naive(Observer):
    """For each map the four strongest images of each epoch's passes, then the strongest of them at its end."""

    def __init__(self, net: Network) -> None:
        self.network, self.found = net, {}  # type: Network, dict[tuple[int, str, int], tuple[float, int]]

    def wanted(self, training: Any) -> list[str]:
        if training.step == 0:
            self.met = {(layer, index): [] for layer, maps in MAPS.items() for index in maps}  # type: dict[Any, Any]
        return list(MAPS)

    def walked(self, training: Any, kept: Any) -> None:
        order = np.random.default_rng([0, training.epoch]).permutation(len(IMAGES))
        for row, image in enumerate(order[training.step * 5:training.step * 5 + 5]):
            for layer, index in self.met:
                self.met[layer, index].append((-float(kept[layer][row][..., index].max()), int(image)))

    def finished(self, training: Any, epoch: Any) -> None:
        everyone = sorted({image for met in self.met.values() for _, image in sorted(met)[:4]})
        x = self.network.preprocessing.apply(IMAGES[everyone])  # type: ignore[union-attr]
        for layer, index in self.met:
            values = self.network.features(x, [layer])[layer][..., index].reshape(len(everyone), -1).max(axis=1)
            self.found[epoch.number + 1, layer, index] = float(values.max()), everyone[int(values.argmax())]


def test_during_an_epoch_the_passes_are_watched() -> None:
    recorder = Recorder(network(), IMAGES, MAPS, epochs=(1, 3), batch_size=5)
    train(recorder)
    naive = Naive(network())
    fit(naive.network, IMAGES, LABELS, epochs=3, batch_size=5, optimizer=SGD(0.01), progress=False, callback=naive)
    found = recorder.result()
    assert found.look == "during" and found.summary["examined"] == list(found.examined)
    for layer, maps in MAPS.items():
        for (line, index), (place, epoch) in itertools.product(enumerate(maps), enumerate((1, 3))):
            value, image = naive.found[epoch, layer, index]
            assert (found.values[layer][line, place], found.images[layer][line, place]) == (np.float32(value), image)


def test_both_looks_agree_where_weights_stay() -> None:
    results = []
    for look in ("during", "after"):
        recorder = Recorder(network(), IMAGES, MAPS, epochs=(1,), look=look)
        fit(recorder.network, IMAGES, LABELS, epochs=1, batch_size=5, optimizer=SGD(0.0), progress=False,
            callback=recorder)
        results.append(recorder.result())
    during, after = results
    assert during.examined[0] <= 12 == after.examined[0]
    for name in ("values", "images", "rows", "columns", "patches", "projections"):
        for layer in MAPS:
            assert np.array_equal(getattr(during, name)[layer], getattr(after, name)[layer]), name


def test_decoded_pictures_and_bad_ones(tmp_path: Path) -> None:
    for number, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (tmp_path / "07.png").write_bytes(b"no picture")
    source = ImageFiles(sorted(tmp_path.iterdir()), LABELS, on_bad="skip")
    results = []
    for images in (source, Subset(source, [index for index in range(12) if index != 7])):
        net = network()
        recorder = Recorder(net, images, MAPS, epochs=(1,))
        feed = Feed(images, net.preprocessing, batch_size=5)  # type: ignore[arg-type]
        Training(net, feed, SGD(0.0)).run(1, observer=recorder, progress=False)
        results.append(recorder.result())
    whole, part = results
    for layer in MAPS:
        assert np.array_equal(whole.values[layer], part.values[layer])
        assert np.array_equal(whole.images[layer], part.images[layer] + (part.images[layer] >= 7))


def test_watching_needs_the_trainings_images_and_passes() -> None:
    with pytest.raises(ValueError, match=r"len\(images\) is 5; allowed: 12, the training images"):
        recorder = Recorder(network(), IMAGES[:5], MAPS, epochs=(1,))
        fit(recorder.network, IMAGES, LABELS, epochs=1, progress=False, callback=recorder)
    with pytest.raises(ValueError, match="callback"):
        Recorder(network(), IMAGES, MAPS).record(1)


@pytest.mark.parametrize("look", ["during", "after"])
def test_recording_changes_nothing(look: str) -> None:
    plain, watched = network(), Recorder(network(), IMAGES, MAPS, epochs=(1, 2), look=look)
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
    ({"images": IMAGES[:0]}, "empty"), ({"look": "before"}, "after")])
def test_bad_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Recorder(network(), **{"images": Arrays(IMAGES), "maps": MAPS, **arguments})


def test_nothing_recorded_is_said() -> None:
    with pytest.raises(ValueError, match="one or more"):
        Recorder(network(), IMAGES, MAPS, epochs=[7]).result()
