"""`zfcore explain`: why did the network answer so, and what does a unit want to see?"""

from __future__ import annotations

import dataclasses
import json as jsons
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Model, integer, names, tell
from .studies import Common, experiment, pair

if TYPE_CHECKING:
    from ..explain import Settings
    from ..network import Network

MOST = 64  # pictures in one figure

METHODS = ("saliency", "gradient", "gradient-input", "smoothgrad", "guided", "deconvnet", "cam", "gradcam",
           "guided-gradcam", "occlusion", "segment", "activations", "ascent", "inversion", "dream", "adversarial",
           "facets", "invariances")
ALONE = ("facets", "invariances")  # their figures have rows of their own


@experiment(batch_size="32", rule=False)
def explain(
    common: Common,
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGE", show_default=False,
                                          help="A picture, or a folder of a few.")],
    method: Annotated[str, typer.Option("--method", metavar="NAMES", help=f"{', '.join(METHODS)}.")] = "saliency",
    target: Annotated[list[str] | None, typer.Option(
        "--target", metavar="CLASS|UNIT", show_default=False,
        help="A class's number or name, or a unit: conv5:42@6,7, conv5:42 (the map's mean), conv5. May be given "
             "several times. Default: each picture's top class.")] = None,
    layer: Annotated[str | None, typer.Option("--layer", metavar="NAMES", show_default=False,
                                              help="For gradcam, activations, inversion and dream: as in "
                                                   "conv1,conv5.")] = None,
    preset: Annotated[str, typer.Option("--preset", metavar="NAME",
                                        help="Settings of ascent: default, plain, study-map, study-class, "
                                             "yosinski-1 to yosinski-4.")] = "default",
    steps: Annotated[str | None, typer.Option("--steps", metavar="N", show_default=False,
                                              help="Of ascent, inversion and dream.")] = None,
    start: Annotated[str | None, typer.Option(
        "--start", metavar="zero|noise|picture|IMAGES", show_default=False,
        help="Where ascent starts: the mean image, noise, the picture itself, or the mean of other pictures: in a "
             "folder of classes, of the target's. Default: the preset's.")] = None,
    setting: Annotated[list[str] | None, typer.Option(
        "--set", metavar="NAME=VALUE", show_default=False,
        help="A setting of ascent: rate, l1, l2, variation, blur, small_pixels, small_gradients, jitter, step ... "
             "May be given several times.")] = None,
    towards: Annotated[str | None, typer.Option("--towards", metavar="CLASS", show_default=False,
                                                help="For adversarial: the class to be mistaken for. Default: the "
                                                     "nearest.")] = None,
    window: Annotated[str, typer.Option("--window", metavar="N|HxW", help="Occlusion's square, in pixels.")] = "32",
    stride: Annotated[str, typer.Option("--stride", metavar="N|HxW", help="Its step.")] = "8",
    count: Annotated[str, typer.Option("--count", metavar="N", help="Clusters, for facets.")] = "4",
    samples: Annotated[str, typer.Option("--samples", metavar="N", help="Noisy copies, for smoothgrad.")] = "25",
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="One colour scale for all pictures of a "
                                                                      "method.")] = False,
) -> None:
    """Explain a network's answer, or a unit's activation, on pictures.

    \b
    zfcore explain zfcore-demo/model.safetensors zfcore-demo/digits/7/1.png --method saliency,gradcam --out why
    zfcore explain cat.safetensors photos --method gradcam,guided-gradcam --target 281 --out why
    zfcore explain cat.safetensors cat.jpg --method ascent,deconvnet --target conv5:42 --target conv5:7 --out unit
    zfcore explain cat.safetensors cat.jpg --method inversion --layer conv1,conv3,conv5 --out inverted
    zfcore explain cat.safetensors cat.jpg --method ascent --target 281 --start cats --set l2=0.01 --out cat

    Several methods at once make one figure: a row for each picture and target, a column for each method.
    Writes index.html, figure.png, the raw arrays and summary.json.
    """
    chosen = list(dict.fromkeys(names("--method", method)))
    for name in chosen:
        if name not in METHODS:
            raise ValueError(f"--method is {name!r}; allowed: {', '.join(METHODS)}")
    alone = [name for name in chosen if name in ALONE]
    if alone and len(chosen) > 1:
        raise ValueError(f"--method is {method!r}; allowed: {alone[0]} by itself, since its figure has rows of its own")
    if alone and target is not None and len(target) > 1:
        raise ValueError(f"--target is {target!r}; allowed: one target for {alone[0]}")
    options: dict[str, Any] = {
        "batch_size": common.batch_size, "seed": common.seed,
        "samples": integer("--samples", samples, 1), "shared": shared_scale, "preset": preset,
        "steps": None if steps is None else integer("--steps", steps, 1), "count": integer("--count", count, 1),
        "start": start, "set": setting or [], "towards": towards, "window": pair("--window", window),
        "stride": pair("--stride", stride)}
    layers = [] if layer is None else names("--layer", layer)
    net = common.load(model).freeze()
    summary = _write(net, model, images, chosen, target or [], layers, options, common)
    lines = [f"{row['image']}: {row['target']}, score {row['score']:.4g}" for row in summary["images"]]
    tell(summary, common.json, "\n".join([*lines, f"open {common.out / 'index.html'}"]))


