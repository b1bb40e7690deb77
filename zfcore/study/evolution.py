"""Feature evolution: what a map responds to most, epoch by epoch (Zeiler & Fergus 2014, section 4, Fig. 4).

    recorder = Recorder(net, images, {"conv1": [0, 1, 2], "conv2": [5, 6]}, epochs=(1, 2, 5, 10))
    fit(net, images, labels, epochs=10, callback=recorder)
    recorder.result().save("evolution")
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks, rules
from ..data import Stream, open_images, subset
from ..geometry import Tile
from ..training.loop import Observer
from .saved import Saved
from .top import copy_part, patch_origins, patch_size

EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)  # the paper's
LOOKS = ("during", "after")
CANDIDATES = (4, 64)  # images a map that the passes of an epoch leave to be looked at again, at least and at most


@dataclass
class Evolution(Saved):
    """The strongest activation of chosen maps over the training images at some epochs, and its projection.

    Attributes
    ----------
    epochs : finished passes over the training images, rising
    layers : names of the layers
    maps : int (m,) by layer
    values, images, rows, columns : (m, epochs) by layer: activation, number of the image, position in the map
    origins : int (m, epochs, 2) by layer, the patches' first cells
    patches : uint8 (m, epochs, height, width, channels) by layer
    projections : float32 like the patches: signed, in the network's order of channels, zero for an
        activation that is not above zero
    channels : that order
    extent : (height, width) of the images
    rule : of the projections
    look : "during" or "after" the epoch, see `Recorder`
    examined : how many images were walked up for each recording, beside the training itself
    seconds : that each recording took, what was done during the epoch included
    losses, accuracies : of the epochs, as training reported them
    """

    kind: ClassVar[str] = "evolution"

    epochs: tuple[int, ...]
    layers: tuple[str, ...]
    maps: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    origins: dict[str, np.ndarray]
    patches: dict[str, np.ndarray]
    projections: dict[str, np.ndarray]
    channels: str
    extent: tuple[int, int]
    rule: str
    look: str
    examined: tuple[int, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """How the strongest activations grew, and how often the strongest image was another one."""
        layers = {}
        for layer in self.layers:
            images = self.images[layer]
            layers[layer] = {"maps": self.maps[layer].tolist(), "strongest": self.values[layer].tolist(),
                             "jumps": (images[:, 1:] != images[:, :-1]).sum(axis=1).tolist()}
        return {"epochs": list(self.epochs), "layers": layers, "losses": list(self.losses),
                "accuracies": list(self.accuracies), "look": self.look,
                "examined": list(self.examined), "seconds": [round(value, 3) for value in self.seconds]}


class Recorder(Observer):
    """An observer of a training that looks at chosen maps at chosen epochs: `fit(..., callback=recorder)`.

    `look` says how the strongest activation over the training images is found:

    - "during": every training pass of a chosen epoch is watched, and the images in which a map was strongest
      are kept, as the network was at their step: four a map, more where all together stay below a fiftieth
      of the images, at most 64. At the epoch's end these are walked up anew, as they are without augmentation,
      and the strongest is taken. That costs next to nothing. An image that only the epoch's last weights would
      find is missed.
    - "after": at the epoch's end all images are walked up: exact, for about a quarter of an epoch's time.

    Parameters
    ----------
    network : the one that is trained
    images : its training images, in the training's order: what `data.open_images` takes; "after" also works on
        a part of them
    maps : which maps, by layer
    epochs : after which passes over the training images to look, from 1
    rule : of the projections
    batch_size : images at a time; the result does not depend on it
    look : "during" or "after"
    """

    def __init__(self, network: Any, images: Any, maps: Mapping[str, Sequence[int]], *,
                 epochs: Sequence[int] = EPOCHS, rule: str = "deconvnet", batch_size: int = 64,
                 look: str = "during") -> None:
        where = "evolution"
        self.network, self.source = network, open_images(images)
        checks.require(len(self.source) > 0, where, "images", "an empty data set", "at least one image")
        checks.require(isinstance(maps, Mapping) and len(maps) > 0, where, "maps", maps, "maps of one layer or more")
        self.maps: dict[str, np.ndarray] = {}
        for layer, chosen in maps.items():
            network.cone(layer)
            count = network.tensor_shape(layer)[-1]
            for index in chosen:
                checks.integer(where, f"a map of {layer}", index, 0)
                checks.require(index < count, where, f"a map of {layer}", index, f"0 to {count - 1}")
            checks.require(len(chosen) > 0 and len(set(chosen)) == len(chosen), where, f"maps[{layer!r}]",
                           list(chosen), "one map or more, each once")
            self.maps[layer] = np.asarray(chosen, np.int64)
        checks.require(len(epochs) > 0 and all(checks.integer(where, "epochs", each, 1) for each in epochs), where,
                       "epochs", epochs, "integers >= 1")
        checks.integer(where, "batch_size", batch_size, 1)
        if network.preprocessing is None:
            checks.fail(where, "network.preprocessing", None, "a Preprocessing: how pixels become the input")
        checks.one_of(where, "look", look, LOOKS)
        self.epochs, self.rule, self.batch_size, self.look = sorted(set(epochs)), rules.get(rule).name, batch_size, look
        self._found: list[dict[str, dict[str, np.ndarray]]] = []
        self._at: list[tuple[int, int, float, float, float]] = []
        self._met: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # by layer: values and images, (maps, candidates)
        self._order = np.zeros(0, np.int64)
        least, most = CANDIDATES
        watched = sum(len(chosen) for chosen in self.maps.values())
        self._candidates = min(max(len(self.source) // (50 * watched), least), most)
        self._seconds, self._watched = 0.0, -1  # what watching took in the epoch, and which that is

    # During an epoch

    def wanted(self, training: Any) -> Collection[str]:
        """The chosen layers, in the chosen epochs."""
        return tuple(self.maps) if self.look == "during" and training.epoch + 1 in self.epochs else ()

    def walked(self, training: Any, kept: Mapping[str, Any]) -> None:
        """Keep the images of a training batch in which a map was stronger than in those kept so far."""
        if not kept or not self.wanted(training):
            return
        begun, feed = time.perf_counter(), training.feed
        checks.require(feed.count == len(self.source), "evolution", "len(images)", len(self.source),
                       f"{feed.count}, the training images (or look=\"after\")")
        if self._watched != training.epoch:
            self._met, self._seconds, self._watched = {}, 0.0, training.epoch
            self._order = feed.order(training.epoch)
        images = self._order[training.step * feed.batch_size:(training.step + 1) * feed.batch_size]
        if skipped := getattr(feed, "skipped", None):
            images = np.array([index for index in images.tolist() if index not in skipped], np.int64)
        for layer, maps in self.maps.items():
            values = self._maxima(kept[layer])[0][:, maps].T
            known = self._met.get(layer, (np.empty((len(maps), 0), np.float32), np.empty((len(maps), 0), np.int64)))
            if known[0].shape[1] == self._candidates and (values.max(axis=1) < known[0][:, -1]).all():
                continue  # after the first steps nearly every batch
            values = np.concatenate([known[0], values], axis=1)
            numbers = np.concatenate([known[1], np.broadcast_to(images, (len(maps), len(images)))], axis=1)
            chosen = np.lexsort((numbers, -values), axis=1)[:, :self._candidates]
            self._met[layer] = np.take_along_axis(values, chosen, axis=1), np.take_along_axis(numbers, chosen, axis=1)
        self._seconds += time.perf_counter() - begun

    def finished(self, training: Any, epoch: Any) -> None:
        """Look, if this epoch is one of the chosen."""
        self(epoch)

    def _maxima(self, tensor: Any) -> tuple[np.ndarray, np.ndarray]:
        """Each image's strongest value of every map and where it is, (n, maps)."""
        ops = self.network.ops
        values, places = (tensor, np.zeros(tensor.shape, np.int32)) if tensor.ndim == 2 else ops.map_maximum(tensor)
        return ops.backend.to_numpy(values), np.asarray(ops.backend.to_numpy(places))

    # At its end

    def __call__(self, epoch: Any) -> None:
        """Look, if this epoch is one of the chosen."""
        if epoch.number + 1 in self.epochs:
            self.record(epoch.number + 1, epoch.loss, epoch.accuracy)

    def record(self, epoch: int, loss: float = float("nan"), accuracy: float = float("nan")) -> None:
        """Find the strongest activations now and project them."""
        begun, seconds = time.perf_counter(), self._seconds
        indices = np.arange(len(self.source))
        if self.look == "during":
            checks.require(bool(self._met), "evolution", "passes watched", 0,
                           "those of an epoch: give the recorder to fit as its callback, or look=\"after\"")
            indices = np.unique(np.concatenate([numbers.ravel() for _, numbers in self._met.values()]))
        self._found.append(self._look(indices))
        self._met, self._seconds = {}, 0.0
        self._at.append((epoch, len(indices), seconds + time.perf_counter() - begun, loss, accuracy))

    def _look(self, indices: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        network, layers = self.network, list(self.maps)
        best: dict[str, list[np.ndarray]] = {layer: [np.full(len(maps), -np.inf, np.float32),
                                                    *(np.zeros(len(maps), np.int64) for _ in range(2))]
                                            for layer, maps in self.maps.items()}
        for batch in Stream(subset(self.source, indices), network.preprocessing, self.batch_size):
            pixels = network.ops.backend.asarray(network.preprocessing.apply(batch.pixels))
            tensors = network.features(pixels, layers)
            for layer, maps in self.maps.items():
                values, places = (backends.to_numpy(each)[:, maps] for each in self._maxima(tensors[layer]))
                first = values.argmax(axis=0)  # of equal ones the first image
                column = np.arange(len(maps))
                better = values[first, column] > best[layer][0]
                for target, source in zip(best[layer], (values[first, column], indices[batch.indices[first]],
                                                        places[first, column]), strict=True):
                    target[better] = source[better]
        return {layer: self._project(layer, *best[layer]) for layer in layers}

    def _project(self, layer: str, values: np.ndarray, images: np.ndarray, places: np.ndarray
                 ) -> dict[str, np.ndarray]:
        network = self.network
        cone, shape = network.cone(layer), network.tensor_shape(layer)
        rows, columns = np.divmod(places, shape[1]) if len(shape) == 3 else (places, places)
        pixels = np.stack([self.source.load(int(index), network.preprocessing) for index in images])
        origins = patch_origins(cone, rows, columns)
        patches = np.zeros((len(values), *patch_size(cone), pixels.shape[3]), np.uint8)
        for patch, origin, image in zip(patches, origins, pixels, strict=True):
            copy_part(patch, origin, image, (0, 0))
        projections = np.zeros(patches.shape, np.float32)
        alive = np.flatnonzero(values > 0)
        if len(alive):
            starts = cone.origins(rows[alive], columns[alive])
            tiles = cone.extract(pixels, alive, starts)
            x = network.preprocessing.apply(tiles, Tile(starts, network.input_shape[:2]))
            found, _ = network.project_tiles(x, starts, layer, self.maps[layer][alive], rows[alive], columns[alive],
                                             self.rule, batch_size=self.batch_size)
            for line, tile, start in zip(alive, found, starts, strict=True):
                copy_part(projections[line], origins[line], tile, start)
        return {"values": values, "images": images, "rows": rows, "columns": columns, "origins": origins,
                "patches": patches, "projections": projections}

    def result(self) -> Evolution:
        """What was recorded so far; ValueError if nothing was."""
        checks.require(bool(self._found), "evolution", "epochs recorded", 0,
                       f"one or more (they were to be {', '.join(map(str, self.epochs))})")
        arrays = {name: {layer: np.stack([found[layer][name] for found in self._found], axis=1)
                         for layer in self.maps} for name in self._found[0][next(iter(self.maps))]}
        epochs, examined, seconds, losses, accuracies = zip(*self._at, strict=True)
        height, width, _ = self.network.input_shape
        return Evolution(epochs=epochs, layers=tuple(self.maps), maps=dict(self.maps), **arrays,
                         channels=self.network.preprocessing.channels, extent=(height, width), rule=self.rule,
                         look=self.look, examined=examined, seconds=seconds, losses=_json(losses),
                         accuracies=_json(accuracies))


def _json(values: Sequence[float]) -> tuple[Any, ...]:
    """Numbers for JSON: None for what is not finite."""
    return tuple(float(value) if np.isfinite(value) else None for value in values)
