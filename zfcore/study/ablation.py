"""Ablation: what do networks lose without some layers, or gain with larger ones? (Zeiler & Fergus 2014, Table 3)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import checks
from ..data import open_images
from ..models.ablation import ROWS, ablated, possible, without
from . import results
from .saved import Saved
from .state import Generations

# Table 3, ImageNet 2012, error in %: training top-1, validation top-1, validation top-5.
PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "AlexNet": {"whole": (35.1, 40.5, 18.1), "without-3-4": (41.8, 45.4, 22.1), "without-7": (27.4, 40.0, 18.4),
                "without-6-7": (27.4, 44.8, 22.4), "without-3-4-6-7": (71.1, 71.3, 50.1),
                "half-6-7": (40.3, 41.7, 18.8), "double-6-7": (26.8, 40.0, 18.1)},
    "ZFNet": {"whole": (33.1, 38.4, 16.5), "half-6-7": (38.2, 40.2, 17.6), "double-6-7": (22.0, 38.8, 17.0),
              "wide-3-4-5": (18.8, 37.5, 16.0), "wide-3-4-5-double-6-7": (10.0, 38.3, 16.9)},
}
ERRORS = ("train_top1", "train_top5", "validation_top1", "validation_top5")


@dataclass
class Ablation(Saved):
    """Errors of every row's network, for every seed.

    Attributes
    ----------
    network : its name
    rows, titles : names of the rows, and what they are
    seeds : of weights, order, augmentation and dropout
    train_top1, train_top5, validation_top1, validation_top5 : float64 (rows, seeds), share of images whose
        class is not the most probable one, or not among the five most probable; NaN: not trained yet. The
        training images are seen as they are, without augmentation and dropout
    parameters, multiply_adds : int64 (rows,), the latter of one image
    seconds : float64 (rows, seeds), of training and evaluation
    settings : the recipe, and hashes of the network's description and of the data
    """

    kind: ClassVar[str] = "ablation"

    network: str
    rows: tuple[str, ...]
    titles: tuple[str, ...]
    seeds: tuple[int, ...]
    train_top1: np.ndarray
    train_top5: np.ndarray
    validation_top1: np.ndarray
    validation_top5: np.ndarray
    parameters: np.ndarray
    multiply_adds: np.ndarray
    seconds: np.ndarray
    settings: dict[str, Any]

    def spread(self, name: str, row: int) -> tuple[float, float]:
        """Mean and standard deviation over the seeds of one of ERRORS; NaN where there are too few."""
        values = getattr(self, name)[row]
        values = values[np.isfinite(values)]
        return (float(values.mean()) if len(values) else np.nan,
                float(values.std(ddof=1)) if len(values) > 1 else np.nan)

    def change(self, row: int) -> tuple[float, float]:
        """Mean and standard deviation of a row's validation top-1 error minus the first row's, seed by seed."""
        values = self.validation_top1[row] - self.validation_top1[0]
        values = values[np.isfinite(values)]
        return (float(values.mean()) if len(values) else np.nan,
                float(values.std(ddof=1)) if len(values) > 1 else np.nan)

    @property
    def summary(self) -> dict[str, Any]:
        """For every row: errors in % with their spread, the change against the first row, sizes, seconds."""
        rows = {}
        for place, row in enumerate(self.rows):
            rows[row] = {"title": self.titles[place], "parameters": int(self.parameters[place]),
                         "multiply_adds": int(self.multiply_adds[place])}
            for name in ERRORS:
                mean, spread = self.spread(name, place)
                rows[row][name] = {"mean": _percent(mean), "spread": _percent(spread),
                                   "each": [_percent(value) for value in getattr(self, name)[place]]}
            mean, spread = self.change(place)
            rows[row]["change"] = {"mean": _percent(mean), "spread": _percent(spread)}
            rows[row]["seconds"] = [None if np.isnan(value) else round(float(value), 1)
                                    for value in self.seconds[place]]
        return {"network": self.network, "seeds": list(self.seeds), "settings": self.settings, "rows": rows,
                "paper": {name: {row: list(values) for row, values in table.items()}
                          for name, table in PAPER.items()}}

    def table(self) -> str:
        """The rows as text, beside the paper's validation errors on ImageNet."""
        names = ("train top-1", "val top-1", "val top-5")
        lines = [f"{'':<48} {' '.join(f'{name:>13}' for name in names)} {'parameters':>11}  paper's val top-1"]
        for place, row in enumerate(self.rows):
            shown = [_shown(*self.spread(name, place)) for name in ("train_top1", "validation_top1",
                                                                   "validation_top5")]
            paper = ", ".join(f"{name} {table[row][1]}" for name, table in PAPER.items() if row in table)
            lines.append(f"{self.titles[place]:<48} {shown[0]:>13} {shown[1]:>13} {shown[2]:>13} "
                         f"{int(self.parameters[place]):>11,}  {paper}".rstrip())
        return "\n".join(lines)


def _percent(value: float) -> float | None:
    return round(100 * float(value), 3) if np.isfinite(value) else None


