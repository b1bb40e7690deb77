"""What `zfcore train` was asked for: the command line's words, and with --resume those of the run's beginning."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import integer, positive

if TYPE_CHECKING:
    from ..training.recipes import Recipe

__all__ = ["before", "chosen_recipe", "overrides", "settled"]

DEFAULTS: dict[str, Any] = {"seed": 0, "on_bad_image": "fail"}


def overrides(epochs: str | None, batch_size: str | None, learning_rate: str | None, changes: list[str]
              ) -> dict[str, Any]:
    """The recipe's settings that the command line changes.

    Parameters
    ----------
    epochs, batch_size, learning_rate : what was typed, or None
    changes : KEY=VALUE each; the value "none" takes a setting away
    """
    found: dict[str, Any] = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set is {text!r}; allowed: KEY=VALUE, as in optimizer.decay=0.001")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = None if value.strip().lower() == "none" else value.strip()
    if epochs is not None:
        found["epochs"] = integer("--epochs", epochs, 1)
    if batch_size is not None:
        found["batch_size"] = integer("--batch-size", batch_size, 1)
    if learning_rate is not None:
        found["optimizer.learning_rate"] = positive("--learning-rate", learning_rate)
    return found


def before(folder: Path, resume: bool) -> dict[str, Any] | None:
    """What run.json says of the run to go on with; None if it begins now.

    Parameters
    ----------
    folder : the run's
    resume : whether to go on
    """
    if not resume:
        return None
    from ..training.folder import DESCRIPTION

    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found["arguments"], dict) or not isinstance(found["recipe"], dict):
            raise KeyError("arguments")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: is no description of a run that `zfcore train` began") from None
    return dict(found)


def settled(given: Mapping[str, Any], begun: Mapping[str, Any] | None, model: str | None, data: str | None
            ) -> dict[str, Any]:
    """The arguments of a new run, or those of the run to go on with, which must agree.

    Parameters
    ----------
    given : what was typed, by name; None: nothing
    begun : see `before`
    model, data : of them, what a new run must have
    """
    if begun is None:
        for name, value in (("MODEL", model), ("DATA", data)):
            if value is None:
                raise ValueError(f"{name} is missing; allowed to be left out only with --resume, in a run's folder")
        return {**given, **{name: value for name, value in DEFAULTS.items() if given[name] is None}}
    stored = {**begun["arguments"],
              **{name: value for name, value in DEFAULTS.items() if begun["arguments"].get(name) is None}}
    for name in ("on_bad_image", "keep"):  # a run may go on without a picture that it met, and keep other models
        stored[name] = stored.get(name) if given[name] is None else given[name]
    for name, value in given.items():
        if value is not None and value != stored.get(name):
            raise ValueError(f"{name.replace('_', '-')} is {value!r}, but the run was begun with "
                             f"{stored.get(name)!r}; allowed: the same, or leaving it out")
    return {name: stored.get(name) for name in given}


def chosen_recipe(name: str | None, changes: Mapping[str, Any], begun: Mapping[str, Any] | None) -> Recipe:
    """The recipe by name or file, or the run's own, with the changes of the command line.

    Parameters
    ----------
    name : what was typed, or None
    changes : see `overrides`
    begun : see `before`
    """
    from ..training.recipes import Recipe, recipe

    if begun is None:
        return recipe(name or "zf").changed(**changes)
    try:
        stored = Recipe(**begun["recipe"])
    except TypeError as error:
        raise ValueError(f"run.json holds no recipe ({error})") from None
    return (stored if name is None else recipe(name)).changed(**{"epochs": stored.epochs, **changes})
