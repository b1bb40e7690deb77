"""Invariance: how features move when an image is shifted, enlarged or turned (Zeiler & Fergus 2014, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import checks
from . import results
from .saved import Saved, class_number, classes_of, network_pixels, probabilities

TRANSLATIONS = np.arange(-60, 61, 4.0)
SCALES = np.round(np.arange(1, 1.81, 0.04), 9)
ROTATIONS = np.arange(0, 361, 10.0)
KINDS = ("translation", "scale", "rotation")
BORDERS = ("fill", "edge")


@dataclass
class Invariance(Saved):
    """Distances from the untransformed image's features, and the probability of its class.

    Attributes
    ----------
    names : of the images
    layers : names of the tensors, the early ones first
    images : uint8 (images, height, width, channels)
    translation, scale, rotation : float64 (n,): pixels downwards, factors, degrees counter-clockwise
    translation_distances, scale_distances, rotation_distances : float64 (layers, images, n), Euclidean
    translation_probabilities, scale_probabilities, rotation_probabilities : float32 (images, n) of the
        image's class; None for a network that is no classifier
    norms : float64 (layers, images), Euclidean norm of the untransformed images' features
    labels : class of each image, or None
    class_names : or None
    border, fill : what is shown outside the image
    network_hash : SHA-256 of the network
    """

    kind: ClassVar[str] = "invariance"

    names: tuple[str, ...]
    layers: tuple[str, ...]
    images: np.ndarray
    translation: np.ndarray
    scale: np.ndarray
    rotation: np.ndarray
    translation_distances: np.ndarray
    scale_distances: np.ndarray
    rotation_distances: np.ndarray
    translation_probabilities: np.ndarray | None
    scale_probabilities: np.ndarray | None
    rotation_probabilities: np.ndarray | None
    norms: np.ndarray
    labels: tuple[int, ...] | None
    class_names: list[str] | None
    border: str
    fill: int
    network_hash: str

    def series(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Amounts, distances and probabilities of "translation", "scale" or "rotation"."""
        checks.one_of("Invariance", "kind", kind, KINDS)
        return (getattr(self, kind), getattr(self, f"{kind}_distances"), getattr(self, f"{kind}_probabilities"))

    @property
    def relative(self) -> dict[str, np.ndarray]:
        """Distances divided by the norm of the untransformed features, by kind: layers compare."""
        norms = np.where(self.norms > 0, self.norms, 1)[:, :, None]
        return {kind: self.series(kind)[1] / norms for kind in KINDS}

    @property
    def summary(self) -> dict[str, Any]:
        """For each kind and layer the mean distance over images and amounts, and how fast it comes."""
        found: dict[str, Any] = {"images": list(self.names), "layers": {}}
        for number, layer in enumerate(self.layers):
            rows = {}
            for kind in KINDS:
                amounts, distances, _ = self.series(kind)
                curve = (self.relative[kind][number]).mean(axis=0)
                least = int(np.abs(amounts - (1 if kind == "scale" else 0)).argmin())
                step = min(least + 1, len(amounts) - 1)
                rows[kind] = {"mean_relative_distance": float(curve.mean()),
                              "largest_relative_distance": float(curve.max()),
                              "after_the_first_step": float(curve[step]), "first_step": float(amounts[step])}
            found["layers"][layer] = rows
        if self.labels is not None:
            found["classes"] = [self.class_names[label] if self.class_names else label for label in self.labels]
            found["probability"] = {}
            for kind in KINDS:
                chances = self.series(kind)[2]
                if chances is not None:
                    found["probability"][kind] = {"mean": float(chances.mean()), "lowest": float(chances.min())}
        return found


