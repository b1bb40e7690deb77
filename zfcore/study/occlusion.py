"""Occlusion sensitivity: a gray square slides over an image (Zeiler & Fergus 2014, section 4.2, Fig. 7).

For every position: the total activity of one feature map, the probability of every class, and with
them the most probable class. Only what the square can reach is computed (`network.changes`), exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks, rules
from ..geometry import window_starts
from ..network import unchanging
from ..network.changes import Changes
from . import results
from .atlas import Atlas
from .saved import Saved, class_number, classes_of, network_pixels, probabilities


@dataclass
class Occlusion(Saved):
    """What a sliding square does to a network's view of one image.

    Attributes
    ----------
    image : uint8 (height, width, channels), the unoccluded pixels, RGB or gray
    name : of the image
    rows, columns : first rows and first columns of the square
    window, stride, fill : its size, step and pixel value
    layer, map : the feature map that was watched
    activity : float64 (rows, columns), the map's sum over all positions
    whole_activity : the same for the unoccluded image
    probabilities : float32 (rows, columns, classes); None for a network that is no classifier
    whole_probabilities : float32 (classes,), for the unoccluded image
    label : the class whose probability is drawn
    class_names : or None
    projection, projection_origin : the map's strongest activation projected to pixels, signed, and
        its place in the image
    unit : its name
    top_projections, top_patches, top_origins, top_values : the map's strongest activations over other
        images, or None
    channels : the order of the projections' channels
    multiply_adds, dense_multiply_adds : what was computed, and what whole passes take
    network_hash : SHA-256 of the network
    """

    kind: ClassVar[str] = "occlusion"

    image: np.ndarray
    name: str
    rows: np.ndarray
    columns: np.ndarray
    window: tuple[int, int]
    stride: tuple[int, int]
    fill: tuple[int, ...]
    layer: str
    map: int
    activity: np.ndarray
    whole_activity: float
    probabilities: np.ndarray | None
    whole_probabilities: np.ndarray | None
    label: int | None
    class_names: list[str] | None
    projection: np.ndarray
    projection_origin: tuple[int, int]
    unit: str
    top_projections: np.ndarray | None
    top_patches: np.ndarray | None
    top_origins: np.ndarray | None
    top_values: np.ndarray | None
    channels: str
    multiply_adds: int
    dense_multiply_adds: int
    network_hash: str

    @property
    def probability(self) -> np.ndarray | None:
        """float32 (rows, columns): the probability of `label`."""
        return None if self.probabilities is None else self.probabilities[..., self.label]

    @property
    def most_probable(self) -> np.ndarray | None:
        """int (rows, columns): the most probable class, the first of equal ones."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=2)

    def class_name(self, number: int) -> str:
        """A class's name, or its number in words."""
        return self.class_names[number] if self.class_names else f"class {number}"

    def in_pixels(self, values: np.ndarray) -> np.ndarray:
        """A map over positions, (rows, columns), brought to pixels, float64 (height, width).

        A pixel gets the mean over the squares that cover it.
        """
        checks.shape("Occlusion.in_pixels", "values", values, (len(self.rows), len(self.columns)))
        total = np.zeros(self.image.shape[:2])
        count = np.zeros(self.image.shape[:2])
        for (i, j), value in np.ndenumerate(values):
            square = (slice(self.rows[i], self.rows[i] + self.window[0]),
                      slice(self.columns[j], self.columns[j] + self.window[1]))
            total[square] += value
            count[square] += 1
        covered = count > 0  # with a stride above the window some pixels are never hidden
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=covered)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """A map over positions brought to pixels: each gets that of the square whose centre is nearest."""
        checks.shape("Occlusion.nearest", "values", values, (len(self.rows), len(self.columns)))
        chosen = [np.abs(np.arange(size)[:, None] - (first + (window - 1) / 2)).argmin(axis=1) for size, first, window
                  in zip(self.image.shape[:2], (self.rows, self.columns), self.window, strict=True)]
        return values[chosen[0][:, None], chosen[1]]

    @property
    def summary(self) -> dict[str, Any]:
        """Counts and extremes for people and for JSON."""
        found: dict[str, Any] = {
            "image": self.name, "positions": int(self.activity.size), "window": list(self.window),
            "stride": list(self.stride), "fill": list(self.fill), "unit": self.unit,
            "activity": {"whole": self.whole_activity, "lowest": float(self.activity.min()),
                         "highest": float(self.activity.max()), "lowest_at": self._place(self.activity.argmin())},
            "multiply_adds_saved": round(self.dense_multiply_adds / max(self.multiply_adds, 1), 2)}
        probability, best = self.probability, self.most_probable
        if probability is not None and best is not None and self.whole_probabilities is not None:
            numbers, counts = np.unique(best, return_counts=True)
            found["class"] = self.class_name(self.label or 0)
            found["probability"] = {
                "whole": float(self.whole_probabilities[self.label]), "lowest": float(probability.min()),
                "highest": float(probability.max()), "lowest_at": self._place(probability.argmin())}
            order = np.argsort(-counts, kind="stable")
            found["most_probable"] = {self.class_name(int(numbers[place])): int(counts[place]) for place in order}
        return found

    def _place(self, index: Any) -> list[int]:
        i, j = np.unravel_index(int(index), self.activity.shape)
        return [int(self.rows[i]), int(self.columns[j])]


