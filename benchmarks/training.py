"""Training: an epoch of CIFAR-10 beside PyTorch, loading and augmentation included; and ImageNet-sized loading."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zfcore import models
from zfcore.data import Arrays, Augmentation, Feed, ImageFiles, PackedImages
from zfcore.training import SGD, train_step

from .measure import OURS, Row, interleave
from .networks import photographs
from .torch_networks import in_layout, twin

CIFAR = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_jpegq75.npz"
BATCH = 128
RATE, MOMENTUM = 1e-3, 0.9


def pictures(count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """uint8 (count, 32, 32, 3) and labels: the first of CIFAR-10, or noise where it is not at hand."""
    if not CIFAR.is_file():
        generator = np.random.default_rng(0)
        return (generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, count),
                "noise in place of CIFAR-10")
    source = PackedImages(CIFAR, "train")
    assert source.labels is not None
    return (np.stack([source.pixels(index) for index in range(count)]), np.asarray(source.labels[:count]), "CIFAR-10")


class Loader:
    """PyTorch's side: batches as its users make them, whole batches at a time and without a Python loop.

    Pictures lie in memory as bytes; a batch is taken, padded, cut at random places by one gather, mirrored,
    and its mean subtracted.

    Parameters
    ----------
    images : uint8 (N, H, W, 3)
    labels : integers (N,)
    mean : what is subtracted, (H, W, 3) or a number
    scale : what is multiplied then
    pad : pixels around the picture
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, mean: Any, scale: Any, pad: int) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        mean = np.broadcast_to(np.asarray(mean, np.float32), images.shape[1:])
        self.mean = torch.from_numpy(np.ascontiguousarray(mean.transpose(2, 0, 1)))
        self.scale, self.pad = float(scale), pad

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled batches (N, 3, H, W)."""
        generator = torch.Generator().manual_seed(number)
        for chosen in torch.randperm(len(self.images), generator=generator).split(BATCH):
            count, (channels, height, width) = len(chosen), self.images.shape[1:]
            padded = nn.functional.pad((self.images[chosen].float() - self.mean) * self.scale, (self.pad,) * 4)
            rows, columns = (torch.randint(0, 2 * self.pad + 1, (count, 1), generator=generator) for _ in range(2))
            mirrored = torch.rand(count, 1, generator=generator) < 0.5
            down = rows + torch.arange(height)
            across = columns + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
            yield padded[torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None],
                         down[:, None, :, None], across[:, None, None, :]], self.labels[chosen]


def torch_epoch(model: nn.Module, batches: Any, layout: str) -> Callable[[], Any]:
    """One epoch of SGD with momentum; `batches` gives (x, labels) for an epoch's number."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    model.train()

    def run() -> None:
        for x, labels in batches(0):
            if layout.endswith("channels_last"):
                x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()

    return run


def epochs(seconds: float) -> Iterator[Row]:
    """An epoch of mirrored crops of CIFAR-10: our feed and steps, and PyTorch's in either layout."""
    for name, count in (("zfnet_cifar", 1024), ("convnetjs", 2048)):
        images, labels, what = pictures(count)
        net = getattr(models, name)().initialize(0, "he")
        net.parameters()["conv1.weight"][...] *= 0.1
        prepared = net.preprocessing
        feed = Feed(Arrays(images, labels), prepared, batch_size=BATCH,
                    augmentation=Augmentation(crop=32, pad=4, mirror=True))
        loader = Loader(images, labels, prepared.mean, prepared.scale, 4)
        optimizer = SGD(RATE, momentum=MOMENTUM)

        def ours(net: Any = net, feed: Any = feed, optimizer: Any = optimizer) -> None:
            for x, targets in feed.epoch(0):
                train_step(net, x, targets, optimizer)

        contenders: dict[str, Callable[[], Any]] = {OURS: ours}
        for layout in ("torch", "torch channels_last"):
            contenders[layout] = torch_epoch(in_layout(twin(net), layout), loader.epoch, layout)
        row = interleave(f"{net.name}: epoch of {count} images, batch {BATCH}", contenders, seconds=seconds, rounds=3)
        row.gflop = 3 * 2e-9 * sum(net.multiply_adds(count).values())
        row.note = (f"{what}; images/s: " + ", ".join(f"{name} {count / median:.0f}"
                                                     for name, median in row.medians.items()))
        yield row


def loading(seconds: float) -> Iterator[Row]:
    """Photographs of 500 x 375 decoded, resized to 256 and cut in ten, beside ZFNet's step that eats them."""
    count, batch = 64, 16
    net = models.zfnet().initialize(0, "he")
    prepared = net.preprocessing
    assert prepared is not None
    optimizer = SGD(1e-6, momentum=MOMENTUM)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), count)
        files = ImageFiles(sorted(Path(folder).iterdir()), labels=np.arange(count) % 1000)
        feed = Feed(files, prepared, batch_size=batch, memory_limit=0,
                    augmentation=Augmentation(size=256, crop=224, views="ten"))
        ready = next(iter(feed.epoch(0)))

        def load() -> None:
            for _ in feed.epoch(0):
                pass

        def train() -> None:
            for x, labels in feed.epoch(0):
                train_step(net, x, labels, optimizer)

        def steps() -> None:
            for _ in range(count // batch):
                train_step(net, *ready, optimizer)

        row = interleave(f"loading {count} photographs for ZFNet", {
            OURS: load, "zfcore steps alone": steps, "zfcore both": train}, seconds=seconds, rounds=3)
    rates = {name: count / row.medians.pop(name) for name in list(row.samples)[1:]}
    for name in rates:
        row.samples.pop(name)
    alone = count / row.medians[OURS]
    row.note = (f"images/s: loading alone {alone:.0f}, steps alone {rates['zfcore steps alone']:.1f}, both "
                f"{rates['zfcore both']:.1f}")
    yield row


def rows(seconds: float) -> Iterator[Row]:
    """All benchmarks of training."""
    yield from epochs(seconds)
    yield from loading(seconds)
