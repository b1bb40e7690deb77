"""`zfcore demo`: the whole way, from real images to pictures of what a convnet responds to."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Device, Force, Json, Out, Seed, duration, guard_output, integer, note, tell, use_device


def demo(
    out: Out,
    epochs: Annotated[str, typer.Option("--epochs", metavar="N",
                                        help="Passes over the training images.")] = "16",
    device: Device = "auto",
    seed: Seed = "0",
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a small convnet on handwritten digits and look inside it.

    \b
    zfcore demo --out zfcore-demo

    Trains three stages of convolution, ReLU and overlapping max pooling on two thirds of
    scikit-learn's digits, measures it on the rest, finds there the nine strongest activations of
    every feature map, and projects each to pixels through its own pooling switches. Writes
    index.html, PNG grids, the arrays, model.safetensors and summary.json. About a minute.
    """
    use_device(device)
    passes, number = integer("--epochs", epochs, 1), integer("--seed", seed, 0)
    guard_output(out, force)
    from .. import demo as program

    summary = program.run(out, seed=number, epochs=passes, force=force)
    right = summary["held_out_images"] - summary["wrong"]
    tell(summary, json, f"{right} of {summary['held_out_images']} held-out digits are right "
                        f"({summary['accuracy']:.2%}) after {duration(summary['seconds']['all'])}\n"
                        f"open {out / 'index.html'}")
    if summary["accuracy"] < program.EXPECTED:
        note(f"zfcore: the accuracy is {summary['accuracy']:.2%}, below the {program.EXPECTED:.0%} that this "
             "demo reaches with its own settings")
        raise typer.Exit(1)
