"""What `zfcore demo` does: train a small ZF-style convnet on handwritten digits, then look inside it.

From Python: `zfcore.demo.run("zfcore-demo")`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from .files import atomic_folder

if TYPE_CHECKING:
    from .data import Arrays
    from .network import Network

LEARNING_RATE = 0.01
DECAY = 2e-3
EPOCHS = 16
BATCH_SIZE = 32
SHIFT = 2  # pixels of 32 by which training images are moved at random
# Enlarged digits are smooth, so nothing in them corrects the noise that a filter starts from. Like the
# paper's, whose inputs lie in [-128, 128] and whose weights start at 1e-2, filters therefore start small
# against what they will learn: these shares of He's deviation.
START = {"conv1": 0.07, "conv2": 0.5, "conv3": 0.5}
EXPECTED = 0.98  # held-out accuracy below which the demo says that something is wrong


class Seconds(dict[str, float]):
    """Wall-clock seconds of named phases."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        start = time.perf_counter()
        yield
        self[name] = round(time.perf_counter() - start, 2)


def train(training: Arrays, *, seed: int = 0, epochs: int = EPOCHS, progress: bool = True) -> Network:
    """Train the demo's network: SGD with momentum 0.9, filters renormalised to RMS 0.1, dropout, shifts.

    The learning rate falls linearly to zero.
    """
    from . import models
    from .training import SGD, Shifts, fit

    net = models.build("digits")
    net.initialize(seed)
    for name, share in START.items():
        net.parameters()[f"{name}.weight"] *= np.float32(share)
    # Steps on maps this small are faster without Winograd's algorithm, and round less.
    net.algorithm, usual = "direct", net.algorithm
    fit(net, training.images, training.labels, epochs=epochs, batch_size=BATCH_SIZE, seed=seed,
        optimizer=SGD(LEARNING_RATE, momentum=0.9, decay=DECAY, radius=0.1), augment=Shifts(SHIFT),
        schedule=lambda epoch: LEARNING_RATE * (1 - epoch / epochs), progress=progress)
    net.algorithm = usual
    return net


def say_what_it_takes(training: Arrays, held_out: Arrays, epochs: int) -> None:
    """Print, before the work, what memory and about what time training, scan and report will take."""
    from . import models
    from .study.forecast import duration_text, forecast, measure, report_seconds, size_text
    from .study.scan import chosen_layers

    net = models.build("digits")
    net.initialize(0)
    layers, top = chosen_layers(net, None), 9
    expected = forecast(net, layers, len(held_out), top=top)
    each = measure(net, layers, BATCH_SIZE)
    maps = {name: net.tensor_shape(name)[-1] for name in layers}
    # A step walks up, and down for the signal and for the weights: three times the work of a scan.
    seconds = each * (3 * epochs * len(training) + 2 * len(held_out)) + report_seconds(net, maps, top, each)
    memory = net.memory(BATCH_SIZE).cached * 2 + expected.patch_bytes + expected.projection_bytes
    print(f"demo: {len(training):,} training images, {epochs} epochs; {len(held_out):,} images in the atlas, "
          f"{expected.maps:,} feature maps; about {size_text(memory)} of memory for arrays, about "
          f"{duration_text(seconds)}", file=sys.stderr, flush=True)


def write_examples(images: Arrays, folder: Path, each: int = 3) -> None:
    """Write the first pictures of each class as 7/1.png, 7/2.png ...: something to try commands on."""
    from .pictures import png

    labels = images.labels
    assert labels is not None and images.class_names is not None
    for label, name in enumerate(images.class_names):
        (folder / name).mkdir(parents=True)
        for number, index in enumerate((labels == label).nonzero()[0][:each], 1):
            png(folder / name / f"{number}.png", images.images[index])


def run(out: str | os.PathLike[str], *, seed: int = 0, epochs: int = EPOCHS, force: bool = False,
        progress: bool = True) -> dict[str, Any]:
    """Train, measure, scan the held-out images, project, and write the report.

    Parameters
    ----------
    out : folder for model.safetensors, the atlas's arrays and pictures, index.html, summary.json and a
        few digits to try commands on; it appears whole at the end, or not at all
    seed : of the split, the weights, the order of the images and dropout
    epochs : passes over the training images
    force : replace an earlier result
    progress : bars on stderr

    Returns
    -------
    The summary: accuracy on the held-out images as it was measured, counts, seconds of each phase.
    """
    checks.integer("demo", "epochs", epochs, 1)
    checks.integer("demo", "seed", seed, 0)
    from . import report
    from .data import digits
    from .formats import safetensors
    from .study.scan import scan
    from .training import evaluate

    seconds, begun = Seconds(), time.perf_counter()
    with atomic_folder(out, force) as folder:
        with seconds.phase("data"):
            try:
                training, held_out = digits(seed=seed)
            except ImportError:
                raise ValueError("the digits come with scikit-learn, which is missing; "
                                 "pip install 'zfcore[demo]' brings it") from None
        if progress:
            say_what_it_takes(training, held_out, epochs)
        with seconds.phase("training"):
            net = train(training, seed=seed, epochs=epochs, progress=progress)
        with seconds.phase("evaluation"):
            result = evaluate(net, held_out.images, held_out.labels, progress=progress)
        accuracy = f"{result.accuracy:.4f}"
        safetensors.save(net, folder / "model.safetensors",
                         metadata={"data": "scikit-learn's digits", "held_out_accuracy": accuracy})
        write_examples(held_out, folder / "digits")
        with seconds.phase("scan"):
            atlas = scan(net, held_out, progress=progress)
        with seconds.phase("report"):
            report.write(folder, atlas, title="A convnet on handwritten digits", accuracy=result.accuracy,
                         facts={"training images": f"{len(training):,}"}, progress=progress)
        seconds["all"] = round(time.perf_counter() - begun, 2)
        summary = {
            **atlas.summary,
            "accuracy": result.accuracy,
            "expected_accuracy": EXPECTED,
            "loss": result.loss,
            "training_images": len(training),
            "held_out_images": len(held_out),
            "wrong": int((result.predictions != held_out.labels).sum()),
            "parameters": net.parameter_count,
            "seed": seed,
            "epochs": epochs,
            "seconds": dict(seconds),
        }
        (Path(folder) / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary
