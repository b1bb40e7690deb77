"""Whole networks: forward, training step, projections and scans, beside PyTorch and Captum."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import zfcore
from zfcore import models

from .measure import FROZEN, OURS, Row, both, interleave
from .torch_networks import ZFNET_CONVOLUTIONS, captum_projection, in_layout, layouts, training_step, twin


def networks(name: str = "zfnet", seed: int = 0) -> tuple[Any, dict[str, torch.nn.Module]]:
    """The same network thrice: ours and PyTorch's in both layouts, equal weights."""
    net = getattr(models, name)().initialize(seed, "he")
    return net, {layout: in_layout(twin(net), layout).eval() for layout in ("torch", "torch channels_last")}


def forward(seconds: float, compiled: bool) -> Iterator[Row]:
    """Forward passes of the large networks."""
    for name, batches in (("zfnet", (16, 1)), ("alexnet", (8,)), ("vgg16", (8,))):
        net, peers = networks(name)
        frozen = copy.deepcopy(net).freeze()
        for batch in batches:
            x = np.random.default_rng(3).standard_normal((batch, *net.input_shape), dtype=np.float32)
            images = layouts(x)

            def run(model: Any, image: torch.Tensor) -> Callable[[], Any]:
                def call() -> Any:
                    with torch.no_grad():
                        return functional.softmax(model(image), dim=1)
                return call

            contenders: dict[str, Callable[[], Any]] = {OURS: lambda: net(x), FROZEN: lambda: frozen(x)}
            contenders |= {layout: run(model, images[layout]) for layout, model in peers.items()}
            if compiled and name == "zfnet":
                model, image = peers["torch channels_last"], images["torch channels_last"]
                contenders["torch.compile"] = run(torch.compile(model), image)
                contenders["torch.compile frozen"] = run(torch.compile(model, options={"freezing": True}), image)
            expected = contenders["torch"]().numpy()
            error = np.abs(net(x).reshape(expected.shape) - expected).max()
            work = sum(net.multiply_adds(batch).values())
            yield from both(interleave(f"{net.name} forward, batch {batch}", contenders, seconds=seconds,
                                       gflop=2e-9 * work, note=f"largest difference {error:.1e}"))


def training(seconds: float, compiled: bool) -> Iterator[Row]:
    """One training step of ZFNet, batch 16: forward, backward, SGD with momentum."""
    from zfcore.training import SGD, train_step

    net, peers = networks()
    generator = np.random.default_rng(4)
    x = generator.standard_normal((16, 224, 224, 3), dtype=np.float32)
    labels = generator.integers(0, 1000, 16)
    images = layouts(x)
    optimizer = SGD(learning_rate=1e-4, momentum=0.9)
    targets = torch.from_numpy(labels)
    steps = {name: training_step(model, images[name], targets) for name, model in peers.items()}
    if compiled:
        model = in_layout(twin(net), "torch channels_last")
        steps["torch.compile"] = training_step(torch.compile(model), images["torch channels_last"], targets)
    yield interleave("zfnet training step, batch 16", {
        OURS: lambda: train_step(net, x, labels, optimizer), **steps}, seconds=seconds)


def projections(seconds: float) -> Iterator[Row]:
    """The nine strongest activations of one map, projected; and many maps at once."""
    net, peers = networks()
    frozen = copy.deepcopy(net).freeze()
    x = np.random.default_rng(5).standard_normal((9, 224, 224, 3), dtype=np.float32)
    images = layouts(x)
    for layer, row, maps in (("conv5", 6, 32), ("conv2", 12, 32)):
        def units(count: int) -> list[tuple[int, zfcore.Unit]]:
            return [(image, zfcore.Unit(layer, unit, row, row)) for unit in range(count) for image in range(9)]

        def captum(name: str) -> Callable[[], Any]:
            model = peers[name]
            module = model[ZFNET_CONVOLUTIONS[layer] + 1]
            return lambda: captum_projection(model, module, images[name], (0, row, row))

        def ours(count: int) -> dict[str, Callable[[], Any]]:
            return {name: lambda each=each: each.project(x, units(count), rule="deconvnet", seed="one")
                    for name, each in ((OURS, net), (FROZEN, frozen))}

        contenders = {f"Captum, {name}": captum(name) for name in peers}
        yield from both(interleave(f"{layer}: top 9 of one map projected", {**ours(1), **contenders},
                                   seconds=seconds))
        batch = interleave(f"{layer}: top 9 of {maps} maps, per map", {**ours(maps), **contenders},
                           seconds=seconds, note="ours: all maps in one call, divided")
        for name in (OURS, FROZEN):
            batch.medians[name] /= maps
            batch.samples[name] = [value / maps for value in batch.samples[name]]
        yield from both(batch)


