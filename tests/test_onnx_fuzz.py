"""Mutated ONNX files: the only outcomes are a network and a clear ValueError.

The seed and the number of cases are fixed: with those of safetensors files they take about a minute on two
quiet cores. ZFCORE_FUZZ_CASES sets another number (`make fuzz` runs many).
"""

from __future__ import annotations

import os
import resource
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from layer_networks import chain, filled
from onnx import helper
from onnx_models import single

from zfcore import Network
from zfcore.formats.onnx import load
from zfcore.formats.onnx.export import to_onnx
from zfcore.layers import ContrastNorm, MaxPool, ResponseNorm

CASES = int(os.environ.get("ZFCORE_FUZZ_CASES", "20000"))
LIMIT = 1 << 22
NODE = helper.make_node
OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "MaxPool", "AveragePool", "Reshape",
             "Transpose", "Concat", "Add", "Mul", "Pad", "Resize", "Slice", "Split", "Softmax", "LRN", "Expand",
             "ConstantOfShape", "Range", "Shape", "Gather", "Unsqueeze", "MaxUnpool", "ReduceMean", "PRelu",
             "BatchNormalization", "Flatten", "Cast", "Where", "If"]
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 256, 2**16, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**63), 2**63 - 1]
TEXTS = ["", "x", "y", "..", "/", "input", "\n", "w" * 300, "SAME_UPPER", "linear", "<b>", "ai.other"]


def seeds() -> list[Any]:
    """Small models that use most of the reader."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    image = {"x": ("n", 3, 12, 12)}
    classifier = single(
        NODE("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        NODE("Relu", ["c1"], ["r1"]), NODE("LRN", ["r1"], ["n1"], size=3),
        NODE("MaxPool", ["n1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        NODE("Shape", ["p1"], ["s"]), NODE("Gather", ["s", "zero"], ["count"]),
        NODE("Unsqueeze", ["count", "zero1"], ["count1"]), NODE("Concat", ["count1", "rest"], ["flat"], axis=0),
        NODE("Reshape", ["p1", "flat"], ["f"]), NODE("Gemm", ["f", "w2", "b2"], ["g"], transB=1),
        NODE("Softmax", ["g"], ["y"], axis=1), inputs=image, outputs=["y"],
        constants={"w1": weight(4, 3, 3, 3), "b1": weight(4), "w2": weight(5, 36), "b2": weight(5),
                   "zero": np.array(0), "zero1": np.array([0]), "rest": np.array([-1])})
    shuffled = single(
        NODE("Conv", ["x", "w"], ["c"], group=1, auto_pad="SAME_UPPER"),
        NODE("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        NODE("Reshape", ["n", "five"], ["r"]), NODE("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        NODE("Reshape", ["t", "four"], ["u"]), NODE("Split", ["u"], ["a", "d"], axis=1, num_outputs=2),
        NODE("Mul", ["a", "d"], ["k"]), NODE("Concat", ["k", "d"], ["e"], axis=1),
        NODE("GlobalAveragePool", ["e"], ["y"]), inputs={"x": (1, 3, 6, 6)}, outputs=["y"],
        constants={"w": weight(4, 3, 3, 3), "s": weight(4), "b": weight(4), "m": weight(4), "v": weight(4) ** 2,
                   "five": np.array([1, 2, 2, 6, 6]), "four": np.array([1, 4, 6, 6])})
    decoder = single(
        NODE("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        NODE("Clip", ["p", "low", "high"], ["c"]),
        NODE("MaxUnpool", ["c", "i"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
        NODE("ConvTranspose", ["u", "w"], ["t"], strides=[2, 2], output_padding=[1, 1]),
        NODE("Pad", ["t", "pads"], ["q"], mode="reflect"), NODE("Resize", ["q", "", "scales"], ["z"], mode="linear"),
        NODE("PRelu", ["z", "slope"], ["a"]), NODE("ReduceMean", ["a", "axes"], ["y"], keepdims=0),
        inputs={"x": (1, 3, 8, 8)}, outputs=["y"],
        constants={"low": np.float32(0), "high": np.float32(6), "w": weight(3, 2, 3, 3),
                   "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "scales": np.array([1, 1, 2, 0.5], np.float32),
                   "slope": weight(2, 1, 1), "axes": np.array([2, 3])})
    declared = single(
        NODE("ConstantOfShape", ["s"], ["w"]), NODE("Conv", ["x", "w"], ["c"]), NODE("Sub", ["c", "k"], ["d"]),
        NODE("Div", ["d", "k"], ["y"]), inputs=image, outputs=["y"],
        constants={"s": np.array([2, 3, 1, 1]), "k": np.float32(3)})
    normed = to_onnx(filled(chain(ContrastNorm(3), MaxPool(2), ResponseNorm(2, 0.3), shape=(6, 6, 3))))
    holes = single(
        NODE("AveragePool", ["x"], ["a"], kernel_shape=[2, 2], dilations=[2, 1], pads=[1, 0, 0, 1], strides=[1, 2]),
        NODE("Slice", ["a", "starts", "ends", "axes", "steps"], ["s"]), NODE("Expand", ["s", "shape"], ["e"]),
        NODE("MaxPool", ["e"], ["y"], kernel_shape=[1, 2], dilations=[1, 2]), inputs={"x": (1, 1, 8, 10)},
        outputs=["y"], constants={"starts": np.array([-1]), "ends": np.array([0]), "axes": np.array([2]),
                                  "steps": np.array([-2]), "shape": np.array([1, 2, 1, 1])})
    return [classifier, shuffled, decoder, declared, normed, holes]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, lost, doubled or cut off."""
    array = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, max(len(array), 1)))
        kind = int(rng.integers(0, 5))
        if kind == 0:
            array[place:place + 1] = bytes([int(rng.integers(0, 256))])
        elif kind == 1:
            del array[place:place + int(rng.integers(1, 9))]
        elif kind == 2:
            array[place:place] = array[place:place + int(rng.integers(1, 40))]
        elif kind == 3:
            array[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8))
        elif rng.random() < 0.3:
            del array[place:]
    return bytes(array)