def warp(image: np.ndarray, matrix: np.ndarray, border: str = "fill", fill: int = 128) -> np.ndarray:
    """Resample an image bilinearly.

    Parameters
    ----------
    image : uint8 (height, width, channels)
    matrix : float (2, 3): output cell (row, column, 1), counted from the image's centre, comes from
        the input cell `matrix @ (row, column, 1)`, counted from the centre too
    border : "fill": `fill` outside the image; "edge": the nearest pixel of the image
    fill : pixel value

    Returns
    -------
    uint8 array of the same shape
    """
    height, width, channels = image.shape
    middle = (height - 1) / 2, (width - 1) / 2
    rows, columns = np.arange(height)[:, None] - middle[0], np.arange(width) - middle[1]
    places = []
    for axis in range(2):
        place = matrix[axis, 0] * rows + matrix[axis, 1] * columns + matrix[axis, 2] + middle[axis]
        place = np.broadcast_to(place, (height, width))
        places.append(np.where(np.abs(place - np.rint(place)) < 1e-9, np.rint(place), place))  # cos(90 deg) is 6e-17
    pad = np.full((height + 2, width + 2, channels), float(fill))
    if border == "edge":
        pad = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    else:
        pad[1:-1, 1:-1] = image
    # One cell of border all around: what lies further out is cut back to it.
    y, x = (np.clip(place + 1, 0, size + 1) for place, size in zip(places, (height, width), strict=True))
    top, left = np.minimum(np.floor(y), height).astype(int), np.minimum(np.floor(x), width).astype(int)
    down, right = (y - top)[..., None], (x - left)[..., None]
    upper = pad[top, left] * (1 - right) + pad[top, left + 1] * right
    lower = pad[top + 1, left] * (1 - right) + pad[top + 1, left + 1] * right
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def transformed(image: np.ndarray, kind: str, amount: float, border: str = "fill", fill: int = 128) -> np.ndarray:
    """One image, translated down by pixels, enlarged about its centre, or turned counter-clockwise by degrees.

    Parameters
    ----------
    image : uint8 (height, width, channels)
    kind : "translation", "scale" or "rotation"
    amount : pixels, a factor above 0, or degrees
    border, fill : see `warp`
    """
    checks.one_of("transformed", "kind", kind, KINDS)
    if kind == "translation":
        matrix = np.array([[1, 0, -amount], [0, 1, 0]])
    elif kind == "scale":
        matrix = np.array([[1 / amount, 0, 0], [0, 1 / amount, 0]])
    else:
        angle = np.deg2rad(amount % 360)
        cosine, sine = np.cos(angle), np.sin(angle)
        matrix = np.array([[cosine, sine, 0], [-sine, cosine, 0]])
    return warp(image, matrix, border, fill)


