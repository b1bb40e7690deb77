"""`zfcore transfer`: what a network learned, judged on another data set, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import BadImages, Model, bad_images, integer, left_out, positive, whole_pictures
from .common import names as name_list
from .studies import Common, experiment, finish, integers

POOLINGS, CLASSIFIERS, AGAINST, LOSSES = ("average", "max", "none"), ("softmax", "svm"), ("random", "scratch"), (
    "exclusive", "multi-label")


@experiment(batch_size="32", rule=False)
def transfer(
    common: Common,
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help=(
        "Labelled pictures: a folder a class, caltech:DIR, set.npz:train, digits; or voc:DIR:train with --test."))],
    layers: Annotated[str | None, typer.Option("--layers", metavar="NAMES", show_default=False,
                                               help="As in conv1,conv5,fc7. Default: every convolution, and fc6, fc7 "
                                                    "where they exist.")] = None,
    per_class: Annotated[str, typer.Option("--per-class", metavar="NUMBERS", help="Training pictures of each class."
                                           )] = "15,30",
    folds: Annotated[str, typer.Option("--folds", metavar="N", help="Draws of training and test pictures.")] = "5",
    most: Annotated[str, typer.Option("--most", metavar="N", help="Test pictures of a class, at most.")] = "50",
    classifier: Annotated[str, typer.Option("--classifier", metavar="softmax|svm", help="On fixed features.")
                          ] = "softmax",
    pooling: Annotated[str, typer.Option("--pooling", metavar="average|max|none",
                                         help="How maps larger than --cells are brought down.")] = "average",
    cells: Annotated[str, typer.Option("--cells", metavar="N", help="Rows and columns that are left.")] = "6",
    against: Annotated[str | None, typer.Option("--against", metavar="random,scratch", show_default=False, help=(
        "Also the same network with random weights, and trained from scratch on the same pictures."))] = None,
    epochs: Annotated[str, typer.Option("--epochs", metavar="N", help="Of the training from scratch.")] = "10",
    rate: Annotated[str, typer.Option("--learning-rate", metavar="X", help="Of the training from scratch.")] = "0.001",
    test: Annotated[str | None, typer.Option("--test", metavar="DATA", show_default=False,
                                             help="voc:DIR:val, the part of PASCAL VOC to judge on.")] = None,
    on_bad_image: BadImages = "fail",
    loss: Annotated[str, typer.Option("--loss", metavar="exclusive|multi-label", help=(
        "PASCAL VOC: one class a picture, as in the paper, or every class by itself."))] = "exclusive",
) -> None:
    """Train linear classifiers on fixed features of another data set.

    \b
    zfcore transfer model.safetensors caltech:101_ObjectCategories --per-class 15,30 --out moved
    zfcore transfer model.safetensors voc:VOC2012:train --test voc:VOC2012:val --out voc

    Zeiler & Fergus, section 5.2 and Tables 4 to 7: accuracy as mean over classes, +- deviation over folds,
    layer by layer, against images a class; for PASCAL VOC average precision of each class. Writes
    transfer.png, transfer.csv, the arrays (result/) and summary.json.
    """
    for option, value, allowed in (("--pooling", pooling, POOLINGS), ("--classifier", classifier, CLASSIFIERS),
                                   ("--loss", loss, LOSSES)):
        if value not in allowed:
            raise ValueError(f"{option} is {value!r}; allowed: {', '.join(allowed)}")
    amounts, count = integers("--per-class", per_class, 1), integer("--folds", folds, 1)
    least, side, passes = integer("--most", most, 1), integer("--cells", cells, 1), integer("--epochs", epochs, 1)
    speed = positive("--learning-rate", rate)
    others = [] if against is None else name_list("--against", against)
    if unknown := [each for each in others if each not in AGAINST]:
        raise ValueError(f"--against is {against!r}; allowed: {', '.join(AGAINST)}, not {unknown[0]!r}")
    if test is not None and "scratch" in others:
        raise ValueError("--against is 'scratch' with --test; allowed: random, for PASCAL VOC")
    from ..data import open_images
    from ..study.tables import csv_text
    from ..study.transfer import default_layers

    bad = bad_images(on_bad_image)
    source = open_images(data, on_bad=bad)
    net = common.load(model)
    names = default_layers(net) if layers is None else name_list("--layers", layers)
    networks = {"pretrained": net}
    if "random" in others:
        plain = net.at_size(*net.input_shape[:2])
        plain.preprocessing = net.preprocessing
        networks["random weights"] = plain.initialize(common.seed, "he")
    scratch = common.out.absolute().parent
    if test is not None:
        from ..pictures import pascal_picture
        from ..study.pascal import pascal

        judged = open_images(test, on_bad=bad)
        skipped = whole_pictures(source, judged)[1]  # which the study leaves out by itself
        voc = pascal(networks, source, judged, names, loss=loss, classifier=classifier,
                     pooling=pooling, cells=side, seed=common.seed, batch_size=common.batch_size, scratch=scratch)
        lines = [["network", "layer", "mean", *voc.class_names]]
        for name, rows in voc.summary["precision"].items():
            lines += [[name, layer, row["mean"], *row["classes"].values()] for layer, row in rows.items()]
        text = "\n".join(f"{name}, {layer}: mean average precision {mean:.3f}" for name, layer, mean, *_ in lines[1:])
        finish(voc, {"transfer": pascal_picture(voc)}, common, {"model": model, "skipped": skipped, **voc.summary},
               text + left_out(skipped), {"transfer.csv": csv_text(lines)})
        return
    from ..pictures.transfer import percent, transfer_picture
    from ..study.transfer import transfer as study

    (pictures,), skipped = whole_pictures(source)
    found = study(networks, pictures, names, per_class=amounts, count=count, most=least, classifier=classifier,
                  pooling=pooling, cells=side, seed=common.seed, scratch_epochs=passes if "scratch" in others else 0,
                  learning_rate=speed, batch_size=common.batch_size, scratch=scratch)
    head = ["network", "layer"]
    for amount in found.per_class:
        head += [f"accuracy at {amount} a class", f"deviation at {amount} a class"]
    table: list[list[object]] = [[*head]]
    shown: list[str] = []
    for name, layer, means, deviations in found.table():
        table.append([name, layer, *("" if value != value else value  # NaN: one fold has no deviation
                                     for pair in zip(means, deviations, strict=True) for value in pair)])
        shown.append(f"{name}, {layer}: " + ", ".join(f"{text} %" for text in map(percent, means, deviations)))
    finish(found, {"transfer": transfer_picture(found)}, common,
           {"model": model, "skipped": skipped, **found.summary},
           f"at {', '.join(map(str, found.per_class))} pictures a class\n" + "\n".join(shown) + left_out(skipped),
           {"transfer.csv": csv_text(table)})