def growth(seconds: float) -> Iterator[Row]:
    """What a projection costs, a unit: against the receptive field, and against how many go in one call."""
    net, _ = networks()
    x = np.random.default_rng(5).standard_normal((32, 224, 224, 3), dtype=np.float32)

    def timed(work: str, layer: str, units: list[tuple[int, zfcore.Unit]]) -> Row:
        side = net.cone(layer).size[0]
        row = interleave(work, {OURS: lambda: net.project(x, units, seed="one")}, seconds=seconds, rounds=3,
                         note=f"tiles of {side} x {side} pixels; {len(units)} units in one call, divided")
        row.medians[OURS] /= len(units)
        row.samples[OURS] = [value / len(units) for value in row.samples[OURS]]
        return row

    for layer in ZFNET_CONVOLUTIONS:
        row = net.tensor_shape(layer)[0] // 2
        units = [(image, zfcore.Unit(layer, 0, row, row)) for image in range(len(x))]
        yield timed(f"{layer}: one unit of each of 32 images", layer, units)
    for count in (1, 4, 16, 64, 256):
        units = [(0, zfcore.Unit("conv5", unit, 6, 6)) for unit in range(count)]
        yield timed(f"conv5: {count} units at one place of one image", "conv5", units)


def photographs(folder: Path, count: int = 300, size: tuple[int, int] = (500, 375)) -> list[Path]:
    """JPEG files of one (width, height): crops of the two photographs that scikit-learn brings along."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(6)
    sources = [Image.fromarray(image) for image in load_sample_images().images]
    paths = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        source = sources[number % len(sources)]
        width = int(generator.integers(200, source.width))
        height = width * 3 // 4
        left, top = (int(generator.integers(0, limit + 1)) for limit in (
            source.width - width, max(source.height - height, 0)))
        crop = source.crop((left, top, left + width, min(top + height, source.height)))
        crop.resize(size).save(path, quality=85)
    return paths


def convolution_stages(network: Any, **settings: Any) -> Any:
    """A network without its fully connected layers, and its preprocessing with other settings."""
    config = network.to_config()
    last = next(place for place, layer in enumerate(config["layers"]) if layer["type"] in ("Flatten", "Linear"))
    short = zfcore.Network.from_config({**config, "layers": config["layers"][:last],
                                        "preprocessing": {**config["preprocessing"], **settings}})
    return short.load_parameters({key: value for key, value in network.parameters().items()
                                  if key in short.parameter_shapes()})


def scans(seconds: float) -> Iterator[Row]:
    """An atlas of AlexNet's convolutions over 300 photographs, beside the bare forward passes.

    From files of a camera's proportions and the whole network, whose hash takes its time; from packed pictures of
    256 x 256 with the convolution stages alone, as research sets are kept; and from decoded pixels, which leaves
    the scan's own work.
    """
    from zfcore.data import Arrays, ImageFiles

    net = models.alexnet().initialize(0, "he")
    stages = convolution_stages(net)
    cut = convolution_stages(net, size=None, crop=None)
    x = np.random.default_rng(3).standard_normal((20, *net.input_shape), dtype=np.float32)
    names = [f"conv{number}" for number in range(1, 6)]

    def bare() -> None:
        for _ in range(15):
            net.forward(x, to="conv5")

    with tempfile.TemporaryDirectory() as root:
        folder, packed = Path(root) / "files", Path(root) / "packed.npz"
        for part in (folder, Path(root) / "small"):
            part.mkdir()
        photographs(folder)
        small = photographs(Path(root) / "small", size=(256, 256))
        files = [path.read_bytes() for path in small]
        np.savez(packed, jpeg=np.frombuffer(b"".join(files), np.uint8), offsets=np.cumsum([0, *map(len, files)]),
                 labels=np.zeros(len(files), np.int64))
        pictures = ImageFiles(small)
        pixels = Arrays(np.stack([pictures.load(index, net.preprocessing) for index in range(len(small))]))
        for work, network, source in (
                ("scan of 300 photographs, alexnet conv1-5", net, folder),
                ("scan of 300 packed 256 x 256 photographs, alexnet's convolution stages", stages, packed),
                ("scan of 300 decoded photographs, alexnet's convolution stages", cut, pixels)):
            def scan(network: Any = network, source: Any = source) -> Any:
                return zfcore.atlas(network, source, names, batch_size=20, progress=False)

            row = interleave(work, {OURS: scan, "zfcore forward only": bare}, seconds=seconds, rounds=3)
            atlas, started = scan(), time.perf_counter()
            for part in atlas.layers.values():
                part.patches  # noqa: B018 (cut when read)
            row.note = (f"the peer is our own bare forward pass; reading all {atlas.patch_bytes * 1e-6:.0f} MB of "
                        f"patches takes {time.perf_counter() - started:.2f} s more")
            del atlas
            yield row


def rows(seconds: float, compiled: bool) -> Iterator[Row]:
    """All whole-network benchmarks."""
    yield from forward(seconds, compiled)
    yield from training(seconds, compiled)
    yield from projections(seconds)
    yield from growth(seconds)
    yield from scans(seconds)
