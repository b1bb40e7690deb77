"""What a graph becomes: names, fusing, folded shapes, order of elements, preprocessing; against onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime as ort
from onnx import helper
from onnx_models import single

from zfcore import Network, Preprocessing, layers
from zfcore.formats.onnx import Import, load, read
from zfcore.formats.presets import PRESETS

NODE = helper.make_node
RNG = np.random.default_rng(5)


def weight(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def take(folder: Path, proto: Any, **options: Any) -> Import:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return read(path, **options)


def agrees(folder: Path, proto: Any, images: int = 2, **options: Any) -> Network:
    """Load a model of one NCHW input, compare its first output with onnxruntime's, return the network."""
    net = take(folder, proto, **options).network
    height, width, channels = net.input_shape
    x = np.random.default_rng(1).standard_normal((images, height, width, channels)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    given = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(images, *shape[1:]) if len(shape) != 4 else (
        np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    expected = session.run(None, {session.get_inputs()[0].name: given})[0]
    y = net(x)
    if y.ndim == 4:
        y = y.transpose(0, 3, 1, 2)
    elif y.ndim == 3:
        y = y.transpose(0, 2, 1)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=2e-5, atol=2e-5)
    return net


def model(*nodes: Any, shape: Any = ("n", 3, 8, 9), outputs: Any = ("y",), opset: int = 18,
          **constants: Any) -> Any:
    return single(*nodes, inputs={"x": shape}, outputs=list(outputs), constants=constants, opset=opset)


def kinds(net: Network) -> list[str]:
    return [type(node.layer).__name__ for node in net.nodes.values()]


def test_relu_is_fused_only_where_nobody_reads_the_middle(tmp_path: Path) -> None:
    conv, relu = NODE("Conv", ["x", "w"], ["a"]), NODE("Relu", ["a"], ["b"])
    w = weight(4, 3, 3, 3)
    net = agrees(tmp_path, model(conv, relu, NODE("Tanh", ["b"], ["y"]), w=w))
    assert kinds(net) == ["Convolution", "Tanh"] and net.nodes["b"].layer.activation == "relu"
    net = agrees(tmp_path, model(conv, relu, NODE("Add", ["a", "b"], ["y"]), w=w))
    assert kinds(net) == ["Convolution", "ReLU", "Add"]
    net = take(tmp_path, model(conv, relu, NODE("Tanh", ["b"], ["y"]), outputs=["y", "a"], w=w)).network
    assert kinds(net) == ["Convolution", "ReLU", "Tanh"]
    net = agrees(tmp_path, model(NODE("Add", ["x", "x"], ["a"]), NODE("Relu", ["a"], ["y"])))
    assert kinds(net) == ["Add"] and net.nodes["y"].layer.activation == "relu"


def test_names_come_from_weights_then_from_tensors(tmp_path: Path) -> None:
    imported = take(tmp_path, model(
        NODE("Conv", ["x", "features.0.weight", "features.0.bias"], ["conv1__pre"]),
        NODE("Relu", ["conv1__pre"], ["/features/1/Relu_output_0"]),
        NODE("Conv", ["/features/1/Relu_output_0", "onnx::Conv_12"], ["/block/conv/Conv_output_0"]),
        NODE("Relu", ["/block/conv/Conv_output_0"], ["/block/relu/Relu_output_0"]),
        NODE("MaxPool", ["/block/relu/Relu_output_0"], ["/pool/MaxPool_output_0"], kernel_shape=[2, 2]),
        NODE("Conv", ["/pool/MaxPool_output_0", "conv_w_0"], ["y"]),
        **{"features.0.weight": weight(4, 3, 1, 1), "features.0.bias": weight(4), "conv_w_0": weight(2, 4, 1, 1),
           "onnx::Conv_12": weight(4, 4, 1, 1)}))
    assert list(imported.network.nodes) == ["features.0", "block/conv", "pool", "conv"]
    assert imported.tensors["conv1__pre"] == "features.0.pre"
    assert imported.tensors["/block/relu/Relu_output_0"] == "block/conv"
    assert imported.outputs == ["conv"]
    imported.network.unit("block/conv:3@1,1")


def test_names_are_unique(tmp_path: Path) -> None:
    proto = model(NODE("Conv", ["x", "w.weight"], ["a"]), NODE("Conv", ["a", "w.weight"], ["b"]),
                  NODE("Tanh", ["b"], ["w"]), NODE("Relu", ["w"], ["y"]), **{"w.weight": weight(3, 3, 1, 1)})
    net = agrees(tmp_path, proto)
    assert list(net.nodes) == ["w", "w_2", "w_3", "y"]
    first, second = (net.nodes[name].layer.parameters["weight"] for name in ("w", "w_2"))
    first += 1  # training one must not change the other
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 20])
def test_fully_connected_after_a_flatten(tmp_path: Path, opset: int) -> None:
    shape = [NODE("Shape", ["p"], ["s"]), NODE("Gather", ["s", "zero"], ["n0"]),
             NODE("Unsqueeze", ["n0"], ["n1"], axes=[0]) if opset < 13 else NODE("Unsqueeze", ["n0", "axes"], ["n1"]),
             NODE("Concat", ["n1", "minus"], ["target"], axis=0)]
    tail = [NODE("Gemm", ["f", "w", "b"], ["y"], transB=1)]
    constants = {"w": weight(5, 36), "b": weight(5)}
    pool = NODE("MaxPool", ["x"], ["p"], kernel_shape=[2, 3], strides=[2, 3])
    net = agrees(tmp_path, model(pool, NODE("Flatten", ["p"], ["f"]), *tail, opset=opset, **constants))
    assert kinds(net) == ["MaxPool", "Flatten", "Linear"]
    ints = {"zero": np.array(0), "minus": np.array([-1])} | ({"axes": np.array([0])} if opset >= 13 else {})
    net = agrees(tmp_path, model(pool, *shape, NODE("Reshape", ["p", "target"], ["f"]), *tail, opset=opset,
                                 **constants, **ints))
    assert kinds(net) == ["MaxPool", "Flatten", "Linear"]
    fixed = model(pool, NODE("Reshape", ["p", "target"], ["f"]), *tail, shape=(1, 3, 8, 9), opset=opset,
                  **constants, target=np.array([1, 36]))
    assert kinds(agrees(tmp_path, fixed, images=1)) == ["MaxPool", "Flatten", "Linear"]
    assert take(tmp_path, fixed).network(np.zeros((3, 8, 9, 3), np.float32)).shape == (3, 5)


