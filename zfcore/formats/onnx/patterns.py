"""Several nodes that are one layer here: response norms of even sizes and local contrast norms.

ONNX has no operator for them; `nodes` writes them out as x * (k + sums) ** -beta, and what it wrote is
recognised here, by its structure alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ...layers import ContrastNorm, Layer, ResponseNorm
from .graph import Graph, Operation


@dataclass(frozen=True)
class Recognised(Operation):
    """Nodes that are one layer of the input."""

    layer: Layer | None = None


class _Finder:
    """Walks up from a Mul that may be the last node of a normalisation."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.maker = {name: node for node in graph.operations for name in node.outputs if name}
        self.readers: dict[str, list[Operation]] = {}
        for node in graph.operations:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.kept = {each.name for each in graph.outputs}
        self.used: list[Operation] = []

    def above(self, name: str, op: str, inputs: int) -> Operation | None:
        """The node that makes a tensor, if it is this operator with so many inputs."""
        node = self.maker.get(name)
        if node is None or node.op != op or node.domain or len(node.inputs) != inputs or len(node.outputs) != 1:
            return None
        self.used.append(node)
        return node

    def number(self, name: str) -> float | None:
        """A constant that is one number."""
        array = self.graph.constants.get(name)
        valid = array is not None and array.ndim == 0 and array.dtype == np.float32 and np.isfinite(array)
        return float(array) if array is not None and valid else None

    def square(self, name: str) -> str | None:
        """The tensor whose square a tensor is."""
        node = self.above(name, "Mul", 2)
        return node.inputs[0] if node is not None and node.inputs[0] == node.inputs[1] else None

    def found(self, last: Operation) -> tuple[Layer, str] | None:
        """The layer that ends in a node, and the tensor that it reads."""
        self.used = [last]
        power = self.above(last.inputs[1], "Pow", 2) if len(last.inputs) == 2 else None
        scale = self.above(power.inputs[0], "Add", 2) if power else None
        if power is None or scale is None:
            return None
        exponent, k = self.number(power.inputs[1]), self.number(scale.inputs[1])
        if exponent is None or k is None:
            return None
        try:
            found = (self._response(last.inputs[0], scale.inputs[0], -exponent, k)
                     or self._contrast(last.inputs[0], scale.inputs[0], -exponent, k))
        except (ValueError, TypeError):  # numbers that no layer takes
            return None
        inner = {name for node in self.used if node is not last for name in node.outputs}
        alone = all(any(node is each for each in self.used) for name in inner for node in self.readers.get(name, ()))
        return found if found and alone and not inner & self.kept else None

    def _response(self, x: str, sums: str, beta: float, k: float) -> tuple[Layer, str] | None:
        node = self.above(sums, "Conv", 2)
        band = self.graph.constants.get(node.inputs[1]) if node else None
        if node is None or band is None or band.dtype != np.float32 or band.ndim != 4 or band.shape[2:] != (1, 1) \
                or len(band) != band.shape[1]:
            return None
        if self.square(node.inputs[0]) != x or not set(node.attributes) <= {"kernel_shape"}:
            return None
        rows, columns = np.nonzero(band[:, :, 0, 0])
        if not len(rows):
            return None
        offsets = columns - rows
        before, size = -int(offsets.min()), int(offsets.max() - offsets.min()) + 1
        every = np.arange(len(band))[None] - np.arange(len(band))[:, None]
        alpha = band[rows[0], columns[0], 0, 0]
        if not np.array_equal(band[:, :, 0, 0], np.where((every >= -before) & (every < size - before), alpha, 0)):
            return None
        if before not in (size // 2, (size - 1) // 2):
            return None
        return ResponseNorm(size, float(alpha), beta, k, mirrored=before != size // 2), x

    def _window(self, node: Operation | None, padded: int) -> int | None:
        """The side of a square window around each cell, of an average that counts padding or not."""
        if node is None:
            return None
        attributes = dict(node.attributes)
        size = (attributes.get("kernel_shape") or (0,))[0]
        before, after = size // 2, size - 1 - size // 2
        wanted = {"kernel_shape": (size, size), "strides": (1, 1), "pads": (before, before, after, after),
                  "count_include_pad": padded}
        return size if attributes == wanted else None

    def _contrast(self, numerator: str, sums: str, beta: float, k: float) -> tuple[Layer, str] | None:
        factor = self.above(sums, "Mul", 2)
        alpha = self.number(factor.inputs[1]) if factor else None
        total = self.above(factor.inputs[0], "AveragePool", 1) if factor else None
        difference = self.square(total.inputs[0]) if total else None
        sub = self.above(difference, "Sub", 2) if difference else None
        mean = self.above(sub.inputs[1], "AveragePool", 1) if sub else None
        if alpha is None or sub is None or mean is None or mean.inputs[0] != sub.inputs[0]:
            return None
        size, x = self._window(total, 1), sub.inputs[0]
        if size is None or self._window(mean, 0) != size or numerator not in (x, difference):
            return None
        return ContrastNorm(size, alpha, beta, k, mode="divisive" if numerator == x else "subtractive"), x


def joined(graph: Graph) -> Graph:
    """The graph with each such group of nodes as one `Recognised`."""
    finder = _Finder(graph)
    gone: set[int] = set()
    made: dict[int, Operation] = {}
    for node in graph.operations:
        found = finder.found(node) if node.op == "Mul" and not node.domain else None
        if found is not None:
            gone.update(id(each) for each in finder.used)
            made[id(node)] = Recognised(type(found[0]).__name__, node.name, (found[1],), node.outputs, {}, "",
                                        found[0])
    operations = [made.get(id(node), node) for node in graph.operations if id(node) not in gone or id(node) in made]
    return dataclasses.replace(graph, operations=operations)
