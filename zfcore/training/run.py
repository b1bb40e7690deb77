"""A training run in a folder: it logs, saves, stops when asked, and goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, checks
from ..files import atomic_write, locked
from ..formats import safetensors
from ..formats.results import versions
from .checkpoint import NAMES, Checkpoint, CheckpointError, Generations, differences
from .curves import curves_picture
from .feeds import Feed
from .folder import BEST, CURVES, DESCRIPTION, EVENTS, KEPT, LOCK, LOG, MODEL, SUMMARY, clear, refuse
from .log import Board, Log, rows
from .loop import Epoch, Observer, Training
from .optimizers import Optimizer
from .schedules import Constant, Schedule
from .signals import Signals
from .steps import NonFiniteLoss

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["train"]

FORMAT = "zfcore-run"


def say(text: str) -> None:
    """Tell the user something on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def train(out: str | os.PathLike[str], net: Network, feed: Feed, optimizer: Optimizer, *, epochs: int,
          schedule: Schedule | None = None, validation: Feed | None = None, seed: int = 0,
          frozen: Collection[str] = (), description: Mapping[str, Any] | None = None, resume: bool = False,
          force: bool = False, keep: Collection[int] = (), checkpoint_seconds: float = 300.0, log_every: int = 10,
          tensorboard: bool = False, captured: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train a network in a folder, or go on where a run stopped.

    The result of a run that was killed, interrupted or out of disk and resumed is that of one that was
    not, bit for bit: model, momentum, order, random numbers, log (its times aside).

    Parameters
    ----------
    out : the run's folder; made, in a folder that exists
    net : with its initial parameters; changed in place
    feed : training images
    optimizer : a new one
    epochs : passes over them; a finished run goes on if it is resumed with more
    schedule : of the optimizer's learning rate; None: constant. A run may go on with another one that
        gives the epochs so far the rates that they had: annealing by hand
    validation : an unshuffled feed to evaluate on after each epoch
    seed : of dropout
    frozen : layers that keep their parameters
    description : JSON values to keep in run.json, such as the recipe
    resume : go on with the run in `out`, or begin it if there is none; False: a run there is refused
    force : replace a run in `out`
    keep : epochs after which the model is kept as epoch-0005.safetensors; 0: as it begins
    checkpoint_seconds : a checkpoint is saved after the first step so long after the last one, and after
        each epoch
    log_every : steps between two of the log's lines
    tensorboard : write events for TensorBoard, too
    captured : launch steps as one CUDA graph, see `Training`; a resumed run may do otherwise
    progress : show a bar on stderr

    Returns
    -------
    The summary: loss, accuracies, best epoch, times; as in summary.json

    Raises
    ------
    BlockingIOError : another process runs in `out`
    CheckpointError : there is no whole checkpoint, or one of another network or training
    NonFiniteLoss : the loss became NaN; the last good checkpoint stays
    """
    where = "train"
    checks.integer(where, "epochs", epochs, 1)
    checks.integer(where, "seed", seed, 0)
    checks.integer(where, "log_every", log_every, 1)
    checks.require(checkpoint_seconds >= 0, where, "checkpoint_seconds", checkpoint_seconds, "a number >= 0")
    for number in keep:
        checks.integer(where, "keep", number, 0)
    schedule = schedule or Constant()
    if schedule.needs_validation and validation is None:
        checks.fail(where, "validation", None, f"a feed: the schedule {schedule.kind!r} looks at validation errors")
    for layer in frozen:
        checks.one_of(where, "frozen", layer, net.nodes)
    moving = [node.name for node in net.nodes.values() if node.layer.parameters and node.name not in frozen]
    checks.require(len(moving) > 0, where, "frozen", list(frozen), "not every layer with parameters")
    for layer in optimizer.factors:
        checks.one_of(where, "a layer of the optimizer's factors", layer, net.nodes)
    base = optimizer.learning_rate
    training = Training(net, feed, optimizer, lambda epoch, errors: schedule.rate(base, epoch, epochs, errors), seed,
                        validation, tuple(frozen), captured)
    folder = Path(out)
    refuse(folder, resume, force)
    folder.mkdir(exist_ok=True)
    with locked(folder / LOCK, f"{folder}: another process is training in this folder"), Signals() as signals:
        refuse(folder, resume, force)  # again, now that nobody else is at it
        clear(folder, resume, force)
        # The learning rate is not among them: what counts is that it was the same in the epochs so far.
        settings = {**optimizer.to_config(), "seed": seed, "frozen": list(frozen), "batches": [feed.count, len(feed)],
                    "training data": feed.manifest(),
                    "validation data": None if validation is None else validation.manifest()}
        settings |= {name: value for name in ("storage", "precision") if (value := getattr(net, name)) != "float32"}
        del settings["learning_rate"]
        run = _Run(folder, training, epochs, json.loads(json.dumps(settings)), signals, checkpoint_seconds, log_every,
                   frozenset(keep))
        return run.go(dict(description or {}), tensorboard, progress)


@dataclass
class _Run(Observer):
    """A run under way: what is done with the training's steps and epochs."""

    folder: Path
    training: Training
    epochs: int
    settings: dict[str, Any]
    signals: Signals
    checkpoint_seconds: float
    log_every: int
    keep: frozenset[int]
    board: Board | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.generations = Generations(self.folder)
        self.began = time.perf_counter()
        self.drawn = self.saved_at = -np.inf
        self.skipped: dict[str, str] = {}

    def go(self, description: dict[str, Any], tensorboard: bool, progress: bool) -> dict[str, Any]:
        """Begin or go on, until all epochs are finished."""
        training = self.training
        length = self._restore()
        self._describe(description)
        self.log = Log(self.folder / LOG, length)
        if self.log.missing:
            say(f"train: {self.folder / LOG} has lost {self.log.missing} bytes that were written before; going on")
        try:
            if tensorboard:
                self.board = Board(self.folder / EVENTS, training.optimizer.steps + 1)
            if self.generations.saved is None:
                self._keep(0)
                self._save()
            self.saved_at = time.perf_counter()
            try:
                training.run(self.epochs, observer=self, progress=progress)
            except NonFiniteLoss as error:
                raise self._stopped(error) from error
            return self._finish()
        finally:
            self.log.close()
            if self.board is not None:
                self.board.close()

    # Beginning

    def _restore(self) -> int:
        """Take up the last checkpoint, if there is one; return how much of the log belongs to it."""
        try:
            checkpoint, faults = self.generations.load()
        except CheckpointError as error:
            raise CheckpointError(f"{error}; no whole checkpoint is left: --force begins again") from None
        if checkpoint is None:
            return 0
        for fault in faults:
            say(f"train: {fault}; going on from the other checkpoint, which is whole")
        other = differences(checkpoint.state["settings"], self.settings)
        data = [line.partition(" is ")[0] for line in other if " data is " in line]
        other = [line for line in other if " data is " not in line]
        name = self.folder / NAMES[1 - NAMES.index(self.generations._next)]
        try:
            checkpoint.restore(self.training)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from None
        assert self.training.rate is not None
        for epoch, rate in enumerate(self.training.rates):
            if (now := self.training.rate(epoch, self.training.errors)) != rate:
                other.append(f"the learning rate of epoch {epoch + 1} was {rate:g} and would now be {now:g}")
                break
        if other:
            raise CheckpointError(f"{name}: is of a training with other settings: {'; '.join(other)}")
        if data:
            raise CheckpointError(f"{name}: the {' and the '.join(data)} changed since (another manifest hash); "
                                  "allowed: the same images, labels and preprocessing, or a new run")
        if self.training.epoch > self.epochs:
            checks.fail("train", "epochs", self.epochs, f"at least {self.training.epoch}: as many are finished")
        if self.training.epoch or self.training.step:
            say(f"train: going on after {self._place()}")
        self.skipped = dict(checkpoint.state["skipped"])
        return int(checkpoint.state["log"])

    def _describe(self, description: dict[str, Any]) -> None:
        """Write run.json, or see whether other versions wrote it."""
        path = self.folder / DESCRIPTION
        now = versions() | {"backend": self.training.network.ops.backend.name}
        if path.is_file():
            before = json.loads(path.read_bytes()).get("versions")
            for line in differences(now, before or {}):
                say(f"train: the run was not begun here: {line}; its bits may differ from here on")
        content = {"format": FORMAT, "version": 1, "versions": now, "epochs": self.epochs, **description,
                   "settings": self.settings}
        atomic_write(path, json.dumps(content, indent=1).encode())

    # On the way

    def _place(self) -> str:
        training = self.training
        within = f", step {training.step} of {len(training.feed)} of the next" if training.step else ""
        return f"epoch {training.epoch} of {self.epochs}{within}"

    def stepped(self, training: Training, loss: float, count: int) -> None:
        """Log, save if it is time, stop if that was asked for."""
        if training.step % self.log_every == 0 or training.step == len(training.feed):
            rate, speed = training.optimizer.learning_rate, training.seen / max(training.seconds, 1e-9)
            self.log.write({"kind": "step", "epoch": training.epoch + 1, "step": training.step, "loss": loss,
                            "rate": rate, "images_per_second": round(speed, 2),
                            "seconds": round(training.seconds, 3)})
            if self.board is not None:
                self.board.write(training.optimizer.steps, time.time(), {
                    "training/loss": loss, "training/rate": rate, "training/images per second": speed})
        if time.perf_counter() - self.saved_at >= self.checkpoint_seconds:
            self._save()
        self._stop_if_asked()

    def validating(self, training: Training) -> None:
        """Stop if that was asked for; validation is done again when the run goes on."""
        self._stop_if_asked()

    def finished(self, training: Training, epoch: Epoch) -> None:
        """Log the epoch, keep the model if it is the best so far, save."""
        checked = epoch.validation
        record: dict[str, Any] = {
            "kind": "epoch", "epoch": epoch.number + 1, "rate": epoch.learning_rate, "loss": epoch.loss,
            "accuracy": epoch.accuracy,
            "validation_loss": checked and (checked.loss if np.isfinite(checked.loss) else None),
            "validation_accuracy": checked and checked.accuracy, "validation_top5": checked and checked.top5,
            "images_per_second": round(training.feed.count / max(epoch.training_seconds, 1e-9), 2),
            "training_seconds": round(epoch.training_seconds, 3), "seconds": round(epoch.seconds, 3)}
        self.log.write(record)
        if self.board is not None:
            values = {f"epoch/{name.replace('_', ' ')}": record[name] for name in (
                "loss", "accuracy", "validation_loss", "validation_accuracy", "validation_top5")}
            self.board.write(training.optimizer.steps, time.time(), values)
        if checked is not None and training.errors.index(min(training.errors)) == epoch.number:
            self._model(BEST, {"epoch": str(epoch.number + 1), "validation accuracy": f"{checked.accuracy:.6f}"})
        self._keep(epoch.number + 1)
        self._save()
        self._draw(at_least=30.0)
        self._stop_if_asked()

    def _keep(self, epochs: int) -> None:
        """Keep the model after so many epochs, if that is one of the chosen."""
        if epochs in self.keep:
            self._model(KEPT.format(epochs), {"epoch": str(epochs)})

    def _model(self, name: str, texts: Mapping[str, str]) -> None:
        self._refuse_not_finite(Checkpoint.of(self.training, {}))
        safetensors.save(self.training.network, self.folder / name, force=True,
                         metadata={**self.training.network.metadata, **texts})

    def _save(self) -> None:
        """Write a checkpoint, if there is anything new; never one with a value that is not finite."""
        training = self.training
        if self.generations.saved == (training.epoch, training.step):
            return
        for feed in (training.feed, training.validation):  # data.Feed leaves out what cannot be read, if told to
            left_out = getattr(feed, "skipped", {})
            self.skipped |= {feed.images.names[index]: reason for index, reason in left_out.items()}  # type: ignore
        checkpoint = Checkpoint.of(training, {"log": self.log.sync(), "settings": self.settings,
                                              "skipped": dict(sorted(self.skipped.items()))})
        self._refuse_not_finite(checkpoint)
        self.generations.save(checkpoint)
        self.saved_at = time.perf_counter()

    def _refuse_not_finite(self, checkpoint: Checkpoint) -> None:
        """NonFiniteLoss if a parameter is not finite: neither a checkpoint nor a model ever has one."""
        if (layer := checkpoint.first_not_finite()) is not None:
            raise NonFiniteLoss(layer, self.training.epoch * len(self.training.feed) + self.training.step)

    def _stop_if_asked(self) -> None:
        number = self.signals.number
        if number is not None:
            self._save()
            self._draw()
            say(f"\ntrain: stopped after {self._place()}; {self.folder} is saved, --resume goes on from there")
            self.signals.__exit__()
            signal.raise_signal(number)
            raise SystemExit(128 + number)  # where that signal is ignored

    def _stopped(self, error: NonFiniteLoss) -> NonFiniteLoss:
        """The same error, with what stays."""
        epoch, step = self.generations.saved or (0, 0)
        found = NonFiniteLoss(error.layer, error.step)
        found.args = (f"{error}; the last good checkpoint, after {epoch} epochs and {step} steps, stays in "
                      f"{self.folder}",)
        return found

    def _draw(self, at_least: float = 0.0) -> None:
        """Draw the curves, if the last ones are so many seconds old."""
        from ..pictures import png

        if time.perf_counter() - self.drawn >= at_least and (epochs := rows(self.folder / LOG, "epoch")):
            png(self.folder / CURVES, curves_picture(epochs))
            self.drawn = time.perf_counter()

    # The end

    def _finish(self) -> dict[str, Any]:
        training, epochs = self.training, rows(self.folder / LOG, "epoch")
        last = epochs[-1] if epochs else {}
        seconds, steps = (sum(row[name] for row in epochs) for name in ("seconds", "training_seconds"))
        texts = {"epochs": str(training.epoch)}
        if training.errors:
            texts["validation accuracy"] = f"{1 - training.errors[-1]:.6f}"
        self._model(MODEL, texts)
        self._draw()
        summary: dict[str, Any] = {
            "version": __version__, "network": training.network.name, "parameters": training.network.parameter_count,
            "epochs": training.epoch, "steps": training.optimizer.steps, "images": training.feed.count,
            "validation_images": training.validation.count if training.validation else None,
            **{name: last.get(name) for name in ("loss", "accuracy", "validation_loss", "validation_accuracy",
                                                 "validation_top5", "rate")},
            "best": None, "skipped": dict(sorted(self.skipped.items())), "seconds": round(seconds, 3),
            "images_per_second": round(training.feed.count * len(epochs) / max(steps, 1e-9), 2)}
        if training.errors:
            best = min(training.errors)
            summary["best"] = {"epoch": training.errors.index(best) + 1, "validation_accuracy": 1 - best}
        atomic_write(self.folder / SUMMARY, json.dumps(summary, indent=2).encode())
        return summary
