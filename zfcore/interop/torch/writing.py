"""From a Network to a torch.nn.Module: the same graph, on channels first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import backends
from ...layers import Layer
from ...network import Network
from ...network.layout import aligned, flattened, outward
from . import operations
from .operations import BUILDERS, NORM, Operation


class NetworkModule(nn.Module):
    """A network's layers in order; those with weights are submodules at their names' paths."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network_name = network.name
        self.output = network.output
        orders = flattened(network)
        self._steps: list[tuple[str, tuple[str, ...], str | None, Operation]] = []
        faults = []
        for name, node in network.nodes.items():
            build = BUILDERS.get(type(node.layer).__name__)
            if build is None:
                faults.append(f"{name} ({type(node.layer).__name__})")
                continue
            shapes = [network.shapes[item] for item in node.inputs]
            made = build(node.layer, *shapes)
            path = None
            if isinstance(made, nn.Module):
                _fill(made, node.layer, orders.get(node.inputs[0]))
                _place(self, name, made)
                path, made = name, operations.apply
            self._steps.append((name, node.inputs, path, made))
        if faults:
            raise ValueError(f"to_module: layers without a counterpart in PyTorch: {', '.join(faults)}")
        self._activated = {name for name, node in network.nodes.items() if node.layer.activation}
        self._last = {item: place for place, step in enumerate(self._steps) for item in step[1]}
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The output for images (N, C, H, W)."""
        tensors = {"input": x}
        for place, (name, inputs, path, operation) in enumerate(self._steps):
            values = [tensors[item] for item in inputs]
            module = self if path is None else self.get_submodule(path)
            result = operation(module, *values)
            tensors[name] = functional.relu(result) if name in self._activated else result
            for item in set(inputs):
                if self._last[item] == place:
                    del tensors[item]
        return tensors[self.output]


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module at a dotted path, in containers that hold nothing else."""
    *parents, last = name.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    for key, child in list(root._modules.get(last, nn.Module()).named_children()):  # type: ignore[union-attr]
        module.add_module(key, child)  # a container that was there before
    root.add_module(last, module)


def _fill(module: nn.Module, layer: Layer, order: Any) -> None:
    """Copy a layer's parameters, channels first."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for key, parameter in layer.parameters.items():
            value = backends.to_numpy(parameter)
            if isinstance(module, operations.Broadcast):
                array = aligned(value, own[key].ndim, order)
            else:
                array = outward(layer, key, value, order)
            target = own[NORM[key] if "variance" in layer.parameters else key]
            target.copy_(torch.from_numpy(array.copy()).reshape(target.shape))

