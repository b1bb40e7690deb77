"""A long study's state on disk: after kill -9 it goes on where the last whole state was written.

A folder holds two generations, "0" and "1", written in turn, each completely or not at all, and each
a result of what was done so far. The one that reaches further and is not damaged counts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..files import locked
from . import results
from .atlas import Atlas, AtlasError

GENERATIONS = ("0", "1")
LOCK = "lock"


class Generations:
    """The two generations of a result in a folder.

    Parameters
    ----------
    path : the folder; made if it does not exist
    kind : of the results, with `save` and `load`
    done : how far a result reaches
    study : what is under way, for messages
    """

    def __init__(self, path: str | os.PathLike[str], kind: Any, done: Callable[[Any], int], study: str) -> None:
        self.path, self.kind, self.done, self.study = Path(path), kind, done, study
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is not a folder; allowed: a new name, or a state of {study}")
        others = [] if not self.path.exists() else [
            entry.name for entry in self.path.iterdir()
            if entry.name not in (*GENERATIONS, LOCK) and not _leftover(entry.name)]
        if others:
            raise FileExistsError(f"{self.path} holds {others[0]!r}, which is no part of a state of {study}; "
                                  f"allowed: a new name, or a state of {study}")
        self.path.mkdir(exist_ok=True)
        self._next = GENERATIONS[0]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock ends with the process, however that ends."""
        with locked(self.path / LOCK, f"{self.path}: another process is at work on this state of {self.study}"):
            for entry in self.path.iterdir():
                if _leftover(entry.name):
                    shutil.rmtree(entry)  # half of a generation, from a process that was killed
            yield

    def furthest(self) -> Any:
        """The result that reaches furthest, or None where there is none yet; the other's damage is said.

        Raises
        ------
        results.ResultError : there are generations, but no whole one
        """
        found: dict[str, Any] = {}
        faults = []
        for name in GENERATIONS:
            if (self.path / name).exists():
                try:
                    found[name] = self.kind.load(self.path / name)
                except results.ResultError as error:
                    faults.append(error)
        if not found:
            if faults:
                raise faults[0]
            return None
        for fault in faults:
            sys.stderr.write(f"{self.study}: {fault}; going on from the other state, which is whole\n")
        name = max(found, key=lambda each: self.done(found[each]))
        self._next = GENERATIONS[1 - GENERATIONS.index(name)]
        return found[name]

    def save(self, result: Any) -> None:
        """Write the next generation over the one before the last."""
        result.save(self.path / self._next, force=True)
        self._next = GENERATIONS[1 - GENERATIONS.index(self._next)]

    def remove(self) -> None:
        """Delete the folder, when the study's result is safe elsewhere."""
        shutil.rmtree(self.path, ignore_errors=True)


class State(Generations):
    """A scan's state: atlases of the images seen so far.

    Parameters
    ----------
    path : the folder; made if it does not exist
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, Atlas, lambda atlas: atlas.scanned, "atlas")

    def load(self, expected: dict[str, Any], begin: int, end: int) -> Atlas | None:
        """The state that reaches furthest, or None where there is none yet.

        Parameters
        ----------
        expected : what `Atlas.identity` must be
        begin, end : the images that the scan is about

        Raises
        ------
        AtlasError : it is the state of another scan
        results.ResultError : there are generations, but no whole one
        """
        atlas: Atlas | None = self.furthest()
        if atlas is None:
            return None
        mine = atlas.identity()
        different = [key for key in expected if mine[key] != expected[key]]
        if different:
            raise AtlasError(f"{self.path}: is the state of another scan ({', '.join(different)} differ); "
                             "allowed: a new name, or the same scan")
        if len(atlas.covered) > 1 or (atlas.covered and (atlas.covered[0][0] != begin or atlas.covered[0][1] > end)):
            raise AtlasError(f"{self.path}: is the state of another part of the images ({atlas.covered}); "
                             f"allowed: a part of {begin}..{end - 1} from {begin} on")
        return atlas


def _leftover(name: str) -> bool:
    """Whether a name is that of a temporary folder of `files.atomic_folder`."""
    return name.startswith(tuple(f".{each}." for each in GENERATIONS)) and name.endswith((".tmp", ".old"))
