"""Correspondence: do the same parts of different images matter alike? (Zeiler & Fergus 2014, section 4.3.)

The same part is masked in several images; the change of a layer's features is compared between the
images by the signs. Where masking left eyes changes all images' features in the same way, the distance
is small, smaller than for masks at random places.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..data import open_images
from ..data.decode import resized
from . import results
from .saved import Saved, network_pixels

RANDOM, SAME = "random", "same place"  # rows of random masks
PAPER = {  # Table 1 of the paper: layer 5, layer 7
    "right eye": (0.067, 0.069), "left eye": (0.069, 0.068), "nose": (0.079, 0.069), RANDOM: (0.107, 0.073)}


@dataclass
class Correspondence(Saved):
    """Distances between images' changes, for named parts and for random ones.

    Attributes
    ----------
    rows : names of the table's rows: the parts, "random" (a place for each image, the paper's control)
        and "same place" (random, but one place for all images: shows what alignment alone does)
    row_of : int (sets,), the row that a set of masks belongs to: one set a part, several for the controls
    layers : names of the tensors
    names : of the images
    masked : uint8 (rows, images, height, width, channels): the first set of each row
    boxes : int (sets, images, 4): top, left, bottom, right in the network's pixels
    distances : float64 (layers, sets, pairs), share of positions where the signs differ; pairs i < j
    zeros : float64 (layers, sets, images), share of positions that the mask did not change at all
    opposed : float64 like the distances: of the positions that both masks changed, the share where the
        signs are opposite; 1/2 where changes have nothing in common; NaN where there are none
    fill, seed : the masks' pixel value; what the random places were drawn with
    network_hash : SHA-256 of the network
    """

    kind: ClassVar[str] = "correspondence"

    rows: tuple[str, ...]
    row_of: np.ndarray
    layers: tuple[str, ...]
    names: tuple[str, ...]
    masked: np.ndarray
    boxes: np.ndarray
    distances: np.ndarray
    zeros: np.ndarray
    opposed: np.ndarray
    fill: int
    seed: int
    network_hash: str

    @property
    def summary(self) -> dict[str, Any]:
        """The table: for each layer and part mean and deviation over pairs, zeros, opposed signs."""
        table: dict[str, Any] = {}
        for number, layer in enumerate(self.layers):
            table[layer] = {}
            for row, name in enumerate(self.rows):
                sets = np.flatnonzero(self.row_of == row)
                table[layer][name] = _row(self.distances[number, sets], self.zeros[number, sets],
                                          self.opposed[number, sets])
        return {"images": len(self.names), "pairs": int(self.distances.shape[2]),
                "sets": np.bincount(self.row_of, minlength=len(self.rows)).tolist(), "layers": table}

    def table(self) -> str:
        """The summary as text, a line for each part, as in the paper's Table 1."""
        summary = self.summary["layers"]
        rows = list(next(iter(summary.values())))
        lines = [["part", *(f"{layer} {what}" for layer in self.layers for what in ("distance", "zeros", "opposed"))]]
        for part in rows:
            line = [part]
            for layer in self.layers:
                row = summary[layer][part]
                opposed = "-" if row["opposed"] is None else f"{row['opposed']:.3f}"
                line += [f"{row['mean']:.4f} +- {row['deviation']:.4f}", f"{row['zeros']:.3f}", opposed]
            lines.append(line)
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                         for line in lines)


def _row(distances: np.ndarray, zeros: np.ndarray, opposed: np.ndarray) -> dict[str, Any]:
    known = opposed[np.isfinite(opposed)]
    return {"mean": float(distances.mean()), "deviation": float(distances.std()), "zeros": float(zeros.mean()),
            "opposed": float(known.mean()) if known.size else None}


def read_parts(path: str | os.PathLike[str]) -> tuple[list[Path], dict[str, list[list[float]]]]:
    """Read a JSON file of parts.

    `{"images": ["a.png", ...], "parts": {"nose": [[top, left, bottom, right], ...], ...}}`, a box an
    image, in pixels of the picture files; names are relative to the file's folder.

    Parameters
    ----------
    path : the file

    Returns
    -------
    images : paths
    parts : boxes by name
    """
    shown = os.fspath(path)
    try:
        stored = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: not a JSON file ({error})") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("images"), list) \
            or not isinstance(stored.get("parts"), dict) \
            or not all(isinstance(name, str) for name in stored["images"]):
        raise ValueError(f'{shown}: allowed: {{"images": [names], "parts": {{"nose": [[top, left, bottom, right], '
                         "...]}}")
    return [Path(path).parent / name for name in stored["images"]], stored["parts"]


