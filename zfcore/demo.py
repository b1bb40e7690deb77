"""What `zfcore demo` does: train a small ZF-style convnet on handwritten digits, then look inside it.

From Python: `zfcore.demo.run("zfcore-demo")`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checks
from .files import atomic_folder

if TYPE_CHECKING:
    from .data import Arrays
    from .network import Network

LEARNING_RATE = 0.02
EPOCHS = 12
BATCH_SIZE = 32
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
    """Train the demo's network: SGD with momentum 0.9, filters renormalised to RMS 0.1, dropout.

    The learning rate is divided by ten for the last quarter of the epochs.
    """
    from . import models
    from .training import SGD, fit

    net = models.build("digits")
    net.initialize(seed)
    fit(net, training.images, training.labels, epochs=epochs, batch_size=BATCH_SIZE, seed=seed,
        optimizer=SGD(LEARNING_RATE, momentum=0.9, radius=0.1), progress=progress,
        schedule=lambda epoch: LEARNING_RATE if epoch < 0.75 * epochs else LEARNING_RATE / 10)
    return net


def run(out: str | os.PathLike[str], *, seed: int = 0, epochs: int = EPOCHS, force: bool = False,
        progress: bool = True) -> dict[str, Any]:
    """Train, measure, scan the held-out images, project, and write the report.

    Parameters
    ----------
    out : folder for model.safetensors, the atlas's arrays and pictures, index.html and summary.json;
        it appears whole at the end, or not at all
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
        with seconds.phase("training"):
            net = train(training, seed=seed, epochs=epochs, progress=progress)
        with seconds.phase("evaluation"):
            result = evaluate(net, held_out.images, held_out.labels, progress=progress)
        accuracy = f"{result.accuracy:.4f}"
        safetensors.save(net, folder / "model.safetensors",
                         metadata={"data": "scikit-learn's digits", "held_out_accuracy": accuracy})
        with seconds.phase("scan"):
            atlas = scan(net, held_out, progress=progress)
        with seconds.phase("report"):
            report.write(folder, atlas, progress=progress)
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