def read_target(net: Network, text: str) -> Any:
    """A class's number or a unit's name from what the user typed; class names count."""
    if text.strip().lstrip("+-").isdigit():
        return int(text)
    if net.class_names and text in net.class_names:
        return net.class_names.index(text)
    return text


def read_settings(preset: str, steps: int | None, start: str | None, entries: list[str]) -> Settings:
    """Ascent's settings from a preset, with what the user typed."""
    from ..explain import PRESETS
    from ..explain.ascent import STARTS, settings_of

    if preset not in PRESETS:
        raise ValueError(f"--preset is {preset!r}; allowed: {', '.join(PRESETS)}")
    given = PRESETS[preset]
    kinds = {item.name: type(getattr(given, item.name)) for item in dataclasses.fields(given)}
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    if start in STARTS:
        changes["start"] = start
    for entry in entries:
        name, equals, text = entry.partition("=")
        words = {"true": True, "false": False}
        try:
            if not equals or name not in kinds:
                raise KeyError(name)
            changes[name] = words[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (KeyError, ValueError):
            kind = f"{name}={'true or false' if kinds[name] is bool else kinds[name].__name__}" if name in kinds else (
                f"NAME=VALUE with a name of {', '.join(kinds)}")
            raise ValueError(f"--set is {entry!r}; allowed: {kind}") from None
    return settings_of(given, changes)


def read_class(net: Network, option: str, text: str) -> int:
    """A class's number from what the user typed."""
    found = read_target(net, text)
    if not isinstance(found, int):
        raise ValueError(f"{option} is {text!r}; allowed: a class's number or name")
    return found


def _job(net: Network, model: str, images: str, methods: list[str], targets: list[str], layers: list[str],
         options: dict[str, Any]) -> tuple[Any, list[str], Any]:
    """What is to be explained: a row for each picture and target; the pictures' names, and the scores."""
    import numpy as np

    from ..data import fit, open_images
    from ..explain import resolve, strongest
    from ..report.columns import Job

    if net.preprocessing is None:
        raise ValueError(f"{model} records no preprocessing; allowed: a model that says how pixels become its input")
    settings = read_settings(options["preset"], options["steps"], options["start"], options["set"])
    source = open_images(images)
    wanted = [read_target(net, text) for text in targets] or [None]
    indices = list(range(len(source)))
    if methods == ["facets"] and len(source) > MOST and targets:
        indices = strongest(net, source, wanted[0], MOST, batch_size=options["batch_size"], progress=True)[0].tolist()
    if not 1 <= len(indices) <= MOST:
        raise ValueError(f"IMAGE is {images!r}, which holds {len(source)} pictures; allowed: 1 to {MOST}"
                         + (", or a --target to choose them by" if methods == ["facets"] else ""))
    for name in layers:
        net.tensor_shape(name)
    towards = None if options["towards"] is None else read_class(net, "--towards", options["towards"])
    pixels = np.stack([source.load(index, net.preprocessing) for index in indices])
    gray = net.preprocessing.channels == "L"
    originals = [_bounded(fit(source.pixels(index), gray=gray, name=source.names[index])) for index in indices]
    order = [row for row in range(len(indices)) for _ in wanted]
    x = net.preprocessing.apply(pixels)[order]
    resolved = resolve(net, wanted * len(indices), x, options["batch_size"])
    chosen = resolved.maps.tolist() if resolved.classes else resolved.names()
    job = Job(net, pixels[order], x, [originals[row] for row in order], chosen, layers, options, settings,
              _starts(net, options["start"], x, resolved), towards, progress=True)
    return job, [source.names[indices[row]] for row in order], resolved


def _starts(net: Network, start: str | None, x: Any, resolved: Any) -> Any:
    """Images for ascent to start from, one a row; None: those of the settings."""
    from ..data import open_images
    from ..explain import class_means
    from ..explain.ascent import STARTS

    if start is None or start in STARTS:
        return None
    if start == "picture":
        return x
    source = open_images(start)
    if source.class_names is None or not resolved.classes:
        return class_means(net, source, progress=True)
    names = [net.class_names[number] if net.class_names else str(number) for number in resolved.maps]
    kinds = list(dict.fromkeys(names))
    return class_means(net, source, kinds, progress=True)[[kinds.index(name) for name in names]]


def _bounded(pixels: Any, side: int = 768) -> Any:
    """The picture, reduced until its longer side is at most `side`."""
    import numpy as np
    from PIL import Image

    factor = side / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS)).reshape(size[1], size[0], pixels.shape[2])


