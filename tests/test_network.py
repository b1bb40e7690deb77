"""The graph: adding, walking, what is kept, parameters, promises D1 and D2, bad inputs."""

from __future__ import annotations

import json
import threading
import tracemalloc

import numpy as np
import pytest
from architectures import images, random_network

from zfcore import Network, layers
from zfcore.kernels.threads import set_num_threads


def small() -> Network:
    net = Network("small", (12, 11, 2), class_names=["a", "b", "c"])
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("side", layers.Convolution(4, 1), "pool1")
    net.add("sum", layers.Add(activation="relu"), ["pool1", "side"])
    net.add("flatten", layers.Flatten())
    net.add("drop", layers.Dropout(0.5))
    net.add("fc2", layers.Linear(3))
    net.add("prob", layers.Softmax())
    return net.initialize(0, "he")


@pytest.fixture(scope="module")
def net() -> Network:
    return small()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 12, 11, 2)).astype(np.float32)


def test_shapes_names_and_table(net: Network) -> None:
    assert net.output == "prob" and net.logits == "fc2"
    assert net.tensor_shape("pool1") == (5, 4, 4) and net.tensor_shape("conv1.pre") == (10, 9, 4)
    rows = {row.name: row for row in net.layers()}
    assert rows["sum"].inputs == ("pool1", "side")
    assert rows["conv1"].parameters == 4 * 9 * 2 + 4
    assert rows["side"].multiply_adds == 5 * 4 * 4 * 4 and rows["fc2"].multiply_adds == 240
    assert rows["sum"].receptive_field.size == (5, 5)
    assert sum(row.parameters for row in rows.values()) == net.parameter_count
    text = str(net)
    assert "conv1" in text and "10x9x4" in text and "small" in text
    assert net.multiply_adds(3)["fc2"] == 720
    memory = net.memory(2)
    assert memory.parameters == 4 * net.parameter_count
    assert memory.parameters < memory.forward < memory.cached
    assert net.memory(4).cached - memory.parameters == 2 * (memory.cached - memory.parameters)


def test_kept_tensors_are_those_of_a_plain_pass(net: Network, x: np.ndarray) -> None:
    names = ["input", "conv1", "conv1.pre", "pool1", "sum.pre", "sum", "fc2", "prob"]
    kept = net.forward(x, keep=names).kept
    assert set(kept) == set(names)
    for name in names[1:]:
        np.testing.assert_array_equal(net.forward(x, to=name).output, kept[name])
        np.testing.assert_array_equal(net.features(x, [name])[name], kept[name])
    np.testing.assert_array_equal(np.maximum(kept["conv1.pre"], 0), kept["conv1"])
    np.testing.assert_array_equal(net(x), kept["prob"])
    np.testing.assert_allclose(net(x).sum(axis=1), 1, rtol=1e-6)
    assert net.forward(x).kept == {} and net.forward(x).caches == {}


def test_layers_above_are_not_run(net: Network, x: np.ndarray) -> None:
    assert net.forward(x, to="pool1").nodes == ("conv1", "pool1")
    broken = small()
    del broken.nodes["fc2"].layer.parameters["weight"]
    broken.nodes["fc2"].layer.parameters = {}
    broken.features(x, ["sum"])
    with pytest.raises(ValueError, match="fc2 have no parameters yet: call initialize"):
        broken(x)


