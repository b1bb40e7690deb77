"""What the commands of the experiments share: their common options, reading sizes, writing a result."""

from __future__ import annotations

import inspect
import json as jsons
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Architecture,
    BatchSize,
    Device,
    Force,
    Json,
    Out,
    Pixels,
    Rule,
    Seed,
    Sides,
    guard_output,
    integer,
    load_model,
    tell,
    use_device,
)

if TYPE_CHECKING:
    import numpy as np

    from ..network import Network
    from ..study.saved import Saved

Names = Annotated[Path | None, typer.Option("--class-names", metavar="FILE", show_default=False,
                                            help="A class's name in each line, where the model has none.")]
Start = Annotated[str, typer.Option("--start", metavar="activation|one", help="The signal's value at the unit.")]


@dataclass(frozen=True)
class Target:
    """Where a result goes, and how it is told."""

    out: Path
    force: bool
    json: bool


@dataclass(frozen=True)
class Common(Target):
    """The options that all experiments have, read and checked."""

    batch_size: int
    seed: int
    rule: str
    files: Mapping[str, Any]
    class_names: Path | None

    def load(self, model: str) -> Network:
        """The model, with the class names that were given."""
        net = load_model(model, self.seed, **self.files)
        if self.class_names is not None:
            net.class_names = read_names(self.class_names, net)
        return net

    def finish(self, result: Saved, pictures: Mapping[str, np.ndarray], summary: Mapping[str, Any], text: str,
               tables: Mapping[str, str] | None = None, more: Callable[[Path], object] | None = None) -> None:
        """Write everything into --out; see `finish`."""
        finish(result, pictures, self, summary, text, tables, more)


def read_names(path: Path, net: Network) -> list[str]:
    """A name a line, one for each class."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    shape = net.tensor_shape(net.logits)
    if len(shape) != 1 or len(lines) != shape[0]:
        raise ValueError(f"--class-names is {str(path)!r}, which has {len(lines)} lines; allowed: "
                         + (f"{shape[0]}, one a class" if len(shape) == 1 else "none, as the network has no classes"))
    return lines


def experiment(batch_size: str | None, rule: bool = True, class_names: bool = True
               ) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that all experiments have; it gets them as its parameter `common`.

    Before the command runs, they are read, and --out is refused where something is there or would be lost.

    Parameters
    ----------
    batch_size : the default; None: there is no such option
    rule : whether the command projects
    class_names : whether it shows classes
    """
    shared = {"rule": (Rule, "deconvnet"), "batch_size": (BatchSize, batch_size), "architecture": (Architecture, None),
              "preprocessing": (Pixels, None), "input_size": (Sides, None), "class_names": (Names, None),
              "device": (Device, "auto"), "seed": (Seed, "0"), "force": (Force, False), "json": (Json, False)}
    offered = {"rule": rule, "batch_size": batch_size is not None, "class_names": class_names}
    shared = {name: option for name, option in shared.items() if offered.get(name, True)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "common"]

        def run(**values: Any) -> None:
            mine = {each.name: values.pop(each.name) for each in own}
            out, force, chosen = values["out"], values["force"], values.get("rule", "deconvnet")
            use_device(values["device"])
            inputs = [each for value in mine.values() for each in (value if isinstance(value, list) else [value])
                      if isinstance(each, (str, Path))]
            guard_output(out, force, *inputs)
            count = integer("--batch-size", values.get("batch_size", "1"), 1)
            seed = integer("--seed", values["seed"], 0)
            files = {name: values[name] for name in ("architecture", "preprocessing", "input_size")}
            from .. import rules

            rules.get(chosen)
            command(**mine, common=Common(out, force, values["json"], count, seed, chosen, files,
                                          values.get("class_names")))

        def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
            return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

        needed = [each for each in own if each.default is each.empty]
        options = [each for each in own if each.default is not each.empty]
        listed = [*(parameter(each.name, each.annotation) for each in needed), parameter("out", Out),
                  *(parameter(each.name, each.annotation, each.default) for each in options),
                  *(parameter(name, *each) for name, each in shared.items())]
        run.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in listed}
        run.__doc__, run.__name__, run.__module__ = command.__doc__, command.__name__, command.__module__
        return run

    return decorate


def pair(option: str, text: str, minimum: int = 1) -> int | tuple[int, int]:
    """Read "32" or "32x48" (height x width)."""
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text)
    if not found or min(int(part) for part in found.groups() if part is not None) < minimum:
        raise ValueError(f"{option} is {text!r}; allowed: an integer >= {minimum}, or HEIGHTxWIDTH")
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


def numbers(option: str, text: str) -> list[float]:
    """Read "-60:60:4" (first, last, step; the last is included) or "1,2,5"."""
    number = r"[+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})"
    if found := re.fullmatch(rf"({number}):({number}):({number})", text):
        first, last, step = (float(part) for part in found.groups())
        if step > 0 and last >= first and (last - first) / step < 100_000:
            return [round(first + count * step, 9) for count in range(int((last - first) / step + 1e-9) + 1)]
    elif re.fullmatch(rf"{number}(?:,{number})*", text):
        return [float(part) for part in text.split(",")]
    raise ValueError(f"{option} is {text!r}; allowed: first:last:step, or numbers with commas between them")


def integers(option: str, text: str, minimum: int = 0) -> list[int]:
    """Read "3,5,8" or "0:8:1" as whole numbers."""
    found = numbers(option, text)
    if any(value != int(value) or value < minimum for value in found):
        raise ValueError(f"{option} is {text!r}; allowed: integers >= {minimum} with commas between them")
    return [int(value) for value in found]


def finish(result: Saved, pictures: Mapping[str, np.ndarray], target: Target, summary: Mapping[str, Any], text: str,
           tables: Mapping[str, str] | None = None, more: Callable[[Path], object] | None = None) -> None:
    """Write `result/`, the pictures, tables, summary.json and what `more` does; all of it or nothing."""
    from ..files import atomic_folder
    from ..pictures import png

    with atomic_folder(target.out, target.force) as folder:
        result.save(folder / "result")
        for name, pixels in pictures.items():
            png(folder / f"{name}.png", pixels)
        for name, content in (tables or {}).items():
            (folder / name).write_text(content, encoding="utf-8")
        if more is not None:
            more(folder)
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    tell(summary, target.json, f"{text}\nopen {target.out / (next(iter(pictures)) + '.png')}")
