"""The peers' side: the same networks and projections in PyTorch and Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


def zfnet(classes: int = 1000) -> nn.Sequential:
    """ZFNet, layer by layer, no in-place ReLU (Captum's hooks need that)."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 7, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0),
        nn.Conv2d(96, 256, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0),
        nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, classes))


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
