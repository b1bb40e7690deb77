"""Networks whose tensors are of 16 bits: every layer on the way up and down, training, and what is refused.

The oracle has each layer in float32 on Numba, between tensors that are rounded: since products of 16-bit numbers are
exact in float32, a layer's output is then that, but for sums of another order that fall on the other side of a
rounding boundary. Each layer is given what the network gave its inputs, so errors do not add up.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zfcore import Network, backends, ops
from zfcore.formats import safetensors
from zfcore.layers import (
    Add,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    Run,
    Softmax,
)
from zfcore.network.walk import layer_seed
from zfcore.preprocessing import Preprocessing
from zfcore.rules import get
from zfcore.training import SGD, CapturedStep, Training, fit, train_step
from zfcore.training.feeds import ArrayFeed
from zfcore.training.recipes import Recipe

from .storage import BFLOAT16, FLOAT16, stored, wide

sys.path.insert(0, str(Path(__file__).parents[1]))
from layer_networks import CASES, chain, filled, unpooling  # noqa: E402

STORAGES = {"float16": FLOAT16, "bfloat16": BFLOAT16}
storages = pytest.mark.parametrize("storage", STORAGES)
emulated, numba = backends.get("emulated"), ops.bind("numba")


def branches():
    """Two ways from the image that meet twice, with a residual, a concatenation and a tensor read three times."""
    net = Network("branches", (11, 10, 3))
    net.add("conv1", Convolution(8, 3, padding=1, activation="relu"))
    net.add("norm1", ResponseNorm(3, 0.2))
    net.add("left", Convolution(8, 1), "norm1")
    net.add("right", Convolution(8, 3, padding="same", activation="relu"), "norm1")
    net.add("batch", BatchNorm(), "right")
    net.add("sum", Add("relu"), ("left", "batch", "norm1"))
    net.add("joined", Concat(), ("sum", "right", "sum"))
    net.add("pool", MaxPool(3, 2, ceil_mode=True))
    net.add("drop", Dropout(0.4))
    net.add("mean", GlobalAveragePool())
    net.add("fc", Linear(6))
    net.add("softmax", Softmax())
    return net


def numbers(array, storage):
    """Float32 numbers rounded to a storage."""
    return wide(stored(np.asarray(array, np.float32), STORAGES[storage]))


def images(net, count=2, seed=1):
    return np.random.default_rng(seed).standard_normal((count, *net.input_shape)).astype(np.float32)


def on(backend, net, storage="float32", precision=None):
    """The network on a backend."""
    twin = copy.deepcopy(net)
    twin._backend, twin._ops = backend, None
    twin.storage, twin.precision = storage, precision
    return twin


def weighted(layer, storage):
    """The layer with rounded weights, where its operations take 16 bits."""
    twin = copy.copy(layer)
    if layer.short and "weight" in layer.parameters:
        twin.parameters = {**layer.parameters, "weight": numbers(layer.parameters["weight"], storage)}
    return twin


def near(got, expected, size, storage):
    """Equal, or the next number of the storage: `size` is that of the terms that were rounded."""
    unit, least = STORAGES[storage][3:]
    with np.errstate(invalid="ignore"):
        assert (np.abs(got - expected) <= 2 * unit * size + 1e-5 * np.abs(expected).max() + least).all()


@storages
@pytest.mark.parametrize("name", [*CASES, "unpool", "branches"])
def test_every_layer(name, storage):
    if name == "quotient":
        pytest.skip("its quotients leave float16's range")
    net = filled({**CASES, "unpool": unpooling, "branches": branches}[name]())
    there, x = on("emulated", net, storage), images(net)
    names = ["input", *net.nodes]
    up = there.forward(x, keep=names, cache=True)
    read = {each for node in net.nodes.values() for each in node.inputs}
    np.testing.assert_array_equal(up.kept["input"], numbers(x, storage))
    layers, caches = {}, {}
    for node in net.nodes.values():
        layers[node.name] = weighted(node.layer, storage)
        y, caches[node.name] = layers[node.name].forward(numba, *(up.kept[each] for each in node.inputs), run=Run())
        expected = numbers(y, storage) if node.name in read or node.layer.short else y
        assert node.name not in read or (up.kept[node.name] == numbers(up.kept[node.name], storage)).all()
        terms = node.inputs if isinstance(node.layer, Add) else ()  # whose sums are rounded one by one
        near(up.kept[node.name], expected, sum((np.abs(up.kept[each]) for each in terms), np.abs(y)), storage)

    for rule in ("gradient", "deconvnet", "guided") if name in ("convolution", "sum", "max pool") else ("gradient",):
        signal = np.random.default_rng(2).standard_normal(up.output.shape).astype(np.float32)
        down = there.backward(up, signal, rule, keep=names)
        np.testing.assert_array_equal(down.input, down.kept["input"])
        parts = {net.output: [numbers(signal, storage)]}
        for node in reversed(net.nodes.values()):
            dxs, gradients = layers[node.name].backward(numba, down.kept[node.name], caches[node.name], get(rule))
            for each, array in gradients.items():
                found = down.gradients[f"{node.name}.{each}"]
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, array, rtol=0, atol=1e-5 * np.abs(array).max())
            for each, dx in zip(node.inputs, dxs, strict=True):
                if dx is not None:
                    parts.setdefault(each, []).append(numbers(dx, storage))
        assert set(parts) == set(down.kept)
        for each, several in parts.items():
            np.testing.assert_array_equal(down.kept[each], numbers(down.kept[each], storage))
            near(down.kept[each], sum(several[::-1]), len(several) * sum(map(np.abs, several)), storage)


@storages
def test_near_float32(storage):
    """A network's outputs: a rounding's error of each of a dozen tensors and of the weights before it, at most."""
    net = filled(branches())
    x = images(net, 4)
    plain, there = on("numba", net), on("emulated", net, storage)
    for to in ("norm1", "right", "joined", "mean", "fc"):
        expected = plain.forward(x, to=to).output
        error = np.abs(there.forward(x, to=to).output - expected).max()
        assert 0 < error <= 12 * STORAGES[storage][3] * np.abs(expected).max()
    found = there(x)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)  # probabilities, which nobody reads, are not rounded
    assert (found != numbers(found, storage)).any()


@storages
@pytest.mark.parametrize("precision", [None, "float32"])
def test_an_image_does_not_depend_on_its_batch(storage, precision):
    net = on("emulated", filled(branches()), storage, precision)
    x = images(net, 5)
    names = ("norm1", "sum", "joined", "fc")
    whole = net.forward(x, keep=names, cache=True)
    signal = np.ones_like(whole.output)
    down = net.backward(whole, signal, keep=names)
    for index in (0, 4):
        alone = net.forward(x[index:index + 1], keep=names, cache=True)
        below = net.backward(alone, signal[:1], keep=names)
        for each in names:
            np.testing.assert_array_equal(alone.kept[each][0], whole.kept[each][index])
            np.testing.assert_array_equal(below.kept[each][0], down.kept[each][index])
        np.testing.assert_array_equal(below.input[0], down.input[index])


def test_precisions(monkeypatch):
    """The storage's own by default; plain arithmetic where it is asked for; others are refused."""
    net = on("emulated", filled(branches()), "bfloat16")
    x = images(net)
    asked, launch = [], emulated.convolution_forward

    def watched(*arguments):
        asked.append(arguments[9] if len(arguments) > 9 else "float32")
        launch(*arguments)

    monkeypatch.setattr(emulated, "convolution_forward", watched)
    for precision, used in ((None, "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float32")):
        net.precision = precision
        assert net.precision == used
        net(x)
        assert set(asked) == {used}
        asked.clear()
    net.precision = "tf32"
    with pytest.raises(ValueError, match="precision is 'tf32'; allowed: 'float32' or 'bfloat16' with the storage 'bfl"):
        net(x)
    net.storage, net.precision = "float32", None
    assert net.precision == "float32"