def _boxes(parts: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """Check boxes: float (images, 4) by part."""
    where = "correspondence"
    checks.require(isinstance(parts, Mapping) and len(parts) > 0, where, "parts", parts, "one named part or more")
    found = {}
    for name, boxes in parts.items():
        checks.require(isinstance(name, str) and name not in ("", RANDOM, SAME), where, "a part's name", name,
                       f"a text other than {RANDOM!r} and {SAME!r}")
        try:
            array = np.asarray(boxes, np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.shape != (count, 4) or not np.isfinite(array).all():
            checks.fail(where, f"parts[{name!r}]", getattr(array, "shape", None),
                        f"{count} boxes of (top, left, bottom, right), one an image")
        found[name] = array
    return found


def _to_network(boxes: np.ndarray, sizes: Sequence[tuple[int, int]], preprocessing: Any, extent: Sequence[int]
                ) -> np.ndarray:
    """Boxes in the files' pixels as whole pixels of the resized and cropped images."""
    found = np.empty(boxes.shape, np.int64)
    for line, ((height, width), box) in enumerate(zip(sizes, boxes, strict=True)):
        tall, wide = resized(height, width, preprocessing.size)
        shift = (tall - extent[0]) // 2, (wide - extent[1]) // 2
        rows, columns = box[[0, 2]] * tall / height - shift[0], box[[1, 3]] * wide / width - shift[1]
        ends = np.rint([rows[0], columns[0], rows[1], columns[1]])
        found[line] = np.clip(ends, 0, [extent[0], extent[1], extent[0], extent[1]])
    return found


def correspondence(network: Any, images: Any, parts: Mapping[str, Any], layers: Sequence[str] | str, *,
                   draws: int = 20, fill: int = 128, seed: int = 0, batch_size: int = 32,
                   progress: bool = True) -> Correspondence:
    """Compare what masking the same part does to several images.

    Parameters
    ----------
    network : with parameters and a preprocessing
    images : at least two, what `data.open_images` takes
    parts : boxes (top, left, bottom, right), one an image, by the part's name, in pixels of the images
        as they are before resizing; the part outside the network's crop does not count
    layers : names of tensors, such as "conv5" or, before its ReLU, "conv5.pre"
    draws : sets of random masks of each kind, of the parts' mean size; 0: none
    fill : pixel value of the masks, 0..255, before preprocessing
    seed : of the random places
    batch_size : images at a time; the result does not depend on it
    progress : show a bar on stderr

    Returns
    -------
    Correspondence

    Raises
    ------
    ValueError : fewer than two images, boxes that do not fit or are empty, unknown layers
    """
    from tqdm import tqdm

    where = "correspondence"
    names = [layers] if isinstance(layers, str) else list(layers)
    checks.require(len(names) > 0 and len(set(names)) == len(names), where, "layers", layers, "names, each once")
    for name in names:
        network.cone(name)
    checks.integer(where, "draws", draws, 0)
    checks.integer(where, "seed", seed, 0)
    checks.integer(where, "batch_size", batch_size, 1)
    checks.integer(where, "fill", fill, 0)
    checks.require(fill <= 255, where, "fill", fill, "0 to 255")
    pixels, shown = network_pixels(where, network, images)
    checks.require(len(pixels) >= 2, where, "len(images)", len(pixels), "two images or more")
    given = _boxes(parts, len(pixels))
    height, width = network.input_shape[:2]
    if isinstance(images, np.ndarray):
        sizes = [(int(images.shape[1]), int(images.shape[2]))] * len(pixels)
    else:
        source = open_images(images)
        sizes = [(each.shape[0], each.shape[1]) for each in (source.pixels(index) for index in range(len(source)))]
    direct = isinstance(images, np.ndarray) and images.shape[1:3] == (height, width)
    boxes = []
    for name, each in given.items():
        placed = np.rint(each).astype(np.int64) if direct else _to_network(
            each, sizes, network.preprocessing, (height, width))
        placed = np.clip(placed, 0, [height, width, height, width])
        for line, box in enumerate(placed):
            if box[0] >= box[2] or box[1] >= box[3]:
                checks.fail(where, f"the box of {name!r} in {shown[line]!r}", each[line].tolist(),
                            "top < bottom and left < right, inside the image that the network sees")
        boxes.append(placed)
    generator = np.random.default_rng(seed)
    mean = np.mean([box[:, 2:] - box[:, :2] for box in boxes], axis=(0, 1))
    side = np.clip(np.rint(mean).astype(int), 1, (height, width))
    rows = [*given] + [RANDOM, SAME] * (draws > 0)
    row_of = [*range(len(given)), *[len(given)] * draws, *[len(given) + 1] * draws]
    for row in row_of[len(given):]:
        places = 1 if rows[row] == SAME else len(pixels)
        corners = np.stack([generator.integers(0, limit - length + 1, places)
                            for limit, length in ((height, side[0]), (width, side[1]))], axis=1)
        corners = np.broadcast_to(corners, (len(pixels), 2))
        boxes.append(np.concatenate([corners, corners + side], axis=1))
    base = _features(network, pixels, names, batch_size)
    count = len(pixels)
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count)])
    distances = np.empty((2, len(names), len(boxes), len(pairs)))
    zeros = np.empty((len(names), len(boxes), count))
    masked = []
    for place, part in enumerate(tqdm(boxes, desc="correspondence", unit="part", disable=not progress)):
        hidden = pixels.copy()
        for image, (top, left, bottom, right) in zip(hidden, part, strict=True):
            image[top:bottom, left:right] = fill
        if place == row_of.index(row_of[place]):
            masked.append(hidden)
        changed = _features(network, hidden, names, batch_size)
        for number, name in enumerate(names):
            signs = np.sign(base[name] - changed[name]).astype(np.int8).reshape(count, -1)
            zeros[number, place] = (signs == 0).mean(axis=1)
            for pair, (i, j) in enumerate(pairs):
                distances[0, number, place, pair] = (signs[i] != signs[j]).mean()
                both = int(np.count_nonzero(signs[i] & signs[j]))
                opposite = int(np.count_nonzero(signs[i] * signs[j] == -1))
                distances[1, number, place, pair] = opposite / both if both else np.nan
    return Correspondence(
        rows=tuple(rows), row_of=np.array(row_of, np.int64), layers=tuple(names), names=tuple(shown),
        masked=np.stack(masked), boxes=np.stack(boxes), distances=distances[0].copy(), zeros=zeros,
        opposed=distances[1].copy(), fill=fill, seed=seed, network_hash=results.network_hash(network))


def _features(network: Any, pixels: np.ndarray, layers: list[str], batch_size: int) -> dict[str, np.ndarray]:
    parts = [network.features(network.preprocessing.apply(pixels[begin:begin + batch_size]), layers)
             for begin in range(0, len(pixels), batch_size)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in layers}
