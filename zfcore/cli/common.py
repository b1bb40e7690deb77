"""What the commands share: how options are read, models are found, outputs are guarded."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..data import Images
    from ..network import Network

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
OURS = ("summary.json", "manifest.json")  # every folder that zfcore fills holds one of these

Model = Annotated[str, typer.Argument(metavar="MODEL", show_default=False,
                                      help="A .safetensors or .onnx file, or a built-in name.")]
Architecture = Annotated[str | None, typer.Option(
    "--architecture", metavar="NAME", show_default=False,
    help="Of a file of weights alone, as in torchvision/resnet18.")]
Pixels = Annotated[str | None, typer.Option(
    "--preprocessing", metavar="NAME|JSON", show_default=False,
    help="How pixels become the input, where the file does not say: torchvision, caffe-bgr, zero-one, "
         "minus-one-one, or a JSON file.")]
Sides = Annotated[str | None, typer.Option(
    "--input-size", metavar="N|HxW", show_default=False,
    help="Height and width of the input, where an .onnx file leaves them open.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", show_default=False, help="Folder for the result.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run left in --out.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda",
                                     help="Where to compute; auto: on a GPU that can be used, else on the CPU.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary, and nothing else, on stdout.")]
Rule = Annotated[str, typer.Option("--rule", metavar="deconvnet|gradient|guided",
                                   help="How ReLUs treat the signal on its way down.")]
# Numbers come as text: what the command line's own parser says about a bad one does not name it.
Seed = Annotated[str, typer.Option("--seed", metavar="N", help="Seed of everything random.")]
BatchSize = Annotated[str, typer.Option("--batch-size", metavar="N",
                                        help="Images at a time; results do not depend on it.")]
BadImages = Annotated[str, typer.Option("--on-bad-image", metavar="fail|skip", help=(
    "What a picture that cannot be read does: stop, or be left out and recorded."))]


def one_line(message: str) -> str:
    """The message without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in message).split())


def note(message: str) -> None:
    """Tell the user something on stderr, where --json does not disturb."""
    print(message, file=sys.stderr, flush=True)


def use_device(device: str) -> None:
    """Run this command's networks on a device: "cpu", "cuda", or "auto", a GPU where one can be used.

    A device that there is not is an error that says why; nothing runs somewhere else instead.
    """
    from .. import backends

    name = backends.for_device(device)
    backends.use(name)
    if name == "cuda":
        note(f"zfcore: on {backends.get(name).device_name()}")


def names(option: str, text: str) -> list[str]:
    """Split "conv3,conv5"; empty parts are refused."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{option} is {text!r}; allowed: names with commas between them, as in conv3,conv5")
    return parts


def integer(option: str, text: str, minimum: int) -> int:
    """Read a whole number that is at least `minimum`."""
    if not re.fullmatch(r"[+-]?\d{1,18}", text) or int(text) < minimum:
        raise ValueError(f"{option} is {text!r}; allowed: an integer >= {minimum}")
    return int(text)


def number(option: str, text: str, minimum: float) -> float:
    """Read a finite number that is at least `minimum`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not minimum <= value < math.inf:
        raise ValueError(f"{option} is {text!r}; allowed: a number >= {minimum:g}")
    return value