def test_where_the_order_of_nchw_matters_it_is_kept(tmp_path: Path) -> None:
    # Not the identity in NHWC: each must permute, or read other elements.
    agrees(tmp_path, model(NODE("Flatten", ["x"], ["y"])))
    agrees(tmp_path, model(NODE("Reshape", ["x", "s"], ["y"]), s=np.array([0, 9, 3, 8])))
    agrees(tmp_path, model(NODE("Reshape", ["x", "s"], ["y"]), s=np.array([-1, 12, 2, 9])))
    agrees(tmp_path, model(NODE("Reshape", ["x", "s"], ["a"]), NODE("Conv", ["a", "w"], ["y"]),
                           s=np.array([-1, 4, 9, 6]), w=weight(2, 4, 3, 3)))
    agrees(tmp_path, model(NODE("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]), NODE("Conv", ["a", "w"], ["y"]),
                           w=weight(2, 8, 2, 2)))
    agrees(tmp_path, model(NODE("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]), NODE("Flatten", ["a"], ["f"]),
                           NODE("MatMul", ["f", "w"], ["m"]), NODE("Add", ["m", "b"], ["y"]),
                           w=weight(216, 4), b=weight(4)))
    agrees(tmp_path, model(NODE("Flatten", ["x"], ["f"]), NODE("Mul", ["f", "m"], ["a"]),
                           NODE("Relu", ["a"], ["r"]), NODE("Gemm", ["r", "w"], ["y"]),
                           m=weight(216), w=weight(216, 3)))
    agrees(tmp_path, model(NODE("Softmax", ["x"], ["y"], axis=2)))
    agrees(tmp_path, model(NODE("Softmax", ["x"], ["y"], axis=2), opset=11))
    agrees(tmp_path, model(NODE("LogSoftmax", ["x"], ["y"], axis=3)))
    agrees(tmp_path, model(NODE("Concat", ["x", "x"], ["a"], axis=3), NODE("Concat", ["a", "a"], ["y"], axis=2)))
    agrees(tmp_path, model(NODE("ReduceMean", ["x", "a"], ["y"], keepdims=0), a=np.array([1])))
    agrees(tmp_path, model(NODE("ReduceMean", ["x"], ["y"], axes=[3, 1]), opset=13))


def test_a_channel_shuffle_is_one_permutation_of_maps(tmp_path: Path) -> None:
    proto = model(NODE("Conv", ["x", "w"], ["c"]), NODE("Reshape", ["c", "five"], ["a"]),
                  NODE("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]), NODE("Reshape", ["b", "four"], ["d"]),
                  NODE("Conv", ["d", "v"], ["y"], group=3, pads=[1, 1, 1, 1]), w=weight(6, 3, 3, 3),
                  v=weight(6, 2, 3, 3), five=np.array([0, 3, 2, 6, 7]), four=np.array([0, 6, 6, 7]))
    net = agrees(tmp_path, proto)
    assert kinds(net) == ["Convolution", "Rearrange", "Convolution"]
    assert not net.cone("y").whole  # it keeps places, so crops go through it


@pytest.mark.parametrize("nodes", [
    [NODE("Sub", ["x", "c"], ["a"]), NODE("Div", ["a", "c2"], ["y"])],
    [NODE("Sub", ["k", "x"], ["a"]), NODE("Mul", ["k", "a"], ["y"])],
    [NODE("Sigmoid", ["x"], ["a"]), NODE("Mul", ["x", "a"], ["y"])],
    [NODE("GlobalAveragePool", ["x"], ["g"]), NODE("Sigmoid", ["g"], ["s"]), NODE("Mul", ["x", "s"], ["y"])],
    [NODE("GlobalMaxPool", ["x"], ["g"]), NODE("Sub", ["x", "g"], ["y"])],
    [NODE("ReduceMean", ["x", "one"], ["g"]), NODE("Add", ["g", "x"], ["y"])],
    [NODE("Clip", ["x", "zero", "six"], ["y"])],
    [NODE("Clip", ["x", "", "six"], ["a"]), NODE("LeakyRelu", ["a"], ["y"], alpha=0.3)],
    [NODE("PRelu", ["x", "c"], ["a"]), NODE("PRelu", ["a", "k"], ["y"])],
    [NODE("Pad", ["x", "p"], ["y"], mode="reflect")],
    [NODE("Pad", ["x", "p2", "k"], ["y"])],
    [NODE("Pad", ["x", "p"], ["y"], mode="edge")],
    [NODE("MaxPool", ["x"], ["a", "i"], kernel_shape=[2, 2], strides=[2, 2]),
     NODE("MaxUnpool", ["a", "i", "whole"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
    [NODE("Split", ["x"], ["a", "b", "d"], axis=1, num_outputs=3), NODE("Concat", ["d", "a", "b"], ["y"], axis=1)],
    [NODE("Slice", ["x", "one", "three", "two"], ["y"])],
    [NODE("Squeeze", ["x1", "one"], ["y"])],
    [NODE("Dropout", ["x"], ["a"]), NODE("Identity", ["a"], ["b"]), NODE("Tanh", ["b"], ["y"])],
    [NODE("Resize", ["x", "", "scales"], ["y"], mode="linear")],
    [NODE("Resize", ["x", "", "scales"], ["y"], coordinate_transformation_mode="asymmetric",
          nearest_mode="floor")],
    [NODE("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)],
    [NODE("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2],
          count_include_pad=1)],
    [NODE("ConvTranspose", ["x", "t"], ["y"], strides=[2, 3], dilations=[2, 1], output_padding=[1, 2],
          pads=[1, 0, 2, 1])],
    [NODE("MatMul", ["x", "square"], ["a"]), NODE("Add", ["a", "nine"], ["y"])],
], ids=lambda nodes: "-".join(node.op_type for node in nodes))
def test_operators_against_onnxruntime(tmp_path: Path, nodes: list[Any]) -> None:
    constants: dict[str, Any] = {
        "c": weight(3, 1, 1), "c2": np.abs(weight(1, 3, 1, 1)) + 1, "k": np.float32(0.7), "zero": np.float32(0),
        "six": np.float32(0.6), "p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "p2": np.array([0, 1, 1, 2, 0, 2, 3, 0]),
        "one": np.array([1]), "three": np.array([3]), "two": np.array([2]),
        "scales": np.array([1, 1, 2, 1.5], np.float32), "t": weight(3, 4, 2, 3),
        "whole": np.array([2, 3, 8, 9]), "square": weight(9, 5), "nine": weight(5)}
    used = {name for node in nodes for name in node.input}
    if "x1" in used:
        nodes = [NODE("Slice", ["x", "zero1", "one", "one"], ["x1"]), *nodes]
        constants["zero1"], used = np.array([0]), used | {"zero1", "one"}
    agrees(tmp_path, model(*nodes, **{name: array for name, array in constants.items() if name in used}))


def test_everything_unsupported_is_listed_at_once(tmp_path: Path) -> None:
    proto = model(NODE("Einsum", ["x"], ["a"], name="first", equation="ij->ji"), NODE("Relu", ["a"], ["b"]),
                  NODE("MaxPool", ["x"], ["c"], name="holes", kernel_shape=[2, 2], dilations=[20, 2]),
                  NODE("GRU", ["b"], ["d"], name="third"), NODE("Sum", ["b", "c", "d"], ["y"]))
    with pytest.raises(ValueError, match="Einsum 'first'.*GRU 'third'.*MaxPool 'holes': .*dilations"):
        take(tmp_path, proto)


def test_open_sizes_are_asked_for(tmp_path: Path) -> None:
    proto = model(NODE("Conv", ["x", "w"], ["a"]), NODE("GlobalAveragePool", ["a"], ["y"]), w=weight(4, 3, 3, 3),
                  shape=("n", 3, "h", "w"))
    with pytest.raises(ValueError, match="input_shape"):
        take(tmp_path, proto)
    assert agrees(tmp_path, proto, input_shape=(10, 12)).input_shape == (10, 12, 3)
    assert take(tmp_path, proto, input_shape=7).network.input_shape == (7, 7, 3)
    for wrong in ((1, 2, 3, 4), 0, "7", (7, -1)):
        with pytest.raises(ValueError, match="input_shape"):
            take(tmp_path, proto, input_shape=wrong)
    with pytest.raises(ValueError, match="8 x 9"):
        take(tmp_path, model(NODE("Relu", ["x"], ["y"])), input_shape=5)


def test_inputs_of_other_ranks(tmp_path: Path) -> None:
    net = agrees(tmp_path, model(NODE("Gemm", ["x", "w"], ["a"]), NODE("Relu", ["a"], ["y"]), shape=("n", 7),
                                 w=weight(7, 4)))
    assert net.input_shape == (1, 1, 7) and kinds(net)[-1] == "Linear"
    agrees(tmp_path, model(NODE("Conv", ["x", "w"], ["a"], pads=[1, 2], strides=[2]),
                           NODE("MaxPool", ["a"], ["b"], kernel_shape=[3]), NODE("Flatten", ["b"], ["f"]),
                           NODE("Gemm", ["f", "v"], ["y"]), shape=("n", 3, 20), w=weight(4, 3, 3),
                           v=weight(36, 2)))


def test_the_window_of_lrn(tmp_path: Path) -> None:
    proto = model(NODE("LRN", ["x"], ["y"], size=4, alpha=2.0, beta=0.6, bias=1.5), shape=(1, 6, 4, 4))
    net = take(tmp_path, proto).network
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 6)).astype(np.float32)
    y = np.empty_like(x)
    for f in range(6):  # ONNX: from f - floor((size - 1) / 2) to f + ceil((size - 1) / 2)
        around = x[..., max(f - 1, 0):f + 3].astype(np.float64)
        y[..., f] = x[..., f] * (1.5 + 2.0 / 4 * (around ** 2).sum(-1)) ** -0.6
    np.testing.assert_allclose(net(x), y, rtol=1e-6)
    agrees(tmp_path, model(NODE("LRN", ["x"], ["y"], size=5, alpha=2.0), shape=(1, 6, 4, 4)), images=1)


def test_several_outputs(tmp_path: Path) -> None:
    proto = model(NODE("Conv", ["x", "w"], ["a"]), NODE("Tanh", ["a"], ["b"]), NODE("Sigmoid", ["a"], ["c"]),
                  outputs=["b", "c"], w=weight(2, 3, 1, 1))
    imported = take(tmp_path, proto)
    assert imported.outputs == ["b", "c"] and imported.network.output == "b"


def test_preprocessing_is_told_and_never_guessed(tmp_path: Path) -> None:
    proto = model(NODE("Relu", ["x"], ["y"]))
    assert take(tmp_path, proto).network.preprocessing is None
    caffe = take(tmp_path, proto, preprocessing="caffe-bgr").network.preprocessing
    assert caffe is not None and caffe.to_config() == {
        "channels": "BGR", "mean": [104.0, 117.0, 123.0], "scale": 1.0, "size": (256, 256), "crop": (8, 9)}
    for name in PRESETS:
        found = take(tmp_path, proto, preprocessing=name).network.preprocessing
        assert isinstance(found, Preprocessing)
    pixels = np.full((1, 8, 9, 3), 255, np.uint8)
    zero_one = take(tmp_path, proto, preprocessing="zero-one").network.preprocessing
    assert zero_one is not None and zero_one.apply(pixels).max() == pytest.approx(1)
    torchvision = take(tmp_path, proto, preprocessing="torchvision").network.preprocessing
    assert torchvision is not None
    np.testing.assert_allclose(torchvision.apply(pixels)[0, 0, 0], (1 - np.array([0.485, 0.456, 0.406]))
                               / np.array([0.229, 0.224, 0.225]), rtol=1e-5)
    own = Preprocessing("RGB", 3.0, 0.5, (8, 9))
    assert take(tmp_path, proto, preprocessing=own).network.preprocessing is own
    (tmp_path / "how.json").write_text(json.dumps({"preprocessing": own.to_config()}))
    told = take(tmp_path, proto, preprocessing=tmp_path / "how.json").network.preprocessing
    assert told is not None and told.to_config() == own.to_config()
    for wrong in ("imagenet", 3, {"mean": 3}, {"channels": "RGB", "means": 3}, tmp_path):
        with pytest.raises(ValueError, match="allowed"):
            take(tmp_path, proto, preprocessing=wrong)
    gray = model(NODE("Relu", ["x"], ["y"]), shape=(1, 1, 8, 9))
    with pytest.raises(ValueError, match="channels"):
        take(tmp_path, gray, preprocessing="caffe-bgr")
    found = take(tmp_path, gray, preprocessing="zero-one").network.preprocessing
    assert found is not None and found.channels == "L"


def test_the_json_beside_a_model(tmp_path: Path) -> None:
    proto = model(NODE("Relu", ["x"], ["y"]))
    published = {"meta": {"preprocess": {"color": "BGR", "mean_bgr": [1, 2, 3], "scale": 2.0,
                                         "resize": "warp to 32x40 (like Caffe), then center crop"}}}
    (tmp_path / "model.json").write_text(json.dumps(published))
    found = take(tmp_path, proto).network.preprocessing
    assert found is not None and found.to_config() == {
        "channels": "BGR", "mean": [1.0, 2.0, 3.0], "scale": 2.0, "size": (32, 40), "crop": (8, 9)}
    (tmp_path / "model.json").write_text(json.dumps({"about": "something else"}))
    assert take(tmp_path, proto).network.preprocessing is None
    for text in ("{", json.dumps({"preprocess": {"color": "CMYK"}}),
                 json.dumps({"preprocess": {"color": "RGB", "resize": "somehow"}}),
                 json.dumps({"preprocess": {"color": "RGB", "mean_bgr": None, "resize": "crop 5"}}),
                 json.dumps({"preprocess": {"color": "RGB", "mean": 1, "mean_rgb": 2, "resize": "crop 5"}})):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(ValueError, match="allowed|JSON"):
            take(tmp_path, proto)


def test_class_names_and_what_save_keeps(tmp_path: Path) -> None:
    import zfcore

    path = tmp_path / "model.onnx"
    path.write_bytes(model(NODE("Conv", ["x", "w"], ["a"]), NODE("Clip", ["a", "lo", "hi"], ["b"]),
                           NODE("GlobalAveragePool", ["b"], ["g"]), NODE("Flatten", ["g"], ["y"]),
                           w=weight(2, 3, 3, 3), lo=np.float32(0), hi=np.float32(6)).SerializeToString())
    net = load(path, "zero-one", class_names=["cat", "dog"])
    assert net.class_names == ["cat", "dog"] and isinstance(net.nodes["b"].layer, layers.Clip)
    zfcore.save(net, tmp_path / "model.safetensors")
    again = zfcore.load(tmp_path / "model.safetensors")
    x = np.random.default_rng(0).standard_normal((2, 8, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(x), net(x))
    assert again.to_config() == net.to_config()


def test_folded_operators_of_many_inputs_and_remainders(tmp_path: Path) -> None:
    a, b, d = weight(1, 3, 1, 1), weight(1, 3, 1, 1), weight(1, 3, 1, 1)
    nodes = [NODE("Neg", ["d"], ["third"]), NODE("Max", ["a", "b", "third"], ["max"]),
             NODE("Min", ["a", "b", "third"], ["min"]), NODE("Max", ["third"], ["same"]),
             NODE("Mod", ["a", "b"], ["rest"], fmod=1), NODE("Sum", ["max", "min", "same", "rest"], ["all"])]
    agrees(tmp_path, model(*nodes, NODE("Mul", ["x", "all"], ["y"]), a=a, b=b, d=d))
    malformed = model(NODE("Neg", ["d"], ["third"]), NODE("Add", ["a", "b", "third"], ["all"]),
                      NODE("Mul", ["x", "all"], ["y"]), a=a, b=b, d=d)
    with pytest.raises(ValueError, match="3 inputs; allowed: 2"):
        take(tmp_path, malformed)
