"""Comparisons of networks with the PyTorch modules that they came from."""

from __future__ import annotations

import numpy as np
import torch
import torch_models
from torch import nn

from zfcore.interop.torch import from_module


def last(array):
    """(N, C, H, W) of PyTorch as (N, H, W, C)."""
    array = array.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def same(mine, theirs, rounded=False):
    """Equal in float64 but for the order of sums; a mistake of layout or scale leaves far more.

    `rounded`: some constants were rounded to float32 on their way.
    """
    assert mine.shape == theirs.shape
    bound = 64 * 2.0**-24 if rounded else 1e-10
    assert np.abs(mine - theirs).max() <= bound * max(np.abs(theirs).max(), 1e-30)


def imported(module, shape, batch=2, gradient=True, rounded=False):
    """The network of a module in float64, after comparing output and pixels' gradient with the module's."""
    module = torch_models.randomize(module).double()
    example = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, *shape)))
    network = from_module(module, example).astype(np.float64)
    # Parameters travel as float32: let both have those.
    with torch.no_grad():
        for array in [*module.parameters(), *module.buffers()]:
            array.copy_(array.float().double() if array.is_floating_point() else array)
    example.requires_grad_()
    output = module(example * 1)
    signal = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(output.shape)))
    forward = network.forward(last(example), cache=True)
    same(forward.output, last(output), rounded)
    if not gradient:
        return network
    output.backward(signal)
    same(network.backward(forward, last(signal)).input, last(example.grad), rounded)
    return network


def kinds(network):
    return {name: type(node.layer).__name__ for name, node in network.nodes.items()}


class Calls(nn.Module):
    """A module from a function of itself and x, with given submodules."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def small_module(function):
    return Calls(function, a=nn.Conv2d(3, 3, 3, padding=1, bias=False), b=nn.Conv2d(3, 3, 1),
                 l=nn.Linear(90, 4), k=nn.Linear(183, 4), n=nn.BatchNorm2d(3), relu=nn.ReLU(inplace=True))
