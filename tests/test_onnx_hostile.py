"""Hostile and broken ONNX files: a clear ValueError each, before anything large is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_models import single

from zfcore.formats.onnx import load, read
from zfcore.formats.onnx.tensors import Budget
from zfcore.formats.onnx.tensors import read as read_tensor

WEIGHT = np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2)


def model(weight: Any = WEIGHT) -> Any:
    return single(helper.make_node("Conv", ["x", "w"], ["y"]), inputs={"x": (1, 3, 5, 5)}, outputs=["y"],
                  constants={"w": weight})


def write(folder: Path, proto: Any) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path


def refuses(folder: Path, proto: Any, what: str, **options: Any) -> None:
    path = write(folder, proto)
    with pytest.raises(ValueError, match=what) as caught:
        load(path, **options)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 3000


def external(location: str, offset: Any = 0, length: Any = WEIGHT.nbytes, extra: Any = ()) -> Any:
    proto = model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length), *extra):
        if value is not None:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return proto


def test_external_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights.bin").write_bytes(b"12345678" + WEIGHT.tobytes())
    net = load(write(tmp_path, external("deep/weights.bin", 8)))
    np.testing.assert_array_equal(net.parameters()["w.weight" if "w" in net.nodes else f"{net.output}.weight"],
                                  WEIGHT.transpose(0, 2, 3, 1))
    load(write(tmp_path, external("deep/weights.bin", 8, None)))  # the length follows from the shape


@pytest.mark.parametrize("location", [
    "/etc/passwd", "../weights.bin", "deep/../../weights.bin", "..", ".", "", "deep\\weights.bin",
    "C:\\weights.bin", "C:weights.bin", "\\\\server\\share", "weights.bin\0", "a" * 5000, "absent.bin", "deep",
    "./../weights.bin", "link.bin", "linked/weights.bin", "pipe",
])
def test_external_data_outside_the_folder(tmp_path: Path, location: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    opened: list[str] = []
    true_open = os.open

    def watched(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(os.path.realpath(path))
        return true_open(path, *arguments, **options)

    proto = external(location)
    path = write(folder, proto)
    monkeypatch.setattr(os, "open", watched)
    with pytest.raises(ValueError, match="external data"):
        load(path)
    monkeypatch.undo()
    assert all(name.startswith(os.path.realpath(folder) + os.sep) for name in opened)


@pytest.mark.parametrize(("offset", "length", "what"), [
    (-1, WEIGHT.nbytes, "offset"), (2**62, WEIGHT.nbytes, "offset|ends"), ("1e3", WEIGHT.nbytes, "offset"),
    (10**30, WEIGHT.nbytes, "offset"), (1, WEIGHT.nbytes, "ends at byte"), ("", WEIGHT.nbytes, "offset"),
    (0, -5, "length"), (0, 2**40, "length"), (0, WEIGHT.nbytes - 4, "length"), ("٣", WEIGHT.nbytes, "offset"),
])
def test_external_offsets_and_lengths(tmp_path: Path, offset: Any, length: Any, what: str) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    refuses(tmp_path, external("weights.bin", offset, length), what)


def test_external_data_described_twice_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    refuses(tmp_path, external("weights.bin", extra=[("location", "other.bin")]), "once each")
    proto = external("weights.bin")
    del proto.graph.initializer[0].external_data[:]
    refuses(tmp_path, proto, "external data")
    proto = external("weights.bin")
    proto.graph.initializer[0].data_location = TensorProto.DEFAULT
    refuses(tmp_path, proto, "external data")
    with pytest.raises(ValueError, match="from memory"):
        read_tensor(external("weights.bin").graph.initializer[0], None, Budget())


def tensor_of(change: Callable[[Any], None]) -> Any:
    proto = model()
    change(proto.graph.initializer[0])
    return proto


@pytest.mark.parametrize(("change", "what"), [
    (lambda t: setattr(t, "raw_data", t.raw_data[:-1]), "bytes"),
    (lambda t: t.dims.__setitem__(0, 5), "bytes"),
    (lambda t: t.dims.__setitem__(0, -4), "shape"),
    (lambda t: t.dims.__setitem__(0, 2**62), "shape|max_bytes"),
    (lambda t: t.dims.extend([1] * 40), "sizes"),
    (lambda t: setattr(t, "data_type", 0), "data type"),
    (lambda t: setattr(t, "data_type", TensorProto.STRING), "data type"),
    (lambda t: setattr(t, "data_type", 9999), "data type"),
    (lambda t: t.ClearField("raw_data"), "numbers"),
    (lambda t: setattr(t.segment, "begin", 3), "segment"),
])
def test_tensors_that_do_not_fit_their_declaration(tmp_path: Path, change: Any, what: str) -> None:
    refuses(tmp_path, tensor_of(change), what)


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("raw", [True, False])
def test_every_kind_of_tensor(kind: str, raw: bool) -> None:
    array = (np.arange(6).reshape(2, 3) % 2 * 3).astype(kind)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    data = array.tobytes() if raw else array.reshape(-1).tolist()
    tensor = helper.make_tensor("t", code, array.shape, data, raw=raw)
    found = read_tensor(tensor, None, Budget())
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def chain(*nodes: Any, outputs: Any = ("y",), constants: Any = None) -> Any:
    return single(*nodes, inputs={"x": (1, 3, 4, 4)}, outputs=list(outputs), constants=constants)


NODE = helper.make_node


@pytest.mark.parametrize(("proto", "what"), [
    (chain(NODE("Add", ["x", "b"], ["a"]), NODE("Relu", ["a"], ["b"]), NODE("Relu", ["b"], ["y"])), "cycle"),
    (chain(NODE("Add", ["x", "y"], ["y"])), "cycle"),
    (chain(NODE("Relu", ["x"], ["y"]), NODE("Tanh", ["x"], ["y"])), "made twice"),
    (chain(NODE("Relu", ["x"], ["x"]), NODE("Relu", ["x"], ["y"])), "made twice"),
    (chain(NODE("Conv", ["x", "nowhere"], ["y"])), "nobody makes them: 'nowhere'"),
    (chain(NODE("Relu", ["x"], ["z"])), "'y'"),
    (chain(NODE("Relu", ["x"], ["y"]), outputs=()), "no outputs"),
    (chain(NODE("Relu", [], ["y"])), "input 0 is missing"),
    (chain(NODE("Relu", ["x"], [])), "y"),
    (chain(NODE("MaxPool", ["x"], ["y"])), "kernel_shape is missing"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape=[2, 2, 2])), "kernel_shape"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape=[0, 2])), "kernel_shape"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape=[9, 9])), "window"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape=2)), "malformed"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape="22")), "malformed|kernel_shape"),
    (chain(NODE("MaxPool", ["x"], ["y"], kernel_shape=[17, 17], pads=[8, 8, 8, 8])), "256"),
    (chain(NODE("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 1])), "strides"),
    (chain(NODE("LRN", ["x"], ["y"], size=0)), "size"),
    (chain(NODE("LRN", ["x"], ["y"], size=9)), "maps"),
    (chain(NODE("Softmax", ["x"], ["y"], axis=9)), "axis"),
    (chain(NODE("Transpose", ["x"], ["y"], perm=[0, 1, 1, 2])), "perm"),
    (chain(NODE("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])), "batch"),
    (chain(NODE("Reshape", ["x", "s"], ["y"]), constants={"s": np.array([1, 7])}), "shape"),
    (chain(NODE("Reshape", ["x", "s"], ["y"]), constants={"s": np.array([1, -1, -1])}), "shape"),
    (chain(NODE("Reshape", ["x", "s"], ["y"]), constants={"s": np.array([2**62, -1])}), "gigantic"),
    (chain(NODE("Conv", ["x", "w"], ["y"]), constants={"w": WEIGHT.astype(np.int64)}), "int64"),
    (chain(NODE("Conv", ["x", "w"], ["y"]), constants={"w": WEIGHT[:, :2]}), "weight"),
    (chain(NODE("Conv", ["x", "w"], ["y"], group=2), constants={"w": WEIGHT}), "groups"),
    (chain(NODE("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0]), constants={"w": WEIGHT}), "pads"),
    (chain(NODE("Conv", ["x", "w"], ["y"], strides=[2**40, 1]), constants={"w": WEIGHT}), "strides"),
    (chain(NODE("Conv", ["x", "w"], ["y"], auto_pad="HUGE"), constants={"w": WEIGHT}), "auto_pad"),
    (chain(NODE("Neg", ["x"], ["y"])), "not constant"),
    (chain(NODE("Expand", ["x", "s"], ["y"]), constants={"s": np.array([2**40, 1, 1, 1])}), "its shape is"),
    (chain(NODE("Expand", ["x", "s"], ["y"]), constants={"s": np.array([1, 1, -4, 1])}), "its shape is"),
    (chain(NODE("Identity", ["c"], ["y"]), constants={"c": WEIGHT}), "constant"),
])
def test_broken_graphs(tmp_path: Path, proto: Any, what: str) -> None:
    refuses(tmp_path, proto, what)


@pytest.mark.parametrize("shape", [[2**40], [2**31, 2**31], [2**20, 2**20], [-1, 4]])
def test_declared_tensors_over_the_limit(tmp_path: Path, shape: list[int]) -> None:
    proto = chain(NODE("ConstantOfShape", ["s"], ["w"]), NODE("Conv", ["x", "w"], ["y"]),
                  constants={"s": np.array(shape)})
    assert len(proto.SerializeToString()) < 4096
    refuses(tmp_path, proto, "max_bytes|cannot be computed|shape")


def test_the_limit_counts_everything(tmp_path: Path) -> None:
    proto = chain(NODE("ConstantOfShape", ["s"], ["w"]), NODE("Conv", ["x", "w"], ["y"]),
                  constants={"s": np.array([64, 3, 3, 3])})
    load(write(tmp_path, proto), max_bytes=100_000)
    refuses(tmp_path, proto, "max_bytes", max_bytes=6_000)
    many = [NODE("Conv", ["x", "w"], [f"c{i}"]) for i in range(50)]  # one weight, fifty copies
    proto = chain(*many, NODE("Sum", [f"c{i}" for i in range(50)], ["y"]), constants={"w": WEIGHT})
    load(write(tmp_path, proto))
    refuses(tmp_path, proto, "max_bytes", max_bytes=8_000)
    grow = [NODE("Concat", ["x", "x"], ["c0"], axis=1)]
    grow += [NODE("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=1) for i in range(40)]
    refuses(tmp_path, chain(*grow, NODE("Relu", ["c40"], ["y"])), "2\\*\\*31")
    numbers = [NODE("Concat", ["s", "s"], ["c0"], axis=0)]
    numbers += [NODE("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(40)]
    refuses(tmp_path, chain(*numbers, NODE("Reshape", ["x", "c40"], ["y"]), constants={"s": np.array([1, 48])}),
            "max_bytes")
    proto = chain(NODE("Range", ["a", "b", "d"], ["r"]), NODE("Add", ["x", "r"], ["y"]),
                  constants={"a": np.float32(0), "b": np.float32(1e12), "d": np.float32(1)})
    refuses(tmp_path, proto, "max_bytes")


def field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, length = len(data), b""
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + data


def test_subgraphs_functions_and_sparse_tensors(tmp_path: Path) -> None:
    inner = model().graph
    for _ in range(3):
        outer = helper.make_graph([NODE("If", ["x"], ["y"], then_branch=inner, else_branch=inner)], "g",
                                  inner.input, inner.output)
        inner = outer
    refuses(tmp_path, helper.make_model(inner), "subgraph")
    deep = b""
    for _ in range(3000):  # a graph in an attribute (6) of a node (5) of a graph (1)
        for number in (6, 5, 1):
            deep = field(number, deep)
    refuses(tmp_path, field(7, deep), "no ONNX file|subgraph|outputs")
    proto = model()
    proto.graph.sparse_initializer.add()
    refuses(tmp_path, proto, "sparse")
    proto = chain(helper.make_node("Mine", ["x"], ["y"], domain="mine"))
    refuses(tmp_path, proto, "Mine 'y'")
    proto.functions.append(helper.make_function("mine", "Mine", ["x"], ["y"], [NODE("Relu", ["x"], ["y"])],
                                                [helper.make_opsetid("", 18)]))
    refuses(tmp_path, proto, "function")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    for data in (b"", b"\0", b"not a model", os.urandom(0) + bytes(range(256)), b"PK\x03\x04", b"\x80\x04K\x01."):
        refuses(tmp_path, data, "no ONNX file|no graph")
    refuses(tmp_path, model().SerializeToString()[:-20], "no ONNX file|bytes|outputs|graph")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.onnx")
    with pytest.raises(FileNotFoundError):
        load(tmp_path)
    refuses(tmp_path, model(), "max_bytes", max_bytes=10)
    old = model()
    old.opset_import[0].version = 6
    refuses(tmp_path, old, "opset is 6")
    old.opset_import.append(helper.make_opsetid("ai.onnx", 9))
    refuses(tmp_path, old, "versions")


def test_inputs_that_are_no_image(tmp_path: Path) -> None:
    for shape, what in (((1, 3, "h", "w"), "leaves sizes open"), ((1,), "shape"), ((1, 3, -4, 4), "sizes >= 1"),
                        ((1, 2**20, 2**20, 2**20), "2\\*\\*31"), (None, "shape")):
        proto = single(NODE("Relu", ["x"], ["y"]), inputs={"x": shape}, outputs=["y"])
        refuses(tmp_path, proto, what)
    proto = single(NODE("Add", ["x", "z"], ["y"]), inputs={"x": (1, 3, 4, 4), "z": (1, 3, 4, 4)}, outputs=["y"])
    refuses(tmp_path, proto, "2 inputs \\(x, z\\)")
    proto = single(NODE("Relu", ["x"], ["y"]), inputs={"x": (1, 3, 4, 4)}, outputs=["y"])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    refuses(tmp_path, proto, "int64")


def test_names_are_made_safe(tmp_path: Path) -> None:
    names = ["input", "<script>alert(1)</script>", "a\nb", "conv.pre", "-rf", "é", "..", "a" * 1000, "1"]
    nodes, before = [], "x"
    for name in names:
        nodes.append(NODE("Tanh", [before], [name]))
        before = name
    net = read(write(tmp_path, chain(*nodes, outputs=[names[-1]]))).network
    assert len(net.nodes) == len(names)
    for name in net.nodes:
        assert not set(name) & set("<>\n:@ ") and not name.endswith(".pre") and name != "input"
        net.unit(f"{name}:0")


def test_numbers_that_are_none_are_no_warnings(tmp_path: Path) -> None:
    proto = chain(NODE("Flatten", ["x"], ["f"]), NODE("Gemm", ["f", "w"], ["g"], alpha=float("inf")),
                  NODE("Mul", ["g", "k"], ["y"]),
                  constants={"w": np.zeros((48, 2), np.float32), "k": np.float32(np.nan)})
    assert np.isnan(load(write(tmp_path, proto)).parameters()["g.weight"]).all()


def test_a_model_with_much_in_it_still_loads(tmp_path: Path) -> None:
    proto = model()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(5, np.float32), "unused"))
    proto.metadata_props.add().key = "note"
    assert isinstance(onnx.load_from_string(proto.SerializeToString()), onnx.ModelProto)
    assert load(write(tmp_path, proto))(np.zeros((2, 5, 5, 3), np.float32)).shape == (2, 4, 4, 4)
