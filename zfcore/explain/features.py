"""Features of many images with bounded memory, and what their distances say."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..data import Stream
from ..network import Network
from .progress import bar

__all__ = ["extract", "maps_of", "nearest", "pca", "tsne"]

PIXELS = "pixels"


def batches(network: Network, images: Any, batch_size: int, where: str = "extract") -> Iterator[np.ndarray]:
    """Preprocessed batches of an array or of a data set."""
    if isinstance(images, np.ndarray):
        for start in range(0, len(images), batch_size):
            yield images[start:start + batch_size]
        return
    if network.preprocessing is None:
        raise ValueError(f"{where}: the network records no preprocessing; allowed: preprocessed arrays, or a network "
                         "that says how pixels become its input")
    stream = Stream(images, network.preprocessing, batch_size)
    for batch in stream:
        yield network.preprocessing.apply(batch.pixels)
    if stream.skipped:
        index, reason = next(iter(stream.skipped.items()))
        raise ValueError(f"{where}: picture {index} cannot be read ({reason}); allowed: pictures that can, since every "
                         "row of the result is one")


def extract(network: Network, images: Any, layer: str, *, batch_size: int = 32, memory_limit: int = 2 * 10**9,
            scratch: Any = None, progress: bool = False) -> np.ndarray:
    """One layer's features of many images, flattened.

    Parameters
    ----------
    network : with parameters
    images : preprocessed (N, height, width, channels), or a data set, whose pictures are decoded batch by batch
    layer : any tensor ("fc7", "conv5", "conv5.pre"), or "pixels": the network's input itself
    batch_size : images at a time
    memory_limit : bytes; larger results lie in a temporary file, deleted when the array is let go
    scratch : folder of that file; None: the system's
    progress : show a bar on stderr

    Returns
    -------
    float32 (N, features), C order of the layer's shape

    Raises
    ------
    ValueError : a layer that does not exist
    """
    checks.integer("extract", "batch_size", batch_size, 1)
    checks.integer("extract", "memory_limit", memory_limit, 0)
    tensor = "input" if layer == PIXELS else layer
    size = math.prod(network.tensor_shape(tensor))
    shape = (len(images), size)
    if 4 * len(images) * size > memory_limit:
        with tempfile.TemporaryFile(dir=None if scratch is None else Path(scratch), prefix="zfcore-features-") as file:
            found: np.ndarray = np.memmap(file, np.float32, "w+", shape=shape)
    else:
        found = np.empty(shape, np.float32)
    start = 0
    with bar(len(images), f"features of {layer}", progress, "image") as shown:
        for x in batches(network, images, batch_size):
            y = x if tensor == "input" else network.features(x, [tensor])[tensor]
            found[start:start + len(x)] = y.reshape(len(x), size)
            start += len(x)
            shown.update(len(x))
    return found


def maps_of(network: Network, x: np.ndarray, layer: str) -> np.ndarray:
    """All maps of one layer for one image: an activation grid's tiles.

    Parameters
    ----------
    network : with parameters
    x : one image (1, height, width, channels), preprocessed
    layer : a layer of maps

    Returns
    -------
    (maps, rows, columns)
    """
    shape = network.tensor_shape(layer)
    if len(shape) != 3:
        checks.fail("maps_of", "layer", layer, f"a layer of maps; {layer} has the shape {shape}")
    checks.require(len(x) == 1, "maps_of", "len(x)", len(x), "one image")
    return np.ascontiguousarray(network.features(x, [layer])[layer][0].transpose(2, 0, 1))


def _blocks(size: int, width: int, budget: int = 2**25, most: int | None = None) -> Iterator[slice]:
    """Slices of so many rows, at most `most`, that one block holds about `budget` numbers."""
    step = max(budget // max(width, 1), 1)
    step = step if most is None else min(step, most)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def nearest(queries: np.ndarray, features: np.ndarray, count: int = 5, *, metric: str = "euclidean"
            ) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `features` that are nearest to each query, blockwise.

    Parameters
    ----------
    queries : (Q, D)
    features : (N, D), possibly memory-mapped
    count : at most N
    metric : "euclidean", or "cosine": 1 - cosine of the angle

    Returns
    -------
    indices, distances : (Q, count), nearest first; among equals the first row
    """
    where = "nearest"
    checks.one_of(where, "metric", metric, ("euclidean", "cosine"))
    checks.integer(where, "count", count, 1)
    checks.floats(where, "queries", queries, 2)
    checks.floats(where, "features", features, 2)
    checks.require(queries.shape[1] == features.shape[1], where, "queries.shape", queries.shape,
                   f"(Q, {features.shape[1]})")
    checks.require(count <= len(features), where, "count", count, f"at most the {len(features)} rows of features")
    indices, distances = np.empty((len(queries), count), np.intp), np.empty((len(queries), count))
    for part in _blocks(len(queries), features.shape[1], 2**23, 1024):
        asked = np.asarray(queries[part], np.float64)
        asked = _unit(asked) if metric == "cosine" else asked
        squares = np.square(asked).sum(axis=1)[:, None]
        best, best_at = np.empty((len(asked), 0)), np.empty((len(asked), 0), np.intp)
        for block in _blocks(len(features), features.shape[1], 2**23, 4096):
            rows = np.asarray(features[block], np.float64)
            rows = _unit(rows) if metric == "cosine" else rows
            found = np.maximum(squares + np.square(rows).sum(axis=1) - 2 * asked @ rows.T, 0)
            places = np.broadcast_to(np.arange(block.start, block.stop), found.shape)
            best, best_at = _least(np.concatenate([best, found], axis=1),
                                   np.concatenate([best_at, places], axis=1), count)
        indices[part], distances[part] = best_at, best
    return indices, distances / 2 if metric == "cosine" else np.sqrt(distances)


