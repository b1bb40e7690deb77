"""Frozen networks: the same bits, refused changes, and nothing left behind."""

from __future__ import annotations

import contextlib
import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_nets
import stand_in

from zfcore import Network, Unit, backends, explain, set_num_threads
from zfcore.formats import safetensors
from zfcore.kernels import convolution, kept, winograd
from zfcore.layers import BatchNorm, Convolution, Flatten, Linear, MaxPool, ResponseNorm
from zfcore.network import unchanging
from zfcore.training import SGD, Training, fine_tuning, train_step


def network(seed: int = 0, algorithm: str = "auto") -> Network:
    """Every form of filters: sliding ones, Winograd's at both strides, groups, dilation, one channel a group."""
    net = Network("all", (37, 35, 3), scheme="he", algorithm=algorithm)
    net.add("conv1", Convolution(32, 5, stride=1, padding=2, activation="relu"))
    net.add("pool1", MaxPool(2, 2))
    net.add("norm1", ResponseNorm(3, 0.2, 0.75, 1.0))
    net.add("conv2", Convolution(32, 5, stride=2, padding=2, activation="relu"))
    net.add("conv3", Convolution(32, 3, padding=1, activation="relu"))
    net.add("conv4", Convolution(64, 3, padding=1, groups=2, activation="relu"))
    net.add("conv5", Convolution(64, 3, padding=1, groups=64))
    net.add("conv6", Convolution(12, 3, dilation=2, activation="relu"))
    net.add("flatten", Flatten())
    net.add("fc", Linear(7))
    return net.initialize(seed)


def images(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 37, 35, 3), dtype=np.float32)


def results(net: Network, x: np.ndarray) -> list[np.ndarray]:
    """Up, down with all gradients, projections under all rules on crops and on whole images."""
    forward = net.forward(x, keep=["conv3"], cache=True)
    backward = net.backward(forward, np.ones_like(forward.output))
    found = [forward.output, forward.kept["conv3"], backward.input, *backward.gradients.values()]
    for rule in ("deconvnet", "gradient", "guided"):
        for layer in ("conv2", "conv4"):
            units = [(image, Unit(layer, number, 3, 3)) for number in (0, 3) for image in range(len(x))]
            found.append(net.project(x, units, rule, seed="one", crop=rule != "guided", batch_size=3).pixels)
    return found


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.fixture(autouse=True)
def nothing_stays():
    gc.collect()
    before = kept.kept_bytes()
    yield
    gc.collect()
    assert kept.kept_bytes() == before


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_frozen_or_not_the_bits_are_the_same(algorithm: str) -> None:
    net = network(algorithm=algorithm)
    expected = {count: results(net, images(count)) for count in (1, 3)}
    net.freeze()
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            for count in (1, 3, 1):
                assert same(results(net, images(count)), expected[count])
    finally:
        set_num_threads(None)
    net.thaw()
    assert same(results(net, images(1)), expected[1])


def test_a_frozen_network_packs_no_filters_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    assert winograd.winograd_scheme("auto", (32, 3, 3, 32), (1, 1), (1, 1), 1, (9, 9)) is not None
    launched: list[str] = []
    for module in (convolution, winograd):
        def noted(kernel, *arguments, run=module.parallel, **keywords):
            launched.append(kernel.__name__)
            run(kernel, *arguments, **keywords)
        monkeypatch.setattr(module, "parallel", noted)

    def packings() -> set[str]:
        launched.clear()
        results(net, images(1))
        return {name for name in launched if name.startswith("_pack")}

    every = {"_pack_filters", "_pack_phase", "_pack_forward", "_pack_gradient"}
    assert packings() == packings() == every
    net.freeze()
    assert packings() == every
    assert packings() == set()
    net.thaw()
    assert packings() == every


