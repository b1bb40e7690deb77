"""ONNX out: the checker's approval, onnxruntime's results, and the way back to the same network."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from layer_networks import CASES, chain, filled, unpooling  # noqa: E402

import zfcore  # noqa: E402
from zfcore import Preprocessing  # noqa: E402
from zfcore.formats.onnx.export import to_onnx  # noqa: E402
from zfcore.layers import ContrastNorm, Convolution, Flatten, Linear, MaxPool  # noqa: E402
from zfcore.models.torchvision import ARCHITECTURES  # noqa: E402
from zfcore.network.layout import flattened  # noqa: E402

IMPORTER = importlib.util.find_spec("zfcore.formats.onnx.load") is not None
U = 2.0**-24


def run(model, x):
    """onnxruntime's outputs for channels-last images, channels last again."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    results = session.run(None, {"input": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    return [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in results]


def close(mine, theirs, roundings):
    """Both are within so many roundings of the largest number that goes into them."""
    assert mine.shape == theirs.shape
    bound = 2 * roundings * U * max(np.abs(theirs).max(), 1.0)
    assert np.abs(mine - theirs).max() <= bound, (np.abs(mine - theirs).max(), bound)


# What ONNX has no operator for goes out in several nodes, and comes back as one layer.
SEVERAL = ("contrast norm", "even response norm")


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_gives_the_same(name):
    network = filled(CASES[name]())
    x = np.random.default_rng(1).standard_normal((3, *network.input_shape)).astype(np.float32)
    if name == "quotient":
        x = np.abs(x) + 1
    (theirs,) = run(to_onnx(network), x)
    close(channels_first(network, network(x)), theirs, 300 * len(network.nodes))


def test_unpooling():
    network = filled(unpooling())
    x = np.random.default_rng(1).standard_normal((2, 8, 6, 3)).astype(np.float32)
    close(network(x), run(to_onnx(network), x)[0], 100)


def test_several_outputs_and_names():
    network = filled(chain(Convolution(4, 3, activation="relu"), MaxPool(2), Flatten(), Linear(3)))
    x = np.random.default_rng(1).standard_normal((2, 9, 8, 4)).astype(np.float32)
    model = to_onnx(network, ("layer0.pre", "layer1", "layer3"))
    kept = network.forward(x, keep=("layer0.pre", "layer1")).kept
    for mine, theirs in zip((kept["layer0.pre"], kept["layer1"], network(x)), run(model, x), strict=True):
        close(mine, theirs, 400)
    assert {item.name for item in model.graph.initializer} >= {"layer0.weight", "layer3.bias"}
    with pytest.raises(ValueError, match="layer9"):
        to_onnx(network, ["layer9"])


def channels_first(network, y):
    """The network's output in ONNX's order, where it is a vector of flattened maps."""
    order = flattened(network).get(network.output)
    result = y.copy()
    if order is not None:
        result[:, order] = y
    return result


def same_network(first, second, x):
    """The same layers with the same names and weights, and the same bits.

    ONNX keeps a response norm's alpha as a float32, times the size: then all but the last bits.
    """
    def table(network):
        return [(name, type(node.layer).__name__) for name, node in network.nodes.items()]

    assert table(first) == table(second)
    for key, value in first.parameters().items():
        assert np.array_equal(second.parameters()[key], value), key
    if "ResponseNorm" in dict(table(first)).values():
        close(first(x), second(x), 600 * len(first.nodes))
    else:
        assert np.array_equal(first(x), second(x))


