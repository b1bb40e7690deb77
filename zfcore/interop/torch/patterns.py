"""Calls that mean something together: a shuffle of maps, and parts of a tensor that was cut."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...layers import Rearrange, Slice
from .calls import Arguments, call
from .making import Made, require
from .tracing import Trace


@dataclass
class Shuffle:
    """A permutation of maps (ShuffleNet): the layer, and the node that it reads."""

    layer: Rearrange
    source: fx.Node


def channel_shuffles(nodes: Sequence[fx.Node], trace: Trace) -> tuple[dict[fx.Node, Shuffle], set[fx.Node]]:
    """Every view as (N, groups, maps, H, W), transposed, and viewed as (N, C, H, W) again.

    Returns
    -------
    shuffles : by their last call
    inside : the calls before it
    """
    shuffles: dict[fx.Node, Shuffle] = {}
    inside: set[fx.Node] = set()
    for node in nodes:
        chain = _chain(node, trace)
        if chain is None:
            continue
        cut = chain[-1]
        source = _input(cut, trace)
        if source is None or _shape(source, trace) is None:
            continue
        before, parts, after = (_shape(item, trace) for item in (source, cut, node))
        if before is None or parts is None or len(before) != 4 or before != after or len(parts) != 5:
            continue
        if parts[0] == before[0] and parts[3:] == before[2:] and parts[1] * parts[2] == before[1]:
            layer = Rearrange((before[2] * before[3], parts[1], parts[2]), (0, 2, 1),
                              (before[2], before[3], before[1]))
            shuffles[node] = Shuffle(layer, source)
            inside.update(chain)
    return shuffles, inside


def _kind(node: Any, trace: Trace) -> tuple[str, Arguments]:
    found = call(trace.graph, node) if isinstance(node, fx.Node) and node.op.startswith("call") else None
    return found or ("", {})


def _input(node: fx.Node, trace: Trace) -> fx.Node | None:
    item = _kind(node, trace)[1].get("input")
    return item if isinstance(item, fx.Node) else None


def _shape(node: fx.Node, trace: Trace) -> tuple[int, ...] | None:
    value = trace.values.get(node)
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _chain(node: fx.Node, trace: Trace) -> list[fx.Node] | None:
    """The calls between a last view and the first one, which nothing else reads."""
    if _kind(node, trace)[0] != "reshape":
        return None
    found: list[fx.Node] = []
    item = _input(node, trace)
    moved = False
    while item is not None and len(item.users) == 1:
        kind, arguments = _kind(item, trace)
        found.append(item)
        if kind == "reshape":
            return found if moved else None
        if kind in ("transpose", "permute"):
            axes = [arguments.get("dim0"), arguments.get("dim1")] if kind == "transpose" else list(
                arguments.get("dims", ()))
            if moved or axes not in ([1, 2], [2, 1], [0, 2, 1, 3, 4]):
                return None
            moved = True
        elif kind != "identity":
            return None
        item = _input(item, trace)
    return None


def part_of(node: fx.Node, kind: str, arguments: Arguments, trace: Trace) -> Made | None:
    """The slice that an item of a cut tensor is; None for other calls."""
    whole = arguments.get("input")
    if kind != "getitem" or node.target is not operator.getitem or not isinstance(whole, fx.Node):
        return None
    parts = trace.values.get(whole)
    if not isinstance(parts, (tuple, list)):
        return None
    source = _input(whole, trace)
    index = arguments["index"]
    require(source is not None and isinstance(index, int), "a part of several results")
    assert source is not None
    before = _shape(source, trace)
    assert before is not None
    require(all(tuple(item.shape[:1]) == before[:1] and tuple(item.shape[2:]) == before[2:] for item in parts)
            and sum(item.shape[1] for item in parts) == before[1], "a cut along another axis than the maps'")
    sizes = [item.shape[1] for item in parts]
    index %= len(sizes)
    return Made(Slice(sum(sizes[:index]), sum(sizes[:index + 1])), [source])
