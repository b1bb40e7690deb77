"""Fair timing on a noisy machine: contenders take turns, medians are compared, ratios are kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = "zfcore"
FROZEN = "zfcore, frozen"  # ours too: a network whose weights are declared unchanging
WARM, SHORT = 0.02, 0.25  # seconds, see `interleave`


@dataclass
class Row:
    """One piece of work, timed for every contender; `gflop` is its cost in multiply-adds times two."""

    work: str
    medians: dict[str, float]
    samples: dict[str, list[float]] = field(repr=False)
    gflop: float | None = None
    scale: float = 1.0
    note: str = ""

    @property
    def peer(self) -> str:
        """The fastest contender that is not ours."""
        return min((name for name in self.medians if name not in (OURS, FROZEN)), key=self.medians.__getitem__)

    @property
    def ratio(self) -> float | None:
        """Best peer's time over ours: above 1 we win. None without a peer."""
        return self.medians[self.peer] / self.medians[OURS] if len(self.medians) > 1 else None


def interleave(work: str, contenders: dict[str, Callable[[], Any]], *, seconds: float = 3.0, rounds: int = 5,
               gflop: float | None = None, note: str = "") -> Row:
    """Time every contender in turn, at least `rounds` rounds and about `seconds` for each.

    The first call of each (compilation, allocation) is not counted. A turn of a call under SHORT seconds begins
    with uncounted ones, for WARM seconds: a library's threads keep looking for work for milliseconds after a call
    (OpenMP's in PyTorch, a quarter of one in ours), on the very cores that the next contender needs.
    """
    short: set[str] = set()
    for name, call in contenders.items():
        call()
        start = time.perf_counter()
        call()
        if time.perf_counter() - start < SHORT:
            short.add(name)
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    deadline = time.perf_counter() + seconds * len(contenders)
    while len(samples[OURS]) < rounds or (time.perf_counter() < deadline and len(samples[OURS]) < 200):
        for name, call in contenders.items():
            begun = time.perf_counter()
            while name in short and time.perf_counter() < begun + WARM:
                call()
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    return Row(work, medians, samples, gflop, note=note)


def both(row: Row) -> tuple[Row, Row]:
    """Two rows of one timing: without anything frozen; and with FROZEN in our place, beside all peers."""
    def without(values: dict[str, Any], ours: str) -> dict[str, Any]:
        left_out = "frozen" if ours == OURS else FROZEN
        return {OURS: values[ours], **{name: each for name, each in values.items()
                                       if name != OURS and left_out not in name}}

    plain, frozen = (replace(row, medians=without(row.medians, ours), samples=without(row.samples, ours))
                     for ours in (OURS, FROZEN))
    return plain, replace(frozen, work=f"{row.work}, frozen")


def describe(row: Row) -> str:
    """One line of the table."""
    ours = row.medians[OURS]
    rate = f"{row.gflop / ours:7.0f}" if row.gflop else "      -"
    if row.ratio is None:
        return f"{row.work:<46} {ours * 1e3:10.2f} {'-':>10} {'-':>7} {rate}  {row.note}"
    peer = row.medians[row.peer]
    return (f"{row.work:<46} {ours * 1e3:10.2f} {peer * 1e3:10.2f} {row.ratio:6.2f}x {rate}  "
            f"{row.peer}{'; ' + row.note if row.note else ''}")


HEADER = f"{'work':<46} {'ours ms':>10} {'peer ms':>10} {'ratio':>7} {'GFLOP/s':>7}  best peer"


def processor() -> str:
    """The processor's name, as the operating system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """Short hash of the checked-out commit, '+' behind it when files differ from it."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=here, check=True,
                               capture_output=True, text=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(threads: int) -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    packages = {}
    for package in ("numpy", "numba", "torch", "captum"):
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = None
    return {"device": processor(), "cores": os.cpu_count(), "threads": threads,
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(),
            "python": platform.python_version(), "packages": packages}


def write(path: Path, rows: list[Row], threads: int) -> None:
    """Write all rows with their raw samples as JSON."""
    table = [{**asdict(row), "best_peer": row.peer if len(row.medians) > 1 else None, "ratio": row.ratio}
             for row in rows]
    for entry in table:
        entry["samples"] = {name: [round(value, 7) for value in values]
                            for name, values in entry["samples"].items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(threads), "rows": table}, indent=1) + "\n")
