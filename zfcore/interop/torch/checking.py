"""The network against the module that it came from, on the example and with one image more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ...network import Network
from ...network.layout import flattened

# A mistake of layout, scale or padding is far above this share of the largest number.
TOLERANCE = 1e-3


def verify(module: nn.Module, example: torch.Tensor, network: Network, graph: fx.GraphModule,
           names: Mapping[fx.Node, str]) -> None:
    """ValueError unless the network gives the module's numbers, for another number of images too.

    Parameters
    ----------
    module : in eval mode, without gradients
    example : the batch that it was followed with
    network, graph : what was made of it
    names : the network's layer of a call, where there is one
    """
    more = torch.cat([example, example[:1]])
    try:
        expected = _tensor(module(more.clone()))
    except Exception as error:  # whatever stops it is its answer
        raise ValueError(f"from_module: the module fails with {len(more)} images instead of {len(example)}: "
                         f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None
    if _close(network, network.output, network(_last(more)), expected):
        return
    forward = network.forward(_last(example), keep=_tensors(network))
    if _close(network, network.output, forward.output, _tensor(module(example.clone()))):
        raise ValueError(f"from_module: what the module does depends on the number of images: with {len(more)} "
                         f"instead of {len(example)} an image's result differs; allowed: each image by itself")
    first = _first_difference(network, forward.kept, graph, example, names)
    raise ValueError("from_module: the network's result differs from the module's; the first layer that differs "
                     f"is {first}")


def _tensor(result: Any) -> torch.Tensor:
    while isinstance(result, (tuple, list)):
        result = result[0]
    assert isinstance(result, torch.Tensor)
    return result


def _last(images: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.detach().cpu().to(torch.float32).numpy().transpose(0, 2, 3, 1))


def _close(network: Network, name: str, mine: np.ndarray, theirs: torch.Tensor) -> bool:
    """Whether a tensor is the module's, up to rounding, wherever that is finite."""
    order = flattened(network).get(name)
    if order is not None:
        turned = np.empty_like(mine)
        turned[:, order] = mine
        mine = turned
    elif mine.ndim == 4:
        mine = mine.transpose(0, 3, 1, 2)
    expected = theirs.detach().cpu().to(torch.float64).numpy()
    if mine.size != expected.size:
        return False
    mine, expected = mine.reshape(len(mine), -1), expected.reshape(len(mine), -1)
    finite = np.isfinite(expected)
    share = max(TOLERANCE, 16 * torch.finfo(theirs.dtype).eps)
    bound = share * np.abs(expected[finite]).max(initial=1e-30)
    return bool((np.abs(mine[finite] - expected[finite]) <= bound).all())


def _tensors(network: Network) -> list[str]:
    return [name + (".pre" if node.layer.activation else "") for name, node in network.nodes.items()]


class _Recorder(fx.Interpreter):
    """Keeps a copy of every call's result, as it is before anything is written into it."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.found[n] = result.clone()
        return result


def _first_difference(network: Network, kept: Mapping[str, np.ndarray], graph: fx.GraphModule,
                      example: torch.Tensor, names: Mapping[fx.Node, str]) -> str:
    recorder = _Recorder(graph)
    recorder.run(example.clone())
    for node, name in names.items():
        if name in network.nodes and node in recorder.found:
            tensor = name + (".pre" if network.nodes[name].layer.activation else "")
            if not _close(network, tensor, kept[tensor], recorder.found[node]):
                return f"{name!r} ({type(network.nodes[name].layer).__name__})"
    return "not among those that can be compared"
