"""The training loop, the only one: epochs of steps over a feed, each epoch's rate, its validation.

Everything random comes from seeds: the feed's batches are a function of the epoch's number and the
place in it, and dropout's masks are keyed by the seed and counted by the step. So a run is the same
bit for bit every time, for any number of threads, and can be taken up again at any step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .captured import CapturedStep, recorder
from .evaluation import Evaluation, measure
from .feeds import Feed
from .optimizers import Optimizer
from .steps import require_trainable, train_step

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["Epoch", "Observer", "Training"]


@dataclass(frozen=True)
class Epoch:
    """What happened in one pass over the training images.

    Attributes
    ----------
    number : from 0
    learning_rate : of its steps
    loss, accuracy : means over the epoch's batches, as they were met, dropout included
    validation : on the validation images after the epoch, or None
    seconds : wall-clock time, validation included
    training_seconds : of its steps alone
    """

    number: int
    learning_rate: float
    loss: float
    accuracy: float
    validation: Evaluation | None
    seconds: float
    training_seconds: float


class Observer:
    """What a training tells of its way; whatever a method raises ends the training there."""

    def wanted(self, training: Training) -> Collection[str]:
        """Tensors of the next step's walk up that `walked` is to get."""
        return ()

    def walked(self, training: Training, kept: Mapping[str, Any]) -> None:
        """A batch of the training images was walked up; `training.step` is its number in the epoch."""

    def stepped(self, training: Training, loss: float, count: int) -> None:
        """A step was taken; `loss` is the mean over its `count` images."""

    def validating(self, training: Training) -> None:
        """A batch of the validation images was measured."""

    def finished(self, training: Training, epoch: Epoch) -> None:
        """An epoch was finished; `training.epoch` is the next one's number."""


@dataclass
class Training:
    """A training under way: what it works on, and where it is.

    Parameters
    ----------
    network : changed in place
    feed : training images
    optimizer : what moves the parameters
    rate : learning rate of an epoch, from its number and the validation errors of those before it;
        None: the optimizer's stays
    seed : of dropout
    validation : a feed to evaluate on after each epoch, unshuffled
    frozen : layers that keep their parameters
    captured : whether steps are launched as one CUDA graph (`CapturedStep`, on the cuda backend), with the same
        bits; steps whose tensors an observer wants, and the smaller batch at an epoch's end, go kernel by kernel

    Attributes
    ----------
    epoch : finished epochs
    step : steps taken in the epoch under way
    loss, hits, seen : sums over its steps: of losses, right answers, images
    seconds : that it took so far
    errors : validation error of each finished epoch, 1 - accuracy; empty without validation
    rates : learning rate of each epoch that was begun
    """

    network: Network
    feed: Feed
    optimizer: Optimizer
    rate: Callable[[int, Sequence[float]], float] | None = None
    seed: int = 0
    validation: Feed | None = None
    frozen: Collection[str] = ()
    captured: bool = False

    epoch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    loss: float = field(default=0.0, init=False)
    hits: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    errors: list[float] = field(default_factory=list, init=False)
    rates: list[float] = field(default_factory=list, init=False)
    _step_of: CapturedStep | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_trainable(self.network, "Training")
        if self.captured:
            recorder(self.network)  # or an error, before anything is done

    def run(self, epochs: int, *, observer: Observer | None = None, progress: bool = True) -> list[Epoch]:
        """Go on until `epochs` are finished; return those that this call finished.

        Parameters
        ----------
        epochs : finished epochs at the end, those before this call included
        observer : told of each step and epoch
        progress : show a bar on stderr: images a second, time left, loss, validation accuracy

        Raises
        ------
        NonFiniteLoss : the loss became NaN or infinite; parameters are those before that step
        """
        watching, history = observer or Observer(), []
        done = self.epoch * self.feed.count + self.seen
        with tqdm(total=epochs * self.feed.count, initial=done, desc="training", unit="img", unit_scale=True,
                  disable=not progress, smoothing=0.05) as bar:
            while self.epoch < epochs:
                history.append(self._pass(watching, bar))
                watching.finished(self, history[-1])
        return history

    def _pass(self, observer: Observer, bar: Any) -> Epoch:
        """Finish the epoch under way."""
        begun = time.perf_counter() - self.seconds
        if self.rate is not None:
            self.optimizer.learning_rate = float(self.rate(self.epoch, self.errors))
        if len(self.rates) == self.epoch:
            self.rates.append(self.optimizer.learning_rate)
        steps = len(self.feed)
        if self.step < steps:
            batches: Any = self.feed.epoch(self.epoch, self.step)
            with contextlib.closing(batches) if hasattr(batches, "close") else contextlib.nullcontext():
                for batch, labels in batches:
                    loss, hits = 0.0, 0
                    if len(labels):  # else none of the batch's images could be read
                        loss, hits = self._take(batch, labels, self.epoch * steps + self.step, observer)
                    self.loss, self.hits, self.seen = self.loss + loss, self.hits + hits, self.seen + len(labels)
                    self.step += 1
                    self.seconds = time.perf_counter() - begun
                    bar.update(len(labels))
                    bar.set_postfix({"epoch": self.epoch + 1, "loss": f"{self.loss / self.seen:.4f}"}, refresh=False)
                    observer.stepped(self, loss / max(len(labels), 1), len(labels))
        checked = None
        if self.validation is not None:
            checked = measure(self.network, self.validation, between=lambda: observer.validating(self))
            self.errors.append(1 - checked.accuracy)
            bar.set_postfix({"epoch": self.epoch + 1, "loss": f"{self.loss / self.seen:.4f}",
                             "validation": f"{checked.accuracy:.4f}"})
        epoch = Epoch(self.epoch, self.optimizer.learning_rate, self.loss / self.seen, self.hits / self.seen, checked,
                      time.perf_counter() - begun, self.seconds)
        self.epoch, self.step, self.loss, self.hits, self.seen, self.seconds = self.epoch + 1, 0, 0.0, 0, 0, 0.0
        return epoch

    def _take(self, batch: Any, labels: Any, step: int, observer: Observer) -> tuple[float, int]:
        """One step; its loss and hits, summed over the batch."""
        wanted = observer.wanted(self)
        if self.captured and not wanted:
            if self._step_of is None or len(batch) > (self._step_of.shape or (0,))[0]:
                self._step_of = CapturedStep(self.network, self.optimizer, seed=self.seed, frozen=self.frozen)
            if self._step_of.fits(batch):
                return self._step_of(batch, labels, step)
        return train_step(self.network, batch, labels, self.optimizer, seed=self.seed, step=step, frozen=self.frozen,
                          keep=wanted, walked=partial(observer.walked, self))
