"""The targets of the GPU's speed, and whether rows meet them. No PyTorch here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .rows import COMPILED, Row

Value = Callable[[Row], float | None]


def ratio(row: Row) -> float | None:
    """To the best peer."""
    return row.ratio


def captum(row: Row) -> float | None:
    """To Captum; where that is missing, to hooks that do the same, map by map."""
    return row.against("Captum") or row.against("torch hooks, map by map")


@dataclass(frozen=True)
class Target:
    """What rows of a family must reach.

    Attributes
    ----------
    name : in words
    family : of the rows
    value : what is compared, of one row
    least : what it must reach
    mean : whether the geometric mean of all rows must, or each of them
    """

    name: str
    family: str
    value: Value
    least: float
    mean: bool = False


TARGETS = (
    Target("memory-bound kernels: share of the measured copy bandwidth", "memory", lambda row: row.share, 0.85),
    Target("memory-bound kernels: to eager PyTorch", "memory", lambda row: row.eager, 3.0),
    Target("memory-bound kernels: to torch.compile", "memory", lambda row: row.against(COMPILED), 1.0),
    Target("convolutions, 16 bits and tf32: geometric mean", "convolution", ratio, 1.0, mean=True),
    Target("convolutions, 16 bits and tf32: each", "convolution", ratio, 0.8),
    Target("convolutions, strict float32: geometric mean", "strict", ratio, 1.0, mean=True),
    Target("conv1 + ReLU + pool, forward and backward", "chain", ratio, 1.5),
    Target("unpool, rectify, filter", "chain down", ratio, 2.0),
    Target("ZFNet training step, 16 bits", "step ZFNet", ratio, 1.5),
    Target("AlexNet training step, 16 bits", "step AlexNet", ratio, 1.1),
    Target("VGG-16 training step, 16 bits", "step VGG-16", ratio, 1.1),
    Target("conv5's projections: to Captum", "projections", captum, 20.0),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: rows without a value count as a miss, no rows as "not measured"."""

    target: Target
    works: tuple[str, ...]
    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """The values there are."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        """Their geometric mean."""
        return statistics.geometric_mean(self.known) if self.known else None

    @property
    def lowest(self) -> tuple[float, str] | None:
        """The lowest value and its work."""
        return min(((value, work) for value, work in zip(self.values, self.works, strict=True) if value is not None),
                   default=None)

    @property
    def word(self) -> str:
        """met, missed or not measured."""
        if not self.values:
            return "not measured"
        measured = self.mean if self.target.mean else self.lowest and self.lowest[0]
        complete = len(self.known) == len(self.values)
        return "met" if complete and measured is not None and measured >= self.target.least else "missed"

    def cells(self) -> tuple[str, str, str, str]:
        """Target, what it asks, what was measured, the word."""
        asked = f"{'mean' if self.target.mean else 'each'} >= {self.target.least:g}"
        if self.mean is None or self.lowest is None:
            return self.target.name, asked, "no value" if self.values else "-", self.word
        without = len(self.values) - len(self.known)
        found = (f"mean {self.mean:.2f}, lowest {self.lowest[0]:.2f} ({self.lowest[1]}), "
                 f"{len(self.known)} rows" + (f", {without} without a value" if without else ""))
        return self.target.name, asked, found, self.word


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One for each target."""
    found = []
    for target in TARGETS:
        own = [row for row in rows if row.family == target.family]
        found.append(Verdict(target, tuple(row.work for row in own), tuple(map(target.value, own))))
    return found


def summary(rows: Sequence[Row]) -> str:
    """The verdicts for a terminal."""
    return "\n".join(f"{word:<13} {name} ({asked}): {found}"
                     for name, asked, found, word in (each.cells() for each in verdicts(rows)))
