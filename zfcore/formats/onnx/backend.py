"""The onnx package's own backend interface, for its conformance tests and for whoever uses it.

Its tests hand weights over as inputs, and have tensors without a batch axis. So a model is converted
when its inputs are known: those that an operator takes as parameters become constants; all others are
data, several of them side by side as one image. If the first axis cannot be the batch, the whole of
every tensor is taken as one image. Graphs of tensors without elements are folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.backend.base import Backend, BackendRep

from .convert import Converter, Entry, Unsupported, Value
from .graph import Graph, build
from .load import assemble
from .tensors import Budget

# Operators all of whose inputs may be data; of the others only the first may.
_ALL_DATA = {"Add", "Sub", "Mul", "Div", "Sum", "Concat"}


class Prepared(BackendRep):
    """A model that runs when its inputs come."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def _split(self, arrays: dict[str, np.ndarray], batched: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs that are data, and inputs whose values become constants."""
        roles: dict[str, set[bool]] = {name: set() for name in arrays}
        for node in self.graph.operations:
            for index, name in enumerate(node.inputs):
                if name in roles:
                    roles[name].add(index == 0 or node.op in _ALL_DATA)
        rank = max((array.ndim for array in arrays.values()), default=0)
        data = {}
        for name, array in arrays.items():
            wide = not batched or (array.ndim == rank > 0 and array.shape[0] == self._images(arrays))
            if roles[name] == {True} and array.dtype.kind == "f" and wide:
                data[name] = array
        return data, {name: array for name, array in arrays.items() if name not in data}

    @staticmethod
    def _images(arrays: dict[str, np.ndarray]) -> int:
        first = next(iter(arrays.values()))
        return first.shape[0] if first.ndim else 1

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, as arrays in ONNX's order, for the inputs in the graph's order."""
        given = [np.asarray(array) for array in inputs]
        if len(given) != len(self.graph.inputs):
            raise ValueError(f"run: {len(given)} inputs; allowed: {len(self.graph.inputs)}")
        arrays = {declared.name: array for declared, array in zip(self.graph.inputs, given, strict=True)}
        first: Exception | None = None
        for batched in (True, False):
            try:
                return self._run(arrays, batched)
            except Unsupported as error:
                first = first or error
        assert first is not None
        empty = self._folded(arrays)
        if empty is None:
            raise first
        return empty

    def _folded(self, arrays: dict[str, np.ndarray]) -> tuple[Any, ...] | None:
        """Outputs of a graph of tensors without elements, which no layer can hold: folded like constants.

        None if none is empty, or the graph cannot be folded.
        """
        converter = Converter(self.graph, {}, batched=False, batch=1, budget=Budget(), bound=arrays)
        try:
            converter.run()
        except ValueError:
            return None
        found = [converter.constants.get(each.name) for each in self.graph.outputs]
        results = tuple(constant[0] for constant in found if constant is not None)
        whole = len(results) == len(found)
        return results if whole and any(array.size == 0 for array in (*arrays.values(), *results)) else None

    def _run(self, arrays: dict[str, np.ndarray], batched: bool) -> tuple[Any, ...]:
        data, bound = self._split(arrays, batched)
        images = self._images(data) if batched and data else 1
        shapes = {name: array.shape[1:] if batched else array.shape for name, array in data.items()}
        if any(size == 0 for shape in shapes.values() for size in shape):
            raise Unsupported("an input's items are empty")
        converter = Converter(self.graph, shapes, batched=batched, batch=images, budget=Budget(), bound=bound)
        converter.run()
        declared = [each.name for each in self.graph.outputs]
        outputs = dict(zip(declared, converter.outputs(), strict=True))
        network, names = assemble(converter)
        dtype = np.result_type(*(array.dtype for array in data.values())) if data else np.dtype(np.float32)
        if dtype not in (np.float32, np.float64):
            raise Unsupported(f"its input holds {dtype}")
        image = self._image(converter, data, images, dtype)
        wanted = [names[value.entry] for value in outputs.values() if isinstance(value, Value)]
        wanted += [names[converter.pools[name][0]] for name in declared if name in converter.pools]
        forward = network.astype(dtype).forward(image, keep=wanted, cache=True)
        results = []
        for name in declared:
            if name in converter.pools:
                results.append(self._indices(converter, forward.caches, name, names))
                continue
            value = outputs[name]
            if isinstance(value, Value):
                results.append(_onnx(forward.kept[names[value.entry]], value, batched))
            elif value is not None:
                results.append(value[0])
        return tuple(results)

    @staticmethod
    def _image(converter: Converter, data: dict[str, Any], images: int, dtype: Any) -> np.ndarray:
        shape = (images, *converter.image.shape)
        if len(data) == 1:
            (name, array), = data.items()
            value = converter.values[name]
            split, order, _ = value.view.arrangement(range(len(value.view.axes)))
            moved = array.reshape(images, *(split[axis] for axis in order))
            back = moved.transpose(0, *(order.index(axis) + 1 for axis in range(len(order))))
            return np.ascontiguousarray(back.reshape(shape), dtype)
        if not data:
            return np.zeros(shape, dtype)
        parts = [np.asarray(array, dtype).reshape(images, -1) for array in data.values()]
        return np.concatenate(parts, axis=1).reshape(shape)

    @staticmethod
    def _indices(converter: Converter, caches: dict[str, Any], tensor: str,
                 names: dict[Entry, str]) -> np.ndarray:
        """A max pool's indices as ONNX counts them: through the whole tensor of the input."""
        from ... import ops

        entry, node = converter.pools[tensor]
        cache = caches[names[entry]]
        images, height, width, maps = cache["shape"]
        flat = ops.bind().switches_to_flat(cache["switches"], tuple(cache["shape"]), **cache["sizes"])
        if node.attributes.get("storage_order", 0):
            flat = flat % width * height + flat // width
        planes = np.arange(images * maps, dtype=np.int64).reshape(images, 1, 1, maps) * (height * width)
        places = (flat + planes).transpose(0, 3, 1, 2)
        value = converter.values[node.outputs[0]]
        return places.reshape(images, *value.view.shape)


