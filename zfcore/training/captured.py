"""The training step as a CUDA graph: recorded once, launched for each further batch of its size."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..ops.loss import check_labels
from .optimizers import Optimizer
from .steps import NonFiniteLoss, first_bad_layer, require_trainable

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["CapturedStep"]


def recorder(net: Network) -> Any:
    """What begins a recording where a network runs; ValueError where nothing does."""
    make = getattr(net.ops.backend, "recording", None)
    if make is None:
        checks.fail("CapturedStep", "backend", net.ops.backend.name, "'cuda', which records steps")
    return make


class CapturedStep:
    """`train_step` with the same bits, for batches of the first one's shape.

    The first call takes its step kernel by kernel and then records one; further calls copy the batch, the labels
    and what changes from step to step (learning rates, Adam's corrections, dropout's counter) to where the recorded
    kernels read them, launch it, and read the losses. Where the network or the optimizer has other arrays than the
    recorded ones (a checkpoint was loaded), or the network another storage or precision, a step is recorded anew.

    A step whose loss is not finite is not taken, as with `train_step`: its rates become NaN on the device, and
    the update's kernels then write nothing.

    Parameters
    ----------
    net : an initialised network on a backend that records (cuda)
    optimizer : what moves the parameters, in place; its learning rate may change between steps
    seed, frozen : as of `train_step`

    Raises
    ------
    ValueError : the backend does not record
    """

    def __init__(self, net: Network, optimizer: Optimizer, *, seed: int = 0, frozen: Collection[str] = ()) -> None:
        require_trainable(net, "CapturedStep")
        make = recorder(net)
        self.net, self.optimizer, self.seed, self.frozen = net, optimizer, seed, frozenset(frozen)
        self.shape: tuple[int, ...] | None = None
        self._recording: Any = make()
        self._results: Any = None  # losses and probabilities of the last launch
        self._changed: list[Any] = []
        self._arithmetic: tuple[str, str] | None = None

    def fits(self, batch: Any) -> bool:
        """Whether a batch has the recorded step's shape; before the first step any has."""
        return self.shape in (None, tuple(batch.shape))

    def __call__(self, batch: Any, labels: np.ndarray, step: int) -> tuple[float, int]:
        """Take one step.

        Parameters
        ----------
        batch : (N, H, W, C), preprocessed, of the recorded shape
        labels : integers (N,), NumPy's
        step : of dropout

        Returns
        -------
        loss, hits : as of `train_step`
        """
        where, classes = "CapturedStep", self.net.tensor_shape(self.net.logits)[-1]
        self.net._check_input(batch)
        checks.require(self.fits(batch), where, "batch.shape", tuple(batch.shape), f"{self.shape}, as recorded")
        check_labels(where, labels, (batch.shape[0], classes))
        if self.shape is None:
            self._prepare(batch)
        parameters = self.net.parameters()
        self.optimizer.make_room(self.net.ops, self._moving())  # it outlives the recording's own memory
        arrays = [*parameters.values(), *self.optimizer.state.values()]  # what a step changes
        arithmetic = self.net.storage, self.net.precision
        recorded = (len(arrays) == len(self._changed) and all(map(operator.is_, arrays, self._changed))
                    and arithmetic == self._arithmetic)
        if not recorded:
            require_trainable(self.net, where)
        with self._recording.running():
            for target, values in ((self._batch, batch), (self._labels, np.asarray(labels, np.int64)),
                                   (self._counter, np.array([step], np.uint64)), (self._numbers, self._current())):
                self._recording.put(target, values)
            if not recorded:
                loss, probabilities = self._read(*self._walk())
                taken = self.optimizer.steps
                self._results = self._recording.record(self._walk)  # after a step: memory and kernels are there
                self.optimizer.steps, self._changed, self._arithmetic = taken, arrays, arithmetic
            else:
                self._recording.launch()
                self.optimizer.steps += 1
                loss, probabilities = self._read(*self._results)
        if not np.isfinite(loss):
            self.optimizer.steps -= 1
            raise NonFiniteLoss(first_bad_layer(self.net, batch, self.seed, step, self.frozen), step)
        return loss, int((probabilities.argmax(axis=1) == labels).sum())

    def _prepare(self, batch: Any) -> None:
        """Room for what a step reads."""
        empty = self.net.ops.backend.empty
        self.shape = tuple(batch.shape)
        self._factors = sorted({self.optimizer.factor(name) for name in self.net.parameters()})
        self._batch, self._labels = empty(self.shape, batch.dtype), empty(self.shape[:1], np.int64)
        self._counter = empty((1,), np.uint64)
        count = self._current().size
        self._numbers, self._guarded = (empty((count,), np.float64) for _ in range(2))

    def _moving(self) -> dict[str, Any]:
        """The parameters that a step moves."""
        return {f"{node.name}.{key}": array for node in self.net.below([self.net.logits])
                if node.name not in self.frozen for key, array in node.layer.parameters.items()
                if key in node.layer.trainable}

    def _current(self) -> np.ndarray:
        """The next step's numbers, those of one factor side by side."""
        return np.array([self.optimizer.numbers(factor) for factor in self._factors], np.float64).reshape(-1)

    def _settings(self) -> Mapping[float, tuple[Any, ...]]:
        """Where the update's kernels read each factor's numbers."""
        each = self._guarded.shape[0] // len(self._factors)
        return {factor: tuple(self._guarded[place * each + item:place * each + item + 1] for item in range(each))
                for place, factor in enumerate(self._factors)}

    def _walk(self) -> tuple[Any, Any]:
        """The step's kernels; losses and probabilities, before the step."""
        net, ops = self.net, self.net.ops
        forward = net.forward(self._batch, to=net.logits, cache=True, training=True, seed=self.seed, step=self._counter,
                              frozen=self.frozen, fused=True)
        losses, probabilities = ops.softmax_cross_entropy(forward.output, self._labels, trusted=True)
        ops.backend.guard_settings(self._guarded, self._numbers, losses)
        signal = ops.softmax_cross_entropy_gradient(probabilities, self._labels, trusted=True)
        moving: Any = [name for name in forward.nodes if name not in self.frozen] if self.frozen else True
        gradients = net.backward(forward, signal, parameters=moving, inputs=False).gradients
        self.optimizer.step(ops, net.parameters(), gradients, self._settings())
        return losses, probabilities

    def _read(self, losses: Any, probabilities: Any) -> tuple[float, np.ndarray]:
        host = self.net.ops.backend.to_numpy
        return float(host(losses).sum(dtype=np.float64)), host(probabilities)
