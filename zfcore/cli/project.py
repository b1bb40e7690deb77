"""`zfcore project`: what in this picture made this unit respond?"""

from __future__ import annotations

import json as jsons
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Model, tell
from .studies import Common, Start, experiment

if TYPE_CHECKING:
    from ..network import Network

UNIT = ("A unit: conv5:42@6,7 (layer, map, row, column), or conv5:42, the map's strongest position. "
        "May be given several times.")


@experiment(batch_size=None, class_names=False)
def project(
    common: Common,
    model: Model,
    image: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False, help="One picture.")],
    unit: Annotated[list[str], typer.Option("--unit", show_default=False, help=UNIT)],
    start: Start = "activation",
) -> None:
    """Project single units of one picture down to its pixels.

    \b
    zfcore project zfcore-demo/model.safetensors digit.png --unit conv3:5 --out strokes
    zfcore project cat.safetensors cat.jpg --unit conv5:42@6,7 --unit conv4:7 --rule guided --out cat

    Writes for each unit its receptive field: the signed projection and the picture's patch, as
    arrays and as PNG files, and summary.json.
    """
    net = common.load(model).freeze()
    summary = _write(net, model, image, unit, start, common)
    lines = [f"{row['unit']}: activation {row['value']:.4g}" + ("" if row["value"] else ", nothing to show")
             for row in summary["units"]]
    tell(summary, common.json, "\n".join([*lines, f"open {common.out / 'projections.png'}"]))


def _write(net: Network, model: str, image: str, units: list[str], start: str, common: Common) -> dict[str, Any]:
    """Project and write everything; returns the summary."""
    import numpy as np

    from ..data import open_images
    from ..files import atomic_folder
    from ..pictures import atlas_picture, card_pictures, png

    source = open_images(image)
    if len(source) != 1:
        raise ValueError(f"IMAGE is {image!r}, which holds {len(source)} pictures; allowed: one picture "
                         "(zfcore atlas takes many)")
    if net.preprocessing is None:
        raise ValueError(f"{model} records no preprocessing; allowed: a model that says how pixels become "
                         "its input")
    pixels = source.load(0, net.preprocessing)[None]
    images = net.preprocessing.apply(pixels)
    rows, sheets = [], []
    with atomic_folder(common.out, common.force) as folder:
        for number, name in enumerate(units):
            found = net.project(images, name, common.rule, start)
            unit, value, cone = found.units[0], float(found.values[0]), net.cone(found.units[0].layer)
            patch = cone.extract(pixels, [0], found.origins)
            stem = f"{number:02d}-{str(unit).replace(':', '-').replace('/', '_')}"
            np.save(folder / f"{stem}-projection.npy", found.pixels[0], allow_pickle=False)
            np.save(folder / f"{stem}-patch.npy", patch[0], allow_pickle=False)
            shades, shown, scale = card_pictures(found.pixels, patch, found.origins, cone.extent,
                                                 net.preprocessing.channels, smallest=192, largest=480)
            sheets.append(atlas_picture([(shades, shown)], [str(unit)], [f"{value:.4g}"]))
            png(folder / f"{stem}.png", sheets[-1])
            rows.append({"unit": str(unit), "value": value, "origin": found.origins[0].tolist(),
                         "scale": scale, "projection": f"{stem}-projection.npy",
                         "patch": f"{stem}-patch.npy", "picture": f"{stem}.png"})
        width = max(sheet.shape[1] for sheet in sheets)
        sheets = [np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255)
                  for sheet in sheets]
        png(folder / "projections.png", np.concatenate(sheets))
        summary = {"model": model, "image": source.names[0], "rule": common.rule, "start": start, "units": rows}
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    return summary
