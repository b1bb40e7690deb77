"""`zfcore train`: train a network by a recipe, in a folder from which it can go on at any time."""

from __future__ import annotations

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
    Pixels,
    Sides,
    bad_images,
    counted,
    duration,
    guard_inputs,
    integer,
    labelled_images,
    left_out,
    note,
    number,
    tell,
    use_device,
)
from .common import names as name_list
from .run_arguments import before, chosen_recipe, overrides, settled
from .studies import integers

if TYPE_CHECKING:
    from ..data import Images
    from ..network import Network
    from ..training.recipes import Recipe


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
        "Any setting of the recipe, as in optimizer.decay=0.001, schedule.kind=cosine or optimizer.radius=none; may be "
        "repeated."))] = None,
    initial: Annotated[str | None, _given("--initial", "FILE", (
        "Take parameters from this model where names and shapes agree."))] = None,
    replace: Annotated[str | None, _given("--replace", "LAYERS", (
        "Layers to begin anew when parameters are taken; the last one is where the classes differ."))] = None,
    freeze: Annotated[str | None, _given("--freeze", "LAYERS", "Layers that are not trained.")] = None,
    factors: Annotated[str | None, _given("--factors", "LAYER=X,...", (
        "Multiply the learning rate of layers, as in fc8=10,conv1=0.1."))] = None,
    weights: Architecture = None,
    preprocessing: Pixels = None,
    input_size: Sides = None,
    seed: Annotated[str | None, _given("--seed", "N", (
        "Of weights, order, augmentation, dropout, and what is held out. Default: 0."))] = None,
    bad: Annotated[str | None, _given("--on-bad-image", "fail|skip", "Default: fail.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    keep: Annotated[str | None, _given("--keep", "EPOCHS", (
        "Keep the model after these epochs as well, as in 0,1,2,5,10; 0: as it begins."))] = None,
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
    validation error), model.safetensors (the last), those to --keep, summary.json. Exit code 130 or
    143: stopped by a signal, and saved.
    """
    use_device(device)
    folder = Path(out)
    given = {"model": model, "data": data, "validation": validation, "initial": initial, "replace": replace,
             "freeze": freeze, "factors": factors, "architecture": weights, "preprocessing": preprocessing,
             "input_size": input_size,
             "keep": None if keep is None else integers("--keep", keep),
             "seed": None if seed is None else integer("--seed", seed, 0),
             "on_bad_image": None if bad is None else bad_images(bad)}
    if resume and force:
        raise ValueError("--resume is given with --force; allowed: one of them, going on or beginning again")
    every, steps = number("--checkpoint-every", saving, 0), integer("--log-every", lines, 1)
    changes = overrides(epochs, batch_size, learning_rate, change or [])
    from ..training.folder import refuse
    from ..training.run import train as run

    refuse(folder, resume, force)
    if force:
        guard_inputs(folder, model, data, validation, initial)
    earlier = before(folder, resume)
    settings = settled(given, earlier, model, data)
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"--out is {str(out)!r}; its parent folder does not exist")
    how = chosen_recipe(recipe, changes, earlier)
    if how.make_schedule().needs_validation and settings["validation"] is None:
        raise ValueError(f"--validation is missing, and the schedule {how.schedule['kind']!r} of recipe {how.name!r} "
                         "looks at validation errors; allowed: labelled pictures, a share of DATA such as 0.1, or "
                         "another schedule, as in --set schedule.kind=constant")
    net, images, held_out, frozen = _prepared(settings, how)
    from ..training.preparation import held_out_feed, training_feed

    factor_values = _factors(settings["factors"], net)
    untrained = _built_in(settings["model"]) and settings["initial"] is None
    feed = training_feed(net, images, how, seed=settings["seed"], own_mean=untrained)
    checked = None if held_out is None else held_out_feed(net, held_out, batch_size=how.batch_size)
    summary = run(folder, net, feed, how.make_optimizer(factor_values), epochs=how.epochs,
                  schedule=how.make_schedule(), validation=checked, seed=settings["seed"], frozen=frozen,
                  description={"arguments": settings, "recipe": how.to_config()}, resume=resume, force=force,
                  keep=settings["keep"] or (), checkpoint_seconds=every, log_every=steps, tensorboard=tensorboard,
                  captured=captured)
    tell({**summary, "out": str(out)}, json, f"{_told(summary)}\nsee {folder / 'curves.png'}; the model is "
                                             f"{folder / 'model.safetensors'}")


def _told(summary: Mapping[str, Any]) -> str:
    """The summary in words."""
    text = f"{counted(summary['epochs'], 'epoch')} in {duration(summary['seconds'])}, " \
           f"{summary['images_per_second']:.0f} images/s"
    if summary["loss"] is not None:  # the log has the last epoch, unless it was lost
        text += f": loss {summary['loss']:.4f}, accuracy {summary['accuracy']:.2%} on training pictures"
    if summary["validation_accuracy"] is not None:
        text += f"; validation {summary['validation_accuracy']:.2%} (top-5 {summary['validation_top5']:.2%})"
    if summary["best"]:
        text += f", best {summary['best']['validation_accuracy']:.2%} in epoch {summary['best']['epoch']}"
    return text + left_out(summary["skipped"])


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


def _built_in(model: str) -> bool:
    """Whether MODEL is a built-in name; a file of that name comes first."""
    from ..models import MODELS

    return model in MODELS and not Path(model).is_file()


def _prepared(settings: Mapping[str, Any], recipe: Recipe
              ) -> tuple[Network, Images, Images | None, list[str]]:
    """The network with its initial parameters, the pictures, those held out, the frozen layers."""
    images, classes = labelled_images("DATA", settings["data"], settings["on_bad_image"], least=2)
    images, held_out = _held_out(images, settings)
    net = _network(settings, recipe, classes, images.class_names)
    frozen = [] if settings["freeze"] is None else name_list("--freeze", settings["freeze"])
    for layer in frozen:
        if layer not in net.nodes:
            raise ValueError(f"--freeze names {layer!r}; allowed: {', '.join(net.nodes)}")
    return net, images, held_out, frozen


def _held_out(images: Images, settings: Mapping[str, Any]) -> tuple[Images, Images | None]:
    """The training pictures, and those to measure on."""
    from ..data import split

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
        return split(images, share, settings["seed"])
    held_out, _ = labelled_images("--validation", text, settings["on_bad_image"])
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
    pixels, size = settings["preprocessing"], settings["input_size"]
    if _built_in(model):
        if pixels is not None or size is not None:
            raise ValueError(f"MODEL is {model!r}; --preprocessing and --input-size are for files")
        net = models.build(model, classes=classes)
        net.class_names = class_names
        if settings["initial"] is not None:
            source = formats.load(settings["initial"], architecture)
            net.preprocessing = source.preprocessing or net.preprocessing
    else:
        if settings["initial"] is not None:
            raise ValueError(f"MODEL is {model!r}; --initial is for built-in names, a file brings its own parameters")
        source = load_model(model, architecture=architecture, preprocessing=pixels, input_size=size)
        net = with_classes(source, classes, class_names)
    if net.preprocessing is None:
        raise ValueError(f"MODEL is {model!r}, which records no preprocessing; allowed: a model that says how pixels "
                         "become its input, or --preprocessing")
    recipe.prepare(net)
    recipe.initialize(net, settings["seed"])
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