def _write(net: Network, model: str, images: str, methods: list[str], targets: list[str], layers: list[str],
           options: dict[str, Any], common: Common) -> dict[str, Any]:
    """Compute and write everything; returns the summary."""
    from ..files import atomic_folder
    from ..report import explanation
    from ..report.columns import caption

    job, picture_names, resolved = _job(net, model, images, methods, targets, layers, options)
    forward = net.forward(job.x, to=resolved.tensor)
    scores = resolved.scores(forward.output)
    titles: list[str] = []
    results: dict[str, Any] = {}
    if methods == ["facets"]:
        rows, results["facets"] = explanation.facet_rows(job, options["count"])
    elif methods == ["invariances"]:
        rows, results["invariances"] = explanation.invariance_rows(job)
        titles = ["direction", "turned towards it"]
    elif methods == ["ascent"] and len(set(picture_names)) == 1 and options["start"] != "picture":
        rows, results = explanation.ascent_rows(job)
    else:
        columns = explanation.columns(methods, job, picture_names)
        rows = [list(row) for row in zip(*(zip(column.pictures, column.notes, strict=True) for column in columns),
                                         strict=True)]
        titles = [column.title for column in columns]
        results = {name: result for column in columns for name, result in column.results.items()}
    summary = {"model": model, "methods": methods, "layers": layers, "options": options, "images": [
        {"image": name, "target": caption(target, net.class_names), "score": float(score)}
        for name, target, score in zip(picture_names, resolved.names(), scores, strict=True)]}
    with atomic_folder(common.out, common.force) as folder:
        explanation.write(folder, f"{net.name or 'A network'} explained", rows, titles, methods, results,
                          {"pictures": len(set(picture_names)), "rows": len(rows), "methods": len(methods)},
                          side=448 if {"activations", "dream"}.intersection(methods) else 224)
        (folder / "summary.json").write_text(jsons.dumps(summary, indent=2), encoding="utf-8")
    return summary
