"""`zfcore evolution`: train, and watch what chosen maps respond to, epoch by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    Architecture,
    BatchSize,
    Device,
    Force,
    Json,
    Model,
    Out,
    Pixels,
    Rule,
    Seed,
    Sides,
    guard_output,
    integer,
    load_model,
    use_device,
)
from .common import names as name_list
from .studies import finish, integers

if TYPE_CHECKING:
    from ..data import Images


def evolution(
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGES", show_default=False, help=(
        "Labelled pictures: a folder a class, a packed .npz, or `digits`, scikit-learn's."))],
    out: Out,
    epochs: Annotated[str, typer.Option("--epochs", metavar="N", help="Passes over the pictures.")] = "20",
    at: Annotated[str, typer.Option("--at", metavar="EPOCHS", help="After which to look.")] = "1,2,5,10,20,30,40,64",
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="As in conv1,conv2; default: convolutions.")] = None,
    maps: Annotated[str, typer.Option("--maps", metavar="N", help="Maps a layer, drawn with the seed.")] = "6",
    rate: Annotated[str, typer.Option("--learning-rate", metavar="X",
                                      help="Of SGD with momentum 0.9; it falls linearly to zero.")] = "0.01",
    rule: Rule = "deconvnet",
    batch_size: BatchSize = "32",
    weights: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    device: Device = "auto",
    seed: Seed = "0",
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a network and show how its features come to be.

    \b
    zfcore evolution digits digits --epochs 16 --out grown
    zfcore evolution zfnet photos --epochs 64 --layers conv1,conv2 --out grown

    Zeiler & Fergus, Fig. 4: for chosen maps the strongest activation over the training pictures,
    projected to pixels, at chosen epochs. Filters are renormalised at RMS 0.1, as in the paper.
    Writes evolution.png, the arrays (result/), model.safetensors and summary.json.
    """
    use_device(device)
    guard_output(out, force)
    passes, wanted = integer("--epochs", epochs, 1), integers("--at", at, 1)
    batch, number = integer("--batch-size", batch_size, 1), integer("--seed", seed, 0)
    count = integer("--maps", maps, 1)
    try:
        speed = float(rate)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise ValueError(f"--learning-rate is {rate!r}; allowed: a number above 0")
    chosen = None if layers is None else name_list("--layers", layers)
    import numpy as np

    from ..formats import safetensors
    from ..pictures import evolution_picture
    from ..study.evolution import Recorder
    from ..study.saved import network_pixels
    from ..study.scan import chosen_layers
    from ..training import SGD, fit

    net = load_model(model, number, architecture=weights, preprocessing=preprocessing, input_size=input_size)
    source = _labelled(images)
    if min(wanted) > passes:
        raise ValueError(f"--at is {at!r}; allowed: epochs up to {passes}, the last one (--epochs)")
    generator = np.random.default_rng(number)
    watched = {}
    for layer in chosen_layers(net, chosen):
        total = net.tensor_shape(layer)[-1]
        watched[layer] = np.sort(generator.permutation(total)[:count]).tolist()
    recorder = Recorder(net, source, watched, epochs=wanted, rule=rule)
    pixels = network_pixels("evolution", net, source)[0]
    fit(net, pixels, source.labels, epochs=passes, batch_size=batch, optimizer=SGD(speed, momentum=0.9, radius=0.1),
        schedule=lambda epoch: speed * (1 - epoch / passes), seed=number, callback=recorder)
    found = recorder.result()
    summary = {"model": model, **found.summary}
    text = (f"epochs {', '.join(map(str, found.epochs))}: accuracy on the training pictures "
            f"{', '.join(f'{value:.3f}' for value in found.accuracies)}")
    finish(found, {"evolution": evolution_picture(found)}, out, force, json, summary, text,
           more=lambda folder: safetensors.save(net, folder / "model.safetensors"))


def _labelled(images: str) -> Images:
    """A data set in which every picture has a class."""
    from pathlib import Path

    from ..data import digits, open_images

    if images == "digits" and not Path(images).exists():
        return digits()[0]
    source = open_images(images)
    if source.labels is None or (source.labels < 0).any():
        raise ValueError(f"IMAGES is {images!r}, where pictures have no class; allowed: a folder with a folder for "
                         "each class, or a packed .npz with labels")
    return source