def test_changed_after_thawing_the_results_are_the_changed_networks() -> None:
    net, other, x = network(), network(seed=5), images(2)
    net.freeze()
    results(net, x)
    net.thaw()
    for name, array in net.parameters().items():
        array[...] = other.parameters()[name]
    net.freeze()
    assert same(results(net, x), results(other, x))
    net.thaw().load_parameters(network(seed=6).parameters())
    assert same(results(net.freeze(), x), results(network(seed=6), x))


def test_what_changes_parameters_refuses_a_frozen_network() -> None:
    net = small_nets.classifier()
    x, labels = np.zeros((2, *net.input_shape), np.float32), np.zeros(2, np.int64)
    before = {name: array.copy() for name, array in net.parameters().items()}
    assert net.freeze() is net
    assert net.frozen
    net.freeze()  # twice is once
    for change in (lambda: train_step(net, x, labels, SGD(0.1)), lambda: net.initialize(1),
                   lambda: net.load_parameters(before), lambda: net.astype(np.float64),
                   lambda: Training(net, None, SGD(0.1)),  # type: ignore[arg-type]
                   lambda: fine_tuning.take(net, small_nets.classifier(seed=3))):
        with pytest.raises(ValueError, match=r"'classifier' is frozen; allowed: .* thaw\(\)"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        net.parameters()["conv1.weight"] *= 2
    assert all(np.array_equal(array, before[name]) for name, array in net.parameters().items())
    assert not net.thaw().frozen
    net.thaw()
    train_step(net, x, labels, SGD(0.1))
    assert not np.array_equal(net.parameters()["fc4.bias"], before["fc4.bias"])


def test_a_network_without_parameters_cannot_be_frozen() -> None:
    net = Network("empty", (8, 8, 3))
    net.add("conv1", Convolution(4, 3))
    with pytest.raises(ValueError, match="conv1 have no parameters yet"):
        net.freeze()
    assert not net.frozen
    with net.while_frozen():
        net.initialize(0)


def test_blocks_overlap_with_each_other_and_with_freeze() -> None:
    net = network()
    weight = net.parameters()["conv3.weight"]
    with net.while_frozen() as same_net:
        assert same_net is net
        assert not net.frozen  # that is for the user to say
        with net.while_frozen():
            assert not weight.flags.writeable
        assert not weight.flags.writeable
        net.freeze()
    assert not weight.flags.writeable
    with pytest.raises(RuntimeError), net.while_frozen():
        net.thaw()
        assert not weight.flags.writeable
        raise RuntimeError
    assert weight.flags.writeable


def test_threads_use_one_network_frozen_and_not() -> None:
    net, x = network(), images(1)
    expected = results(net, x)
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(3):
            if number % 2:
                with net.while_frozen():
                    found = results(net, x)
            else:
                found = results(net, x)
            if not same(found, expected):
                wrong.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not wrong
    assert all(array.flags.writeable for array in net.parameters().values())


def test_another_size_of_a_frozen_network_shares_its_arrays_and_forms() -> None:
    net = network()
    x = np.random.default_rng(2).standard_normal((1, 50, 44, 3), dtype=np.float32)
    other = net.at_size(50, 44, "conv6")
    expected = other(x)
    before = kept.kept_bytes()
    net.freeze()
    for each in (other, net.at_size(50, 44, "conv6")):
        np.testing.assert_array_equal(each(x), expected)
        assert not each.frozen  # it may be given parameters of its own
    assert kept.kept_bytes() > before
    other.initialize(3)
    assert not np.array_equal(other(x), expected)
    assert net.thaw().at_size(50, 44, "conv6").parameters()["conv3.weight"].flags.writeable


def test_a_network_that_dies_frozen_leaves_its_arrays_as_they_were() -> None:
    net = network().freeze()
    weight = net.parameters()["conv3.weight"]
    net(images(1))
    del net
    gc.collect()
    weight *= 2


def test_copies_are_not_frozen() -> None:
    net, x = network(), images(1)
    expected = net.freeze()(x)
    other = copy.deepcopy(net)
    assert net.frozen
    assert not other.frozen
    np.testing.assert_array_equal(other(x), expected)
    for array in other.parameters().values():
        assert array.flags.writeable
        array *= 0
    np.testing.assert_array_equal(net(x), expected)


def test_saved_files_are_the_same(tmp_path) -> None:
    net = small_nets.classifier()
    safetensors.save(net, tmp_path / "thawed.safetensors")
    safetensors.save(net.freeze(), tmp_path / "frozen.safetensors")
    assert (tmp_path / "thawed.safetensors").read_bytes() == (tmp_path / "frozen.safetensors").read_bytes()
    assert not safetensors.load(tmp_path / "frozen.safetensors").frozen


def test_arrays_put_in_place_of_frozen_ones_are_read_as_they_are() -> None:
    net, other, x = network(), network(seed=5), images(1)
    net.freeze()
    net(x)
    for node in net.nodes.values():
        node.layer.parameters = {key: array.copy() for key, array in other.nodes[node.name].layer.parameters.items()}
    np.testing.assert_array_equal(net(x), other(x))


def test_batch_norm_in_training_refuses_and_at_inference_serves() -> None:
    net = Network("norm", (9, 9, 3))
    net.add("conv1", Convolution(4, 3))
    net.add("norm1", BatchNorm())
    net.initialize(0).freeze()
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 3), dtype=np.float32)
    assert net(x).shape == (2, 7, 7, 4)
    with pytest.raises(ValueError, match="read-only|writeable"):
        net.forward(x, training=True)