@storages
def test_images_of_three_channels(storage, monkeypatch):
    """Convolved by four on tensor cores, the last one zero; gradients and signals have three."""
    seen, launch = [], emulated.convolution_forward

    def watched(*arguments):
        seen.append(arguments[1].shape[-1])
        launch(*arguments)

    monkeypatch.setattr(emulated, "convolution_forward", watched)
    results = {}
    for channels, precision, used in ((3, None, 4), (3, "float32", 3), (4, None, 4), (1, None, 1)):
        net = on("emulated", filled(chain(Convolution(8, 3, activation="relu"), Convolution(8, 3),
                                          shape=(9, 8, channels))), storage, precision)
        up = net.forward(images(net), cache=True)
        down = net.backward(up, np.ones_like(up.output))
        assert seen == [used, 8]
        assert down.input.shape == (2, 9, 8, channels)
        assert down.gradients["layer0.weight"].shape == (8, 3, 3, channels)
        assert down.gradients["layer0.weight"].flags.c_contiguous
        results[channels, precision] = up.output, down.input, down.gradients["layer0.weight"]
        seen.clear()
    for four, three in zip(results[3, None], results[3, "float32"], strict=True):
        np.testing.assert_allclose(four, three, rtol=0, atol=4 * STORAGES[storage][3] * np.abs(three).max())
    grouped = chain(Convolution(6, 3, groups=3), shape=(9, 8, 3))
    on("emulated", filled(grouped), storage)(images(grouped))
    assert seen == [3]