def _shown(mean: float, spread: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{100 * mean:.2f}" + ("" if np.isnan(spread) else f" ± {100 * spread:.2f}")


def ablation(network: Any, train: Any, validation: Any, recipe: Any, *, rows: Sequence[str] | None = None,
             seeds: Sequence[int] = (0, 1, 2), state: str | Path | None = None, progress: bool = True) -> Ablation:
    """Train the network of every row by one recipe, once a seed, and compare their errors.

    Parameters
    ----------
    network : a chain of layers; only its description counts, its parameters stay as they are
    train, validation : labelled data sets, what `data.open_images` takes
    recipe : how to train, a `training.Recipe`; the same for every row
    rows : of `models.ablation.ROWS`, the first is what the others are compared with; None: all whose layers
        the network has
    seeds : each row is trained once with each
    state : a folder that keeps what is done so far (see `kept`), and from which an earlier call's work is taken up;
        the caller removes it. None: nothing is kept
    progress : show bars on stderr

    Returns
    -------
    Ablation

    Raises
    ------
    ValueError : an unknown row or one about layers that are not there, no or doubled seeds, a state of
        another ablation
    BlockingIOError : another process is at work on the state
    """
    where = "ablation"
    chosen = possible(network) if rows is None else list(rows)
    checks.require(len(chosen) > 0 and len(set(chosen)) == len(chosen), where, "rows", rows, "rows, each once")
    numbers = tuple(checks.integer(where, "seeds", seed, 0) for seed in seeds)
    checks.require(len(numbers) > 0 and len(set(numbers)) == len(numbers), where, "seeds", seeds,
                   "integers >= 0, each once")
    nets = [ablated(network, row) for row in chosen]  # every error of every row comes before any training
    sources = {"train": open_images(train), "validation": open_images(validation)}
    settings = {"recipe": recipe.to_config(), "network": _described(network),
                **{name: source.manifest() for name, source in sources.items()}}
    shape = (len(chosen), len(numbers))
    empty = [np.full(shape, np.nan) for _ in ERRORS]
    result = Ablation(network.name, tuple(chosen), tuple(ROWS[row].title for row in chosen), numbers,
                      empty[0], empty[1], empty[2], empty[3],
                      np.array([net.parameter_count for net in nets], np.int64),
                      np.array([sum(net.multiply_adds().values()) for net in nets], np.int64),
                      np.full(shape, np.nan), settings)
    keeper = None if state is None else kept(state)
    with contextlib.nullcontext() if keeper is None else keeper.locked():
        if keeper is not None:
            _take_up(result, keeper)
        for place, column in np.argwhere(np.isnan(result.seconds)).tolist():
            begun, seed = time.perf_counter(), numbers[column]
            if progress:
                sys.stderr.write(f"ablation: {chosen[place]}, seed {seed}\n")
            errors = _errors(nets[place], sources["train"], sources["validation"], recipe, seed, progress)
            for name, value in zip(ERRORS, errors, strict=True):
                getattr(result, name)[place, column] = value
            result.seconds[place, column] = time.perf_counter() - begun
            if keeper is not None:
                keeper.save(result)
    return result


def kept(state: str | Path) -> Generations:
    """The ablations in a folder that keeps what is done so far; `furthest()` is the last.

    Parameters
    ----------
    state : the folder; made if it does not exist
    """
    return Generations(state, Ablation, lambda found: int(np.isfinite(found.seconds).sum()), "ablation")


def _take_up(fresh: Ablation, keeper: Generations) -> None:
    """Put in what was done before, if it is of the same ablation."""
    found: Ablation | None = keeper.furthest()
    if found is None:
        return
    different = [name for name in ("network", "rows", "seeds", "settings")
                 if getattr(found, name) != getattr(fresh, name)]
    if different:
        raise results.ResultError(f"{keeper.path}: is the state of another ablation ({', '.join(different)} differ); "
                                  "allowed: a new name, or the same ablation")
    for name in (*ERRORS, "seconds"):
        getattr(fresh, name)[:] = getattr(found, name)


def _described(network: Any) -> str:
    """SHA-256 of a network's description, without its parameters."""
    digest = hashlib.sha256(json.dumps(network.to_config(), sort_keys=True).encode())
    for name, array in sorted((network.preprocessing.tensors() if network.preprocessing else {}).items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _errors(network: Any, train: Any, validation: Any, recipe: Any, seed: int, progress: bool
            ) -> tuple[float, float, float, float]:
    """Train a network and measure ERRORS; the network's parameters are let go again."""
    from ..training import Training, measure
    from ..training.preparation import held_out_feed, training_feed

    net = without(network, [])
    recipe.prepare(net)
    recipe.initialize(net, seed)
    feed = training_feed(net, train, recipe, seed=seed)
    optimizer, schedule = recipe.make_optimizer(), recipe.make_schedule()
    base = optimizer.learning_rate
    checked = held_out_feed(net, validation, batch_size=recipe.batch_size)
    Training(net, feed, optimizer, lambda epoch, errors: schedule.rate(base, epoch, recipe.epochs, errors), seed,
             checked if schedule.needs_validation else None).run(recipe.epochs, progress=progress)
    found = []
    for images in (held_out_feed(net, train, batch_size=recipe.batch_size), checked):
        result = measure(net, images, progress=progress)
        found += [1 - result.accuracy, 1 - result.top5]
    return found[0], found[1], found[2], found[3]