def _onnx(array: np.ndarray, value: Value, batched: bool) -> np.ndarray:
    """A layer's tensor as the ONNX tensor that it stands for."""
    split, order, shape = value.view.arrangement(range(len(value.view.axes)))
    moved = array.reshape(len(array), *split).transpose(0, *(axis + 1 for axis in order))
    result = np.ascontiguousarray(moved).reshape(len(array), *shape)
    return result if batched else result[0]


class ZfcoreBackend(Backend):
    """`onnx.backend.base.Backend` on this engine, on the CPU."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Check a model; it is converted when its inputs are known."""
        if not cls.supports_device(device):
            raise ValueError(f"prepare: device is {device!r}; allowed: 'CPU'")
        return Prepared(build(model, None, Budget()))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Outputs of a model for a list of inputs."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None,
                 **kwargs: Any) -> tuple[Any, ...]:
        """Outputs of one node for a list of inputs."""
        from onnx import helper

        infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype),
                                               np.asarray(array).shape)
                 for name, array in zip(node.input, inputs, strict=True) if name]
        outputs = [helper.make_tensor_value_info(name, 1, None) for name in node.output if name]
        graph = helper.make_graph([node], "node", infos, outputs)
        return cls.run_model(helper.make_model(graph), inputs, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it runs there."""
        return device == "CPU"


prepare, run_model, run_node = ZfcoreBackend.prepare, ZfcoreBackend.run_model, ZfcoreBackend.run_node
supports_device = ZfcoreBackend.supports_device
__all__ = ["Prepared", "ZfcoreBackend", "prepare", "run_model", "run_node", "supports_device"]
