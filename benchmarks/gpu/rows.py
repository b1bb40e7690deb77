"""A row: one piece of work, timed for every contender; and its line, its JSON and its arithmetic. No PyTorch here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

OURS = "zfcore"  # contenders whose name begins so are ours, as in "zfcore, captured"
COMPILED = "torch.compile"  # and these are PyTorch's compiler's
PAPER = 70 * 1.3e6 / (12 * 86400)  # images a second: "70 epochs, ... around 12 days" of 1.3 million images on one
#                                    GTX 580 (Zeiler & Fergus 2013, section 3): 88


@dataclass
class Row:
    """One piece of work.

    Attributes
    ----------
    group, work : where it was measured, and what
    family : the targets that it is measured for, see `targets`; "" for none
    samples : seconds of one call, by contender
    left_out : contenders without samples, and why
    gflop, bytes : what the work asks for at least
    ceiling : seconds that the ceilings of the run allow for it
    errors : root mean square of the difference from float64, relative to that of the exact values, by contender
    workspace : bytes that ours asks for besides its arrays
    images : in one call, of rows that are whole passes
    """

    group: str
    work: str
    family: str = ""
    precision: str = "float32"
    samples: dict[str, list[float]] = field(default_factory=dict, repr=False)
    left_out: dict[str, str] = field(default_factory=dict)
    gflop: float = 0.0
    bytes: float = 0.0
    ceiling: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)
    workspace: int = 0
    images: int = 0
    note: str = ""

    @property
    def medians(self) -> dict[str, float]:
        """Seconds of one call, by contender."""
        return {name: statistics.median(values) for name, values in self.samples.items()}

    def fastest(self, names: Iterable[str]) -> str | None:
        """Of these contenders, the one that takes least; None of none."""
        return min((name for name in names if name in self.samples), key=self.medians.__getitem__, default=None)

    @property
    def ours(self) -> str | None:
        """The fastest of ours."""
        return self.fastest(name for name in self.samples if name.startswith(OURS))

    @property
    def peer(self) -> str | None:
        """The fastest of the others."""
        return self.fastest(name for name in self.samples if not name.startswith(OURS))

    def over_ours(self, name: str | None) -> float | None:
        """A contender's time over ours: above 1 we win."""
        if name is None or self.ours is None:
            return None
        return self.medians[name] / self.medians[self.ours]

    @property
    def ratio(self) -> float | None:
        """Best peer's time over ours."""
        return self.over_ours(self.peer)

    def against(self, beginning: str) -> float | None:
        """The ratio to the fastest peer whose name begins so."""
        return self.over_ours(self.fastest(name for name in self.samples if name.startswith(beginning)))

    @property
    def eager(self) -> float | None:
        """The ratio to the fastest peer that was not compiled."""
        return self.over_ours(self.fastest(name for name in self.samples if not name.startswith((OURS, COMPILED))))

    @property
    def share(self) -> float | None:
        """Of the ceiling: the time that it allows over ours."""
        return self.ceiling / self.medians[self.ours] if self.ours and self.ceiling else None

    def text(self) -> str:
        """The row for a terminal: its line, then what was left out."""
        if self.ours is None:
            line = f"{self.work:<52} no result of ours"
        else:
            samples, taken = self.samples[self.ours], self.medians[self.ours]
            tenth, ninetieth = (statistics.quantiles(samples, n=10)[place] if len(samples) > 1 else taken
                                for place in (0, 8))
            line = f"{self.work:<52} {taken * 1e6:9.1f} us ({tenth * 1e6:.1f}-{ninetieth * 1e6:.1f}, n {len(samples)})"
            line += f" {self.rate}" if self.rate else ""
            line += f", {100 * self.share:.1f} % of the ceiling" if self.share else ""
            line += f", {self.ratio:.2f}x {self.peer}" if self.ratio else ", no peer"
            line += f" (by {self.ours})" if self.ours != OURS else ""
        if self.errors:
            line += "; errors " + ", ".join(f"{name} {value:.1e}" for name, value in self.errors.items())
        line += f"; workspace {self.workspace} bytes" if self.workspace else ""
        line += f"; {self.note}" if self.note else ""
        return "\n".join([line, *(f"    left out: {name}: {reason}" for name, reason in self.left_out.items())])

    @property
    def rate(self) -> str:
        """What ours gets done a second."""
        if self.ours is None:
            return ""
        taken = self.medians[self.ours]
        if self.images:
            return f"{self.images / taken:.0f} images/s (the paper's GTX 580: {PAPER:.0f})"
        if self.gflop:
            return f"{self.gflop / taken / 1e3:.1f} TFLOP/s"
        return f"{self.bytes / taken / 1e9:.0f} GB/s" if self.bytes else ""


def written(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as JSON has them, with what a reader would compute."""
    return [{**asdict(row), "medians": row.medians, "best_peer": row.peer, "ratio": row.ratio, "share": row.share}
            for row in rows]


def read(entries: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows from JSON; the computed fields are computed again."""
    names = {each.name for each in fields(Row)}
    return [Row(**{key: value for key, value in entry.items() if key in names}) for entry in entries]


def merged(files: Iterable[Path]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of several runs, and what each file says besides; of one work the newest counts."""
    found = sorted((json.loads(file.read_text("utf-8")) for file in files),
                   key=lambda each: str(each["environment"]["date"]))
    rows = {row.work: row for each in found for row in read(each["rows"])}
    return list(rows.values()), [{key: value for key, value in each.items() if key != "rows"} for each in found]
