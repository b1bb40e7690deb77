"""`zfcore evaluate`: how a model, or several averaged, does on labelled pictures."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Architecture,
    BadImages,
    BatchSize,
    Device,
    Force,
    Json,
    Pixels,
    Sides,
    bad_images,
    guard_output,
    integer,
    labelled_images,
    left_out,
    load_model,
    tell,
    use_device,
)
from .common import names as name_list

if TYPE_CHECKING:
    from ..data import Images
    from ..network import Network
    from ..training import Evaluation

SHOWN = 5  # of the worst classes, and of the commonest confusions


def evaluate(
    models: Annotated[str, typer.Argument(metavar="MODEL[,MODEL...]", show_default=False, help=(
        "One model file, or several with commas between them, whose probabilities are averaged."))],
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help=(
        "Labelled pictures: a folder with a folder a class, set.npz:test, cifar10:DIR:test, digits:test ..."))],
    crops: Annotated[str, typer.Option("--crops", metavar="1|10", help=(
        "The central crop, or the papers' ten, averaged."))] = "1",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", show_default=False, help=(
        "Write summary.json, confusion.csv and confusion.png there."))] = None,
    weights: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    on_bad_image: BadImages = "fail",
    batch_size: BatchSize = "100",
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy, loss, confusion, and the accuracy on each class.

    \b
    zfcore evaluate run/best.safetensors mnist.npz:test
    zfcore evaluate a.safetensors,b.safetensors,c.safetensors flowers/ --crops 10 --out ensemble

    Several models are averaged by their probabilities, which is how the papers' ensembles are made;
    each is reported alone, too. Ten crops need a model whose pictures are resized to more than it sees.
    """
    use_device(device)
    size = integer("--batch-size", batch_size, 1)
    if crops not in ("1", "10"):
        raise ValueError(f"--crops is {crops!r}; allowed: 1, 10")
    paths = name_list("MODEL", models)
    if out is not None:
        guard_output(out, force, *paths, data)
    from ..training.evaluation import measure
    from ..training.preparation import held_out_feed

    images, _ = labelled_images("DATA", data, bad_images(on_bad_image))
    nets = [load_model(path, architecture=weights, preprocessing=preprocessing, input_size=input_size)
            for path in paths]
    for path, net in zip(paths, nets, strict=True):
        if net.preprocessing is None:
            raise ValueError(f"MODEL is {path!r}, which records no preprocessing; allowed: a model that says how "
                             "pixels become its input, or --preprocessing")
        _same_classes(path, net, data, images)
    feeds = [held_out_feed(net, images, batch_size=size, crops=int(crops)) for net in nets]
    found = measure(nets, feeds, progress=True)
    classes = images.class_names or nets[0].class_names or [str(number) for number in range(found.classes)]
    skipped = {images.names[index]: reason for index, reason in sorted(feeds[0].skipped.items())}
    summary = _summary(found, classes) | {"data": data, "models": paths, "crops": int(crops), "skipped": skipped}
    if len(paths) > 1:
        summary["members"] = [{"model": path, "loss": each.loss, "accuracy": each.accuracy, "top5": each.top5}
                              for path, each in zip(paths, found.members, strict=True)]
    if out is not None:
        _write(out, force, summary, found, classes)
    tell(summary | ({} if out is None else {"out": str(out)}), json, _text(summary, out))


def _same_classes(path: str, net: Network, data: str, images: Images) -> None:
    """Refuse a model whose classes are not the data's."""
    count = net.tensor_shape(net.logits)[-1]
    assert images.labels is not None
    if int(images.labels.max()) >= count:
        raise ValueError(f"MODEL {path!r} has {count} classes; DATA {data!r} has labels up to "
                         f"{int(images.labels.max())}")
    if net.class_names and images.class_names and net.class_names[:len(images.class_names)] != images.class_names:
        differ = next((pair for pair in zip(images.class_names, net.class_names, strict=False) if pair[0] != pair[1]),
                      (len(images.class_names), count))
        raise ValueError(f"MODEL {path!r} has other classes than DATA {data!r}: {differ[1]!r} stands where the data "
                         f"have {differ[0]!r}; allowed: the same names in the same order")


def _summary(found: Evaluation, classes: list[str]) -> dict[str, Any]:
    """What is told, for JSON."""
    table = found.confusion
    wrong = [(int(table[row, column]), row, column) for row, column in zip(*table.nonzero(), strict=True)
             if row != column]
    counts = table.sum(axis=1)

    def name(number: Any) -> str:
        return classes[number] if number < len(classes) else str(number)

    return {"images": len(found.labels), "loss": found.loss, "accuracy": found.accuracy, "top5": found.top5,
            "mean_class_accuracy": float(found.accuracies[counts > 0].mean()),
            "classes": [{"name": name(number), "images": int(counts[number]),
                         "accuracy": None if not counts[number] else float(found.accuracies[number])}
                        for number in range(found.classes)],
            "confusions": [{"is": name(row), "taken_for": name(column), "times": times}
                           for times, row, column in sorted(wrong, key=lambda each: (-each[0], each[1:]))[:50]]}


def _text(summary: dict[str, Any], out: Path | None) -> str:
    """The summary in words; names of classes are shown as plain text."""
    from ..pictures.studies import plain

    lines = [f"{plain(Path(each['model']).name, 40)}: top-1 {each['accuracy']:.2%}, top-5 {each['top5']:.2%}, loss "
             f"{each['loss']:.4f}" for each in summary.get("members", [])]
    lines.append(f"{'average of all' if lines else 'accuracy'}: top-1 {summary['accuracy']:.2%}, top-5 "
                 f"{summary['top5']:.2%}, loss {summary['loss']:.4f} on {summary['images']} pictures; mean over "
                 f"classes {summary['mean_class_accuracy']:.2%}")
    hard = sorted((each for each in summary["classes"] if each["images"] and each["accuracy"] < 1),
                  key=lambda each: each["accuracy"])
    if hard:
        lines.append("hardest classes: " + ", ".join(f"{plain(each['name'], 30)} {each['accuracy']:.1%}"
                                                     for each in hard[:SHOWN]))
    if summary["confusions"]:
        lines.append("most often: " + ", ".join(f"{plain(each['is'], 30)} taken for {plain(each['taken_for'], 30)} "
                                                f"({each['times']})" for each in summary["confusions"][:SHOWN]))
    return "\n".join(lines) + left_out(summary["skipped"]) + (f"\nsee {out / 'confusion.png'}" if out else "")


def _write(out: Path, force: bool, summary: dict[str, Any], found: Evaluation, classes: list[str]) -> None:
    import csv
    import io

    from ..files import atomic_folder
    from ..pictures import confusion_picture, png

    table = found.confusion
    text = io.StringIO()
    writer = csv.writer(text)
    names = [classes[number] if number < len(classes) else str(number) for number in range(found.classes)]
    writer.writerow(["is \\ taken for", *names])
    for name, row in zip(names, table.tolist(), strict=True):
        writer.writerow([name, *row])
    with atomic_folder(out, force) as folder:
        (folder / "confusion.csv").write_text(text.getvalue(), "utf-8", errors="backslashreplace")
        png(folder / "confusion.png", confusion_picture(table, names))
        whole = summary | {"confusion": table.tolist()}
        (folder / "summary.json").write_text(json_format.dumps(whole, indent=1), "ascii")
