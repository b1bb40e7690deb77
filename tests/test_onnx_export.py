"""ONNX out: the checker's approval, onnxruntime's results, and the way back to the same network."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import zfcore  # noqa: E402
from zfcore import Network, Preprocessing  # noqa: E402
from zfcore.formats.onnx.export import to_onnx  # noqa: E402
from zfcore.layers import (  # noqa: E402
    Add,
    AveragePool,
    BatchNorm,
    Clip,
    Concat,
    ContrastNorm,
    Convolution,
    Divide,
    Dropout,
    Expand,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool,
    MaxUnpool,
    Multiply,
    Pad,
    PReLU,
    Rearrange,
    ReLU,
    Resize,
    ResponseNorm,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
    Subtract,
    Tanh,
    TransposedConvolution,
)
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


def filled(network, seed=0):
    """Random parameters, biases and statistics among them."""
    network.initialize(seed, "he")
    random = np.random.default_rng(seed)
    for key, value in network.parameters().items():
        if value.ndim == 1 or key.endswith((".scale", ".slope")):
            value[...] = 0.5 + random.random(value.shape, np.float32)
    return network


def close(mine, theirs, roundings):
    """Both are within so many roundings of the largest number that goes into them."""
    assert mine.shape == theirs.shape
    bound = 2 * roundings * U * max(np.abs(theirs).max(), 1.0)
    assert np.abs(mine - theirs).max() <= bound, (np.abs(mine - theirs).max(), bound)


def chain(*layers, shape=(9, 8, 4)):
    network = Network("chain", shape)
    for place, layer in enumerate(layers):
        network.add(f"layer{place}", layer)
    return network


def fork(layer, *others, shape=(9, 8, 4)):
    """A layer with several inputs, on convolutions of the image."""
    network = Network("fork", shape)
    names = [network.add(f"conv{place}", Convolution(6, 3, padding=1), "input") for place in range(2)]
    network.add("joined", layer, names)
    for place, other in enumerate(others):
        network.add(f"then{place}", other)
    return network


CASES = {
    "convolution": lambda: chain(Convolution(6, (3, 2), (2, 1), (1, 0, 2, 1), (1, 2), 2, activation="relu")),
    "same": lambda: chain(Convolution(6, 3, stride=2, padding="same", bias=False)),
    "transposed": lambda: chain(TransposedConvolution(6, 3, 2, (1, 0, 1, 1), output_padding=1, groups=2,
                                                      activation="relu")),
    "max pool": lambda: chain(MaxPool(3, 2, ceil_mode=True), MaxPool(3, 1, (1, 0, 0, 1))),
    "average valid": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True), AveragePool(2, 1, (1, 0, 1, 0))),
    "average padded": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True, divisor="padded"),
                                    AveragePool(2, 1, (1, 0, 1, 0), divisor="padded")),
    "average padded beyond": lambda: chain(AveragePool(2, 2, 1, ceil_mode=True, divisor="padded")),
    "average window": lambda: chain(AveragePool(3, 2, 1, ceil_mode=True, divisor="window"),
                                    AveragePool(2, 2, ceil_mode=True, divisor="window")),
    "global": lambda: chain(GlobalAveragePool(), Softmax()),
    "global max": lambda: chain(GlobalMaxPool(), LogSoftmax()),
    "response norm": lambda: chain(ResponseNorm(3, 0.3, 0.6, 1.5),
                                   ResponseNorm(3, 0.3, alpha_is_divided_by_size=True)),
    "even response norm": lambda: chain(ResponseNorm(4, 0.3), ResponseNorm(2, 0.3, mirrored=True)),
    "contrast norm": lambda: chain(ContrastNorm(3, 0.4, k=1.5, alpha_is_divided_by_area=False),
                                   ContrastNorm(4, 0.4, mode="subtractive")),
    "batch norm": lambda: chain(BatchNorm(1e-3), ReLU(), Flatten(), BatchNorm(), Linear(5)),
    "flattened": lambda: chain(MaxPool(2), Flatten(), Dropout(0.3), Linear(7, activation="relu"),
                               Linear(3, bias=False), Softmax()),
    "elementwise": lambda: chain(LeakyReLU(0.2), Sigmoid(), Clip(0.4, 0.6), Tanh(), Clip(None, 0.45),
                                 Clip(0.4, None)),
    "slopes": lambda: chain(PReLU(), PReLU((9, 8, 4)), Scale((8, 1)), Scale((), bias=False), Flatten(),
                            PReLU(), Scale((), scale=False)),
    "sum": lambda: fork(Add("relu"), Convolution(2, 1)),
    "difference": lambda: fork(Subtract()),
    "product": lambda: fork(Multiply()),
    "quotient": lambda: fork(Divide()),
    "joined": lambda: fork(Concat(), Slice(2, 9), Pad((1, 0, 2, -1), (1, 2), value=0.5)),
    "mirrored": lambda: chain(Pad((1, 2, 3, 0), mode="reflect"), Pad((1, 2, 3, 0), mode="edge")),
    "nearest": lambda: chain(Resize((18, 16))),
    "linear": lambda: chain(Resize((13, 5), "linear")),
    "by scales": lambda: chain(Resize((13, 12), "linear", scales=(1.5, 1.5))),
    "shuffled": lambda: chain(Rearrange((72, 2, 2), (0, 2, 1), (9, 8, 4))),
    "rearranged": lambda: chain(Rearrange((72, 4), (1, 0), (288,)), Linear(3),
                                Rearrange((3,), (0,), (1, 1, 3)), Expand((2, 2, 3))),
}
# What ONNX has no operator for goes out in several, which do not come back as one layer.
ONE_WAY = {"contrast norm": "Pow", "even response norm": "Pow", "rearranged": "Expand"}


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_gives_the_same(name):
    network = filled(CASES[name]())
    x = np.random.default_rng(1).standard_normal((3, *network.input_shape)).astype(np.float32)
    if name == "quotient":
        x = np.abs(x) + 1
    (theirs,) = run(to_onnx(network), x)
    close(channels_first(network, network(x)), theirs, 300 * len(network.nodes))


def unpooling():
    network = Network("unpool", (8, 6, 3))
    network.add("pool", MaxPool(2))
    network.add("conv", Convolution(3, 1))
    network.add("unpool", MaxUnpool(2), ("conv", "input"))
    return network


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
    if name in ONE_WAY:
        with pytest.raises(ValueError, match=f"not supported: {ONE_WAY[name]}"):
            zfcore.load(tmp_path / "net.onnx")
        return
    again = zfcore.load(tmp_path / "net.onnx")
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
    with pytest.raises(ValueError, match="ends in .onnx or .safetensors"):
        zfcore.save(network, tmp_path / "net.pth")
