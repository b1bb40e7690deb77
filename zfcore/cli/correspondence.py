"""`zfcore correspondence`: do the same parts of different pictures matter alike?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Model, integer
from .common import names as name_list
from .studies import Common, experiment, finish

PARTS = 'JSON: {"images": [files], "parts": {"nose": [[top, left, bottom, right], ...]}}, a box a picture.'


@experiment(batch_size="32", rule=False)
def correspondence(
    common: Common,
    model: Model,
    parts: Annotated[Path, typer.Argument(metavar="PARTS", show_default=False, help=PARTS)],
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="As in conv5,conv5.pre; default: the last convolution.")] = None,
    draws: Annotated[str, typer.Option("--draws", metavar="N", help="Sets of random masks.")] = "20",
    fill: Annotated[str, typer.Option("--fill", metavar="N", help="The masks' pixels, 0 to 255.")] = "128",
) -> None:
    """Mask the same part in several pictures and compare what changes.

    \b
    zfcore correspondence model.safetensors dogs.json --layers conv5,conv5.pre --out dogs

    Zeiler & Fergus, section 4.3 and Table 1: distances of the signs of a layer's changes between
    pictures, for named parts, for random places, and for random places that are the same in all
    pictures. Writes table.txt, correspondence.png, the arrays (result/) and summary.json.
    """
    sets, gray = integer("--draws", draws, 0), integer("--fill", fill, 0)
    chosen = None if layers is None else name_list("--layers", layers)
    from ..pictures import correspondence_picture
    from ..study.correspondence import correspondence as study
    from ..study.correspondence import read_parts
    from ..study.occlusion import last_convolution

    images, boxes = read_parts(parts)
    net = common.load(model).freeze()
    found = study(net, images, boxes, chosen or [last_convolution(net)], draws=sets, fill=gray, seed=common.seed,
                  batch_size=common.batch_size)
    finish(found, {"correspondence": correspondence_picture(found)}, common,
           {"model": model, **found.summary}, found.table(), {"table.txt": found.table() + "\n"})