def test_unneeded_tensors_are_let_go() -> None:
    """A deep chain's peak is a few tensors, not all of them."""
    net = Network("deep", (64, 64, 8))
    for number in range(12):
        net.add(f"relu{number}", layers.ReLU())
    x = np.zeros((8, 64, 64, 8), np.float32)
    net(x)
    tracemalloc.start()
    net(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * x.nbytes
    estimate = net.memory(8)
    assert estimate.forward == 2 * x.nbytes and estimate.cached == 13 * x.nbytes


def test_same_bits_again_and_for_any_batch_and_threads(net: Network, x: np.ndarray) -> None:
    def walk(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        forward = net.forward(part, cache=True)
        signal = np.ones_like(forward.output) * np.array([1, -2, 3], np.float32)
        return forward.output, net.backward(forward, signal, parameters=False).input

    together = walk(x)
    again = walk(x)
    try:
        set_num_threads(1)
        single = walk(x)
        set_num_threads(3)
        three = walk(x)
    finally:
        set_num_threads(None)
    alone = [walk(x[i:i + 1]) for i in range(len(x))]
    for place in range(2):
        for other in (again, single, three):
            np.testing.assert_array_equal(together[place], other[place])
        np.testing.assert_array_equal(together[place], np.concatenate([item[place] for item in alone]))
        reverse = walk(x[::-1])[place]
        np.testing.assert_array_equal(together[place], reverse[::-1])


def test_parameter_gradients_are_the_same_bits_for_any_threads(net: Network, x: np.ndarray) -> None:
    def gradients() -> dict[str, np.ndarray]:
        forward = net.forward(x, cache=True, training=True, step=3)
        return net.backward(forward, np.ones_like(forward.output), inputs=False).gradients

    expected = gradients()
    assert set(expected) == set(net.parameters())
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            for key, value in gradients().items():
                np.testing.assert_array_equal(value, expected[key])
    finally:
        set_num_threads(None)


def test_dropout_is_drawn_by_step_seed_and_layer() -> None:
    net = Network("drops", (4, 4, 8))
    net.add("a", layers.Dropout(0.5))
    net.add("b", layers.Dropout(0.5), "input")
    net.add("both", layers.Concat(), ["a", "b"])
    x = np.ones((3, 4, 4, 8), np.float32)

    def drawn(**options: int) -> np.ndarray:
        return net.forward(x, training=True, **options).output

    np.testing.assert_array_equal(drawn(step=1), drawn(step=1))
    assert not np.array_equal(drawn(step=1), drawn(step=2))
    assert not np.array_equal(drawn(step=1), drawn(step=1, seed=1))
    assert not np.array_equal(drawn()[..., :8], drawn()[..., 8:])
    assert (net(x) == 1).all()
    forward = net.forward(x, cache=True, training=True)
    signal = np.ones_like(forward.output)
    dropped = net.backward(forward, signal).input
    np.testing.assert_array_equal(dropped, forward.output[..., :8] + forward.output[..., 8:])


def test_several_python_threads(net: Network, x: np.ndarray) -> None:
    expected = net(x)
    results: list[bool] = []

    def work() -> None:
        results.extend(np.array_equal(net(x), expected) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 12


def test_empty_batch(net: Network) -> None:
    empty = np.zeros((0, 12, 11, 2), np.float32)
    forward = net.forward(empty, cache=True)
    assert forward.output.shape == (0, 3)
    found = net.backward(forward, np.zeros((0, 3), np.float32))
    assert found.input.shape == empty.shape and not found.gradients["conv1.weight"].any()


def test_inputs_are_not_changed(net: Network, x: np.ndarray) -> None:
    before = x.copy()
    forward = net.forward(x, cache=True, keep=["conv1", "sum"])
    signal = np.ones_like(forward.output)
    net.backward(forward, signal, "deconvnet" if forward.tensor == "fc2" else "gradient")
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(signal, 1)
    # Walking down twice gives the same: nothing accumulates.
    first, second = (net.backward(forward, signal).gradients["conv1.weight"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_non_contiguous_images(net: Network, x: np.ndarray) -> None:
    strided = np.asfortranarray(x)
    np.testing.assert_array_equal(net(strided), net(x))
    np.testing.assert_array_equal(net(x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)), net(x))


def test_configuration_builds_the_same_network(x: np.ndarray) -> None:
    net = small()
    again = Network.from_config(json.loads(json.dumps(net.to_config())))
    again.load_parameters(net.parameters())
    np.testing.assert_array_equal(again(x), net(x))
    assert str(again) == str(net) and again.class_names == ["a", "b", "c"]
    for seed in range(20):
        other, rng = random_network(seed)
        twin = Network.from_config(json.loads(json.dumps(other.to_config()))).load_parameters(other.parameters())
        pixels = images(other, rng, 1)
        np.testing.assert_array_equal(other(pixels), twin(pixels))


def test_loaded_parameters_are_copies_and_mismatches_are_all_listed(net: Network) -> None:
    other = small()
    values = {key: value.copy() for key, value in net.parameters().items()}
    other.load_parameters(values)
    values["conv1.bias"][:] = 7
    assert not other.parameters()["conv1.bias"].any()
    before = other.parameters()["fc2.weight"].copy()
    wrong = dict(values)
    del wrong["conv1.weight"], wrong["fc2.bias"]
    wrong |= {"conv9.weight": np.zeros(3), "side.bias": np.zeros(5), "fc2.weight": np.zeros((3, 100))}
    with pytest.raises(ValueError) as caught:
        other.load_parameters(wrong)
    for part in ("missing: conv1.weight, fc2.bias", "unexpected: conv9.weight", "side.bias (5,) instead of (4,)"):
        assert part in str(caught.value)
    np.testing.assert_array_equal(other.parameters()["fc2.weight"], before)


def test_unknown_layers_are_answered_with_the_valid_names(net: Network, x: np.ndarray) -> None:
    for call in (lambda: net.forward(x, keep=["conv7"]), lambda: net.forward(x, to="conv7"),
                 lambda: net.features(x, ["conv7"]), lambda: net.cone("conv7"), lambda: net.tensor_shape("conv7.pre"),
                 lambda: net.project(x, "conv7:0"), lambda: net.unit("conv7:0")):
        with pytest.raises(ValueError, match="'conv7.*allowed: one of conv1, pool1, side, sum"):
            call()
    with pytest.raises(ValueError, match="pool1.pre.*no fused ReLU"):
        net.forward(x, keep=["pool1.pre"])


def test_bad_images(net: Network, x: np.ndarray) -> None:
    for bad, error in ((x[0], ValueError), (x[:, :-1], ValueError), (x.astype(np.float16), TypeError),
                       (x.astype(np.uint8), TypeError), ([[1.0]], TypeError), (x.transpose(0, 3, 1, 2), ValueError)):
        with pytest.raises(error, match="x"):
            net(bad)
    with pytest.raises(TypeError, match="dtype"):
        net(x.astype(np.float64))  # the parameters are float32


def test_bad_walks_down(net: Network, x: np.ndarray) -> None:
    forward = net.forward(x, cache=True)
    with pytest.raises(ValueError, match="cache=True"):
        net.backward(net.forward(x), np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        net.backward(forward, np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="rule"):
        net.backward(forward, np.ones((5, 3), np.float32), "deconv")
    with pytest.raises(ValueError, match="parameters"):
        net.backward(forward, np.ones((5, 3), np.float32), parameters=["nothing"])
    below = net.forward(x, to="pool1", cache=True)
    with pytest.raises(ValueError, match="'sum'"):
        net.backward(below, {"sum": np.ones((5, 5, 4, 4), np.float32)})


def test_bad_graphs() -> None:
    net = Network("bad", (8, 8, 3))
    shared = layers.ReLU()
    net.add("relu", shared)
    for name in ("relu", "input", "", "a b", "a:1", "a@1", "x.pre", "-x", 3, "ä", "../x", "n" * 201):
        with pytest.raises(ValueError, match="name"):
            net.add(name, layers.ReLU())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not hold yet"):
        net.add("again", shared)
    with pytest.raises(ValueError, match="inputs is 'nothing'"):
        net.add("conv", layers.Convolution(2, 3), "nothing")
    with pytest.raises(ValueError, match="inputs"):
        net.add("sum", layers.Add(), ["relu"])
    with pytest.raises(ValueError, match="inputs"):
        net.add("conv", layers.Convolution(2, 3), ["relu", "input"])
    with pytest.raises(ValueError, match="layer"):
        net.add("conv", layers.Convolution)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 'conv': Convolution: window is 9"):
        net.add("conv", layers.Convolution(2, 9))
    with pytest.raises(ValueError, match=r"layer 'fc': .*2\*\*31"):
        net.add("fc", layers.Convolution(2**30, 3))
    assert list(net.nodes) == ["relu"]  # nothing half added
    for shape in ((8, 8), (8, 8, 0), (8, 8, "3"), None, 8, (2**16, 2**16, 3)):
        with pytest.raises((ValueError, TypeError), match="input_shape"):
            Network("bad", shape)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scheme"):
        Network("bad", (8, 8, 3), scheme="xavier")


@pytest.mark.parametrize("change", [
    {"format": 2}, {"layers": None}, {"layers": [3]}, {"layers": [{"name": "a", "inputs": ["input"]}]},
    {"layers": [{"name": "a", "inputs": ["b"], "type": "ReLU"}]}, {"input_shape": None}, {"input_shape": [1, 2]},
    {"layers": [{"name": "a", "inputs": 3, "type": "ReLU"}]},
    {"layers": [{"name": ["a"], "inputs": [], "type": "ReLU"}]},
    {"layers": [{"name": "a", "inputs": [["input"]], "type": "ReLU"}]}, {"class_names": 3}, {"scheme": "x"},
    {"preprocessing": {"channels": "X"}}, {"preprocessing": 3}, {"input_shape": [10**6, 10**6, 10**6]},
    {"layers": [{"name": "a", "inputs": ["input"], "type": "Convolution", "filters": 10**12, "window": 3}]},
    {"scheme": ["zf"]}, {"scheme": {}},
])
def test_bad_configurations_are_value_errors(change: dict[str, object]) -> None:
    config = {**small().to_config(), **change}
    with pytest.raises(ValueError):
        Network.from_config(config)
    with pytest.raises(ValueError, match="format"):
        Network.from_config([])
