"""The folder of an embedding: pictures laid out by features, scatter, neighbours, `index.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .. import explain
from ..data import Images, subset
from ..files import atomic_write
from ..formats import results
from ..network import Network
from ..pictures import grid, panels, png, resize_tiles
from ..pictures.atlas import INK, PAPER, _font
from .describe import environment

# Ten colours that differ in lightness too; more classes repeat them.
PALETTE = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75),
           (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207)]
MOST_SHOWN = 2500  # pictures in one laid-out grid


def first(source: Images, count: int | None) -> Images:
    """The first `count` pictures of a data set; None: all."""
    return source if count is None or count >= len(source) else subset(source, np.arange(count))


def default_layer(network: Network) -> str:
    """The last layer of a vector below the class scores, or what the class scores are computed from."""
    nodes = network.below([network.logits])
    for node in reversed(nodes):
        if node.name != network.logits and len(node.shape) == 1 and type(node.layer).__name__ == "Linear":
            return node.name
    return network.nodes[network.logits].inputs[0]


def scatter(points: np.ndarray, labels: np.ndarray | None, names: list[str] | None, side: int = 720) -> np.ndarray:
    """Points of the plane, coloured by class, with a legend: uint8 (height, width, 3)."""
    margin, dot = side // 24, max(side // 220, 2)
    kinds = [] if labels is None else np.unique(labels).tolist()
    legend = 150 if 1 < len(kinds) <= 20 else 0
    sheet = Image.new("RGB", (side + legend, side), PAPER)
    pen = ImageDraw.Draw(sheet)
    low, extent = points.min(axis=0), max(np.ptp(points, axis=0).max(), 1e-12)
    centred = (points - low - np.ptp(points, axis=0) / 2) / extent + 0.5
    places = margin + centred * (side - 2 * margin)
    for row, (x, y) in enumerate(places.tolist()):
        colour = INK if labels is None or labels[row] < 0 else PALETTE[labels[row] % len(PALETTE)]
        pen.ellipse((x - dot, side - y - dot, x + dot, side - y + dot), colour)
    for number, kind in enumerate(kinds if legend else []):
        top = margin + number * 26
        text = "none" if kind < 0 else names[kind] if names else str(kind)
        pen.ellipse((side, top, side + 12, top + 12), INK if kind < 0 else PALETTE[kind % len(PALETTE)])
        pen.text((side + 20, top - 3), "".join(c for c in text if c.isprintable())[:16], INK, _font(14))
    return np.asarray(sheet)


def write(folder: Path, network: Network, source: Images, layers: list[str], options: dict[str, Any], scratch: Path
          ) -> dict[str, Any]:
    """Compute, draw and save; returns a summary for each layer."""
    from tqdm import tqdm

    def advance(stages: tqdm, following: str) -> None:
        stages.set_description(following, refresh=False)
        stages.update()

    shown = np.unique(np.linspace(0, len(source) - 1, min(len(source), MOST_SHOWN)).round().astype(int))
    thumbnails = _thumbnails(network, source, shown)
    found: dict[str, Any] = {}
    entries = []
    for layer in layers:
        features = explain.extract(network, source, layer, batch_size=options["batch_size"],
                                   memory_limit=options["memory_limit"], scratch=scratch, progress=True)
        stages = tqdm(total=3, desc=f"{layer}: {options['method']} of {len(source)} points", unit="stage")
        if options["method"] == "tsne":
            points = explain.tsne(features, seed=options["seed"],
                                  perplexity=min(options["perplexity"], max((len(source) - 1) / 3, 1)))
        else:
            points = explain.pca(features, 2)[0]
        advance(stages, f"{layer}: neighbours")
        count = min(options["neighbours"] + 1, len(source))
        metric = options["metric"] or ("euclidean" if layer == "pixels" else "cosine")
        indices, distances = explain.nearest(features, features, count, metric=metric)
        same = _same_class(source.labels, _others(indices)[:, 0])
        advance(stages, f"{layer}: drawing")
        stem = layer.replace("/", "_")
        cells = explain.grid_layout(points[shown])
        png(folder / f"{stem}-grid.png", laid_out(thumbnails, cells))
        png(folder / f"{stem}-scatter.png", scatter(points, source.labels, source.class_names))
        png(folder / f"{stem}-neighbours.png", _neighbours(network, source, indices, distances, options["queries"]))
        results.save(folder / stem, "embedding", {"layer": layer, **options, "names": source.names},
                     {"points": np.asarray(points, np.float64), "shown": shown, "cells": cells, "neighbours": indices,
                      "distances": distances})
        found[layer] = {"metric": metric, "features": int(features.shape[1]), "same_class": same,
                        "points": f"{stem}/points.npy"}
        entries.append((layer, stem, found[layer]))
        advance(stages, layer)
        stages.close()
        del features
    text = environment().get_template("embedding.html").render(
        title=f"How {network.name or 'the network'} sees {len(source)} images", layers=entries, options=options)
    atomic_write(folder / "index.html", text.encode("utf-8", "backslashreplace"))
    return found


def _same_class(labels: np.ndarray | None, neighbours: np.ndarray) -> float | None:
    """Share of images whose neighbour is of their class, of those that are not alone in it."""
    if labels is None:
        return None
    kinds, counts = np.unique(labels, return_counts=True)
    asked = np.isin(labels, kinds[(counts > 1) & (kinds >= 0)])
    return float((labels[neighbours] == labels)[asked].mean()) if asked.any() else None


def _others(indices: np.ndarray) -> np.ndarray:
    """Neighbours without the row itself, which need not come first where images are equal."""
    rows = np.arange(len(indices))[:, None]
    order = np.argsort(indices == rows, axis=1, kind="stable")
    return np.take_along_axis(indices, order, 1)[:, :-1]


def _thumbnails(network: Network, source: Images, indices: np.ndarray, side: int = 96) -> np.ndarray:
    """Small pictures of some images, uint8 (n, height, width, channels)."""
    tiles = []
    for index in indices.tolist():
        tiles.append(resize_tiles(source.load(index, network.preprocessing)[None], side // 2, side)[0])
    return np.stack(tiles)


def laid_out(tiles: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Tiles at their cells of a grid; empty cells are white."""
    rows, columns = cells.max(axis=0) + 1
    side = int(np.clip(1600 // columns, 16, 96))
    tiles = resize_tiles(tiles, side // 2, side)
    sheet = np.full((rows * columns, *tiles.shape[1:]), 255, np.uint8)
    sheet[cells[:, 0] * columns + cells[:, 1]] = tiles
    return grid(sheet, int(columns), gap=0)


def _neighbours(network: Network, source: Images, indices: np.ndarray, distances: np.ndarray, queries: int
                ) -> np.ndarray:
    """Rows of an image and its nearest others, with their distances."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(queries, len(source))).round().astype(int))
    others = _others(indices)
    order = np.argsort(indices == np.arange(len(indices))[:, None], axis=1, kind="stable")
    lengths = np.take_along_axis(distances, order, 1)[:, :-1]
    rows = []
    for row in chosen.tolist():
        tiles = _thumbnails(network, source, np.array([row, *others[row]]))
        rows.append([(tiles[0], ""), *((tile, f"{length:.3g}") for tile, length in
                                       zip(tiles[1:], lengths[row], strict=True))])
    return panels(rows, titles=["image", "nearest first"], side=96)
