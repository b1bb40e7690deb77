"""A run's folder: what lies in it, when a run must not be written there, and what is left of one that was killed.

    run.json        what is trained on what, how; written once
    log.jsonl       loss, rate, images a second, every few steps and every epoch
    checkpoint-*    the state, two generations
    best.safetensors, model.safetensors   the model with the least validation error; the last one
    epoch-*.safetensors                   the models after chosen epochs
    curves.png, summary.json, events/
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .checkpoint import NAMES

__all__ = ["clear", "kept_models", "refuse"]

DESCRIPTION, LOG, LOCK = "run.json", "log.jsonl", "lock"
MODEL, BEST, CURVES, SUMMARY, EVENTS = "model.safetensors", "best.safetensors", "curves.png", "summary.json", "events"
FILES = (DESCRIPTION, LOG, *NAMES, MODEL, BEST, CURVES, SUMMARY)
KEPT = "epoch-{:04d}.safetensors"


def refuse(folder: Path, resume: bool, force: bool) -> None:
    """FileExistsError if a run must not be written there.

    Parameters
    ----------
    folder : that of the run
    resume, force : whether a run that is there is gone on with, or replaced
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{folder} is not a folder; allowed: a new name, or a run's folder")
    ours = any((folder / name).exists() for name in FILES)
    others = [] if ours or not folder.exists() else sorted(
        entry.name for entry in folder.iterdir() if entry.name not in (LOCK, EVENTS) and not _half(entry))
    if others:
        raise FileExistsError(f"{folder} holds {others[0]!r} and no run; allowed: a new name, or a run's folder")
    if ours and not resume and not force:
        raise FileExistsError(f"{folder} holds a run; resume=True (--resume) goes on with it, force=True (--force) "
                              "replaces it")


def _half(entry: Path) -> bool:
    """Whether a killed process left this file half written."""
    return entry.name.startswith(".") and entry.name.endswith(".tmp")


def clear(folder: Path, resume: bool, force: bool) -> None:
    """Remove what a killed process left half written, and a run that is to be replaced.

    Parameters
    ----------
    folder : that of the run
    resume, force : as in `refuse`
    """
    for entry in folder.iterdir():
        if _half(entry):
            entry.unlink()
    if force and not resume:
        for name in FILES[::-1]:
            (folder / name).unlink(missing_ok=True)
        for kept in kept_models(folder).values():
            kept.unlink()
        shutil.rmtree(folder / EVENTS, ignore_errors=True)


def kept_models(folder: Path) -> dict[int, Path]:
    """The models that a run kept on its way, by the number of epochs after which, rising.

    Parameters
    ----------
    folder : that of the run
    """
    prefix, suffix = KEPT.split("{:04d}")
    found = {path.name.removeprefix(prefix).removesuffix(suffix): path for path in folder.glob(f"{prefix}*{suffix}")}
    return dict(sorted((int(text), path) for text, path in found.items() if text.isdecimal()))
