"""The paper's experiments: occlusion beside PyTorch, what locality saves, what watching costs a training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zfcore import models
from zfcore.geometry import window_starts
from zfcore.study.evolution import Recorder
from zfcore.study.invariance import invariance
from zfcore.study.occlusion import occlusion
from zfcore.training import SGD, fit

from .measure import OURS, Row, interleave
from .networks import networks

WINDOW, STRIDE = 32, 8


def torch_occlusion(model: Any, image: np.ndarray, prepare: Callable[[np.ndarray], np.ndarray], batch: int,
                    layout: str) -> np.ndarray:
    """Every occluded image in full: class probabilities and conv5's sums, (positions, classes + 256)."""
    rows = window_starts(image.shape[0], WINDOW, STRIDE)
    places = [(row, column) for row in rows for column in rows]
    found = []
    for begin in range(0, len(places), batch):
        part = np.repeat(image[None], len(places[begin:begin + batch]), axis=0)
        for item, (row, column) in zip(part, places[begin:begin + batch], strict=True):
            item[row:row + WINDOW, column:column + WINDOW] = 128
        x = torch.from_numpy(np.ascontiguousarray(prepare(part).transpose(0, 3, 1, 2)))
        if layout.endswith("channels_last"):
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            conv5 = model[:14](x)
            probabilities = functional.softmax(model[14:](conv5), dim=1)
            found.append(torch.cat([probabilities, conv5.sum(dim=(2, 3))], dim=1))
    return torch.cat(found).numpy()


def occlusions(seconds: float) -> Iterator[Row]:
    """625 positions of a 32-pixel square on ZFNet: ours, ours without locality, PyTorch in its best batch."""
    net, peers = networks()
    image = np.random.default_rng(6).integers(0, 256, net.input_shape, dtype=np.uint8)
    prepare = net.preprocessing.apply  # type: ignore[union-attr]

    def ours(local: bool) -> Any:
        return occlusion(net, image, "conv5", window=WINDOW, stride=STRIDE, local=local, progress=False)

    # PyTorch's best layout and batch, by a short try of each.
    def trial(name: str, batch: int) -> float:
        x = torch.zeros(batch, 3, 224, 224)
        x = x.contiguous(memory_format=torch.channels_last) if name.endswith("channels_last") else x
        times = []
        with torch.no_grad():
            for _ in range(max(16 // batch, 1) + 1):
                start = time.perf_counter()
                peers[name](x)
                times.append(time.perf_counter() - start)
        return statistics.median(times[1:]) / batch

    name, batch = min(((name, batch) for name in peers for batch in (4, 16, 32)), key=lambda each: trial(*each))
    found, expected = ours(True), torch_occlusion(peers[name], image, prepare, batch, name)
    positions = found.activity.size
    assert found.probabilities is not None
    error = np.abs(found.probabilities.reshape(positions, -1) - expected[:, :1000]).max()
    sums = expected[:, 1000 + found.map]
    error2 = np.abs(found.activity.ravel() / sums - 1).max()
    row = interleave(f"occlusion, ZFNet, {positions} positions", {
        OURS: lambda: ours(True), "zfcore, whole passes": lambda: ours(False),
        name: lambda: torch_occlusion(peers[name], image, prepare, batch, name)}, seconds=seconds, rounds=2)
    dense = row.medians.pop("zfcore, whole passes")
    samples = row.samples.pop("zfcore, whole passes")
    share = dense / row.medians[OURS]
    row.note = (f"batch {batch}; locality alone {share:.2f}x of {found.dense_multiply_adds / found.multiply_adds:.2f}x "
                f"fewer multiply-adds; differences {error:.0e}, {error2:.0e}")
    yield row
    yield Row("occlusion without locality", {OURS: dense, name: row.medians[name]},
              {OURS: samples, name: row.samples[name]}, note="the same program on whole passes")


def evolutions(seconds: float) -> Iterator[Row]:
    """What watching 18 maps of three layers adds to an epoch on 4,096 images, and looking at all of them after it."""
    net = models.build("digits").initialize(0)
    net.algorithm = "direct"  # as the demo trains it
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (4096, 32, 32, 1), dtype=np.uint8)
    labels = generator.integers(0, 10, 4096)
    maps = {layer: list(range(6)) for layer in ("conv1", "conv2", "conv3")}

    def epoch(look: str | None) -> Any:
        recorder = None if look is None else Recorder(net, images, maps, epochs=(1,), look=look)
        fit(net, images, labels, epochs=1, optimizer=SGD(1e-6), progress=False, callback=recorder)
        return 0.0 if recorder is None else recorder.result().seconds[0]

    # What the recorder itself measured is steadier than the difference of two epochs; both are given.
    taken: dict[str, list[float]] = {"during": [], "after": []}

    def watched(look: str) -> None:
        taken[look].append(epoch(look))

    row = interleave("evolution: an epoch that is watched, digits net", {
        OURS: lambda: watched("during"), "without": lambda: epoch(None), "a look after": lambda: watched("after")},
        seconds=seconds, rounds=3)
    alone = row.medians["without"]
    shares = {look: 100 * statistics.median(each[1:]) / alone for look, each in taken.items()}
    after = row.medians.pop("a look after")
    differences = [100 * (each / alone - 1) for each in (row.medians[OURS], after)]
    row.note = (f"watching adds {shares['during']:.1f} % by its own clock, {differences[0]:.1f} % by the epochs' "
                f"difference; a look at all images after it {shares['after']:.1f} %, {differences[1]:.1f} %")
    yield row


def invariances(seconds: float) -> Iterator[Row]:
    """89 transforms of one image on ZFNet, one at a time and in batches."""
    net, _ = networks()
    image = np.random.default_rng(8).integers(0, 256, net.input_shape, dtype=np.uint8)

    def ours(batch: int) -> Any:
        return invariance(net, image, ["conv1", "fc7"], batch_size=batch, progress=False)

    row = interleave("invariance, ZFNet, 89 transforms", {OURS: lambda: ours(32), "one at a time": lambda: ours(1)},
                     seconds=seconds, rounds=3)
    yield row


def rows(seconds: float) -> Iterator[Row]:
    """All benchmarks of the experiments."""
    yield from occlusions(seconds)
    yield from evolutions(seconds)
    yield from invariances(seconds)
