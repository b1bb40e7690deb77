"""`zfcore explain`: why did the network answer so, and what does a unit want to see?"""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    BatchSize,
    Device,
    Force,
    Json,
    Model,
    Out,
    Seed,
    guard_output,
    integer,
    load_model,
    names,
    refuse_device,
    tell,
)

if TYPE_CHECKING:
    from ..network import Network

MOST = 64  # pictures in one figure

ATTRIBUTION = ("saliency", "gradient", "gradient-input", "smoothgrad", "guided", "deconvnet", "cam", "gradcam",
               "guided-gradcam", "segment")
METHODS = ATTRIBUTION


def explain(
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False,
                                          help="A picture, or a folder of a few.")],
    out: Out,
    method: Annotated[str, typer.Option("--method", metavar="NAMES", help=f"{', '.join(METHODS)}.")] = "saliency",
    target: Annotated[str | None, typer.Option("--target", metavar="CLASS|UNIT", show_default=False,
                                               help="A class's number or name, or a unit: conv5:42@6,7, conv5:42 (the "
                                                    "map's mean), conv5. Default: each picture's top class.")] = None,
    layer: Annotated[str | None, typer.Option("--layer", metavar="NAME", show_default=False,
                                              help="Whose maps gradcam looks at.")] = None,
    samples: Annotated[str, typer.Option("--samples", metavar="N", help="Noisy copies, for smoothgrad.")] = "25",
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="One colour scale for all pictures of a "
                                                                      "method.")] = False,
    batch_size: BatchSize = "32",
    device: Device = "cpu",
    seed: Seed = "0",
    force: Force = False,
    json: Json = False,
) -> None:
    """Explain a network's answer, or a unit's activation, on pictures.

    \b
    zfcore explain zfcore-demo/model.safetensors zfcore-demo/digits/7/1.png --method saliency,gradcam --out why
    zfcore explain cat.safetensors photos --method gradcam,guided-gradcam --target 281 --out why
    zfcore explain cat.safetensors cat.jpg --method guided,deconvnet --target conv5:42 --out unit

    Several methods at once make one figure: a row for each picture, a column for each method. Writes
    index.html, figure.png, the raw arrays and summary.json.
    """
    refuse_device(device)
    guard_output(out, force)
    chosen = list(dict.fromkeys(names("--method", method)))
    for name in chosen:
        if name not in METHODS:
            raise ValueError(f"--method is {name!r}; allowed: {', '.join(METHODS)}")
    options: dict[str, Any] = {"batch_size": integer("--batch-size", batch_size, 1), "seed": integer("--seed", seed, 0),
               "samples": integer("--samples", samples, 1), "layer": layer, "shared": shared_scale}
    net = load_model(model, options["seed"])
    summary = _write(net, model, images, chosen, target, options, out, force)
    lines = [f"{row['image']}: {row['target']}, score {row['score']:.4g}" for row in summary["images"]]
    tell(summary, json, "\n".join([*lines, f"open {out / 'index.html'}"]))


def read_target(net: Network, text: str | None) -> Any:
    """None, a class's number, or a unit's name, from what the user typed; class names count."""
    if text is None:
        return None
    if text.strip().lstrip("+-").isdigit():
        return int(text)
    if net.class_names and text in net.class_names:
        return net.class_names.index(text)
    return text


def load_pictures(net: Network, model: str, images: str) -> tuple[list[str], Any, Any]:
    """Names, pixels and the network's numbers of a few pictures."""
    import numpy as np

    from ..data import open_images

    if net.preprocessing is None:
        raise ValueError(f"{model} records no preprocessing; allowed: a model that says how pixels become its input")
    source = open_images(images)
    if not 1 <= len(source) <= MOST:
        raise ValueError(f"IMAGE is {images!r}, which holds {len(source)} pictures; allowed: 1 to {MOST}")
    pixels = np.stack([source.load(index, net.preprocessing) for index in range(len(source))])
    return list(source.names), pixels, net.preprocessing.apply(pixels)


def _write(net: Network, model: str, images: str, methods: list[str], text: str | None, options: dict[str, Any],
           out: Path, force: bool) -> dict[str, Any]:
    """Compute and write everything; returns the summary."""
    from .. import explain as methods_of
    from ..files import atomic_folder
    from ..report import explanation

    picture_names, pixels, x = load_pictures(net, model, images)
    targets = methods_of.resolve(net, read_target(net, text), x, options["batch_size"])
    chosen = targets.maps.tolist() if targets.classes else targets.names()
    assert net.preprocessing is not None
    columns: list[list[tuple[Any, str]]] = [
        [(picture, name) for picture, name in zip(pixels, picture_names, strict=True)]]
    results: dict[str, Any] = {}
    for name in methods:
        found = attribute(net, name, x, chosen, options)
        results[name] = found
        if name == "segment":
            masks = methods_of.grabcut(pixels, found.values, seed=options["seed"])
            found = methods_of.Attribution("segment", masks.astype("float32"), found.scores, found.targets, False)
            results[name] = found
            shown = [explanation.outlined(picture, mask) for picture, mask in zip(pixels, masks, strict=True)]
        else:
            shown = explanation.attribution_pictures(found, pixels, net.preprocessing.channels,
                                                     shared=options["shared"])
        notes = [explanation.caption(target, net.class_names) for target in found.targets]
        columns.append(list(zip(shown, notes, strict=True)))
    first = results[methods[0]]
    summary = {"model": model, "methods": methods, "options": options, "images": [
        {"image": name, "target": explanation.caption(target, net.class_names), "score": float(score)}
        for name, target, score in zip(picture_names, first.targets, first.scores, strict=True)]}
    with atomic_folder(out, force) as folder:
        explanation.write(folder, f"{net.name or 'A network'} explained", list(zip(*columns, strict=True)),
                          ["", *methods], methods, results, {"pictures": len(pixels), "methods": len(methods)})
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    return summary


def attribute(net: Network, name: str, x: Any, target: Any, options: dict[str, Any]) -> Any:
    """Run one method of attribution."""
    from .. import explain as methods_of

    batch = options["batch_size"]
    if name in ("gradcam", "guided-gradcam"):
        method = methods_of.gradcam if name == "gradcam" else methods_of.guided_gradcam
        return method(net, x, target, layer=options["layer"], batch_size=batch)
    if name == "smoothgrad":
        return methods_of.smoothgrad(net, x, target, samples=options["samples"], seed=options["seed"],
                                     batch_size=batch)
    plain = {"saliency": methods_of.saliency, "segment": methods_of.saliency, "gradient": methods_of.gradient,
             "gradient-input": methods_of.gradient_times_input, "guided": methods_of.guided,
             "deconvnet": methods_of.deconvnet, "cam": methods_of.cam}
    return plain[name](net, x, target, batch_size=batch)
