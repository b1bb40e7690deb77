"""The peers' side: the same networks and projections in PyTorch and Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


def twin(net: Any) -> nn.Sequential:
    """The same network in PyTorch with the same weights, without a final softmax: a chain of layers only."""
    modules: list[nn.Module] = []
    shape = maps = net.input_shape
    for node in net.nodes.values():
        layer, kind = node.layer, type(node.layer).__name__
        if kind == "Convolution":
            pads = layer._padding(shape[:2])
            module: nn.Module = nn.Conv2d(shape[-1], layer.filters, layer._window, layer._stride,
                                          (pads[0], pads[2]), groups=layer.groups)
            _set(module, layer.parameters["weight"].transpose(0, 3, 1, 2), layer.parameters["bias"])
        elif kind == "Linear":
            weight = layer.parameters["weight"]
            if modules and isinstance(modules[-1], nn.Flatten):
                weight = weight.reshape(-1, *maps).transpose(0, 3, 1, 2).reshape(len(weight), -1)
            module = nn.Linear(weight.shape[1], weight.shape[0])
            _set(module, weight, layer.parameters["bias"])
        elif kind == "MaxPool":
            module = nn.MaxPool2d(layer._window, layer._stride, ceil_mode=layer.ceil_mode)
        elif kind == "ResponseNorm":
            scale = 1 if layer.alpha_is_divided_by_size else layer.size
            module = nn.LocalResponseNorm(layer.size, layer.alpha * scale, layer.beta, layer.k)
        elif kind == "Flatten":
            maps = shape
            module = nn.Flatten()
        elif kind == "Dropout":
            module = nn.Dropout(layer.rate)
        elif kind == "ReLU":
            module = nn.ReLU()
        elif kind == "Softmax":
            continue
        else:
            raise ValueError(f"twin: layer is {kind}; allowed: a layer of ZFNet, AlexNet, VGG-16 or ConvNetJS's net")
        modules.append(module)
        if layer.activation:
            modules.append(nn.ReLU())  # not in place: Captum's hooks need that
        shape = node.shape
    return nn.Sequential(*modules)


class GraphTwin(nn.Module):
    """A network with branches in PyTorch with the same weights, up to its class scores: SqueezeNet.

    Modules are found by our layers' names in `named`.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.steps: list[tuple[str, tuple[str, ...]]] = []
        self.named: dict[str, nn.Module] = {}
        for node in net.below([net.logits]):
            layer, kind = node.layer, type(node.layer).__name__
            if kind == "Convolution":
                weight, pads = layer.parameters["weight"], layer._padding(net.tensor_shape(node.inputs[0])[:2])
                module: nn.Module = nn.Conv2d(weight.shape[3] * layer.groups, layer.filters, layer._window,
                                              layer._stride, (pads[0], pads[2]), groups=layer.groups)
                _set(module, weight.transpose(0, 3, 1, 2), layer.parameters["bias"])
                if layer.activation:
                    module = nn.Sequential(module, nn.ReLU())
            elif kind == "MaxPool":
                module = nn.MaxPool2d(layer._window, layer._stride, ceil_mode=layer.ceil_mode)
            elif kind == "GlobalAveragePool":
                module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            elif kind in ("Concat", "Dropout"):
                module = nn.Identity()
            else:
                raise ValueError(f"GraphTwin: layer is {kind}; allowed: a layer of SqueezeNet")
            self.add_module(node.name.replace(".", "_"), module)
            self.named[node.name] = module
            self.steps.append((node.name, node.inputs))
        self.eval().requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class scores (N, classes)."""
        tensors = {"input": image}
        for name, inputs in self.steps:
            given = [tensors[item] for item in inputs]
            tensors[name] = self.named[name](given[0] if len(given) == 1 else torch.cat(given, 1))
        return tensors[self.steps[-1][0]]


def _set(module: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        module.bias.copy_(torch.from_numpy(bias))


# Index of each convolution in the sequence above.
ZFNET_CONVOLUTIONS = {"conv1": 0, "conv2": 4, "conv3": 8, "conv4": 10, "conv5": 12}


def layouts(image: np.ndarray) -> dict[str, torch.Tensor]:
    """An NHWC array as the two tensors that PyTorch may prefer."""
    nchw = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    return {"torch": nchw, "torch channels_last": nchw.contiguous(memory_format=torch.channels_last)}


def in_layout(module: nn.Module, name: str) -> nn.Module:
    """The module with its weights in the layout called `name`."""
    return module.to(memory_format=torch.channels_last) if name.endswith("channels_last") else module


def training_step(model: nn.Module, image: torch.Tensor, labels: torch.Tensor) -> Callable[[], Any]:
    """Forward, backward and one step of SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(image), labels).backward()
        optimizer.step()

    return step


def captum_projection(model: nn.Module, layer: nn.Module, image: torch.Tensor, unit: tuple[int, int, int]) -> Any:
    """Captum's deconvolution of one unit (map, row, column) for every image of the batch."""
    import warnings

    from captum.attr import NeuronDeconvolution

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its hooks at every call
        return NeuronDeconvolution(model, layer).attribute(image, unit)
