"""Several facets of one neuron: the same score climbed from the mean images of clusters of its top images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..network import Network
from .ascent import Settings, ascent
from .result import Synthesis

__all__ = ["Facets", "facets"]


@dataclass
class Facets(Synthesis):
    """A synthesis with one row a cluster, and where the rows started.

    Attributes
    ----------
    starts : images like `images`: each cluster's mean image
    clusters : int (number of given images,), the cluster of each
    """

    kind: ClassVar[str] = "facets"

    starts: np.ndarray = None  # type: ignore[assignment]
    clusters: np.ndarray = None  # type: ignore[assignment]


def facets(network: Network, x: np.ndarray, target: Any, settings: Settings | str = "default", *, count: int = 4,
           layer: str | None = None, nearest: int = 15, seed: int = 0, batch_size: int = 32, progress: bool = False,
           **changes: Any) -> Facets:
    """Climb one target from several starts, each the mean of alike images that excite it.

    The images' features at a layer are reduced to at most 50 principal components and clustered by k-means; the
    mean of the images nearest to each centre is the start. Nguyen, Yosinski & Clune, *Multifaceted Feature
    Visualization* (2016).

    Parameters
    ----------
    network : with parameters
    x : images (N, height, width, channels) that excite the target most, preprocessed; at least `count`
    target : one class or unit
    settings, changes : as for `ascent`
    count : clusters
    layer : whose features are clustered; None: the tensor below the target's layer
    nearest : images that a start is the mean of, at most
    seed : of the clustering and the ascent
    batch_size : images in one forward pass
    progress : show a bar on stderr

    Returns
    -------
    Facets, one row a cluster that holds an image
    """
    checks.integer("facets", "count", count, 1)
    checks.integer("facets", "nearest", nearest, 1)
    checks.integer("facets", "batch_size", batch_size, 1)
    network._check_input(x)
    checks.require(len(x) >= count, "facets", "len(x)", len(x), f"at least count = {count} images")
    from .ascent import read_targets

    tensor = read_targets(network, target).tensor.removesuffix(".pre")
    chosen = network.nodes[tensor].inputs[0] if layer is None else layer
    parts = [network.forward(x[start:start + batch_size], to=chosen).output for start in range(0, len(x), batch_size)]
    features = np.concatenate([part.reshape(len(part), -1) for part in parts]).astype(np.float64)
    labels, centres, reduced = _clusters(features, count, seed)
    starts = []
    for index in np.unique(labels):
        members = np.flatnonzero(labels == index)
        order = np.argsort(np.square(reduced[members] - centres[index]).sum(axis=1), kind="stable")
        starts.append(x[members[order[:nearest]]].mean(axis=0))
    labels = np.unique(labels, return_inverse=True)[1]
    begin = np.stack(starts).astype(np.float32)
    found = ascent(network, [target] * len(begin), settings, start=begin, seed=seed, progress=progress, **changes)
    described = {**found.settings, "count": count, "layer": chosen, "nearest": nearest}
    return Facets("facets", found.images, found.scores, found.targets, found.dead, described,
                  found.channels, begin, labels)


def _clusters(features: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """k-means on principal components: labels, centres, components; the best of eight seeded starts."""
    from scipy.cluster.vq import kmeans2

    centred = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    keep = min(50, len(features) - 1) or 1
    reduced = vectors[:, ::-1][:, :keep] * np.sqrt(np.maximum(values[::-1][:keep], 0))
    best = None
    for attempt in range(8):
        first = np.random.default_rng([seed, attempt]).choice(len(reduced), count, replace=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a cluster may come out empty: then there are fewer facets
            centres, labels = kmeans2(reduced, reduced[first].copy(), minit="matrix")
        spread = np.square(reduced - centres[labels]).sum()
        if best is None or spread < best[0]:
            best = spread, labels, centres
    assert best is not None
    return best[1], best[2], reduced