def _pick(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(0, len(values)))]


def _change_node(graph: Any, rng: np.random.Generator) -> None:
    node = _pick(rng, graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)] + TEXTS
    kind = int(rng.integers(0, 7))
    if kind == 0:
        node.op_type = _pick(rng, OPERATORS + TEXTS)
    elif kind == 1 and node.input:
        node.input[int(rng.integers(0, len(node.input)))] = _pick(rng, names)
    elif kind == 2 and node.output:
        node.output[int(rng.integers(0, len(node.output)))] = _pick(rng, names)
    elif kind == 3:
        (node.input if rng.random() < 0.7 else node.output).append(_pick(rng, names))
    elif kind == 4 and node.input:
        del node.input[-1]
    elif kind == 5:
        graph.node.append(node)
    else:
        node.domain = _pick(rng, TEXTS)


def _change_attribute(graph: Any, rng: np.random.Generator) -> None:
    nodes = [node for node in graph.node if node.attribute]
    if not nodes:
        return
    attribute = _pick(rng, _pick(rng, nodes).attribute)
    kind = int(rng.integers(0, 6))
    if kind == 0:
        attribute.i = _pick(rng, NUMBERS)
    elif kind == 1 and attribute.ints:
        attribute.ints[int(rng.integers(0, len(attribute.ints)))] = _pick(rng, NUMBERS)
    elif kind == 2:
        attribute.ints.append(_pick(rng, NUMBERS))
    elif kind == 3:
        attribute.type = int(rng.integers(0, 15))
    elif kind == 4:
        attribute.f = _pick(rng, [float("nan"), float("inf"), -1e38, 0.0])
    else:
        attribute.name = _pick(rng, ["axis", "perm", "pads", "strides", "kernel_shape", "mode", "group", "to", ""])


def _change_tensor(graph: Any, rng: np.random.Generator) -> None:
    tensor = _pick(rng, graph.initializer)
    kind = int(rng.integers(0, 7))
    if kind == 0 and tensor.dims:
        tensor.dims[int(rng.integers(0, len(tensor.dims)))] = _pick(rng, NUMBERS)
    elif kind == 1:
        tensor.data_type = int(rng.integers(0, 25))
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[:int(rng.integers(0, 9)) * 4]
    elif kind == 3 and tensor.raw_data:
        tensor.raw_data = flip(tensor.raw_data, rng)[:len(tensor.raw_data)].ljust(len(tensor.raw_data), b"\xff")
    elif kind == 4:
        tensor.name = _pick(rng, TEXTS)
    elif kind == 5:
        tensor.data_location = 1
        for key in ("location", "offset", "length"):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(_pick(rng, NUMBERS + TEXTS))
    elif len(tensor.raw_data) % 8 == 0 and tensor.data_type == 7:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = np.array([_pick(rng, NUMBERS) for _ in range(count)], np.int64).tobytes()


def _change_shape(graph: Any, rng: np.random.Generator) -> None:
    info = _pick(rng, list(graph.input) + list(graph.output))
    sizes = info.type.tensor_type.shape.dim
    if sizes and rng.random() < 0.8:
        sizes[int(rng.integers(0, len(sizes)))].dim_value = _pick(rng, NUMBERS)
    else:
        sizes.add().dim_value = _pick(rng, NUMBERS)


def restructure(data: bytes, rng: np.random.Generator) -> bytes:
    """A model whose parts were changed, so that it is still a model."""
    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    changes = (_change_node, _change_attribute, _change_tensor, _change_shape)
    for _ in range(int(rng.integers(1, 4))):
        changes[int(rng.integers(0, len(changes)))](proto.graph, rng)
        if rng.random() < 0.05:
            proto.opset_import[0].version = int(rng.integers(0, 40))
    return bytes(proto.SerializeToString())


def peak() -> int:
    """The process's largest resident size so far, in kilobytes (bytes on a Mac)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_seeds_are_networks(tmp_path: Path) -> None:
    for number, proto in enumerate(seeds()):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(proto.SerializeToString())
        net = load(path)
        y = net(np.ones((2, *net.input_shape), np.float32))
        assert len(y) == 2 and np.isfinite(y).all()


def test_mutated_models_are_networks_or_clear_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(20131112)
    models = [proto.SerializeToString() for proto in seeds()]
    path = tmp_path / "model.onnx"
    networks = errors = 0
    before = peak()
    for case in range(CASES):
        data = _pick(rng, models)
        data = restructure(data, rng) if rng.random() < 0.7 else flip(data, rng)
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert isinstance(load(path, max_bytes=LIMIT), Network)
            networks += 1
        except ValueError as error:
            assert str(error), case
            errors += 1
        except Exception as error:
            pytest.fail(f"case {case} ({path} holds it): {type(error).__name__}: {error}")
    print(f"{networks} networks, {errors} errors")
    assert networks > CASES // 50 and errors > CASES // 4
    assert peak() - before < 300_000 * (1024 if os.uname().sysname == "Darwin" else 1)
