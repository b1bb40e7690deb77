"""What a network is, in numbers: a row for every layer, and the memory that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from ..geometry import Field
from ..layers import Shape
from .cones import fields_below
from .walk import IMAGE, Node

if TYPE_CHECKING:
    from .graph import Network


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes
    ----------
    name, type : its name and its class
    inputs : the tensors that it reads
    output_shape : without the batch
    parameters : how many numbers it holds
    receptive_field : size, stride and offset in pixels of one unit's; None: the whole image
    multiply_adds : of the forward pass, for one image
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    output_shape: Shape
    parameters: int
    receptive_field: Field | None
    multiply_adds: int


@dataclass(frozen=True)
class Memory:
    """Bytes: of the parameters, of a forward pass's largest moment, and of a pass that keeps caches."""

    parameters: int
    forward: int
    cached: int


def rows(network: Network) -> list[Row]:
    """A row for every layer, in topological order."""
    result = []
    adds = network.multiply_adds()
    for node in network.nodes.values():
        fields = fields_below(network.below([node.name]), node.name, network.shapes)
        shapes = node.layer.parameter_shapes(*(network.shapes[name] for name in node.inputs))
        result.append(Row(node.name, type(node.layer).__name__, node.inputs, node.shape,
                          sum(math.prod(shape) for shape in shapes.values()),
                          None if fields is None else fields.get(IMAGE), adds[node.name]))
    return result


def memory(network: Network, batch: int = 1) -> Memory:
    """Estimate of the arrays' bytes, float32 or as stored; the kernels' workspaces come on top."""
    checks.integer("memory", "batch", batch, 0)
    nodes = list(network.nodes.values())
    last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    itemsize = 4 if network.storage == "float32" else 2
    size = {name: math.prod(shape) * itemsize * batch for name, shape in network.shapes.items()}
    copies = {node.name: 0 if itemsize == 4 else _weights(network, node) * itemsize for node in nodes}
    alive = most = size[IMAGE]
    for place, node in enumerate(nodes):
        alive += size[node.name]
        most = max(most, alive + copies[node.name])
        alive -= sum(size[name] for name in set(node.inputs) if last[name] == place)
    parameters = network.parameter_count * 4
    return Memory(parameters, parameters + most, parameters + sum(size.values()) + sum(copies.values()))


def _weights(network: Network, node: Node) -> int:
    """How many weights of a layer a walk rounds to 16 bits."""
    shapes = node.layer.parameter_shapes(*(network.shapes[name] for name in node.inputs))
    return math.prod(shapes["weight"]) if node.layer.short and "weight" in shapes else 0


def _sizes(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def text(network: Network) -> str:
    """The table that `print(network)` shows."""
    lines = [("layer", "type", "output", "parameters", "field", "stride", "offset")]
    lines.append((IMAGE, "", "x".join(map(str, network.input_shape)), "", "", "", ""))
    for row in rows(network):
        field = row.receptive_field
        lines.append((row.name, row.type, "x".join(map(str, row.output_shape)),
                      f"{row.parameters:,}" if row.parameters else "",
                      *((_sizes(field.size), _sizes(field.stride), _sizes(field.offset)) if field
                        else ("all", "", ""))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def aligned(line: tuple[str, ...]) -> str:
        cells = [cell.rjust(width) if column > 2 else cell.ljust(width)
                 for column, (cell, width) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(cells).rstrip()

    title = f"{network.name or 'Network'}: {network.parameter_count:,} parameters"
    return "\n".join([title, *map(aligned, lines)])
