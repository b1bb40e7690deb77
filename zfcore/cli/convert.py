"""`zfcore convert`: a model file into another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Architecture, Force, Json, Model, Pixels, Sides, load_model, size, tell

ENDINGS = (".onnx", ".safetensors")


def convert(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="FILE", show_default=False,
                                        help="The file to write: .onnx or .safetensors.")],
    architecture: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model in another format.

    \b
    zfcore convert model.safetensors model.onnx
    zfcore convert resnet18.safetensors mine.safetensors --architecture torchvision/resnet18
    zfcore convert model.onnx model.safetensors --preprocessing caffe-bgr

    ONNX files are for other programs: NCHW, weights converted, the preprocessing inside and in a
    .json beside the file. safetensors files hold everything that zfcore needs.
    """
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f"FILE is {str(out)!r}; allowed: a name that ends in {' or '.join(ENDINGS)}")
    if out.is_dir() or (not force and out.exists()):
        raise ValueError(f"FILE is {str(out)!r}, which exists already; "
                         + ("a folder is never replaced" if out.is_dir() else "--force replaces it"))
    if not out.absolute().parent.is_dir():
        raise ValueError(f"FILE is {str(out)!r}; its folder does not exist")
    net = load_model(model, architecture=architecture, preprocessing=preprocessing,
                     input_size=input_size)
    from .. import formats

    formats.save(net, out, force=force)
    count = out.stat().st_size
    summary = {"model": model, "file": str(out), "bytes": count, "name": net.name,
               "layers": len(net.nodes), "parameters": net.parameter_count,
               "preprocessing": None if net.preprocessing is None else net.preprocessing.to_config()}
    tell(summary, json, f"{out}: {len(net.nodes)} layers, {net.parameter_count:,} parameters, "
                        f"{size(count)}")
