"""What the tests of training runs share: a tiny network, tiny data, and a run of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from zfcore.layers import BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool
from zfcore.network import Network
from zfcore.training import SGD, ArrayFeed, Optimizer
from zfcore.training.log import TIMES
from zfcore.training.run import train
from zfcore.training.schedules import Plateau, Schedule

CLASSES, COUNT, BATCH = 3, 22, 8  # three steps an epoch, the last one smaller


def network(width: int = 3) -> Network:
    """A convolution, pooling, batch norm, dropout and two fully connected layers on 6 x 6 images."""
    net = Network("tiny", (6, 6, 1), scheme="he", algorithm="direct")
    net.add("conv1", Convolution(width, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", BatchNorm())
    net.add("flat", Flatten())
    net.add("fc2", Linear(5, activation="relu"))
    net.add("drop2", Dropout(0.5))
    net.add("fc3", Linear(CLASSES))
    return net.initialize(1)


def images(seed: int = 0, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright row, whose place is the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = generator.normal(0, 0.5, (count, 6, 6, 1)).astype(np.float32)
    pixels[np.arange(count), 2 * labels] += 1
    return pixels, labels


def noise(batch: Any, generator: np.random.Generator) -> Any:
    """An augmentation that draws numbers."""
    return batch + generator.normal(0, 0.1, batch.shape).astype(np.float32)


def feeds(seed: int = 0) -> tuple[ArrayFeed, ArrayFeed]:
    """Training and validation images."""
    return (ArrayFeed(*images(), batch_size=BATCH, seed=seed, augment=noise),
            ArrayFeed(*images(5, 9), batch_size=4, shuffle=False))


def begin(folder: Path, *, optimizer: Optimizer | None = None, schedule: Schedule | None = None, epochs: int = 4,
          width: int = 3, **options: Any) -> dict[str, Any]:
    """A run in a folder."""
    feed, validation = feeds()
    return train(folder, network(width), feed, optimizer or SGD(0.05, decay=1e-3, radius=0.1), epochs=epochs,
                 schedule=schedule or Plateau(patience=1), validation=validation, progress=False,
                 **{"log_every": 1, **options})


def result(folder: Path) -> dict[str, Any]:
    """All that two runs of the same training must share, in a form that compares: hashes, and the log."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.name in ("model.safetensors", "best.safetensors"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["log"] = [{key: value for key, value in json.loads(line).items() if key not in TIMES}
                    for line in (folder / "log.jsonl").read_text().splitlines()]
    found["state"] = max((checkpoint(path) for path in folder.glob("checkpoint-?.safetensors")),
                         key=lambda each: each[0])
    return found


def checkpoint(path: Path) -> Any:
    """A checkpoint's place, its counters but for times, and a hash of its arrays."""
    from zfcore.training.checkpoint import Checkpoint

    read = Checkpoint.read(path)
    state = {key: value for key, value in read.state.items() if key not in (*TIMES, "log")}
    digest = hashlib.sha256()
    for name, array in sorted({**read.parameters, **read.slots}.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return read.place, state, digest.hexdigest()