def _least(values: np.ndarray, places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` least values of every row, least first, with their places; among equals the first.

    Everything below the last one that is kept is kept, and of those equal to it the first that there is room for.
    """
    if values.shape[1] > count:
        last = np.partition(values, count - 1, axis=1)[:, count - 1:count]
        below, equal = values < last, values == last
        room = count - below.sum(axis=1, keepdims=True)
        kept = below | (equal & (np.cumsum(equal, axis=1) <= room))
        values, places = values[kept].reshape(-1, count), places[kept].reshape(-1, count)
    order = np.argsort(values, axis=1, kind="stable")
    return np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def pca(features: np.ndarray, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the rows, from whichever of the two products is smaller, blockwise.

    Parameters
    ----------
    features : (N, D), possibly memory-mapped
    count : components, at most min(N, D)

    Returns
    -------
    coordinates : (N, count); each component's coordinate of largest magnitude is positive
    shares : (count,) of the variance
    """
    checks.floats("pca", "features", features, 2)
    checks.integer("pca", "count", count, 1)
    rows, width = features.shape
    checks.require(count <= min(rows, width), "pca", "count", count, f"at most {min(rows, width)}")
    mean = np.zeros(width)
    for block in _blocks(rows, width):
        mean += np.asarray(features[block], np.float64).sum(axis=0)
    mean /= rows
    if rows <= width:  # the rows' products with each other, summed over blocks of columns
        gram = np.zeros((rows, rows))
        for block in _blocks(width, rows):
            part = np.asarray(features[:, block], np.float64) - mean[block]
            gram += part @ part.T
        total, values, vectors = _leading(gram, count)
        coordinates = vectors * np.sqrt(values)
    else:
        covariance = np.zeros((width, width))
        for block in _blocks(rows, width):
            part = np.asarray(features[block], np.float64) - mean
            covariance += part.T @ part
        total, values, vectors = _leading(covariance, count)
        coordinates = np.concatenate([(np.asarray(features[block], np.float64) - mean) @ vectors
                                      for block in _blocks(rows, width)])
    strongest = np.take_along_axis(coordinates, np.abs(coordinates).argmax(axis=0)[None], 0)
    return coordinates * np.where(strongest < 0, -1, 1), values / (total if total > 0 else 1)


def _leading(matrix: np.ndarray, count: int) -> tuple[float, np.ndarray, np.ndarray]:
    """A positive matrix's trace, its `count` largest eigenvalues, largest first, and their vectors as columns."""
    from scipy.linalg import eigh

    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=(size - count, size - 1))
    return float(np.trace(matrix)), np.maximum(values[::-1], 0), vectors[:, ::-1]


def tsne(features: np.ndarray, *, perplexity: float = 30.0, components: int = 50, seed: int = 0) -> np.ndarray:
    """t-SNE of the rows in the plane (van der Maaten & Hinton 2008; scikit-learn), after PCA.

    Parameters
    ----------
    features : (N, D), possibly memory-mapped
    perplexity : about the number of neighbours that count; below N
    components : principal components that are kept first
    seed : of the optimiser

    Returns
    -------
    (N, 2)

    Raises
    ------
    ImportError : scikit-learn is not installed
    """
    checks.floats("tsne", "features", features, 2)
    checks.require(0 < perplexity < len(features), "tsne", "perplexity", perplexity,
                   f"above 0 and below the {len(features)} rows")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError("t-SNE needs scikit-learn: pip install scikit-learn") from error
    reduced = pca(features, min(components, *features.shape))[0]
    scale = reduced[:, 0].std()
    start = reduced[:, :2] / (scale if scale > 0 else 1) * 1e-4
    if start.shape[1] < 2:
        start = np.pad(start, ((0, 0), (0, 1)))
    model = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
    return model.fit_transform(reduced.astype(np.float32))
