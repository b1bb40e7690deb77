"""Learning rates by epoch, as data: constant, by hand, in steps, on a plateau, linear, cosine.

A schedule is a function of the epoch's number and of the validation errors before it and keeps
nothing itself, so a resumed run has the same rates as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from .. import checks

__all__ = ["ByHand", "Constant", "CosineDecay", "LinearDecay", "Plateau", "Schedule", "Step", "schedule_from_config"]


def _positive(where: str, name: str, value: Any, below: float = math.inf) -> None:
    allowed = "a number above 0" + (f" and below {below:g}" if below < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        checks.fail(where, name, value, allowed, TypeError)
    checks.require(0 < value < below, where, name, value, allowed)


@dataclass(frozen=True)
class Schedule:
    """Common part of all schedules.

    Attributes
    ----------
    needs_validation : whether rates depend on validation errors
    needs_length : whether they depend on how many epochs there will be
    """

    kind: ClassVar[str] = ""
    needs_validation: ClassVar[bool] = False
    needs_length: ClassVar[bool] = False

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        """The learning rate of an epoch.

        Parameters
        ----------
        base : the recipe's learning rate
        epoch : its number, from 0
        epochs : how many there will be
        errors : validation error of each epoch before it, or nothing
        """
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """Kind and settings, for JSON."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The recipe's rate throughout."""

    kind: ClassVar[str] = "constant"

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        return base


@dataclass(frozen=True)
class ByHand(Schedule):
    """Rates that somebody chose: {epoch from which on: rate}; before the first of them the recipe's.

    Parameters
    ----------
    rates : {30: 0.001, 50: 0.0001}; numbers of epochs may be texts, as in JSON
    """

    kind: ClassVar[str] = "by-hand"
    rates: Mapping[Any, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.rates, Mapping):
            checks.fail("schedule by-hand", "rates", self.rates, "{epoch: rate}", TypeError)
        found = {}
        for epoch, rate in self.rates.items():
            number = int(epoch) if isinstance(epoch, str) and epoch.isdecimal() else epoch
            checks.integer("schedule by-hand", "an epoch of rates", number, 0)
            _positive("schedule by-hand", f"rates[{number}]", rate)
            found[number] = float(rate)
        object.__setattr__(self, "rates", dict(sorted(found.items())))

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        return next((rate for begin, rate in reversed(list(self.rates.items())) if begin <= epoch), base)

    def to_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "rates": {str(epoch): rate for epoch, rate in self.rates.items()}}


@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by `factor` every so many epochs."""

    kind: ClassVar[str] = "step"
    every: int = 30
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.integer("schedule step", "every", self.every, 1)
        _positive("schedule step", "factor", self.factor)

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        return base * self.factor ** (epoch // self.every)


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiplied by `factor` when the validation error stops improving (Krizhevsky et al. 2012, section 5).

    Parameters
    ----------
    factor : of the rate
    patience : epochs without a better error that are waited for
    threshold : by how much an error must be below the best one to be better
    times : how often at most; None: as often as it happens
    """

    kind: ClassVar[str] = "plateau"
    needs_validation: ClassVar[bool] = True
    factor: float = 0.1
    patience: int = 3
    threshold: float = 0.0
    times: int | None = None

    def __post_init__(self) -> None:
        where = "schedule plateau"
        _positive(where, "factor", self.factor, below=1)
        checks.integer(where, "patience", self.patience, 1)
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            checks.fail(where, "threshold", self.threshold, "a number from 0 to below 1", TypeError)
        checks.require(0 <= self.threshold < 1, where, "threshold", self.threshold, "a number from 0 to below 1")
        if self.times is not None:
            checks.integer(where, "times", self.times, 0)

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        best, waited, drops = math.inf, 0, 0
        for error in errors[:epoch]:
            waited = 0 if error < best - self.threshold else waited + 1
            best = min(best, error)
            if waited == self.patience and (self.times is None or drops < self.times):
                waited, drops = 0, drops + 1
        return base * self.factor ** drops


@dataclass(frozen=True)
class LinearDecay(Schedule):
    """Falls linearly, from the recipe's rate in the first epoch to zero after the last."""

    kind: ClassVar[str] = "linear"
    needs_length: ClassVar[bool] = True

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        return base * (1 - epoch / epochs)


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Falls as half a cosine wave, from the recipe's rate in the first epoch to zero after the last."""

    kind: ClassVar[str] = "cosine"
    needs_length: ClassVar[bool] = True

    def rate(self, base: float, epoch: int, epochs: int, errors: Sequence[float]) -> float:
        return base * (1 + math.cos(math.pi * epoch / epochs)) / 2


KINDS: dict[str, type[Schedule]] = {
    each.kind: each for each in (Constant, ByHand, Step, Plateau, LinearDecay, CosineDecay)}


def schedule_from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_config` or a recipe describes; ValueError for anything else.

    Parameters
    ----------
    config : {"kind": "step", "every": 30, "factor": 0.1} and so on
    """
    where = "schedule"
    checks.require(isinstance(config, Mapping) and "kind" in config, where, "config", config, "a table with a kind")
    checks.one_of(where, "kind", config["kind"], KINDS)
    kind = KINDS[config["kind"]]
    known = [each.name for each in fields(kind)]
    unknown = sorted(set(config) - set(known) - {"kind"})
    checks.require(not unknown, where, f"settings of {config['kind']}", unknown, ", ".join(known) or "none")
    return kind(**{key: value for key, value in config.items() if key != "kind"})
