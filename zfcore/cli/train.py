"""`zfcore train`: train a network by a recipe, in a folder from which it can go on at any time."""

from __future__ import annotations

import json as json_format
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Architecture,
    Device,
    Force,
    Json,
    Out,
    duration,
    integer,
    note,
    number,
    tell,
    use_device,
)
from .common import names as name_list

if TYPE_CHECKING:
    from ..data import Images
    from ..network import Network
    from ..training.recipes import Recipe

RUN = "run.json"


def _given(name: str, metavar: str, help: str) -> Any:
    """An option that may be left out."""
    return typer.Option(name, metavar=metavar, show_default=False, help=help)


def train(
    out: Out,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", show_default=False, help=(
        "A built-in name, or a model file to fine-tune. Left out with --resume."))] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", show_default=False, help=(
        "Labelled pictures: a folder with a folder a class, set.npz:train, cifar10:DIR:train, digits:train"))] = None,
    recipe: Annotated[str | None, _given("--recipe", "NAME|FILE", (
        "zf (the default), krizhevsky, adam-study, or a .toml file."))] = None,
    validation: Annotated[str | None, _given("--validation", "DATA|SHARE", (
        "Pictures to measure on after each epoch, or a share of DATA that is held out, such as 0.1."))] = None,
    epochs: Annotated[str | None, _given("--epochs", "N", "Passes over the pictures, instead of the recipe's.")] = None,
    batch_size: Annotated[str | None, _given("--batch-size", "N", "Pictures a step.")] = None,
    learning_rate: Annotated[str | None, _given("--learning-rate", "X", "At the beginning.")] = None,
    change: Annotated[list[str] | None, _given("--set", "KEY=VALUE", (
        "Any setting of the recipe, as in optimizer.decay=0.001 or schedule.kind=cosine; may be repeated."))] = None,
    initial: Annotated[str | None, _given("--initial", "FILE", (
        "Take parameters from this model where names and shapes agree."))] = None,
    replace: Annotated[str | None, _given("--replace", "LAYERS", (
        "Layers to begin anew when parameters are taken; the last one is where the classes differ."))] = None,
    freeze: Annotated[str | None, _given("--freeze", "LAYERS", "Layers that are not trained.")] = None,
    factors: Annotated[str | None, _given("--factors", "LAYER=X,...", (
        "Multiply the learning rate of layers, as in fc8=10,conv1=0.1."))] = None,
    weights: Architecture = None,
    seed: Annotated[str | None, _given("--seed", "N", (
        "Of weights, order, augmentation, dropout, and what is held out. Default: 0."))] = None,
    bad: Annotated[str | None, _given("--on-bad-image", "fail|skip", "Default: fail.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    saving: Annotated[str, typer.Option("--checkpoint-every", metavar="SECONDS", help=(
        "Save so often, beside after each epoch."))] = "300",
    lines: Annotated[str, typer.Option("--log-every", metavar="STEPS", help="Steps between lines of the log.")] = "10",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard, too.")] = False,
    captured: Annotated[bool, typer.Option("--captured", help="Launch steps as one CUDA graph.")] = False,
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a network on labelled pictures by a recipe.

    \b
    zfcore train mnist mnist.npz:train --recipe adam-study --validation 0.1 --out run
    zfcore train --resume --out run
    zfcore train --resume --out run --epochs 20
    zfcore train --resume --out run --set schedule.kind=by-hand --set "schedule.rates={12=0.001}"
    zfcore train alexnet.safetensors flowers/ --freeze conv1,conv2 --learning-rate 0.001 --out tuned

    A run can be stopped at any time, by Ctrl-C, kill or a power cut: --resume goes on, and the result
    is that of a run that was never stopped, bit for bit. A model file of another number of classes
    gets a new last layer. --out holds log.jsonl, curves.png, the checkpoints, best.safetensors (least
    validation error), model.safetensors (the last), summary.json. Exit code 130 or 143: stopped by a
    signal, and saved.
    """
    use_device(device)
    folder = Path(out)
    given = {"model": model, "data": data, "validation": validation, "initial": initial, "replace": replace,
             "freeze": freeze, "factors": factors, "architecture": weights,
             "seed": None if seed is None else integer("--seed", seed, 0), "on_bad_image": bad}
    if bad not in (None, "fail", "skip"):
        raise ValueError(f"--on-bad-image is {bad!r}; allowed: fail, skip")
    if resume and force:
        raise ValueError("--resume is given with --force; allowed: one of them, going on or beginning again")
    every, steps = number("--checkpoint-every", saving, 0), integer("--log-every", lines, 1)
    overrides = _overrides(epochs, batch_size, learning_rate, change or [])
    from ..training.run import refuse
    from ..training.run import train as run

    refuse(folder, resume, force)
    before = _before(folder, resume)
    settings = _settled(given, before, model, data)
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"--out is {str(out)!r}; its parent folder does not exist")
    how = _recipe(recipe, overrides, before)
    if how.make_schedule().needs_validation and settings["validation"] is None:
        raise ValueError(f"--validation is missing, and the schedule {how.schedule['kind']!r} of recipe {how.name!r} "
                         "looks at validation errors; allowed: labelled pictures, a share of DATA such as 0.1, or "
                         "another schedule, as in --set schedule.kind=constant")
    net, images, held_out, frozen = _prepared(settings, how)
    from ..training.preparation import held_out_feed, training_feed

    begun = settings["seed"] or 0
    factor_values = _factors(settings["factors"], net)
    feed = training_feed(net, images, how, seed=begun, own_mean=not _pretrained(settings))
    checked = None if held_out is None else held_out_feed(net, held_out, batch_size=how.batch_size)
    summary = run(folder, net, feed, how.make_optimizer(factor_values), epochs=how.epochs,
                  schedule=how.make_schedule(), validation=checked, seed=begun, frozen=frozen,
                  description={"arguments": settings, "recipe": how.to_config()}, resume=resume, force=force,
                  checkpoint_seconds=every, log_every=steps, tensorboard=tensorboard, captured=captured)
    text = f"{summary['epochs']} epochs in {duration(summary['seconds'])}, " \
           f"{summary['images_per_second']:.0f} images/s: loss {summary['loss']:.4f}, accuracy " \
           f"{summary['accuracy']:.2%} on training pictures"
    if summary["best"]:
        text += f"; validation {summary['validation_accuracy']:.2%} (top-5 {summary['validation_top5']:.2%}), best " \
                f"{summary['best']['validation_accuracy']:.2%} in epoch {summary['best']['epoch']}"
    if summary["skipped"]:
        text += f"\n{len(summary['skipped'])} pictures could not be read and were left out; summary.json lists them"
    tell({**summary, "out": str(out)}, json, f"{text}\nsee {folder / 'curves.png'}; the model is "
                                             f"{folder / 'model.safetensors'}")


# What was asked for


def _overrides(epochs: str | None, batch_size: str | None, learning_rate: str | None, changes: list[str]
               ) -> dict[str, Any]:
    """The recipe's settings that the command line changes."""
    found: dict[str, Any] = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set is {text!r}; allowed: KEY=VALUE, as in optimizer.decay=0.001")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    if epochs is not None:
        found["epochs"] = integer("--epochs", epochs, 1)
    if batch_size is not None:
        found["batch_size"] = integer("--batch-size", batch_size, 1)
    if learning_rate is not None:
        found["optimizer.learning_rate"] = number("--learning-rate", learning_rate, 0)
    return found


