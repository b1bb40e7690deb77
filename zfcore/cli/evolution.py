"""`zfcore evolution`: train, and watch what chosen maps respond to, epoch by epoch."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import BadImages, Model, bad_images, integer, labelled_images, left_out, positive
from .common import names as name_list
from .studies import Common, experiment, finish, integers


@experiment(batch_size="32")
def evolution(
    common: Common,
    model: Model,
    images: Annotated[str, typer.Argument(metavar="IMAGES", show_default=False, help=(
        "Labelled pictures: a folder a class, a packed .npz, digits:train ..."))],
    epochs: Annotated[str, typer.Option("--epochs", metavar="N", help="Passes over the pictures.")] = "20",
    at: Annotated[str, typer.Option("--at", metavar="EPOCHS", help="After which to look.")] = "1,2,5,10,20,30,40,64",
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="As in conv1,conv2; default: convolutions.")] = None,
    maps: Annotated[str, typer.Option("--maps", metavar="N", help="Maps a layer, drawn with the seed.")] = "6",
    look: Annotated[str, typer.Option("--look", metavar="during|after", help=(
        "Watch the training's own passes, nearly for nothing, or walk up all pictures after the epoch."))] = "during",
    on_bad_image: BadImages = "fail",
    rate: Annotated[str, typer.Option("--learning-rate", metavar="X",
                                      help="Of SGD with momentum 0.9; it falls linearly to zero.")] = "0.01",
) -> None:
    """Train a network and show how its features come to be.

    \b
    zfcore evolution digits digits:train --epochs 16 --out grown
    zfcore evolution zfnet photos --epochs 64 --layers conv1,conv2 --out grown

    Zeiler & Fergus, Fig. 4: for chosen maps the strongest activation over the training pictures,
    projected to pixels, at chosen epochs. Filters are renormalised at RMS 0.1, as in the paper.
    Writes evolution.png, the arrays (result/), model.safetensors and summary.json.
    """
    passes, wanted = integer("--epochs", epochs, 1), integers("--at", at, 1)
    count = integer("--maps", maps, 1)
    speed = positive("--learning-rate", rate)
    chosen = None if layers is None else name_list("--layers", layers)
    import numpy as np

    from ..data import Feed
    from ..formats import safetensors
    from ..pictures import evolution_picture
    from ..study.evolution import Recorder
    from ..study.scan import chosen_layers
    from ..training import SGD, Training

    net = common.load(model)
    source, classes = labelled_images("IMAGES", images, bad_images(on_bad_image))
    units = net.tensor_shape(net.logits)[-1]
    if classes > units:
        raise ValueError(f"IMAGES is {images!r}, with {classes} classes; allowed: at most {units}, as many as {model} "
                         "tells apart")
    if min(wanted) > passes:
        raise ValueError(f"--at is {at!r}; allowed: epochs up to {passes}, the last one (--epochs)")
    if net.preprocessing is None:
        raise ValueError(f"{model} records no preprocessing; allowed: a model that says how pixels become its input")
    generator = np.random.default_rng(common.seed)
    watched = {}
    for layer in chosen_layers(net, chosen):
        total = net.tensor_shape(layer)[-1]
        watched[layer] = np.sort(generator.permutation(total)[:count]).tolist()
    recorder = Recorder(net, source, watched, epochs=wanted, rule=common.rule, look=look)
    feed = Feed(source, net.preprocessing, batch_size=common.batch_size, seed=common.seed)
    if feed.shape != net.input_shape:
        raise ValueError(f"IMAGES is {images!r}, where pictures become {feed.shape}; allowed: {net.input_shape}, the "
                         "network's input (set the preprocessing's size and crop)")
    Training(net, feed, SGD(speed, momentum=0.9, radius=0.1), lambda epoch, errors: speed * (1 - epoch / passes),
             common.seed).run(passes, observer=recorder)
    found = recorder.result()
    skipped = {source.names[index]: reason for index, reason in sorted(feed.skipped.items())}
    summary = {"model": model, "skipped": skipped, **found.summary}
    text = (f"epochs {', '.join(map(str, found.epochs))}: accuracy on the training pictures "
            f"{', '.join(f'{value:.3f}' for value in found.accuracies)}{left_out(skipped)}")
    finish(found, {"evolution": evolution_picture(found)}, common, summary, text,
           more=lambda folder: safetensors.save(net, folder / "model.safetensors"))