@storages
def test_dropout_drops_the_same(storage):
    """Masks know nothing of the storage; the kept values are scaled in float32 and rounded."""
    net = Network("drop", (5, 4, 3))
    net.add("drop", Dropout(0.4))
    net.add("relu", ReLU())
    x = np.abs(images(net)) + 1
    masks = [each.forward(x, keep=("drop",), training=True, seed=3, step=7).kept["drop"]
             for each in (on("emulated", net), on("emulated", net, storage))]
    np.testing.assert_array_equal(masks[0] == 0, masks[1] == 0)
    assert 0 < (masks[0] == 0).mean() < 1
    expected = ops.dropout(numbers(x, storage), 0.4, seed=layer_seed(3, "drop"), step=7)
    np.testing.assert_array_equal(masks[1], numbers(expected, storage))


@storages
def test_tensors_before_a_relu(storage):
    """Kept on the way up and down; a signal may enter there; also of layers that get float32."""
    for name in ("convolution", "transposed", "sum"):
        net = filled(CASES[name]())
        layer = next(node.name for node in net.nodes.values() if node.layer.activation)
        there, x, pre = on("emulated", net, storage), images(net), layer + ".pre"
        up = there.forward(x, keep=(pre, layer), to=layer, cache=True)
        np.testing.assert_allclose(np.maximum(up.kept[pre], 0), up.kept[layer], rtol=2 * STORAGES[storage][3])
        signal = numbers(np.random.default_rng(3).standard_normal(up.output.shape), storage)
        down = there.backward(up, {layer: signal, pre: signal}, keep=(pre,))
        expected = np.where(up.kept[layer] > 0, signal, 0) + signal
        np.testing.assert_allclose(down.kept[pre], expected, rtol=2 * STORAGES[storage][3])


