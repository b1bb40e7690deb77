"""What a call becomes, and what the functions that decide it share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ...layers import AveragePool, GlobalAveragePool, GlobalMaxPool, Layer, MaxPool

Values = dict[str, Any]
Shape = tuple[int, ...]


class Unsupported(Exception):
    """A call that has no counterpart here; the text says why."""


@dataclass
class WholePool:
    """A pool to one cell: vectors if all that read it flatten it, else maps of one cell."""

    window: tuple[int, int] = (1, 1)
    kind: str = "average"

    def chosen(self, vectors: bool) -> Layer:
        """The layer that it is."""
        if vectors:
            return GlobalAveragePool() if self.kind == "average" else GlobalMaxPool()
        return AveragePool(self.window) if self.kind == "average" else MaxPool(self.window)


@dataclass
class Made:
    """A layer, what it reads, and its parameters in PyTorch's layout.

    Attributes
    ----------
    inputs : nodes, or layers made for this one alone
    part : what such a layer is called within the name of the call
    """

    layer: Layer | WholePool
    inputs: Sequence[fx.Node | Made]
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    part: str = ""


def require(condition: bool, reason: str) -> None:
    """Unsupported, for this reason, unless the condition holds."""
    if not condition:
        raise Unsupported(reason)


def shape_of(node: Any, rank: int | None = None) -> Shape:
    """Shape of a computed tensor, (N, C, H, W) or (N, C)."""
    require(isinstance(node, fx.Node), "an input that is a constant")
    shape: Shape = node.meta["shape"]
    require(rank is None or len(shape) == rank, f"an input of {len(shape)} dimensions")
    return shape


def pair(value: Any) -> tuple[int, int]:
    """One integer, one in a list, or two."""
    sizes = list(value) if isinstance(value, (tuple, list)) else [value]
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    require(len(sizes) == 2 and all(isinstance(item, int) for item in sizes), f"sizes {value!r}")
    return sizes[0], sizes[1]


def one(value: Any) -> Any:
    """A pair as one integer where both are the same: it reads better."""
    return value[0] if value[0] == value[1] else value


def arrays(values: Values, **names: str) -> dict[str, torch.Tensor]:
    """Parameters among the arguments: those given; a computed one is unsupported."""
    found = {ours: values.get(theirs) for ours, theirs in names.items()}
    for ours, value in found.items():
        require(value is None or isinstance(value, torch.Tensor), f"{ours} that is computed")
    return {key: value for key, value in found.items() if value is not None}