def positive(option: str, text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{option} is {text!r}; allowed: a number above 0")
    return value


def byte_count(option: str, text: str) -> int:
    """Read "2GB", "512 MiB" or a plain number of bytes."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise ValueError(f"{option} is {text!r}; allowed: a size such as 500MB, 2GB or 2GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def shard(text: str | None) -> tuple[int, int]:
    """Read "2/8" as (index from 0, count)."""
    if text is None:
        return 0, 1
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--shard is {text!r}; allowed: i/n with i from 1 to n, as in 2/8")
    return int(found[1]) - 1, int(found[2])


def size(count: float) -> str:
    """A number of bytes for people."""
    for name in ("B", "kB", "MB", "GB"):
        if count < 1000 or name == "GB":
            return f"{count:.0f} {name}" if name == "B" else f"{count:.1f} {name}"
        count /= 1000
    raise AssertionError


def counted(count: int, thing: str) -> str:
    """So many of something: "1 epoch", "3 epochs"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def guard_output(out: Path, force: bool, *inputs: str | Path | None) -> None:
    """Refuse an output folder before any work: existing without --force, not zfcore's, or holding an input."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ValueError(f"--out is {str(out)!r}, which is not a folder; choose another name")
    if out.exists():
        if not force:
            raise ValueError(f"--out is {str(out)!r}, which exists already; --force replaces it")
        if any(out.iterdir()) and not any((out / name).is_file() for name in OURS):
            raise ValueError(f"--out is {str(out)!r}, which zfcore did not make; --force will not replace it")
        guard_inputs(out, *inputs)
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out is {str(out)!r}; its parent folder does not exist")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name[:100]}.", suffix=".tmp", dir=out.absolute().parent):
            pass
    except OSError as error:
        raise ValueError(f"--out is {str(out)!r}; nothing can be written there ({error.strerror})") from None


def guard_inputs(out: Path, *inputs: str | Path | None) -> None:
    """Refuse to replace a folder that holds what is read."""
    from ..data.opening import path_of

    for name in map(str, filter(None, inputs)):
        file = path_of(name)  # set.npz of set.npz:train
        if os.path.exists(file) and out.resolve() in (Path(file).resolve(), *Path(file).resolve().parents):
            raise ValueError(f"--out is {str(out)!r}, which holds {name!r}; --force will not replace what is read")


def sides(text: str | None) -> tuple[int, int] | None:
    """Read "227" or "224x320" as (height, width)."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if not found:
        raise ValueError(f"--input-size is {text!r}; allowed: a number of pixels, or height x width as in 224x320")
    return int(found[1]), int(found[2] or found[1])


def load_model(model: str, seed: int = 0, quiet: bool = False, architecture: str | None = None,
               preprocessing: str | None = None, input_size: str | None = None) -> Network:
    """A network from a file, or a built-in one with random weights, which is said loudly.

    `quiet` asks for the architecture alone: nothing is initialised, nothing needs saying.
    """
    if Path(model).suffix.lower() in (".safetensors", ".onnx") or Path(model).is_file():
        from .. import formats

        if Path(model).suffix.lower() == ".onnx" and architecture is None:
            return formats.load(model, preprocessing=preprocessing, input_shape=sides(input_size))
        if input_size is not None:
            raise ValueError(f"MODEL is {model!r}; --input-size is for .onnx files")
        net = formats.load(model, architecture)
        if preprocessing is not None:
            net.preprocessing = formats.presets.resolve(preprocessing, net.input_shape)
        return net
    if architecture is not None or preprocessing is not None or input_size is not None:
        raise ValueError(f"MODEL is {model!r}; --architecture, --preprocessing and --input-size are for files")
    from .. import models

    if model not in models.MODELS:
        raise ValueError(f"MODEL is {model!r}: no such file, and no built-in name; "
                         f"built in: {', '.join(sorted(models.MODELS))}")
    net = models.build(model)
    if quiet:
        return net
    net.initialize(seed)
    note(f"zfcore: WARNING: {model} has RANDOM weights (seed {seed}); what it shows was not learned")
    return net


def bad_images(text: str) -> str:
    """Read what a picture that cannot be read does."""
    if text not in ("fail", "skip"):
        raise ValueError(f"--on-bad-image is {text!r}; allowed: fail, skip")
    return text


def left_out(skipped: Mapping[Any, str]) -> str:
    """A line about pictures that could not be read, or nothing."""
    if not skipped:
        return ""
    return f"\n{counted(len(skipped), 'picture')} could not be read, left out; the summary names them"


def whole_pictures(*sets: Images) -> tuple[list[Images], dict[str, str]]:
    """The data sets without the pictures that cannot be read, where they may be left out; {name: reason}."""
    from ..data import readable

    found, reasons = [], dict[str, str]()
    for images in sets:
        kept, without = readable(images, progress=True) if images.on_bad == "skip" else (images, {})
        found.append(kept)
        reasons |= without
    return found, reasons


def labelled_images(argument: str, text: str, on_bad: str = "fail", least: int = 1) -> tuple[Images, int]:
    """A data set with a class for every picture, of `least` classes or more, and how many there are."""
    from ..data import open_images
    from ..training.preparation import class_count

    images = open_images(text, on_bad=on_bad)
    try:
        classes = class_count(images)
    except ValueError as error:
        raise ValueError(f"{argument} is {text!r}, where {error}") from None
    if classes < least:
        raise ValueError(f"{argument} is {text!r}, where there is {classes} class; allowed: {least} or more")
    return images, classes


def tell(summary: Mapping[str, Any], as_json: bool, text: str) -> None:
    """The result on stdout: JSON alone, or words."""
    print(json.dumps(summary, indent=2, ensure_ascii=True) if as_json else text)
