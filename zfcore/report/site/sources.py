"""What a site is made of: result folders, as the commands wrote them or as `save` did."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data.decode import printable
from ...formats import results

DEPTH = 2  # folders below the one that was named: a command's output holds its results at most so deep
RUN = "run"  # the kind of a training run's folder
PARTS = {"projections"}  # results that belong to another one


@dataclass
class Source:
    """One saved result.

    Attributes
    ----------
    path : its folder
    kind : what it is a result of
    name : for titles, unique within a site
    summary : the `summary.json` of the command that wrote it, or empty
    output : the folder that the command wrote, where there is one; else `path`
    """

    path: Path
    kind: str
    name: str
    summary: dict[str, Any] = field(default_factory=dict)
    output: Path = Path()

    @property
    def title(self) -> str:
        """A heading: the kind, and the name where that says more."""
        kind = self.kind.replace("-", " ").capitalize()
        return kind if self.name.lower() == self.kind else f"{kind}: {self.name}"

    @property
    def manifest(self) -> dict[str, Any]:
        """The result's manifest, as it was written."""
        return dict(json.loads((self.path / "manifest.json").read_bytes()))


def find(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """The results in the folders that were named, in that order.

    Parameters
    ----------
    paths : result folders, or folders that commands wrote, which hold results

    Raises
    ------
    FileNotFoundError : there is no such folder
    results.ResultError : a folder in which there is no result
    """
    found: list[Source] = []
    seen: set[Path] = set()
    for path in map(Path, paths):
        if not path.is_dir():
            raise FileNotFoundError(f"report: {printable(str(path))} is no folder; allowed: folders of results")
        every = list(_results(path, DEPTH))
        if not every:
            raise results.ResultError(f"{printable(str(path))}: no result of zfcore is in it (a manifest.json)")
        here = [folder for folder in every if folder.resolve() not in seen]
        seen |= {folder.resolve() for folder in here}
        summary = _summary(path)
        found += [Source(folder, RUN if (folder / "run.json").is_file() else results.kind_of(folder),
                         _name(path, folder), summary, path) for folder in here]
    _make_unique(found)
    return found


def without_folders(text: str) -> str:
    """A path as the last part of it: where files lay on somebody's disk does not belong into a shared page."""
    absolute = text.startswith("/") or text[1:3] in (":\\", ":/")
    return printable(text.replace("\\", "/").rstrip("/").rpartition("/")[2] if absolute else text)


def _results(folder: Path, depth: int) -> Iterator[Path]:
    """Folders of results and of training runs, the highest on each way down."""
    if (folder / "run.json").is_file():
        yield folder
    elif (folder / "manifest.json").is_file():
        if results.kind_of(folder) not in PARTS:
            yield folder
    elif depth:
        for below in sorted(folder.iterdir()):
            if below.is_dir() and not below.is_symlink():
                yield from _results(below, depth - 1)


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads((path / "summary.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _name(path: Path, folder: Path) -> str:
    """The output folder's name; with the result's own behind it where that says more."""
    base = path.resolve().name
    inner = [part for part in folder.relative_to(path).parts if part not in ("atlas", "result")]
    return printable("/".join([base, *inner]))


def _make_unique(sources: list[Source]) -> None:
    taken: set[str] = set()
    for source in sources:
        name, number = source.name, 2
        while name in taken:
            name, number = f"{source.name} ({number})", number + 1
        source.name = name
        taken.add(name)
