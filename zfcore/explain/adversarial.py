"""Adversarial examples: the smallest change, along the same gradient, that changes the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import backends, checks
from ..network import Network, unchanging
from .progress import bar
from .result import Result
from .targets import resolve

__all__ = ["Adversarial", "adversarial"]


@dataclass
class Adversarial(Result):
    """Images that were changed until the network answered otherwise; one row an image.

    Attributes
    ----------
    images : (N, height, width, channels), changed, in the network's numbers
    changes : images less the originals
    before, after : int (N,), the answers
    certainty_before, certainty_after : (N,) the answers' probabilities
    wanted : int (N,), the class that was climbed; -1: any other than `before`
    found : bool (N,), whether the answer changed (to `wanted`, where it was given)
    settings : of the method
    """

    kind: ClassVar[str] = "adversarial"

    images: np.ndarray
    changes: np.ndarray
    before: np.ndarray
    after: np.ndarray
    certainty_before: np.ndarray
    certainty_after: np.ndarray
    wanted: np.ndarray
    found: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)


@unchanging
def adversarial(network: Network, x: np.ndarray, target: Any = None, *, norm: str = "l2", steps: int = 50,
                overshoot: float = 0.02, halvings: int = 12, limits: bool = True, batch_size: int = 32,
                progress: bool = False) -> Adversarial:
    """Change each image as little as possible until its top class changes.

    Each step solves the two classes' linear approximation: with f = S_wanted - S_now and g its gradient, x moves
    by -f / ||g||_2^2 * g ("l2") or by -f / ||g||_1 * sign(g) ("linf"), made a little longer by `overshoot`; then
    the segment back to the original is halved `halvings` times for the shortest change that still works. Without
    a target S_wanted is the class nearest in this approximation among the ten strongest (Moosavi-Dezfooli et al.,
    *DeepFool*, 2016); the phenomenon is Szegedy et al., *Intriguing Properties* (2013).

    Parameters
    ----------
    network : with classes
    x : images (N, height, width, channels), preprocessed
    target : None (any other class), a class, or one for each row
    norm : "l2" or "linf": what of the change is kept small
    steps : at most
    overshoot : part of a step that is added to it
    halvings : of the segment at the end
    limits : keep the image within what pixels can show
    batch_size : images in one walk
    progress : show a bar on stderr

    Returns
    -------
    Adversarial

    Raises
    ------
    ValueError : a class that does not exist, or that a row has already
    """
    where = "adversarial"
    checks.one_of(where, "norm", norm, ("l2", "linf"))
    for name, value, least in (("steps", steps, 1), ("halvings", halvings, 0), ("batch_size", batch_size, 1)):
        checks.integer(where, name, value, least)
    checks.require(np.isfinite(overshoot) and overshoot >= 0, where, "overshoot", overshoot, "a number >= 0")
    before = resolve(network, None, x, batch_size).maps
    wanted = np.full(len(x), -1, np.intp)
    if target is not None:
        named = resolve(network, target, x, batch_size)
        checks.require(named.classes, where, "target", target, "a class")
        wanted = named.maps
        for row in np.flatnonzero(wanted == before)[:1]:
            checks.fail(where, "target", int(wanted[row]), f"another class than image {row} has already")
    images = np.empty_like(x, order="C")
    with bar(len(x), "adversarial", progress, "image") as shown:
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            images[part] = _Attack(network, x[part], before[part], wanted[part], norm, overshoot, limits).run(
                steps, halvings)
            shown.update(len(x[part]))
    first, last = _probabilities(network, x, batch_size), _probabilities(network, images, batch_size)
    after = last.argmax(axis=1) if len(x) else np.zeros(0, np.intp)
    rows = np.arange(len(x))
    found = np.where(wanted < 0, after != before, after == wanted)
    settings = {"norm": norm, "steps": steps, "overshoot": overshoot, "halvings": halvings, "limits": limits}
    return Adversarial(images, images - x, before, after, first[rows, before], last[rows, after], wanted, found,
                       settings)


def _probabilities(network: Network, x: np.ndarray, batch_size: int) -> np.ndarray:
    parts = [backends.to_numpy(network.ops.softmax(network.forward(x[start:start + batch_size],
                                                                   to=network.logits).output))
             for start in range(0, len(x), batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, network.tensor_shape(network.logits)[0]), x.dtype)


class _Attack:
    """One batch."""

    def __init__(self, network: Network, x: np.ndarray, before: np.ndarray, wanted: np.ndarray, norm: str,
                 overshoot: float, limits: bool) -> None:
        self.network, self.x, self.before, self.wanted = network, x, before, wanted
        self.norm, self.overshoot = norm, overshoot
        self.limits = None
        if limits and network.preprocessing is not None:
            self.limits = network.preprocessing.limits(x.shape[1:])

    def _clip(self, x: np.ndarray) -> np.ndarray:
        return x if self.limits is None else np.clip(x, *self.limits)

    def _works(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        answers = self.network.forward(x, to=self.network.logits).output.argmax(axis=1)
        return np.where(self.wanted[rows] < 0, answers != self.before[rows], answers == self.wanted[rows])

    def _steps(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The change that takes each row over its nearest border, by linear approximation."""
        network = self.network
        forward = network.forward(x, to=network.logits, cache=True, parameters=False)
        scores = forward.output
        order = np.argsort(-scores, axis=1)
        best, shortest = np.zeros_like(x), np.full(len(x), np.inf)
        candidates = min(10, scores.shape[1]) if (self.wanted[rows] < 0).any() else 1
        items = np.arange(len(x))
        for rank in range(candidates):
            free = self.wanted[rows] < 0
            rival = np.where(free, order[:, rank], self.wanted[rows])
            now = np.where(free, self.before[rows], np.where(order[:, 0] == rival, order[:, 1], order[:, 0]))
            use = (rival != now) & (free | (rank == 0))
            if not use.any():
                continue
            signal = np.zeros_like(scores)
            signal[items, rival] += 1
            signal[items, now] -= 1
            slope = network.backward(forward, signal, parameters=False).input
            gap = np.maximum(scores[items, now] - scores[items, rival], 0) + 1e-4 * np.abs(scores).max(axis=1)
            axes = (1, 2, 3)
            if self.norm == "l2":
                size = np.sqrt(np.square(slope).sum(axis=axes))
                move = slope / np.maximum(size, 1e-30)[:, None, None, None]
            else:
                size = np.abs(slope).sum(axis=axes)
                move = np.sign(slope)
            length = np.where(use & (size > 0), gap / np.maximum(size, 1e-30), np.inf)
            nearer = length < shortest
            shortest = np.where(nearer, length, shortest)
            best[nearer] = (move * np.where(nearer, length, 0).astype(x.dtype)[:, None, None, None])[nearer]
        return best * x.dtype.type(1 + self.overshoot)

    def run(self, steps: int, halvings: int) -> np.ndarray:
        """Step until every row's answer has changed, then come back along the segment as far as it holds."""
        x = np.array(self.x)
        done = np.zeros(len(x), bool)
        for _ in range(steps):
            rows = np.flatnonzero(~done)
            if not len(rows):
                break
            x[rows] = self._clip(x[rows] + self._steps(x[rows], rows))
            done[rows] = self._works(x[rows], rows)
        rows = np.flatnonzero(done)
        low, high = np.zeros(len(rows), x.dtype), np.ones(len(rows), x.dtype)
        far = x[rows]
        for _ in range(halvings if len(rows) else 0):
            middle = (low + high) / 2
            works = self._works(self._between(rows, far, middle), rows)
            high, low = np.where(works, middle, high), np.where(works, low, middle)
        if len(rows):
            x[rows] = self._between(rows, far, high)
        return x

    def _between(self, rows: np.ndarray, far: np.ndarray, share: np.ndarray) -> np.ndarray:
        near = self.x[rows]
        whole = share == 1
        mixed = near + share[:, None, None, None] * (far - near)
        mixed[whole] = far[whole]  # near + (far - near) need not be far
        return mixed
