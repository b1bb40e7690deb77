"""`zfcore architecture`: what first layers of different make keep and lose."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import integer
from .studies import Common, experiment, finish, numbers


@experiment(batch_size="16")
def architecture(
    common: Common,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", show_default=False,
                                                help="One model or more, to stand side by side.")],
    images: Annotated[str, typer.Option("--images", metavar="IMAGES", show_default=False,
                                        help="A folder, a picture, or a packed .npz.")],
    maps: Annotated[str, typer.Option("--maps", metavar="N", help="Maps of the second layer to show.")] = "16",
    top: Annotated[str, typer.Option("--top", metavar="N", help="Activations of each.")] = "4",
    edges: Annotated[str, typer.Option("--edges", metavar="LOW,HIGH",
                                       help="Cycles per pixel between low, mid and high.")] = "0.1,0.25",
) -> None:
    """Compare networks' first layers: dead filters, frequencies, aliasing.

    \b
    zfcore architecture stride4.safetensors stride2.safetensors --images photos --out compared

    Zeiler & Fergus, section 4.1 and Fig. 6: first-layer filters and their spectra, second-layer
    projections, and measures of what the paper saw in them. Writes architecture.png, the arrays
    (result/) and summary.json.
    """
    shown, entries = integer("--maps", maps, 1), integer("--top", top, 1)
    bounds = numbers("--edges", edges)
    if len(bounds) != 2:
        raise ValueError(f"--edges is {edges!r}; allowed: two numbers with a comma between them")
    from ..pictures import architecture_picture
    from ..study.architecture import architecture as study

    nets = [common.load(model).freeze() for model in models]
    found = study(nets, images, maps=shown, top=entries, edges=(bounds[0], bounds[1]), rule=common.rule,
                  batch_size=common.batch_size)
    summary = {"models": models, **found.summary}
    lines = [f"{label}: stride {row['stride']}, {row['dead']} of {row['filters']} filters dead, low "
             f"{row['bands']['low']:.2f}, mid {row['bands']['mid']:.2f}, high {row['bands']['high']:.2f}, "
             f"aliased {row['aliased']:.3f}, comb {row['comb']:.3f}" for label, row in summary["networks"].items()]
    finish(found, {"architecture": architecture_picture(found)}, common, summary, "\n".join(lines))