def _before(folder: Path, resume: bool) -> dict[str, Any] | None:
    """What run.json says of the run to go on with; None if it begins now."""
    if not resume:
        return None
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        found = json_format.loads(path.read_bytes())
        if not isinstance(found["arguments"], dict) or not isinstance(found["recipe"], dict):
            raise KeyError("arguments")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: is no description of a run that `zfcore train` began") from None
    return dict(found)


def _settled(given: Mapping[str, Any], before: Mapping[str, Any] | None, model: str | None, data: str | None
             ) -> dict[str, Any]:
    """The arguments of a new run, or those of the run to go on with, which must agree."""
    if before is None:
        for name, value in (("MODEL", model), ("DATA", data)):
            if value is None:
                raise ValueError(f"{name} is missing; allowed to be left out only with --resume, in a run's folder")
        return dict(given)
    stored = before["arguments"]
    for name, value in given.items():
        if value is not None and value != stored.get(name):
            raise ValueError(f"{name.replace('_', '-')} is {value!r}, but the run was begun with "
                             f"{stored.get(name)!r}; allowed: the same, or leaving it out")
    return {name: stored.get(name) for name in given}


def _recipe(name: str | None, overrides: Mapping[str, Any], before: Mapping[str, Any] | None) -> Recipe:
    """The recipe by name or file, or the run's own, with the changes of the command line."""
    from ..training.recipes import Recipe, recipe

    if before is None:
        return recipe(name or "zf").changed(**overrides)
    stored = Recipe(**before["recipe"])
    return (stored if name is None else recipe(name)).changed(**{"epochs": stored.epochs, **overrides})


