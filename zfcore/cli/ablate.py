"""`zfcore ablate`: what does a network lose without some layers, or gain with larger ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    BadImages,
    Device,
    Force,
    Json,
    Model,
    Out,
    bad_images,
    guard_output,
    integer,
    labelled_images,
    left_out,
    note,
    use_device,
    whole_pictures,
)
from .common import names as name_list
from .studies import Target, finish, integers

if TYPE_CHECKING:
    from ..network import Network


def ablate(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False,
                                        help="Labelled pictures to train on.")],
    validation: Annotated[str, typer.Option("--validation", metavar="DATA", show_default=False,
                                            help="Labelled pictures to measure on.")],
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME|FILE", help="How to train every row.")] = "zf",
    epochs: Annotated[str | None, typer.Option("--epochs", metavar="N", show_default=False,
                                               help="Passes over the pictures, instead of the recipe's.")] = None,
    rows: Annotated[str | None, typer.Option("--rows", metavar="NAMES", show_default=False, help=(
        "As in whole,without-3-4; the first is what others are compared with. Default: all."))] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,...", help="Every row is trained once with each.")
                     ] = "0,1,2",
    on_bad_image: BadImages = "fail",
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a network without some of its layers, or with larger ones, and compare.

    \b
    zfcore ablate zfnet-cifar cifar.npz:train --validation cifar.npz:test --out ablated

    Zeiler & Fergus, Table 3. Rows: whole, without-3-4, without-7, without-6-7, without-3-4-6-7, half-6-7,
    double-6-7, wide-3-4-5, wide-3-4-5-double-6-7. Each is trained from scratch by the same recipe;
    mean and standard deviation are over the seeds. What is done is kept in OUT.state after every
    training, and the same command goes on from there. Writes ablation.png, table.txt, the numbers
    (result/) and summary.json.
    """
    use_device(device)
    guard_output(out, force, model, data, validation)
    numbers = integers("--seeds", seeds)
    passes = None if epochs is None else integer("--epochs", epochs, 1)
    chosen = None if rows is None else name_list("--rows", rows)
    from ..pictures import ablation_picture
    from ..study.ablation import ablation as study
    from ..study.ablation import kept
    from ..training.recipes import recipe as recipe_by_name

    how = recipe_by_name(recipe)
    how = how if passes is None else how.changed(epochs=passes)
    bad = bad_images(on_bad_image)
    images, classes = labelled_images("DATA", data, bad, least=2)
    (images, held_out), skipped = whole_pictures(images, labelled_images("--validation", validation, bad)[0])
    net = _network(model, classes)
    state = out.absolute().with_name(out.absolute().name + ".state")
    if state.exists():
        note(f"zfcore: going on from {state}")
    found = study(net, images, held_out, how, rows=chosen, seeds=numbers, state=state)
    finish(found, {"ablation": ablation_picture(found)}, Target(out, force, json),
           {"model": model, "skipped": skipped, **found.summary}, found.table() + left_out(skipped),
           tables={"table.txt": found.table() + "\n"})
    kept(state).remove()


def _network(model: str, classes: int) -> Network:
    """The architecture, with as many classes as the pictures have; no parameters."""
    from .. import models
    from .common import load_model

    if model in models.MODELS:
        return models.build(model, classes=classes)
    net = load_model(model, quiet=True)
    if net.tensor_shape(net.logits) != (classes,):
        raise ValueError(f"MODEL is {model!r}, which has {net.tensor_shape(net.logits)} outputs; allowed: a built-in "
                         f"name, or a file of a network with the pictures' {classes} classes")
    return net
