"""A recipe in PyTorch: the same initial weights, batches in the same order, rates; what accuracy does it reach?

    python -m benchmarks.peer_training convnetjs cifar.npz:train cifar.npz:test examples/recipes/convnetjs.toml
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
import typer
from torch import nn

from zfcore import models
from zfcore.data import open_images
from zfcore.training.preparation import held_out_feed, training_feed
from zfcore.training.recipes import Recipe, recipe

from .torch_networks import in_layout, twin


def optimizer_of(how: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's optimizer with the recipe's settings."""
    settings = {key: value for key, value in how.optimizer.items() if key not in ("kind", "learning_rate")}
    rate = how.make_optimizer().learning_rate
    if how.optimizer["kind"] == "adam" and not settings:
        return torch.optim.Adam(model.parameters(), lr=rate)
    if how.optimizer["kind"] == "sgd" and set(settings) <= {"momentum"}:
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=settings.get("momentum", 0.9))
    raise SystemExit(f"the recipe's optimizer is {dict(how.optimizer)}; allowed: plain adam, or sgd with momentum")


def as_images(x: np.ndarray) -> torch.Tensor:
    """A batch as PyTorch sees it, in channels_last, its faster layout here: no copy."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def accuracy(model: nn.Module, feed: object) -> float:
    """Share of right answers."""
    model.eval()
    right = count = 0
    with torch.no_grad():
        for x, labels in feed.epoch(0):  # type: ignore[attr-defined]
            found = model(as_images(x)).argmax(1).numpy()
            right, count = right + int((found == labels).sum()), count + len(labels)
    return right / count


def main(name: str, data: str, validation: str, recipe_file: str, seed: int = 0, epochs: int = 0, threads: int = 2
         ) -> None:
    """Train and print the accuracy after each epoch; --epochs N stops early, by the whole recipe's rates."""
    torch.set_num_threads(threads)
    how = recipe(recipe_file)
    net = models.build(name)
    how.prepare(net)
    how.initialize(net, seed)
    feed = training_feed(net, open_images(data), how, seed=seed)
    checked = held_out_feed(net, open_images(validation), batch_size=how.batch_size)
    model = in_layout(twin(net), "torch channels_last")
    optimizer, schedule = optimizer_of(how, model), how.make_schedule()
    base = how.make_optimizer().learning_rate
    begun = time.perf_counter()
    for epoch in range(epochs or how.epochs):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(base, epoch, how.epochs, [])
        model.train()
        total = 0.0
        for x, labels in feed.epoch(epoch):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(as_images(x)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(labels)
        sys.stdout.write(f"epoch {epoch + 1}: loss {total / feed.count:.4f}, validation accuracy "
                         f"{accuracy(model, checked):.4f}, {time.perf_counter() - begun:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
