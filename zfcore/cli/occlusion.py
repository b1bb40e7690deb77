"""`zfcore occlusion`: where in the picture is what the network sees?"""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Model
from .studies import Common, experiment, finish, integers, pair


@experiment(batch_size="64")
def occlusion(
    common: Common,
    model: Model,
    image: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False, help="One picture.")],
    unit: Annotated[str | None, typer.Option("--unit", metavar="LAYER[:MAP]", show_default=False,
                                             help="Map to watch; default: the strongest of the last convolution.")
                    ] = None,
    label: Annotated[str | None, typer.Option("--class", metavar="NAME|N", show_default=False,
                                              help="Class to watch; default: the most probable one.")] = None,
    window: Annotated[str, typer.Option("--window", metavar="N|HxW", help="The square, in pixels.")] = "32",
    stride: Annotated[str, typer.Option("--stride", metavar="N|HxW", help="Its step.")] = "8",
    fill: Annotated[str, typer.Option("--fill", metavar="N|R,G,B", help="Its pixels, 0 to 255.")] = "128",
    images: Annotated[str | None, typer.Option("--images", metavar="IMAGES", show_default=False,
                                               help="Show the map's strongest activations over these, too.")] = None,
) -> None:
    """Slide a gray square over a picture and watch the network.

    \b
    zfcore occlusion model.safetensors digit.png --window 8 --stride 2 --out occluded
    zfcore occlusion model.safetensors dog.jpg --unit conv5:91 --images photos --out dog

    One sweep gives the maps of Zeiler & Fergus, Fig. 7: activity of the strongest map, probability
    of the class, most probable class; beside them the map's projection. Only what the square can
    reach is computed, and exactly. Writes occlusion.png, the arrays (result/) and summary.json.
    """
    sizes = pair("--window", window), pair("--stride", stride)
    colors = integers("--fill", fill)
    from ..pictures import occlusion_picture
    from ..study.occlusion import last_convolution
    from ..study.occlusion import occlusion as study
    from ..study.scan import scan
    from ..units import Unit

    net = common.load(model).freeze()
    chosen = Unit(last_convolution(net)) if unit is None else net.unit(Unit.parse(unit))
    if chosen.row is not None:
        raise ValueError(f"--unit is {unit!r}; allowed: a layer or one of its maps, as in conv5:42")
    atlas = None if images is None else scan(net, images, [chosen.layer])
    found = study(net, image, chosen.layer, map=chosen.map, label=label, window=sizes[0], stride=sizes[1],
                  fill=colors[0] if len(colors) == 1 else colors, atlas=atlas, rule=common.rule,
                  batch_size=common.batch_size)
    summary = {"model": model, **found.summary}
    seen = summary["activity"]
    text = (f"{found.layer}:{found.map}: activity {seen['whole']:.4g} for the whole image, {seen['lowest']:.4g} with "
            f"the square at row {seen['lowest_at'][0]}, column {seen['lowest_at'][1]}")
    if "probability" in summary:
        seen = summary["probability"]
        text += (f"\n{summary['class']}: probability {seen['whole']:.3f}, {seen['lowest']:.3f} with the square at row "
                 f"{seen['lowest_at'][0]}, column {seen['lowest_at'][1]}")
    finish(found, {"occlusion": occlusion_picture(found)}, common, summary, text)
