"""Whole networks and projections: ZFNet forward, training step, conv5 top-9, beside PyTorch and Captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import zfcore
from zfcore import models

from .measure import OURS, Row, interleave
from .torch_networks import ZFNET_CONVOLUTIONS, captum_projection, in_layout, layouts, training_step, zfnet


def copy_weights(net: Any, model: torch.nn.Sequential) -> None:
    """Give the PyTorch network zfcore's weights; a fully connected layer after a flatten changes order."""
    values = net.parameters()
    linear_names = iter(["fc6", "fc7", "fc8"])
    convolution_names = iter(ZFNET_CONVOLUTIONS)
    with torch.no_grad():
        for module in model:
            if isinstance(module, torch.nn.Conv2d):
                name = next(convolution_names)
                module.weight.copy_(torch.from_numpy(values[f"{name}.weight"].transpose(0, 3, 1, 2).copy()))
            elif isinstance(module, torch.nn.Linear):
                name = next(linear_names)
                weight = values[f"{name}.weight"]
                if name == "fc6":
                    weight = weight.reshape(4096, 6, 6, 256).transpose(0, 3, 1, 2).reshape(4096, 9216)
                module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
            else:
                continue
            module.bias.copy_(torch.from_numpy(values[f"{name}.bias"]))


def networks(seed: int = 0) -> tuple[Any, dict[str, torch.nn.Module]]:
    """The same ZFNet thrice: ours and PyTorch's in both layouts, equal weights."""
    net = models.zfnet()
    net.initialize(seed, "he")
    peers: dict[str, torch.nn.Module] = {}
    for name in ("torch", "torch channels_last"):
        model = zfnet()
        copy_weights(net, model)
        peers[name] = in_layout(model, name).eval()
    return net, peers


def forward(seconds: float, compiled: bool) -> Iterator[Row]:
    """ZFNet's forward pass, batch 16 and batch 1."""
    net, peers = networks()
    for batch in (16, 1):
        x = np.random.default_rng(3).standard_normal((batch, 224, 224, 3), dtype=np.float32)
        images = layouts(x)

        def run(model: Any, image: torch.Tensor) -> Callable[[], Any]:
            def call() -> Any:
                with torch.no_grad():
                    return functional.softmax(model(image), dim=1)
            return call

        contenders: dict[str, Callable[[], Any]] = {OURS: lambda: net(x)}
        contenders |= {name: run(model, images[name]) for name, model in peers.items()}
        if compiled:
            contenders["torch.compile"] = run(torch.compile(peers["torch channels_last"]),
                                              images["torch channels_last"])
        expected = contenders["torch"]().numpy()
        error = np.abs(net(x).reshape(expected.shape) - expected).max()
        yield interleave(f"ZFNet forward, batch {batch}", contenders, seconds=seconds,
                         gflop=2e-9 * batch * 1.17e9, note=f"largest difference {error:.1e}")


def training(seconds: float) -> Iterator[Row]:
    """One training step of ZFNet, batch 16: forward, backward, SGD with momentum."""
    from zfcore.training import SGD, train_step

    net, peers = networks()
    generator = np.random.default_rng(4)
    x = generator.standard_normal((16, 224, 224, 3), dtype=np.float32)
    labels = generator.integers(0, 1000, 16)
    images = layouts(x)
    optimizer = SGD(learning_rate=1e-4, momentum=0.9)
    targets = torch.from_numpy(labels)
    yield interleave("ZFNet training step, batch 16", {
        OURS: lambda: train_step(net, x, labels, optimizer),
        **{name: training_step(model, images[name], targets) for name, model in peers.items()}}, seconds=seconds)


def projections(seconds: float) -> Iterator[Row]:
    """The nine strongest activations of one map, projected; and many maps at once."""
    net, peers = networks()
    x = np.random.default_rng(5).standard_normal((9, 224, 224, 3), dtype=np.float32)
    images = layouts(x)
    for layer, row, maps in (("conv5", 6, 32), ("conv2", 12, 32)):
        def units(count: int) -> list[tuple[int, zfcore.Unit]]:
            return [(image, zfcore.Unit(layer, unit, row, row)) for unit in range(count) for image in range(9)]

        def captum(name: str) -> Callable[[], Any]:
            model = peers[name]
            module = model[ZFNET_CONVOLUTIONS[layer] + 1]
            return lambda: captum_projection(model, module, images[name], (0, row, row))

        contenders = {f"Captum, {name}": captum(name) for name in peers}
        yield interleave(f"{layer}: top 9 of one map projected", {
            OURS: lambda: net.project(x, units(1), rule="deconvnet", allow_negative=True), **contenders},
            seconds=seconds)
        batch = interleave(f"{layer}: top 9 of {maps} maps, per map", {
            OURS: lambda: net.project(x, units(maps), rule="deconvnet", allow_negative=True), **contenders},
            seconds=seconds, note="ours: all maps in one call, divided")
        batch.medians[OURS] /= maps
        batch.samples[OURS] = [value / maps for value in batch.samples[OURS]]
        yield batch


def rows(seconds: float, compiled: bool) -> Iterator[Row]:
    """All whole-network benchmarks."""
    yield from forward(seconds, compiled)
    yield from training(seconds)
    yield from projections(seconds)