def strongest_map(network: Any, x: Any, layer: str) -> int:
    """The map of a layer with the largest activation in one image (the first of equal ones)."""
    tensor = np.asarray(network.features(x, [layer])[layer])
    return int(tensor.reshape(-1, tensor.shape[-1]).max(axis=0).argmax())


def last_convolution(network: Any) -> str:
    """Name of the last convolution."""
    found = [row.name for row in network.layers() if row.type == "Convolution"]
    checks.require(bool(found), "study", "layer", None, "a layer's name (the network has no convolution)")
    return str(found[-1])


@unchanging
def occlusion(network: Any, image: Any, layer: str | None = None, *, map: int | None = None, label: Any = None,
              window: int | tuple[int, int] = 32, stride: int | tuple[int, int] = 8, fill: Any = 128,
              atlas: Atlas | None = None, rule: str = "deconvnet", batch_size: int = 64, local: bool = True,
              progress: bool = True) -> Occlusion:
    """Slide a square over an image and watch a feature map and the classes.

    Parameters
    ----------
    network : with parameters and a preprocessing
    image : one picture: a path, uint8 pixels, or what else `data.open_images` takes
    layer : whose map is watched; None: the last convolution
    map : which one; None: the one with the largest activation in the unoccluded image
    label : class whose probability is drawn, by number or name; None: the most probable one
    window, stride : of the square in pixels, one number or (vertical, horizontal)
    fill : its pixels, 0..255, one number or one a channel (RGB), before preprocessing
    atlas : of this network, with `layer`: its entries of the map are shown beside
    rule : of the projections
    batch_size : positions at a time; the result does not depend on it
    local : compute only what the square can reach; False: all of it, with the same bits
    progress : show a bar on stderr

    Returns
    -------
    Occlusion

    Raises
    ------
    ValueError : unknown layer, map or class; a window larger than the image; not one picture
    """
    from tqdm import tqdm

    where = "occlusion"
    pixels, names = network_pixels(where, network, image)
    checks.require(len(pixels) == 1, where, "len(image)", len(pixels), "one picture")
    size = checks.pair(where, "window", window, 1)
    step = checks.pair(where, "stride", stride, 1)
    checks.integer(where, "batch_size", batch_size, 1)
    height, width, channels = network.input_shape
    checks.require(size[0] <= height and size[1] <= width, where, "window", window,
                   f"at most the image's {height} x {width}")
    layer = last_convolution(network) if layer is None else layer
    shape = network.tensor_shape(layer)
    checks.require(layer in network.nodes or layer.endswith(".pre"), where, "layer", layer,
                   "one of " + ", ".join(network.nodes))
    color = _color(fill, channels)
    rules.get(rule)
    count = classes_of(network)
    if map is not None:
        checks.integer(where, "map", map, 0)
        checks.require(map < shape[-1], where, "map", map, f"0 to {shape[-1] - 1} in layer {layer}")
    number = None if label is None else class_number(where, network, label)
    prepare = network.preprocessing.apply
    x = prepare(pixels)
    keep = [layer] + ([network.output] if count and network.output != layer else [])
    changes = Changes(network, x, keep, local)
    base = backends.to_numpy(changes.base[layer])
    map = int(base.reshape(-1, shape[-1]).max(axis=0).argmax()) if map is None else map
    whole = probabilities(network, backends.to_numpy(changes.base[network.output]))[0] if count else None
    if number is None and whole is not None:
        number = int(whole.argmax())
    rows, columns = (window_starts(*sides) for sides in zip((height, width), size, step, strict=True))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    # The square's numbers depend on its place where the mean does: preprocess a whole image of it.
    gray = prepare(np.broadcast_to(color, (1, height, width, channels)).astype(np.uint8))[0]
    activity = np.empty(len(places))
    found = None if whole is None else np.empty((len(places), len(whole)), np.float32)
    with tqdm(total=len(places), desc="occlusion", unit="position", disable=not progress) as bar:
        for begin in range(0, len(places), batch_size):
            part = places[begin:begin + batch_size]
            tiles = np.stack([gray[r:r + size[0], c:c + size[1]] for r, c in part])
            changed = changes.run(tiles, part)
            activity[begin:begin + len(part)] = _activity(base[0, ..., map], changed[layer], map)
            if found is not None:
                output = changes.whole(network.output, changed[network.output])
                found[begin:begin + len(part)] = probabilities(network, np.asarray(output))
            bar.update(len(part))
    over = len(rows), len(columns)
    projected = network.project(x, f"{layer}:{map}", rule, allow_negative=True)
    return Occlusion(
        image=np.array(pixels[0]), name=names[0], rows=rows, columns=columns, window=size, stride=step,
        fill=tuple(int(value) for value in color), layer=layer, map=map, activity=activity.reshape(over),
        whole_activity=float(base[0, ..., map].sum(dtype=np.float64)),
        probabilities=None if found is None else found.reshape(*over, -1),
        whole_probabilities=None if whole is None else np.array(whole), label=number,
        class_names=network.class_names, projection=projected.pixels[0],
        projection_origin=(int(projected.origins[0, 0]), int(projected.origins[0, 1])),
        unit=str(projected.units[0]), **_others(atlas, network, layer, map, rule, pixels[0]),
        channels=network.preprocessing.channels, multiply_adds=changes.computed, dense_multiply_adds=changes.dense,
        network_hash=results.network_hash(network))


