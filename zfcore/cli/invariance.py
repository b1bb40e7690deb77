"""`zfcore invariance`: how do features move when a picture is shifted, enlarged or turned?"""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Model, integer
from .common import names as name_list
from .studies import Common, experiment, finish, numbers

AMOUNTS = "first:last:step, or numbers with commas between them."


@experiment(batch_size="32", rule=False)
def invariance(
    common: Common,
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGES", show_default=False,
                                          help="A few pictures: a folder, a file or a packed .npz.")],
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="Default: the first convolution and the layer before the classes."
                                               )] = None,
    translations: Annotated[str, typer.Option("--translations", metavar="PIXELS", help=AMOUNTS)] = "-60:60:4",
    scales: Annotated[str, typer.Option("--scales", metavar="FACTORS", help=AMOUNTS)] = "1:1.8:0.04",
    rotations: Annotated[str, typer.Option("--rotations", metavar="DEGREES", help=AMOUNTS)] = "0:360:10",
    border: Annotated[str, typer.Option("--border", metavar="fill|edge", help="What lies outside the picture.")
                      ] = "fill",
    fill: Annotated[str, typer.Option("--fill", metavar="N", help="Its pixels there, 0 to 255.")] = "128",
    relative: Annotated[bool, typer.Option("--relative", help="Plot distances over the features' norms.")] = False,
) -> None:
    """Shift, enlarge and turn pictures, and see how far features move.

    \b
    zfcore invariance model.safetensors digits --translations -12:12:1 --layers conv1,fc4 --out moved

    Zeiler & Fergus, Fig. 5: Euclidean distances from the untransformed picture's features at an
    early and a late layer, and the probability of the picture's class (its most probable one).
    Writes invariance.png, the arrays (result/) and summary.json.
    """
    shifts, factors = numbers("--translations", translations), numbers("--scales", scales)
    turns = numbers("--rotations", rotations)
    gray = integer("--fill", fill, 0)
    chosen = None if layers is None else name_list("--layers", layers)
    from ..pictures import invariance_picture
    from ..study.invariance import ends
    from ..study.invariance import invariance as study

    net = common.load(model).freeze()
    found = study(net, images, chosen or ends(net), translations=shifts, scales=factors, rotations=turns,
                  border=border, fill=gray, batch_size=common.batch_size)
    summary = {"model": model, **found.summary}
    lines = []
    for layer, rows in summary["layers"].items():
        parts = [f"{kind} {row['mean_relative_distance']:.2f}" for kind, row in rows.items()]
        lines.append(f"{layer}: mean distance over the features' norm: {', '.join(parts)}")
    for kind, row in summary.get("probability", {}).items():
        lines.append(f"probability under {kind}: mean {row['mean']:.3f}, lowest {row['lowest']:.3g}")
    finish(found, {"invariance": invariance_picture(found, relative)}, common, summary, "\n".join(lines))
