"""Explanations: gradient ascent of many units, Grad-CAM, saliency, beside PyTorch loops and Captum.

Differences are not rounding alone: where a sum lies next to a ReLU's kink, or two cells of a pool next to each
other, a rounding decides which way a gradient goes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from zfcore import Network, explain, models

from .measure import OURS, Row, interleave
from .torch_networks import GraphTwin, in_layout, layouts


def vgg16_peer(net: Network) -> tuple[nn.Sequential, dict[str, nn.Module]]:
    """The same VGG-16 in PyTorch with the same weights, and its modules by our layers' names."""
    modules: list[nn.Module] = []
    named: dict[str, nn.Module] = {}
    for node in net.nodes.values():
        kind, values = type(node.layer).__name__, node.layer.parameters
        if kind == "Convolution":
            weight = torch.from_numpy(values["weight"].transpose(0, 3, 1, 2).copy())
            module: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        elif kind == "MaxPool":
            module = nn.MaxPool2d(2)
        elif kind == "Flatten":
            modules.append(nn.Flatten())
            continue
        elif kind == "Linear":
            array = values["weight"]
            shape = net.tensor_shape(net.nodes[node.inputs[0]].inputs[0])
            if len(shape) == 3:  # after the flatten: ours is (row, column, map), theirs (map, row, column)
                array = array.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(array), -1)
            weight = torch.from_numpy(np.ascontiguousarray(array))
            module = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            continue  # dropout, softmax: scores before it are compared
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                module.weight.copy_(weight)
                module.bias.copy_(torch.from_numpy(values["bias"]))
        modules.append(module)
        if node.layer.activation:
            module = nn.ReLU()
            modules.append(module)
        named[node.name] = module
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    return nn.Sequential(*modules).eval(), named


def ascent(seconds: float) -> Iterator[Row]:
    """One step of gradient ascent on 64 units of conv3_3, 64 images of 64 x 64 in one batch."""
    net = models.vgg16()
    net.initialize(0, "he")
    small = net.at_size(64, 64, to="conv3_3")
    x = np.random.default_rng(0).standard_normal((64, 64, 64, 3), dtype=np.float32)
    images = layouts(x)
    steps = 4
    # Before the last ReLU, so that every unit has a gradient from the start and nobody skips or wakes any.
    model = vgg16_peer(small)[0][:-1]
    for what, suffix in (("units", "@8,8"), ("means of maps", "")):
        targets = [f"conv3_3.pre:{unit}{suffix}" for unit in range(64)]

        def loop(name: str, steps: int = steps, suffix: str = suffix) -> Callable[[], Any]:
            peer = in_layout(model, name)
            every = torch.arange(64)

            def call() -> torch.Tensor:
                image = images[name].clone()
                for _ in range(steps):
                    image.requires_grad_(True)
                    maps = peer(image)[every, every]
                    score = maps[:, 8, 8] if suffix else maps.mean((1, 2))
                    (slope,) = torch.autograd.grad(score.sum(), image)
                    with torch.no_grad():
                        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt()
                        image = image + 0.05 * 64 * slope / size  # in units of 64 gray levels
                return image

            return call

        def ours(steps: int = steps, targets: list[str] = targets) -> Any:
            # The score after the last step, which the loop does not compute, is in the time.
            return explain.ascent(small, targets, "plain", steps=steps, start=x, limits=False)

        contenders = {OURS: ours, **{name: loop(name) for name in images}}
        # Compared after one step: later ones fall on other sides of ReLUs' kinks, whoever takes them.
        expected = loop("torch", 1)().numpy().transpose(0, 2, 3, 1)
        found = ours(1).images
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected - x)
        yield interleave(f"ascent, 64 {what} of VGG-16 conv3_3, {steps} steps", contenders, seconds=seconds,
                         rounds=3, note=f"a step differs by {error:.1e} of its length")


def maps(seconds: float) -> Iterator[Row]:
    """Grad-CAM and saliency: 64 images with SqueezeNet 1.1, 8 with VGG-16."""
    from zfcore.models.torchvision.squeezenet import squeezenet

    net = squeezenet("1_1")
    net.initialize(0, "he")
    twin = GraphTwin(net)
    yield from _maps(seconds, "SqueezeNet 1.1", net, twin, twin.named["fire9"], "fire9", 64)
    net = models.vgg16()
    net.initialize(0, "he")
    model, named = vgg16_peer(net)
    yield from _maps(seconds, "VGG-16", net, model, named["conv5_3"], "conv5_3", 8)


def _maps(seconds: float, title: str, net: Network, model: nn.Module, module: nn.Module, layer: str, count: int
          ) -> Iterator[Row]:
    from captum.attr import LayerGradCam, Saliency

    x = np.random.default_rng(1).standard_normal((count, 224, 224, 3), dtype=np.float32)
    images = layouts(x)
    targets = np.arange(count) % 1000

    def peer(method: Callable[[torch.Tensor], Any], name: str) -> Callable[[], Any]:
        def call() -> Any:
            in_layout(model, name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return method(images[name].clone().requires_grad_(True))
        return call

    def gradcam(image: torch.Tensor) -> Any:
        return LayerGradCam(model, module).attribute(image, torch.from_numpy(targets), relu_attributions=True)

    def saliency(image: torch.Tensor) -> Any:
        return Saliency(model).attribute(image, torch.from_numpy(targets)).amax(1, keepdim=True)

    for what, ours, method in (
            ("Grad-CAM", lambda: explain.gradcam(net, x, targets, layer=layer), gradcam),
            ("saliency", lambda: explain.saliency(net, x, targets), saliency)):
        contenders: dict[str, Callable[[], Any]] = {OURS: ours}
        contenders |= {f"Captum, {name}": peer(method, name) for name in images}
        expected = contenders["Captum, torch"]().detach().numpy()[:, 0]
        error = np.linalg.norm(ours().values - expected) / np.linalg.norm(expected)
        yield interleave(f"{what}, {title}, {count} images", contenders, seconds=seconds, rounds=3,
                         note=f"maps differ by {error:.1e} of their length")


def rows(seconds: float) -> Iterator[Row]:
    """All benchmarks of explanations."""
    yield from ascent(seconds)
    yield from maps(seconds)
