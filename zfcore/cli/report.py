"""`zfcore report`: saved results as a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Force, Json, Out, duration, guard_output, load_model, size, tell


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", show_default=False,
                                                  help="Folders that other commands wrote.")],
    out: Out,
    model: Annotated[list[str] | None, typer.Option("--model", metavar="MODEL", show_default=False, help=(
        "A model that was scanned, for projections, wiring, sanity panels and the graph; may be repeated."))] = None,
    images: Annotated[str | None, typer.Option("--images", metavar="IMAGES", show_default=False, help=(
        "The images that were scanned, to show where in each one a unit fired."))] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", show_default=False,
                                              help="Of the site; default: the network's name.")] = None,
    rule: Annotated[str | None, typer.Option("--rule", metavar="deconvnet|gradient|guided", show_default=False, help=(
        "Of the projections; default: of those that were kept."))] = None,
    no_sanity: Annotated[bool, typer.Option("--no-sanity", help="Leave the sanity panels out.")] = False,
    architecture: Annotated[str | None, typer.Option("--architecture", metavar="NAME", show_default=False, help=(
        "Of models that are files of weights alone."))] = None,
    preprocessing: Annotated[str | None, typer.Option("--preprocessing", metavar="NAME|JSON", show_default=False, help=(
        "Of models whose file does not say."))] = None,
    input_size: Annotated[str | None, typer.Option("--input-size", metavar="N|HxW", show_default=False, help=(
        "Of .onnx models that leave it open."))] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a site of any results, to look at and to share.

    \b
    zfcore report atlas --model model.safetensors --out site
    zfcore report atlas occlusion evolution --model model.safetensors --images photos --out site

    The site opens from a file and from any web server, without a network: the layers and units of an
    atlas at addresses that stay (layer/conv5/42.html), experiments and explanations with sliders and
    plots, the settings and hashes of everything. Nothing is computed that was kept.
    """
    import time

    guard_output(out, force, *map(str, results), images, *(model or []))
    from ..report.site import write_site

    nets = [load_model(each, architecture=architecture, preprocessing=preprocessing, input_size=input_size)
            for each in model or []]
    begun = time.perf_counter()
    summary = write_site(out, results, networks=nets, images=images, title=title, rule=rule, sanity=not no_sanity,
                         progress=True, force=force)
    summary["seconds"] = round(time.perf_counter() - begun, 2)
    tell(summary, json, f"{len(summary['results'])} results, {summary['pages']:,} pages, {size(summary['bytes'])}, "
                        f"{duration(summary['seconds'])}\nopen {out / 'index.html'}")
