"""Pools with holes, slices in steps, unpooling by constants: against onnxruntime; sizes of folded results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402
from onnx_models import single  # noqa: E402

import zfcore  # noqa: E402
from zfcore.formats.onnx import fold  # noqa: E402
from zfcore.formats.onnx.graph import Operation  # noqa: E402
from zfcore.formats.onnx.tensors import Budget  # noqa: E402

NODE = helper.make_node
SHAPE = (3, 9, 8)
POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 3], "dilations": [2, 1]},
    {"kernel_shape": [2, 2], "dilations": [3, 2], "strides": [2, 3]},
    {"kernel_shape": [3, 2], "dilations": [2, 2], "pads": [1, 1, 1, 0], "strides": [1, 2]},
    {"kernel_shape": [2, 2], "dilations": [2, 3], "strides": [3, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "dilations": [2, 1], "pads": [2, 1, 2, 1], "strides": [2, 1]},
]


def compare(path: Path, node: Any, constants: dict[str, Any], tolerance: float = 0.0) -> zfcore.Network:
    model = single(node, inputs={"x": ("n", *SHAPE)}, outputs=["y"], constants=constants)
    model.opset_import[0].version = max(19, model.opset_import[0].version)  # dilations of averages
    path.write_bytes(model.SerializeToString())
    network = zfcore.load(path)
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    found = network(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance
    return network


@pytest.mark.parametrize("sizes", POOLS)
def test_max_pools(tmp_path: Path, sizes: dict[str, Any]) -> None:
    network = compare(tmp_path / "m.onnx", NODE("MaxPool", ["x"], ["y"], **sizes), {})
    assert network.output == "y"


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("sizes", POOLS)
def test_average_pools(tmp_path: Path, sizes: dict[str, Any], counted: int) -> None:
    node = NODE("AveragePool", ["x"], ["y"], count_include_pad=counted, **sizes)
    compare(tmp_path / "m.onnx", node, {}, 1e-6)


def test_max_pools_refuse_wanted_indices(tmp_path: Path) -> None:
    pool = NODE("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], dilations=[2, 2])
    path = tmp_path / "m.onnx"
    path.write_bytes(single(pool, inputs={"x": ("n", *SHAPE)}, outputs=["y"], constants={}).SerializeToString())
    with pytest.raises(ValueError, match="indices are wanted"):
        zfcore.load(path)


@pytest.mark.parametrize(("start", "end", "axis", "step"),
                         [(0, 9, 2, 2), (-1, -100, 3, -3), (5, 0, 2, -2), (2, 0, 1, -1)])
def test_slices_in_steps(tmp_path: Path, start: int, end: int, axis: int, step: int) -> None:
    constants = {name: np.array([value]) for name, value in
                 (("starts", start), ("ends", end), ("axes", axis), ("steps", step))}
    compare(tmp_path / "m.onnx", NODE("Slice", ["x", *constants], ["y"]), constants)


@pytest.mark.parametrize(("axis", "index", "elements"), [(0, [3], 500), (1, [1, 2, 0], 3000), (1, [], 0)])
def test_gather_counts_what_it_allocates(axis: int, index: list[int], elements: int) -> None:
    data = np.zeros((1000, 500), np.float32)
    node = Operation("Gather", "g", ("d", "i"), ("y",), {"axis": axis})
    inputs = [fold.same(data), fold.same(np.array(index, np.int64))]
    needed = elements * 4 + len(index) * 8
    (result, _), = fold.compute(node, inputs, Budget(max(needed, 1)))
    assert result.size == elements
    if needed:
        with pytest.raises(ValueError, match="max_bytes"):
            fold.compute(node, inputs, Budget(needed - 1))
