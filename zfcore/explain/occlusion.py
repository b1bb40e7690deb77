"""Occlusion: how much a score falls while a square hides a part of the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backends, checks
from ..geometry import window_starts
from ..network import Network, unchanging
from ..network.changes import Changes
from .progress import bar
from .result import Attribution, channels_of
from .targets import resolve

__all__ = ["occlusion"]

GRAY = 128


@unchanging
def occlusion(network: Network, x: np.ndarray, target: Any = None, *, window: int | tuple[int, int] = 32,
              stride: int | tuple[int, int] = 8, fill: int | None = None, batch_size: int = 32,
              progress: bool = False) -> Attribution:
    """How much the score falls with each pixel hidden: the mean over the squares that cover it of S(x) - S(x hidden).

    Zeiler & Fergus (2014), section 4.2, for any score (`zfcore.study.occlusion` is their experiment: one map's
    activity and all classes at once). Only what a square can reach is computed, by the direct algorithm.

    Parameters
    ----------
    network, x, target : as for `gradient`
    window, stride : of the square in pixels, one number or (vertical, horizontal); the last one is moved inside
    fill : value of its pixels, 0 to 255, before preprocessing; None: 128, or the number 0 where the network
        records no preprocessing
    batch_size : positions at a time; the result does not depend on it
    progress : show a bar on stderr

    Returns
    -------
    Attribution, signed values (N, height, width); above zero where hiding lowers the score

    Raises
    ------
    ValueError : a target that does not exist, a window larger than the image, a stride larger than the window,
        or a fill without a preprocessing
    """
    where = "occlusion"
    size, step = checks.pair(where, "window", window, 1), checks.pair(where, "stride", stride, 1)
    checks.integer(where, "batch_size", batch_size, 1)
    targets = resolve(network, target, x, batch_size)
    extent = network.input_shape[:2]
    checks.require(size[0] <= extent[0] and size[1] <= extent[1], where, "window", window,
                   f"at most the image's {extent[0]} x {extent[1]}")
    checks.require(step[0] <= size[0] and step[1] <= size[1], where, "stride", stride,
                   "at most the window, so that every pixel is hidden once")
    hidden = _gray(network, fill)
    rows, columns = (window_starts(*sides) for sides in zip(extent, size, step, strict=True))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    values, scores = np.empty(x.shape[:3], x.dtype), np.empty(len(x), x.dtype)
    with bar(len(x) * len(places), "occlusion", progress, "position") as shown:
        for row in range(len(x)):
            changes = Changes(network, x[row:row + 1], [targets.tensor])
            scores[row] = targets[row:row + 1].scores(backends.to_numpy(changes.base[targets.tensor]))[0]
            total, count = np.zeros(extent), np.zeros(extent)
            for begin in range(0, len(places), batch_size):
                part = places[begin:begin + batch_size]
                tiles = np.stack([hidden[top:top + size[0], left:left + size[1]] for top, left in part.tolist()])
                changed = changes.whole(targets.tensor, changes.run(tiles.astype(x.dtype), part)[targets.tensor])
                found = targets[np.full(len(part), row)].scores(backends.to_numpy(changed))
                for (top, left), score in zip(part.tolist(), found, strict=True):
                    square = slice(top, top + size[0]), slice(left, left + size[1])
                    total[square] += float(scores[row]) - float(score)
                    count[square] += 1
                shown.update(len(part))
            values[row] = total / count
    return Attribution("occlusion", values, scores, targets.names(), True,
                       {"window": list(size), "stride": list(step), "fill": GRAY if fill is None else fill},
                       channels_of(network))


def _gray(network: Network, fill: int | None) -> np.ndarray:
    """A whole image of the square's pixels in the network's numbers: where the mean varies, so do they."""
    if network.preprocessing is None:
        if fill is not None:
            checks.fail("occlusion", "fill", fill, "None, as the network records no preprocessing")
        return np.zeros(network.input_shape, np.float32)
    if fill is not None:
        checks.integer("occlusion", "fill", fill, 0)
        checks.require(fill <= 255, "occlusion", "fill", fill, "0 to 255")
    return network.preprocessing.apply(np.full((1, *network.input_shape), GRAY if fill is None else fill, np.uint8))[0]
