"""Kill training runs and see whether they come to the same end: started by test_kills.py in a process of its own.

Every run is a forked child of this process, so that nothing is imported or compiled again. Two ways:
`points` counts a child's writes, fsyncs, renames and steps and kills it around a chosen one; `instants`
kills it from outside after a time drawn with the seed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from training_cases import begin, result

from zfcore import files
from zfcore.formats import safetensors
from zfcore.kernels.threads import set_num_threads
from zfcore.training import checkpoint, log, loop

TARGETS = ((files.Sink, "write"), (files.tempfile, "mkstemp"), (os, "fsync"), (os, "replace"), (os, "chmod"),
           (os, "unlink"), (files, "_read_back"), (files, "_sync_folder"), (log.Log, "write"), (log.Log, "__init__"),
           (log.Log, "sync"), (loop, "train_step"))


def run(folder: Path) -> None:
    """Begin the run, or go on with it; a checkpoint after every step."""
    begin(folder, resume=True, epochs=3, checkpoint_seconds=0)


def child(folder: Path, at: int | None = None, counted: Path | None = None) -> int:
    """Run in a forked process, with calls counted if `at` is given; its id."""
    number = os.fork()
    if number == 0:
        try:
            if at is not None:
                counting(at, counted)
            run(folder)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return number


def ended(number: int) -> int:
    """Wait for a child: 0, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def counting(at: int, found: Path | None = None) -> None:
    """Replace what writes: count the calls, twice each, and kill this process at number `at`."""
    count = [0]

    def point() -> None:
        count[0] += 1
        if found is not None:
            found.write_text(str(count[0]))
        if count[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(kept: Callable[..., Any], half: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            point()
            if half and count[0] + 1 == at:  # half of it is written
                arguments[0]._file.write(bytes(arguments[1])[:len(arguments[1]) // 2])
                arguments[0]._file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            value = kept(*arguments, **options)
            point()
            return value
        return call

    for owner, name in TARGETS:
        setattr(owner, name, around(getattr(owner, name), owner is files.Sink))


def count_points(work: Path) -> int:
    """How many points an uninterrupted run passes."""
    assert ended(child(work / "counted", 0, work / "count")) == 0
    return int((work / "count").read_text())


def at_points(work: Path, whole: Any, kills: int, generator: np.random.Generator) -> dict[str, Any]:
    """Two kills a run, the second while it goes on after the first; the first ones spread over all points."""
    total = count_points(work)
    cases = -(-kills // 2)
    done, wrong = 0, []
    for case in range(cases):
        folder = work / "points"
        shutil.rmtree(folder, ignore_errors=True)
        first = 1 + int((case + generator.random()) * total / cases)
        for at in (first, 1 + int(generator.integers(total))):
            done += ended(child(folder, at)) == -signal.SIGKILL
        if ended(child(folder)) != 0 or result(folder) != whole:
            wrong.append(first)
    return {"points": total, "kills": done, "wrong": wrong}


def at_instants(work: Path, whole: Any, kills: int, generator: np.random.Generator) -> dict[str, Any]:
    """Kill at any time within the time that a whole run takes, until it comes to an end nevertheless."""
    begun = time.perf_counter()
    assert ended(child(work / "timed")) == 0
    longest = time.perf_counter() - begun
    done, runs, wrong = 0, 0, []
    while done < kills:
        folder = work / "instants"
        shutil.rmtree(folder, ignore_errors=True)
        runs += 1
        while True:
            number = child(folder)
            if done < kills:
                time.sleep(longest * generator.random() * 0.7)
                os.kill(number, signal.SIGKILL)
            code = ended(number)
            if code == -signal.SIGKILL:
                done += 1
            else:
                break
        if code != 0 or result(folder) != whole:
            wrong.append(runs)
    return {"runs": runs, "kills": done, "wrong": wrong}


def break_it(how: str) -> None:
    """Take a safeguard away, so that a test can see that its absence is found."""
    if how == "the log is not cut back":
        kept = log.Log.__init__

        def opened(self: log.Log, path: Any, length: int) -> None:
            kept(self, path, Path(path).stat().st_size if Path(path).exists() else 0)

        log.Log.__init__ = opened  # type: ignore[method-assign]
    elif how == "momentum is not saved":
        restore = checkpoint.Checkpoint.restore

        def forgetful(self: checkpoint.Checkpoint, training: Any) -> None:
            self.slots.clear()
            restore(self, training)

        checkpoint.Checkpoint.restore = forgetful  # type: ignore[method-assign]
    elif how == "generations are written in place":
        def in_place(path: Any, writer: Any) -> str:
            with open(path, "wb") as file:
                writer(files.Sink(file)) if callable(writer) else files.Sink(file).write(writer)
            return ""

        safetensors.atomic_write = in_place
        checkpoint.NAMES = checkpoint.NAMES[:1] * 2
    else:
        raise ValueError(how)


def main() -> None:
    """Arguments: a folder, the seed, kills at points, kills at instants, what to break. Prints JSON."""
    work = Path(sys.argv[1])
    seed, points, instants = (int(word) for word in sys.argv[2:5])
    set_num_threads(1)
    run(work / "whole")
    whole = result(work / "whole")
    if len(sys.argv) > 5:
        break_it(sys.argv[5])
    found = {"points": at_points(work, whole, points, np.random.default_rng([seed, 1])),
             "instants": at_instants(work, whole, instants, np.random.default_rng([seed, 2]))}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