def test_work_of_many_passes_freezes_by_itself_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_nets.classifier()
    x = np.random.default_rng(0).standard_normal((3, *net.input_shape), dtype=np.float32)
    begun: list[bool] = []
    block = Network.while_frozen

    @contextlib.contextmanager
    def noted(self, wanted=True):
        with block(self, wanted) as held:
            if any(not array.flags.writeable for array in held.parameters().values()):
                begun.append(True)
            yield held

    monkeypatch.setattr(Network, "while_frozen", noted)
    for work in (lambda: explain.occlusion(net, x[:1], window=9, stride=9),
                 lambda: explain.smoothgrad(network=net, x=x[:1], samples=2),
                 lambda: explain.gradient(net, x, batch_size=1),
                 lambda: explain.ascent(net, 1, steps=2),
                 lambda: explain.inversion(net, x[:1], "conv2", steps=2),
                 lambda: explain.adversarial(net, x[:1], steps=1),
                 lambda: net.project(x, "conv2:3", batch_size=1, seed="one")):
        begun.clear()
        work()
        assert begun
        assert all(array.flags.writeable for array in net.parameters().values())
    begun.clear()
    explain.gradient(net, x)  # one pass
    assert not begun


def test_a_function_that_is_given_no_network_says_so_itself() -> None:
    @unchanging
    def pick(network: object, number: int) -> tuple[object, int]:
        """Both."""
        return network, number

    assert pick(3, number=4) == (3, 4)
    assert pick.__doc__ == "Both."
    net = small_nets.pooled()
    assert pick(network=net, number=1) == (net, 1)


@pytest.mark.skipif(backends.why_not("emulated") is not None, reason="the emulated kernels are not built")
def test_other_backends_do_not_mind() -> None:
    x = np.random.default_rng(0).standard_normal((1, 20, 23, 3), dtype=np.float32)
    net = small_nets.classifier()
    net._backend = "emulated"
    expected = net(x)
    np.testing.assert_array_equal(net.freeze()(x), expected)
    with stand_in.installed():
        device = small_nets.classifier()
        device._backend = "cuda"
        device.freeze()
        assert device.frozen
        np.testing.assert_array_equal(device(x), expected)
        with device.while_frozen():
            np.testing.assert_array_equal(device(x), expected)
        with pytest.raises(ValueError, match="frozen"):
            train_step(device, x, np.zeros(1, np.int64), SGD(0.1))
        train_step(device.thaw(), x, np.zeros(1, np.int64), SGD(0.1))