def invariance(network: Any, images: Any, layers: Sequence[str] | str, *, labels: Sequence[Any] | None = None,
               translations: Any = TRANSLATIONS, scales: Any = SCALES, rotations: Any = ROTATIONS,
               border: str = "fill", fill: int = 128, batch_size: int = 32, progress: bool = True) -> Invariance:
    """Shift, enlarge and turn images, and see how far their features move.

    Parameters
    ----------
    network : with parameters and a preprocessing
    images : what `data.open_images` takes, one or more
    layers : names of tensors, such as an early and a late one (the paper: 1 and 7)
    labels : each image's class, a number or a name; None: the most probable one of the untransformed image
    translations : pixels, positive ones move the image down
    scales : factors above 0
    rotations : degrees, counter-clockwise
    border : "fill" or "edge": what is shown where the image does not reach
    fill : pixel value for "fill", 0..255
    batch_size : images at a time; the result does not depend on it
    progress : show a bar on stderr

    Returns
    -------
    Invariance

    Raises
    ------
    ValueError : no image, unknown layers or classes, amounts that are not finite numbers
    """
    from tqdm import tqdm

    where = "invariance"
    names = [layers] if isinstance(layers, str) else list(layers)
    checks.require(len(names) > 0 and len(set(names)) == len(names), where, "layers", layers, "names, each once")
    for name in names:
        network.cone(name)
    checks.integer(where, "batch_size", batch_size, 1)
    checks.one_of(where, "border", border, BORDERS)
    checks.require(checks.integer(where, "fill", fill, 0) <= 255, where, "fill", fill, "0 to 255")
    amounts = {"translation": _amounts("translations", translations), "scale": _amounts("scales", scales),
               "rotation": _amounts("rotations", rotations)}
    checks.require(bool((amounts["scale"] > 0).all()), where, "scales", scales, "factors above 0")
    pixels, shown = network_pixels(where, network, images)
    checks.require(len(pixels) > 0, where, "len(images)", len(pixels), "one image or more")
    count = classes_of(network)
    if labels is not None:
        checks.require(len(labels) == len(pixels) and count > 0, where, "labels", labels,
                       f"{len(pixels)} classes, for a classifier")
        labels = [class_number(where, network, label) for label in labels]
    keep = [*names, *([network.output] if count and network.output not in names else [])]
    prepare = network.preprocessing.apply
    total = len(pixels) * sum(len(each) for each in amounts.values())
    distances = {kind: np.empty((len(names), len(pixels), len(each))) for kind, each in amounts.items()}
    chances = {kind: np.empty((len(pixels), len(each)), np.float32) for kind, each in amounts.items()}
    norms, chosen = np.empty((len(names), len(pixels))), []
    with tqdm(total=total, desc=where, unit="image", disable=not progress) as bar:
        for index, image in enumerate(pixels):
            base = network.features(prepare(image[None]), keep)
            label = -1
            if count:
                label = labels[index] if labels is not None else int(np.asarray(base[network.output])[0].argmax())
                chosen.append(int(label))
            for number, name in enumerate(names):
                norms[number, index] = np.linalg.norm(np.asarray(base[name], np.float64))
            jobs = [(kind, place) for kind, each in amounts.items() for place in range(len(each))]
            for begin in range(0, len(jobs), batch_size):
                part = jobs[begin:begin + batch_size]
                batch = np.stack([transformed(image, kind, amounts[kind][place], border, fill)
                                  for kind, place in part])
                found = network.features(prepare(batch), keep)
                outputs = probabilities(network, np.asarray(found[network.output])) if count else None
                for line, (kind, place) in enumerate(part):
                    for number, name in enumerate(names):
                        change = np.asarray(found[name][line], np.float64) - np.asarray(base[name][0], np.float64)
                        distances[kind][number, index, place] = np.linalg.norm(change)
                    if outputs is not None:
                        chances[kind][index, place] = outputs[line, label]
                bar.update(len(part))
    return Invariance(
        names=tuple(shown), layers=tuple(names), images=np.array(pixels), **amounts,
        **{f"{kind}_distances": each for kind, each in distances.items()},
        **{f"{kind}_probabilities": each if count else None for kind, each in chances.items()},  # type: ignore[arg-type]
        norms=norms, labels=tuple(chosen) if count else None, class_names=network.class_names, border=border,
        fill=fill, network_hash=results.network_hash(network))


def _amounts(name: str, values: Any) -> np.ndarray:
    try:
        array = np.sort(np.asarray(values, np.float64).reshape(-1))
    except (TypeError, ValueError):
        array = np.empty(0)
    checks.require(len(array) > 0 and bool(np.isfinite(array).all()), "invariance", name, values,
                   "finite numbers, one or more")
    return array


def ends(network: Any) -> list[str]:
    """An early and a late tensor: the first convolution, and the last tensor below the classes.

    For a network that is no classifier the late one is its output.
    """
    first = [row.name for row in network.layers() if row.type == "Convolution"][:1]
    last = network.output
    if classes_of(network):
        last = network.logits
        if type(network.nodes[last].layer).__name__ == "Linear":
            last = network.nodes[last].inputs[0]
            while last in network.nodes and type(network.nodes[last].layer).__name__ in ("Dropout", "Flatten"):
                last = network.nodes[last].inputs[0]
    return list(dict.fromkeys([*first, last]))
