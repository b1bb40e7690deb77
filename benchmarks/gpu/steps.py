"""Training steps of whole networks: walk up, walk down, SGD with momentum, the loss read; images on the device.

Ours: kernel by kernel, and captured into a CUDA graph; in bfloat16 also with the tensors between layers stored so.
Theirs: eager, channels last, fused SGD, autocast for 16 bits; and the same compiled by max-autotune, which replays
CUDA graphs of its own. No losses are scaled for float16.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zfcore import backends, checks
from zfcore.training import SGD, CapturedStep, train_step

from ..torch_networks import twin
from .bench import Bench, LeftOut, set_tf32
from .plan import BFLOAT16, FLOAT16, STRICT, TF32, Precision, variants
from .rows import Row

RATE, MOMENTUM = 1e-7, 0.9  # hundreds of steps leave the loss where it was, so that contenders can be compared
APART = 0.2  # of a first loss from PyTorch's eager one, relative: dropout draws other units


def steps(bench: Bench, title: str) -> None:
    """One network's, 16 bits first."""
    bench.in_time()
    batch = bench.plan.batches.get(title, bench.plan.batch)
    net = bench.plan.networks[title]()
    classes = net.tensor_shape(net.logits)[-1]
    images = np.random.default_rng(0).standard_normal((batch, *net.input_shape), np.float32)
    labels = np.arange(batch) % classes
    module = twin(net.initialize(0))
    peer = Peer(bench, module, images, labels)
    ours = Ours(bench, title, images, labels)
    flop = 2.0 * (3 * sum(net.multiply_adds(batch).values()) - next(iter(net.multiply_adds(batch).values())))
    for precision in (BFLOAT16, FLOAT16, TF32, STRICT):
        bench.in_time()
        set_tf32(precision is TF32)
        row = Row(bench.group, f"{title} training step, batch {batch}, {precision.name}",
                  f"step {title}" if precision.size == 2 else "", precision.name, gflop=flop * 1e-9, images=batch,
                  ceiling=flop / bench.products[precision.name])
        first_loss = peer.step(precision, peer.module)()
        bench.race(row, {name: checked(row, name, make, first_loss) for name, make in {
            **ours.contenders(precision), **peer.contenders(precision)}.items()}, 1, whole=True)
        peer.optimizer.zero_grad(set_to_none=True)  # gradients may lie in the memory of the last compiled step's graphs


def checked(row: Row, name: str, make: Callable[[], Callable[[], float]], expected: float
            ) -> Callable[[], Callable[[], float]]:
    """A contender whose first loss must be near the one expected; how far it is stands in the row's errors."""
    def ready() -> Callable[[], float]:
        step = make()
        row.errors[name] = abs(step() - expected) / expected
        if not row.errors[name] <= APART:
            raise LeftOut(f"its first loss is {row.errors[name]:.0%} away from PyTorch's, {expected:.3f}")
        return step

    return ready


class Ours:
    """Our steps on one network, whose precision changes from row to row."""

    def __init__(self, bench: Bench, title: str, images: np.ndarray, labels: np.ndarray) -> None:
        self.net = bench.plan.networks[title]()
        self.net._backend = "cuda"
        self.net.initialize(0)
        self.labels, self.batch = labels, backends.get("cuda").asarray(images)
        self.optimizer = SGD(learning_rate=RATE, momentum=MOMENTUM, rate_in_velocity=False)

    def contenders(self, precision: Precision) -> dict[str, Callable[[], Callable[[], float]]]:
        """Kernel by kernel, and captured; in bfloat16 the tensors between layers may be stored so, too."""
        found = {}
        for label, number in variants(precision).items():
            found |= self._both(label, checks.PRECISIONS[number], "float32")
        if precision is BFLOAT16:
            found |= self._both("zfcore, stored in bfloat16", precision.name, "bfloat16")
        return found

    def _both(self, name: str, precision: str, storage: str) -> dict[str, Callable[[], Callable[[], float]]]:
        def taking(step: Callable[[], tuple[float, int]]) -> Callable[[], float]:
            def call() -> float:
                self.net.storage, self.net.precision = storage, precision
                return step()[0] / len(self.labels)

            return call

        def plain() -> Callable[[], float]:
            return taking(lambda: train_step(self.net, self.batch, self.labels, self.optimizer))

        def captured() -> Callable[[], float]:
            step = CapturedStep(self.net, self.optimizer)
            return taking(lambda: step(self.batch, self.labels, self.optimizer.steps))

        return {name: plain, f"{name}, captured": captured}


class Peer:
    """PyTorch's steps on the same network."""

    def __init__(self, bench: Bench, module: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
        self.bench, self.device = bench, bench.device.name
        self.module = module.to(self.device, memory_format=torch.channels_last).train()
        self.images = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # channels last as it is
        self.labels = torch.from_numpy(labels).to(self.device)
        self.optimizer = torch.optim.SGD(self.module.parameters(), RATE, MOMENTUM, fused=True)

    def step(self, precision: Precision, model: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], float]:
        """A step that returns its loss."""
        short = precision.size == 2
        kind: Any = torch.autocast(self.device, getattr(torch, precision.dtype)) if short else contextlib.nullcontext()

        def step() -> float:
            self.optimizer.zero_grad(set_to_none=True)
            with kind:
                loss = functional.cross_entropy(model(self.images), self.labels)
            loss.backward()
            self.optimizer.step()
            return float(loss.detach())

        return step

    def contenders(self, precision: Precision) -> dict[str, Callable[[], Callable[[], float]]]:
        """Eager and compiled."""
        def eager() -> Callable[[], float]:
            return self.step(precision, self.module)

        def compiled() -> Callable[[], float]:
            model = self.bench.compiled(self.module, graphs=True)
            step = self.step(precision, model)

            def marked() -> float:
                torch.compiler.cudagraph_mark_step_begin()
                return step()

            return marked

        return {"torch": eager, "torch.compile": compiled}