NETWORKS = {
    "resnet18": lambda: ARCHITECTURES["torchvision/resnet18"].build(5, input_size=64, widths=(8, 8, 16, 16)),
    "squeezenet": lambda: ARCHITECTURES["torchvision/squeezenet1_1"].build(5, input_size=64),
    "densenet": lambda: ARCHITECTURES["torchvision/densenet121"].build(
        5, blocks=(2, 2, 2, 2), growth=8, first=16, input_size=64),
    "vgg_bn": lambda: ARCHITECTURES["torchvision/vgg11_bn"].build(5, widths=(4, 4, 8, 8, 8), hidden=16),
    "digits": lambda: zfcore.models.build("digits"),
    "mnist": lambda: zfcore.models.build("mnist"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks(tmp_path, name):
    network = filled(NETWORKS[name]())
    x = np.random.default_rng(2).standard_normal((2, *network.input_shape)).astype(np.float32)
    path = tmp_path / "net.onnx"
    zfcore.save(network, path)
    model = onnx.load(path)
    (theirs,) = run(model, x)
    close(network(x), theirs, 600 * len(network.nodes))
    texts = {item.key: item.value for item in model.metadata_props}
    assert json.loads(texts["zfcore.preprocessing"])["channels"] == network.preprocessing.channels
    beside = json.loads(path.with_suffix(".json").read_text())["preprocessing"]
    assert Preprocessing.from_config(beside).to_config() == network.preprocessing.to_config()


@pytest.mark.skipif(not IMPORTER, reason="the importer is not there")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_loads_back_to_the_same_network(tmp_path, name):
    network = filled(NETWORKS[name]())
    zfcore.save(network, tmp_path / "net.onnx")
    again = zfcore.load(tmp_path / "net.onnx")
    x = np.random.default_rng(2).standard_normal((1, *network.input_shape)).astype(np.float32)
    same_network(network, again, x)
    assert again.preprocessing.to_config() == network.preprocessing.to_config()
    assert again.class_names == network.class_names
    assert again.name == network.name


@pytest.mark.skipif(not IMPORTER, reason="the importer is not there")
@pytest.mark.parametrize("name", CASES)
def test_every_layer_loads_back_to_equal_results(name, tmp_path):
    network = filled(CASES[name]())
    zfcore.save(network, tmp_path / "net.onnx")
    again = zfcore.load(tmp_path / "net.onnx")
    if name in SEVERAL:
        assert [type(node.layer) for node in again.nodes.values()] == [
            type(node.layer) for node in network.nodes.values()]
        assert list(again.nodes) == list(network.nodes)
    x = np.abs(np.random.default_rng(3).standard_normal((2, *network.input_shape))).astype(np.float32) + 0.5
    close(again(x), channels_first(network, network(x)), 300 * len(network.nodes))


def test_files_are_not_overwritten(tmp_path):
    network = filled(chain(Convolution(2, 3)))
    network.preprocessing = Preprocessing("RGB")
    path = tmp_path / "net.onnx"
    zfcore.save(network, path)
    with pytest.raises(FileExistsError):
        zfcore.save(network, path)
    zfcore.save(network, path, force=True)
    path.unlink()
    with pytest.raises(FileExistsError, match="net.json"):
        zfcore.save(network, path)
    with pytest.raises(ValueError, match="no parameters"):
        zfcore.save(chain(Convolution(2, 3)), tmp_path / "empty.onnx")
    assert not (tmp_path / "empty.onnx").exists()
    with pytest.raises(ValueError, match="ends in .safetensors or .onnx"):
        zfcore.save(network, tmp_path / "net.pth")


def test_a_json_beside_the_model_is_replaced_only_if_zfcore_wrote_it(tmp_path):
    network = filled(chain(Convolution(2, 3), shape=(9, 8, 3)))
    network.preprocessing = Preprocessing("RGB")
    path, beside = tmp_path / "net.onnx", tmp_path / "net.json"
    zfcore.save(network, path)
    network.preprocessing = Preprocessing("BGR", 3.0)
    zfcore.save(network, path, force=True)
    assert json.loads(beside.read_text())["preprocessing"]["channels"] == "BGR"
    network.preprocessing = None
    zfcore.save(network, path, force=True)
    assert not beside.exists() and zfcore.load(path).preprocessing is None


@pytest.mark.parametrize("content", ['{"meta": {"preprocess": {"color": "BGR"}}}', '{"preprocessing": {}}', "no JSON",
                                     "[1]"])
@pytest.mark.parametrize("preprocessing", [None, Preprocessing("RGB")])
def test_a_foreign_json_stays(tmp_path, content, preprocessing):
    network = filled(chain(Convolution(2, 3), shape=(9, 8, 3)))
    network.preprocessing = preprocessing
    beside = tmp_path / "net.json"
    beside.write_text(content)
    with pytest.raises(FileExistsError, match="net.json was not written by zfcore"):
        zfcore.save(network, tmp_path / "net.onnx", force=True)
    assert beside.read_text() == content and not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("change", ["read twice", "an output", "another window", "another exponent"])
def test_what_only_looks_like_a_norm_is_none(tmp_path, change):
    model = to_onnx(filled(chain(ContrastNorm(3, 0.4))))
    graph = model.graph
    power = next(node for node in graph.node if node.op_type == "Pow")
    if change == "read twice":
        last = next(node for node in graph.node if node.output[0] == graph.output[0].name)
        last.output[0] = "normed"
        graph.node.append(onnx.helper.make_node("Add", ["normed", power.output[0]], [graph.output[0].name]))
    elif change == "an output":
        graph.output.append(onnx.helper.make_tensor_value_info(power.output[0], 1, None))
    elif change == "another window":
        pool = [node for node in graph.node if node.op_type == "AveragePool"][-1]
        next(item for item in pool.attribute if item.name == "count_include_pad").i = 0
    else:
        power.input[1] = power.input[0]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="Pow"):
        zfcore.load(tmp_path / "net.onnx")
