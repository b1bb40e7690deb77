"""The structures of published networks that the onnx package ships, with weights that say something.

Their own weights are constants, so that a broken convolution passes: every one is replaced by seeded
random numbers of the scale that keeps activations alive. Hidden fully connected layers are narrowed from
4096 to 64 units: half a gigabyte of them says no more.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

FOLDER = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")
NARROW = 64
NAMES = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
         "squeezenet", "vgg19", "zfnet512")


def _roles(graph: Any) -> dict[str, tuple[str, int]]:
    """For every tensor, the operator that reads it and as which input (through an Unsqueeze too)."""
    roles: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            roles.setdefault(name, (node.op_type, index))
    for node in graph.node:
        if node.op_type == "Unsqueeze" and node.output[0] in roles:
            roles[node.input[0]] = roles[node.output[0]]
    return roles


def _values(rng: np.random.Generator, shape: list[int], role: tuple[str, int]) -> np.ndarray:
    op, index = role
    if op in ("Conv", "Gemm") and index == 1:
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if (op == "BatchNormalization" and index in (1, 4)) or op == "Mul":
        return rng.uniform(0.5, 0.9, shape)
    return rng.standard_normal(shape) * 0.1


@lru_cache(maxsize=2)
def light(name: str, seed: int = 0) -> Any:
    """The ModelProto called `light_<name>` with random weights, the same for the same seed."""
    model = onnx.load(os.path.join(FOLDER, f"light_{name}.onnx"))
    graph, rng = model.graph, np.random.default_rng(seed)
    sizes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    roles = _roles(graph)
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(size) for size in sizes[node.input[0]]]
        role = roles[node.output[0]]
        if role[0] == "Gemm":
            shape = [NARROW if size == 4096 else size for size in shape]
        values = _values(rng, shape, role).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    used = {each for node in kept for each in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
    names = {tensor.name for tensor in tensors}
    inputs = [each for each in graph.input if each.name not in names and each.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    return model


def single(*nodes: Any, inputs: dict[str, tuple[Any, ...]], outputs: list[str], constants: Any = None,
           opset: int = 18) -> Any:
    """A small model: nodes, the shapes of its inputs, its outputs' names, its constant arrays."""
    def info(name: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        list(nodes), "small", [info(name, shape) for name, shape in inputs.items()],
        [info(name, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
