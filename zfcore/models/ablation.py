"""Networks with layers taken out or resized: the rows of Table 3 (Zeiler & Fergus 2014).

Layers are counted as the papers count them: those with weights, convolutions and fully connected ones, from 1.
What comes back has the layers' old names and no parameters: it is another network and must be trained again.
With one seed the layers that stayed as they were begin with the same weights as in the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from .. import checks
from ..layers import from_config
from ..network import Network

COUNTED = {"Convolution": "filters", "Linear": "units"}
# What follows a layer and goes with it: its own ReLU and dropout. Pools and norms stay, they belong to no layer.
FOLLOWING = ("ReLU", "Dropout")


@dataclass(frozen=True)
class Row:
    """A row of Table 3.

    Attributes
    ----------
    title : the paper's words
    removed : numbers of the layers that are left out
    factors : by how much the maps or units of a layer are multiplied, by the layer's number
    """

    title: str
    removed: tuple[int, ...] = ()
    factors: Mapping[int, Fraction] = field(default_factory=dict)


_WIDER = {3: Fraction(4, 3), 4: Fraction(8, 3), 5: Fraction(2)}  # 384, 384, 256 become 512, 1024, 512
ROWS: dict[str, Row] = {
    "whole": Row("the whole network"),
    "without-3-4": Row("without layers 3, 4", (3, 4)),
    "without-7": Row("without layer 7", (7,)),
    "without-6-7": Row("without layers 6, 7", (6, 7)),
    "without-3-4-6-7": Row("without layers 3, 4, 6, 7", (3, 4, 6, 7)),
    "half-6-7": Row("layers 6, 7 of half the units", factors={6: Fraction(1, 2), 7: Fraction(1, 2)}),
    "double-6-7": Row("layers 6, 7 of twice the units", factors={6: Fraction(2), 7: Fraction(2)}),
    "wide-3-4-5": Row("layers 3, 4, 5 of 4/3, 8/3, 2 times the maps", factors=_WIDER),
    "wide-3-4-5-double-6-7": Row("both", factors={**_WIDER, 6: Fraction(2), 7: Fraction(2)}),
}


def counted(network: Network) -> list[str]:
    """Names of the layers with weights, in order: layer n of the papers is number n - 1 here."""
    return [node.name for node in network.nodes.values() if type(node.layer).__name__ in COUNTED]


def without(network: Network, numbers: Sequence[int]) -> Network:
    """The network without some layers, their ReLUs and their dropout.

    Parameters
    ----------
    network : a chain of layers; it stays as it is
    numbers : of layers, from 1; not the last, which makes the classes

    Raises
    ------
    ValueError : no chain, no such layer, or what is left does not fit together
    """
    names = _chosen("without", network, numbers)
    removed = set(names)
    kept = {}
    follows = False
    for name, entry in _chain("without", network).items():
        follows = name in removed or (follows and entry["type"] in FOLLOWING)
        if not follows:
            kept[name] = entry
    return _rebuilt(network, kept)


def resized(network: Network, sizes: Mapping[int, int]) -> Network:
    """The network with other numbers of maps or units in some layers.

    Parameters
    ----------
    network : a chain of layers; it stays as it is
    sizes : maps or units by the layer's number, from 1; not the last, which makes the classes

    Raises
    ------
    ValueError : no chain, no such layer, or sizes that do not fit (a convolution's groups)
    """
    names = dict(zip(_chosen("resized", network, list(sizes)), sizes.values(), strict=True))
    entries = _chain("resized", network)
    for name, size in names.items():
        entries[name][COUNTED[entries[name]["type"]]] = checks.integer("resized", f"size of {name}", size, 1)
    return _rebuilt(network, entries)


def ablated(network: Network, row: str) -> Network:
    """The network of a row of Table 3.

    Parameters
    ----------
    network : a chain of layers with at least the row's layers and one more, such as ZFNet or AlexNet
    row : one of ROWS

    Raises
    ------
    ValueError : an unknown row, or one about layers that the network does not have
    """
    checks.one_of("ablated", "row", row, ROWS)
    chosen = ROWS[row]
    names = counted(network)
    _chosen(f"ablated({row!r})", network, sorted({*chosen.removed, *chosen.factors}))
    sizes = {number: max(1, round(network.tensor_shape(names[number - 1])[-1] * factor))
             for number, factor in chosen.factors.items()}
    changed = resized(network, sizes)
    return without(changed, chosen.removed)


def possible(network: Network) -> list[str]:
    """The rows whose layers a network has."""
    last = len(counted(network))
    return [name for name, row in ROWS.items() if max((*row.removed, *row.factors), default=0) < last]


def _chosen(where: str, network: Network, numbers: Sequence[int]) -> list[str]:
    """Names of layers by their numbers."""
    names = counted(network)
    for number in numbers:
        checks.integer(where, "a layer's number", number, 1)
        checks.require(number < len(names), where, "a layer's number", number,
                       f"1 to {len(names) - 1}: {network.name or 'the network'} has {len(names)} layers with weights"
                       f" ({', '.join(names)}), and the last makes the classes")
    return [names[number - 1] for number in numbers]


def _chain(where: str, network: Network) -> dict[str, dict[str, Any]]:
    """The layers' descriptions by name, if each reads the one before it."""
    before = "input"
    for node in network.nodes.values():
        checks.require(node.inputs == (before,), where, f"the inputs of {node.name}", node.inputs,
                       f"{before!r}: a chain of layers, without branches")
        before = node.name
    return {node.name: node.layer.to_config() for node in network.nodes.values()}


def _rebuilt(network: Network, entries: Mapping[str, Mapping[str, Any]]) -> Network:
    """A network of these layers, each reading the one before it."""
    built = Network(network.name, network.input_shape, preprocessing=network.preprocessing,
                    class_names=network.class_names, scheme=network.scheme, backend=network._backend,
                    algorithm=network.algorithm)
    built.take_arithmetic(network)
    for name, entry in entries.items():
        built.add(name, from_config(dict(entry)))
    return built