def _factors(text: str | None, net: Network) -> dict[str, float] | None:
    """Read "fc8=10,conv1=0.1"."""
    if text is None:
        return None
    found = {}
    for part in name_list("--factors", text):
        layer, equals, value = part.partition("=")
        if not equals or layer not in net.nodes:
            raise ValueError(f"--factors is {text!r}; allowed: LAYER=X,... with layers {', '.join(net.nodes)}")
        found[layer] = number("--factors", value, 0)
    return found


def _pretrained(settings: Mapping[str, Any]) -> bool:
    from ..models import MODELS

    return settings["initial"] is not None or settings["model"] not in MODELS


def _prepared(settings: Mapping[str, Any], recipe: Recipe
              ) -> tuple[Network, Images, Images | None, list[str]]:
    """The network with its initial parameters, the pictures, those held out, the frozen layers."""
    from ..data import open_images
    from ..training.preparation import class_count

    images = open_images(settings["data"], on_bad=settings["on_bad_image"] or "fail")
    try:
        classes = class_count(images)
    except ValueError as error:
        raise ValueError(f"DATA is {settings['data']!r}, where {error}") from None
    images, held_out = _held_out(images, settings)
    net = _network(settings, recipe, classes, images.class_names)
    frozen = [] if settings["freeze"] is None else name_list("--freeze", settings["freeze"])
    for layer in frozen:
        if layer not in net.nodes:
            raise ValueError(f"--freeze names {layer!r}; allowed: {', '.join(net.nodes)}")
    return net, images, held_out, frozen


def _held_out(images: Images, settings: Mapping[str, Any]) -> tuple[Images, Images | None]:
    """The training pictures, and those to measure on."""
    from ..data import open_images, split

    text = settings["validation"]
    if text is None:
        return images, None
    try:
        share = float(text)
    except ValueError:
        share = None
    if share is not None and not Path(text).exists():
        if not 0 < share < 1:
            raise ValueError(f"--validation is {text!r}; allowed: labelled pictures, or a share above 0 and below 1")
        return split(images, share, settings["seed"] or 0)
    held_out = open_images(text, on_bad=settings["on_bad_image"] or "fail")
    if images.class_names is not None and held_out.class_names is not None \
            and images.class_names != held_out.class_names:
        raise ValueError(f"--validation is {text!r}, whose classes {_few(held_out.class_names)} are not those of "
                         f"DATA, {_few(images.class_names)}")
    return images, held_out


def _few(names: list[str]) -> str:
    return repr(names[:4])[:-1] + (", ...]" if len(names) > 4 else "]")


def _network(settings: Mapping[str, Any], recipe: Recipe, classes: int, class_names: list[str] | None) -> Network:
    """The network, initialised by the recipe, with parameters taken from files where they are asked for."""
    from .. import formats, models
    from ..training.fine_tuning import take, with_classes
    from .common import load_model

    model, architecture, source = settings["model"], settings["architecture"], None
    if model in models.MODELS and not Path(model).is_file():
        net = models.build(model, classes=classes)
        net.class_names = class_names
        if settings["initial"] is not None:
            source = formats.load(settings["initial"], architecture)
            net.preprocessing = source.preprocessing or net.preprocessing
    else:
        if settings["initial"] is not None:
            raise ValueError(f"MODEL is {model!r}; --initial is for built-in names, a file brings its own parameters")
        source = load_model(model, architecture=architecture)
        net = with_classes(source, classes, class_names)
    recipe.prepare(net)
    recipe.initialize(net, settings["seed"] or 0)
    replaced = [] if settings["replace"] is None else name_list("--replace", settings["replace"])
    if source is not None:
        anew = take(net, source, replaced)
        if len(anew) == sum(bool(node.layer.parameters) for node in net.nodes.values()):
            raise ValueError(f"{settings['initial'] or model}: no layer's name and shapes agree with those of {model}")
        if anew:
            note(f"zfcore: begun anew: {', '.join(anew)}; all other layers go on from the file's parameters")
    elif replaced:
        raise ValueError("--replace is for fine-tuning; allowed: with a MODEL file or --initial")
    return net