def network(storage="bfloat16", backend="emulated"):
    net = Network("small", (8, 8, 1), scheme="he", backend=backend, storage=storage)
    net.add("conv1", Convolution(6, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(2))
    net.add("norm1", ResponseNorm(3))
    net.add("batch1", BatchNorm())
    net.add("flat", Flatten())
    net.add("fc2", Linear(24, activation="relu"))
    net.add("drop2", Dropout(0.1))
    net.add("fc3", Linear(10))
    return net.initialize(0)


def digits():
    from sklearn.datasets import load_digits

    source = load_digits()
    return (source.images[:320, :, :, None] / 8 - 1).astype(np.float32), source.target[:320]


def test_training():
    """Digits in bfloat16: the loss falls as float32's does, the parameters and their gradients stay float32."""
    x, labels = digits()
    losses, accuracies = {}, {}
    for storage in ("float32", "bfloat16"):
        net = network(storage, "emulated" if storage == "bfloat16" else "numba")
        history = fit(net, x, labels, epochs=4, batch_size=40, optimizer=SGD(learning_rate=0.05), progress=False,
                      validation=(x, labels))
        losses[storage] = [epoch.loss for epoch in history]
        accuracies[storage] = history[-1].validation.accuracy
        assert {backends.to_numpy(array).dtype for array in net.parameters().values()} == {np.dtype(np.float32)}
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"][-1] < 0.25 * losses["float32"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)
    assert abs(accuracies["bfloat16"] - accuracies["float32"]) <= 0.02


def test_float16_cannot_train():
    net, (x, labels) = network("float16"), digits()
    says = "storage is 'float16'; allowed: 'float32' or 'bfloat16': gradients below float16's range would vanish"
    for where, train in (("train_step", lambda: train_step(net, x[:4], labels[:4], SGD())),
                         ("CapturedStep", lambda: CapturedStep(net, SGD())),
                         ("Training", lambda: Training(net, ArrayFeed(x, labels), SGD()))):
        with pytest.raises(ValueError, match=f"{where}: {says}"):
            train()
    for storage in ("float16", "half"):
        with pytest.raises(ValueError, match=f"recipe: network.storage is '{storage}'; allowed: one of 'float32', 'b"):
            Recipe(network={"storage": storage})


def test_recipes():
    net = network("float32")
    Recipe(network={"storage": "bfloat16"}).prepare(net)
    assert (net.storage, net.precision) == ("bfloat16", "bfloat16")
    Recipe(network={"precision": "float32"}).prepare(net)
    assert (net.storage, net.precision) == ("bfloat16", "float32")
    Recipe(network={"storage": "float32", "precision": "tf32"}).prepare(net)
    assert (net.storage, net.precision) == ("float32", "tf32")
    Recipe(network={"storage": "bfloat16", "precision": "bfloat16"}).prepare(net)
    assert (net.storage, net.precision) == ("bfloat16", "bfloat16")
    with pytest.raises(ValueError, match="recipe: network: precision is 'tf32'; allowed: 'float32' or 'bfloat16' with"):
        Recipe(network={"storage": "bfloat16", "precision": "tf32"})


def test_the_command_line(tmp_path, monkeypatch, run):
    """A run that was resumed has the bits of one that was not; it goes on in its storage alone, on a device alone."""
    random = np.random.default_rng(0)
    for place, name in enumerate(("dark", "light")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(100 * place, 100 * place + 100, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    net = Network("tiny", (8, 8, 1), scheme="he", preprocessing=Preprocessing("L", mean=100.0, scale=1 / 64, size=8))
    for name, layer in (("conv1", Convolution(4, 3, activation="relu")), ("pool1", MaxPool(2)), ("flat", Flatten()),
                        ("fc2", Linear(2))):
        net.add(name, layer)
    safetensors.save(net.initialize(1), tmp_path / "tiny.safetensors")
    (tmp_path / "short.toml").write_text("batch_size = 4\n[network]\nstorage = 'bfloat16'\n[optimizer]\n"
                                         "kind = 'sgd'\nlearning_rate = 0.02\n")
    command = ["train", tmp_path / "tiny.safetensors", tmp_path / "pictures", "--recipe", tmp_path / "short.toml"]

    def refused(*words, says):
        code, _, error = run(*words)
        assert code == 2
        assert says in error.splitlines()[-1]

    monkeypatch.setenv("ZFCORE_BACKEND", "numba")
    refused(*command, "--out", tmp_path / "cpu", says="storage is 'bfloat16'; allowed: 'float32' on the backend")
    assert not (tmp_path / "cpu").exists()
    monkeypatch.setenv("ZFCORE_BACKEND", "emulated")
    assert run(*command, "--out", tmp_path / "whole", "--epochs", 3)[0] == 0
    assert run(*command, "--out", tmp_path / "parts", "--epochs", 1)[0] == 0
    resume = ["train", "--resume", "--out", tmp_path / "parts", "--epochs", 3]
    refused(*resume, "--set", "network.storage=float32", says="storage")
    assert run(*resume)[0] == 0
    whole, parts = (safetensors.load(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, array in whole.parameters().items():
        np.testing.assert_array_equal(parts.parameters()[name], array)
        assert array.dtype == np.float32
    assert (whole.parameters()["fc2.weight"] != net.parameters()["fc2.weight"]).any()
    assert whole.storage == "float32"
    refused(*command, "--out", tmp_path / "half", "--set", "network.storage=float16",
            says="recipe: network.storage is 'float16'; allowed: one of 'float32', 'bfloat16'")


def test_changed_parameters():
    """Weights are rounded in every walk, so that changes in place show; frozen networks keep them until they thaw."""
    net, (x, _) = network(), digits()
    before = net(x[:3])
    net.nodes["fc3"].layer.parameters["weight"] *= 2
    net.nodes["fc3"].layer.parameters["bias"] *= 2
    np.testing.assert_allclose(net(x[:3]), 2 * before, rtol=2.0**-7)
    up = net.forward(x[:3], cache=True)
    expected = net.backward(up, np.ones_like(up.output)).input
    net.nodes["conv1"].layer.parameters["weight"][:] = 0  # a walk down is that of its walk up
    np.testing.assert_array_equal(net.backward(up, np.ones_like(up.output)).input, expected)

    net = network().freeze()
    first = net(x[:3])
    kept = {name: entry[2] for name, entry in net._rounded.items()}
    assert list(kept) == ["conv1", "fc2", "fc3"]
    np.testing.assert_array_equal(net(x[:3]), first)
    assert all(net._rounded[name][2] is each for name, each in kept.items())
    net.storage = "float16"
    assert 0 < np.abs(net(x[:3]) - first).max() < 2.0**-7 * np.abs(first).max()
    assert copy.deepcopy(net)._rounded is None
    net.storage = "bfloat16"
    net(x[:3])
    layer = net.nodes["fc2"].layer
    own, layer.parameters["weight"] = layer.parameters["weight"], np.zeros_like(layer.parameters["weight"])
    assert (net(x[:3]) != first).any()  # another array than the one that was rounded
    layer.parameters["weight"] = own
    net.thaw()
    assert net._rounded is None
    net.nodes["fc3"].layer.parameters["weight"] *= 2
    net.nodes["fc3"].layer.parameters["bias"] *= 2
    np.testing.assert_allclose(net(x[:3]), 2 * first, rtol=2.0**-7)


def test_travels_with_copies_but_is_not_saved(tmp_path):
    net = network()
    net.precision = "float32"
    assert (net.at_size(12, 12, "norm1").storage, net.at_size(12, 12, "norm1").precision) == ("bfloat16", "float32")
    assert copy.deepcopy(net).storage == "bfloat16"
    safetensors.save(net, tmp_path / "net.safetensors")
    back = safetensors.load(tmp_path / "net.safetensors")
    assert (back.storage, back.precision) == ("float32", "float32")
    assert back.to_config() == net.to_config() == network("float32").to_config()
    for name, array in back.parameters().items():
        np.testing.assert_array_equal(array, net.parameters()[name])


def test_memory():
    """Tensors take half, the rounded weights come on top, parameters stay."""
    plain, net = network("float32").memory(64), network().memory(64)
    weights = 6 * 9 + 96 * 24 + 24 * 10
    assert net.parameters == plain.parameters
    assert net.cached - net.parameters == (plain.cached - plain.parameters) // 2 + 2 * weights
    assert net.forward - net.parameters == (plain.forward - plain.parameters) // 2  # at pool1, which has no weights
    plain, net = network("float32").memory(1), network().memory(1)
    assert net.forward - net.parameters == 2 * (96 + 24) + 2 * 96 * 24  # at fc2


def test_looking_inside_is_float32():
    net, x = on("emulated", filled(CASES["convolution"]()), "bfloat16"), None
    x = images(net)
    found, expected = (each.project(x, "layer0:3@2,2", allow_negative=True) for each in (net, on("emulated", net)))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.values, expected.values)


def test_what_is_refused():
    x = np.zeros((1, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="storage is 'bfloat16'; allowed: 'float32' on the backend 'numba'"):
        network(backend="numba")(x)
    with pytest.raises(ValueError, match="Training: .*allowed: 'float32' on the backend 'numba'|storage is 'bfloat16'"):
        Training(network(backend="numba"), ArrayFeed(*digits()), SGD())
    with pytest.raises(ValueError, match="storage is 'half'; allowed: one of 'float32', 'float16', 'bfloat16'"):
        network("half")
    with pytest.raises(ValueError, match="storage is 'tf32'; allowed"):
        network("tf32")
    with pytest.raises(ValueError, match="precision is 'float16'; allowed: 'float32' or 'bfloat16' with the storage"):
        Network("n", (3, 3, 1), storage="bfloat16", precision="float16")
    with pytest.raises(TypeError, match="dtype is 'float64'; allowed: float32 with the storage 'bfloat16'"):
        network()(x.astype(np.float64))
    with pytest.raises(TypeError, match="dtype is 'float64'; allowed: float32 with the storage 'bfloat16'"):
        network().astype(np.float64)(x)
    up = network().forward(x, cache=True)
    with pytest.raises(TypeError, match="dtype is 'float64'; allowed: float32 with the storage"):
        network().backward(up, np.zeros((1, 10)))