def _color(fill: Any, channels: int) -> np.ndarray:
    values = np.asarray(fill)
    valid = values.dtype.kind in "iu" and values.shape in ((), (channels,))
    checks.require(bool(valid) and 0 <= values.min() and values.max() <= 255, "occlusion", "fill", fill,
                   f"an integer 0..255, or {channels} of them")
    return np.broadcast_to(values, (channels,))


def _activity(base: np.ndarray, part: Any, map: int) -> np.ndarray:
    """Sum of a map over all positions, for each changed image; in one order, so that batches do not matter."""
    array = np.asarray(part.array[..., map])
    if array.shape[1:] == base.shape:
        wholes = array
    else:
        wholes = np.repeat(base[None], len(array), axis=0)
        height, width = array.shape[1:]
        for whole, cells, (row, column) in zip(wholes, array, part.origins.tolist(), strict=True):
            whole[row:row + height, column:column + width] = cells
    return np.array([np.ascontiguousarray(whole).sum(dtype=np.float64) for whole in wholes])


def _others(atlas: Atlas | None, network: Any, layer: str, map: int, rule: str, pixels: np.ndarray) -> dict[str, Any]:
    """The map's strongest activations over an atlas's images, but for this very image."""
    names = ("top_projections", "top_patches", "top_origins", "top_values")
    if atlas is None:
        return dict.fromkeys(names)
    part = atlas[layer]
    projected = atlas.project(rule, layers=[layer], maps=[map], network=network)[layer][0]
    ranks, patches = [], part.cut(map)
    for rank in np.flatnonzero(part.filled[map]):
        row, column = part.origins[map, rank].tolist()
        height, width = part.patch_shape[:2]
        inside = (slice(max(row, 0), row + height), slice(max(column, 0), column + width))
        shown = pixels[inside]
        same = patches[rank, max(-row, 0):max(-row, 0) + shown.shape[0],
                       max(-column, 0):max(-column, 0) + shown.shape[1]]
        if not np.array_equal(shown, same):  # the image's own patch would be no other image's
            ranks.append(int(rank))
    arrays = (projected[ranks], patches[ranks], part.origins[map][ranks], part.values[map][ranks])
    return dict(zip(names, arrays, strict=True))
