"""Images to start from, out of a data set of any size: its classes' means, and those that excite a target most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks
from ..data import Images
from ..network import Network
from .ascent import read_targets
from .features import batches
from .progress import bar

__all__ = ["class_means", "strongest"]


def class_means(network: Network, images: Images, names: Sequence[str] | None = None, *, batch_size: int = 32,
                progress: bool = False) -> np.ndarray:
    """The mean image of each class: what gradient ascent may start from.

    Parameters
    ----------
    network : with a preprocessing
    images : a data set (`zfcore.data.open_images`), decoded batch by batch
    names : classes of the data set; None: one mean, of all its images
    batch_size : images at a time
    progress : show a bar on stderr

    Returns
    -------
    float32 (len(names) or 1, height, width, channels), preprocessed

    Raises
    ------
    ValueError : a data set without classes, or without an image of one of them
    """
    where = "class_means"
    checks.require(len(images) > 0, where, "len(images)", 0, "one image or more")
    groups = np.zeros(len(images), np.int64)
    if names is not None:
        if images.labels is None or images.class_names is None:
            checks.fail(where, "names", list(names), "None, as the data set has no classes")
        numbers = {name: number for number, name in enumerate(images.class_names)}
        places = np.full(len(images.class_names), -1)
        for place, name in enumerate(names):
            known = name in numbers and bool((images.labels == numbers[name]).any())
            checks.require(known, where, "name", name, f"a class of the data set: {', '.join(images.class_names[:20])}")
            places[numbers[name]] = place
        groups = np.where(images.labels >= 0, places[images.labels], -1)
    totals = np.zeros((1 if names is None else len(names), *network.input_shape))
    start = 0
    with bar(len(images), "class means", progress, "image") as shown:
        for x in batches(network, images, batch_size, where):
            own = groups[start:start + len(x)]
            for place in np.unique(own[own >= 0]):
                totals[place] += x[own == place].sum(axis=0, dtype=np.float64)
            start += len(x)
            shown.update(len(x))
    counts = np.bincount(groups[groups >= 0], minlength=len(totals))
    return (totals / counts[:, None, None, None]).astype(np.float32)


def strongest(network: Network, images: Any, target: Any, count: int = 60, *, batch_size: int = 32,
              progress: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The images with the highest score of one target, for `facets` and to look at.

    Parameters
    ----------
    network : with parameters
    images : preprocessed (N, height, width, channels), or a data set, decoded batch by batch
    target : one class, unit, map or layer
    count : at most so many
    batch_size : images at a time
    progress : show a bar on stderr

    Returns
    -------
    indices, scores : (min(count, N),), highest first; among equals the first image
    """
    checks.integer("strongest", "count", count, 1)
    checks.integer("strongest", "batch_size", batch_size, 1)
    targets = read_targets(network, [target])
    scores = np.empty(len(images))
    start = 0
    with bar(len(images), "scores", progress, "image") as shown:
        for x in batches(network, images, batch_size, "strongest"):
            found = targets[np.zeros(len(x), np.intp)].scores(network.forward(x, to=targets.tensor).output)
            checks.require(math.isfinite(float(found.sum())), "strongest", "a score", "not finite", "finite scores")
            scores[start:start + len(x)] = found
            start += len(x)
            shown.update(len(x))
    order = np.argsort(-scores, kind="stable")[:count]
    return order, scores[order]
