"""What the commands of the experiments share: reading sizes, writing a result with its picture."""

from __future__ import annotations

import json as jsons
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import tell

if TYPE_CHECKING:
    import numpy as np

    from ..study.saved import Saved

Layers = Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                            help="Names with commas between them, as in conv1,conv5.")]


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


def finish(result: Saved, pictures: Mapping[str, np.ndarray], out: Path, force: bool, json: bool,
           summary: Mapping[str, Any], text: str, tables: Mapping[str, str] | None = None,
           more: Callable[[Path], object] | None = None) -> None:
    """Write `result/`, the pictures, tables, summary.json and what `more` does; all of it or nothing."""
    from ..files import atomic_folder
    from ..pictures import png

    with atomic_folder(out, force) as folder:
        result.save(folder / "result")
        for name, pixels in pictures.items():
            png(folder / f"{name}.png", pixels)
        for name, content in (tables or {}).items():
            (folder / name).write_text(content, encoding="utf-8")
        if more is not None:
            more(folder)
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    tell(summary, json, f"{text}\nopen {out / (next(iter(pictures)) + '.png')}")
