"""PyTorch modules into networks and back; arrays on PyTorch's side are channels first.

    from zfcore.interop.torch import from_module, to_module
    net = from_module(model, torch.zeros(1, 3, 224, 224))

The kernels are there for PyTorch's own use too: `MaxPool2d`, `MaxUnpool2d` and `LocalResponseNorm` stand in
for torch's modules (`replace` puts them there), and `custom` has the operators beneath them.

Needs the `torch` extra. Nothing of PyTorch is loaded before the first call.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...network import Network

if TYPE_CHECKING:
    from ...preprocessing import Preprocessing

_NAMES = {"LocalResponseNorm": "modules", "MaxPool2d": "modules", "MaxUnpool2d": "modules", "replace": "modules",
          "contrast_norm": "custom", "convolution": "custom", "max_pool": "custom", "max_unpool": "custom",
          "response_norm": "custom"}
__all__ = ["from_module", "to_module", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'zfcore.interop.torch' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)


def from_module(module: Any, example: Any, *, name: str | None = None,
                preprocessing: Preprocessing | None = None,
                class_names: Sequence[str] | None = None) -> Network:
    """The network that a PyTorch module computes in eval mode, with copies of its weights.

    The module is followed through `torch.fx`, or through `torch.export` where its control flow
    or its in-place sums cannot be followed so; reused and in-place ReLUs, functional calls and
    tensor methods are understood. Layers are named after their modules ("layer1.0.conv1"); a ReLU
    right after a convolution, a fully connected layer or a sum is fused into it, so that
    "features.0" is after its ReLU and "features.0.pre" before it. The module is not changed.

    Parameters
    ----------
    module : torch.nn.Module with one image batch in and one tensor out
    example : a batch (N, C, H, W) of its inputs, or their shape (C, H, W)
    name : of the network; None: the module's class
    preprocessing : how pixels become its input; a module does not say
    class_names : names of the outputs

    Returns
    -------
    Network, whose vectors of flattened maps are channels last. ValueError lists everything that
    has no counterpart here, by name, at once; or says that the network and the module differ on the
    example, or that the module's result depends on the number of images. A weighted
    module that is called twice becomes two layers with copies of the weights.
    """
    from .reading import read

    return read(module, example, name, preprocessing, class_names)


def to_module(network: Network) -> Any:
    """A torch.nn.Module that computes what the network computes, with copies of its weights.

    Parameters
    ----------
    network : with parameters

    Returns
    -------
    torch.nn.Module on (N, C, H, W), float32, in eval mode; state_dict keys are the layers' names
    with PyTorch's names of parameters ("conv1.weight", "bn1.running_mean"). Gradients are
    PyTorch's; vectors of flattened maps are channels first, as PyTorch has them.
    """
    from .writing import NetworkModule

    return NetworkModule(network)
