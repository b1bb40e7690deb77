"""The first stage of a network by the fused chains: where it is taken, and the bits of the layers one by one."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import Network, backends, ops
from zfcore.geometry import Tile
from zfcore.layers import Convolution, Flatten, Linear, MaxPool, ResponseNorm
from zfcore.network import stages
from zfcore.rules import Rule
from zfcore.training import SGD, train_step

from .storage import BFLOAT16, FLOAT16, stored
from .test_convolution import integers

emulated, numba = backends.get("emulated"), backends.get("numba")
LAST = Rule("last", "deconvnet", "identity", "last")
CHAINS = {"convolution_pool", "unpool_filter"}


@pytest.fixture
def called(monkeypatch):
    """Names of the extension's functions that ran."""
    seen: set[str] = set()
    run = emulated._launchers._run

    def counting(name, *arguments):
        seen.add(name)
        run(name, *arguments)

    monkeypatch.setattr(emulated._launchers, "_run", counting)
    return seen


def network(first: Convolution, pool: MaxPool) -> Network:
    net = Network("small", (17, 16, 3), scheme="he", backend="emulated")
    net.add("conv1", first)
    net.add("pool1", pool)
    net.add("norm1", ResponseNorm(3))
    net.add("conv2", Convolution(4, 3, padding=1, activation="relu"))
    return net.initialize(0)


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 17, 16, 3)).astype(np.float32)


NETWORKS = [
    (Convolution(6, 3, padding=1, activation="relu"), MaxPool(3, 2, padding=1, ceil_mode=True)),
    (Convolution(6, 5, stride=2, padding=(2, 1, 0, 2), groups=3, bias=False, activation="relu"), MaxPool(2, 1)),
    (Convolution(6, 3, dilation=2), MaxPool((3, 2), 2)),
]


@pytest.mark.parametrize("layers", NETWORKS)
def test_up_and_down(layers, called, monkeypatch):
    """On crops that stick out and on whole images, under every rule; units above, and of the pooled map itself."""
    net, x = network(*layers), images()
    rules = ("deconvnet", "gradient", "guided", LAST)
    results = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(stages, "fused", lambda ops, nodes, keep: list(nodes))
        called.clear()
        results.append([net(x), net.features(x, ("pool1",))["pool1"]])
        assert ("convolution_pool" in called) is not plain
        for rule in rules:
            for unit, crops in (("conv2:1@0,1", (True, False)), ("conv2:3@3,2", (True,)), ("pool1:2@2,0", (True,))):
                for crop in crops:
                    called.clear()
                    results[-1].append(net.project(x, unit, rule, "one", crop=crop).pixels)
                    assert (called >= CHAINS, bool(called & CHAINS)) == ((False, False) if plain else (True, True))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sum(bool(each.any()) for each in results[0]) > len(results[0]) * 3 // 4


def test_units_of_one_place_share_their_way_up(called):
    """Several units on one tile: what is kept of the stage is shared, as of its layers."""
    net, x = network(*NETWORKS[0]), images(1)
    for rule in ("deconvnet", "gradient", "guided"):
        many = net.project(x, [f"conv2:{index}@2,2" for index in range(4)], rule, allow_negative=True)
        for index in range(4):
            alone = net.project(x, f"conv2:{index}@2,2", rule, allow_negative=True)
            np.testing.assert_array_equal(many.pixels[index], alone.pixels[0])


def test_where_the_middle_is_wanted(called):
    """Kept maps, gradients, a second reader: the layers one by one."""
    x = images(1)
    net = network(*NETWORKS[0])
    kept = net.forward(x, keep=("conv1", "conv2")).kept
    np.testing.assert_array_equal(kept["conv2"], net(x))
    called.clear()
    net.forward(x, keep=("conv1.pre",))
    net.project(x, "conv1:2")
    up = net.forward(x, cache=True)
    down = net.backward(up, {"conv1": np.ones((1, 17, 16, 6), np.float32)}, keep=("conv1",))
    assert down.kept["conv1"].shape == (1, 17, 16, 6)
    forked = Network("forked", (9, 9, 3), scheme="he", backend="emulated")
    forked.add("conv1", Convolution(4, 3, activation="relu"))
    forked.add("pool1", MaxPool(2))
    forked.add("other", Convolution(2, 3), "conv1")
    forked.initialize(0).forward(x[:, :9, :9], keep=("pool1",))
    assert not called & CHAINS
    assert net.forward(x).nodes == ("conv1", "pool1", "norm1", "conv2")
    assert "convolution_pool" in called


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "float16", "bfloat16"])
def test_networks_of_other_precisions(precision, called, monkeypatch):
    """Fused too, with the bits of the layers one by one in that precision."""
    net, x = network(*NETWORKS[0]), images()
    true, net.precision = net(x), precision
    called.clear()
    results = [net(x)]
    assert "convolution_pool" in called
    assert abs(results[0] - true).max() > 0
    monkeypatch.setattr(stages, "fused", lambda ops, nodes, keep: list(nodes))
    np.testing.assert_array_equal(net(x), results[0])


WAYS = [(storage, precision) for storage in ("float32", "float16", "bfloat16")
        for precision in ("float32", "tf32" if storage == "float32" else storage)]


@pytest.mark.parametrize("layers", NETWORKS)
@pytest.mark.parametrize(("storage", "precision"), WAYS)
def test_walks_for_gradients(layers, storage, precision, called):
    """Of parameters and pixels, under every rule: the bits of the layers one by one, and no map between is kept."""
    net, x = network(*layers), images()
    net.storage, net.precision = storage, precision
    called.clear()
    fused = net.forward(x, cache=True, fused=True, keep=("pool1",))
    assert "convolution_pool" in called and fused.nodes == ("conv1", "pool1", "norm1", "conv2")
    plain = net.forward(x, cache=True, keep=("pool1",))
    np.testing.assert_array_equal(fused.output, plain.output)
    np.testing.assert_array_equal(net(x), plain.output)
    np.testing.assert_array_equal(fused.kept["pool1"], plain.kept["pool1"])
    shape = (2, *net.shapes["conv1"])
    held = [getattr(value, "shape", None) for cache in fused.caches.values() for value in cache.values()]
    assert plain.kept["pool1"].shape in held and shape not in held
    signal = np.random.default_rng(2).standard_normal(plain.output.shape).astype(np.float32)
    for rule in ("gradient", "deconvnet", "guided", LAST):
        found, expected = (net.backward(up, {"conv2": signal, "pool1": plain.kept["pool1"]}, rule, keep=("pool1",))
                           for up in (fused, plain))
        assert list(found.gradients) == list(expected.gradients)
        for name, array in (found.gradients | found.kept | {"input": found.input}).items():
            np.testing.assert_array_equal(array, (expected.gradients | expected.kept | {"input": expected.input})[name])
    called.clear()
    below = net.backward(fused, signal, inputs=False)
    assert below.input is None and "unpool_filter" not in called
    expected = net.backward(plain, signal).gradients["conv1.weight"]
    np.testing.assert_array_equal(below.gradients["conv1.weight"], expected)
    assert "conv1.weight" not in net.backward(fused, signal, parameters=("conv2",)).gradients
    for name in ("conv1", "conv1.pre") if layers[0].activation else ("conv1",):
        with pytest.raises(ValueError, match=f"backward: keep is '{name}'; allowed: a tensor outside the fused stage"):
            net.backward(fused, signal, keep=(name,))
        with pytest.raises(ValueError, match="backward: signal is 'conv1'; allowed: one of 'pool1', 'norm1', 'conv2'"):
            net.backward(fused, {name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", [(), ("conv1",), ("pool1",)])
def test_training_steps(storage, frozen, called, monkeypatch):
    """The parameters and losses of the layers one by one."""
    results = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(stages, "fused", lambda ops, nodes, keep: list(nodes))
        net = network(*NETWORKS[0])
        net.add("flat", Flatten())
        net.add("fc3", Linear(5))
        net.storage, optimizer = storage, SGD(learning_rate=0.05, radius=0.1)
        net.initialize(0)
        called.clear()
        losses = [train_step(net, images(3) + step, np.array([0, 4, 2]), optimizer, frozen=frozen) for step in range(3)]
        assert ("convolution_pool" in called) is not plain
        results.append((losses, {name: array.copy() for name, array in net.parameters().items()}))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], array)
    moved = (results[0][1]["conv1.weight"] != network(*NETWORKS[0]).parameters()["conv1.weight"]).any()
    assert moved == ("conv1" not in frozen)


def test_large_windows(called):
    """Of more than 64 cells are not fused, whatever the storage."""
    net = network(Convolution(6, 3, activation="relu"), MaxPool(9, 2))
    for net.storage in ("float32", "bfloat16"):
        net(images())
    assert not called & CHAINS


@pytest.mark.parametrize(("precision", "short"), [
    *((name, False) for name in ("float32", "tf32", "tf32x3", "float16", "bfloat16")), ("float16", True),
    ("bfloat16", True)])
def test_operations_in_every_precision(precision, short, called):
    """The bits of the single operations; float32 signals that share a cell are added before they become 16 bits."""
    own = {"float16": FLOAT16, "bfloat16": BFLOAT16}.get(precision)
    generator = np.random.default_rng(5)

    def normal(*shape):
        array = generator.standard_normal(shape).astype(np.float32)
        if not short:
            return array
        return ops.Bfloat16(stored(array, own)) if precision == "bfloat16" else stored(array, own)

    x, weight, bias = normal(2, 12, 11, 4), normal(16, 3, 3, 4), normal(16)
    pool, run = {"window": 3, "stride": 2, "backend": emulated}, {"padding": 1, "precision": precision}
    fused = {"window": 3, "window_stride": 2, "backend": emulated, **run}
    maps = ops.convolution(x, weight, bias, activation="relu", backend=emulated, **run)
    expected = ops.max_pool(maps, **pool)
    called.clear()
    y, switches = ops.convolution_pool(x, weight, bias, activation="relu", **fused)
    assert type(y) is type(expected[0]) and called & CHAINS
    np.testing.assert_array_equal(bits(y), bits(expected[0]))
    np.testing.assert_array_equal(switches, expected[1])
    for overlap in ("sum", "last"):
        signal = normal(*y.shape)
        unpooled = ops.max_unpool(signal, switches, maps.shape, overlap=overlap, **pool)
        wanted = ops.convolution_input_gradient(ops.relu(unpooled, backend=emulated), weight, x.shape, backend=emulated,
                                                **run)
        called.clear()
        dx = ops.unpool_filter(signal, switches, weight, x.shape, maps.shape[1:3], overlap=overlap, rectify=True,
                               **fused)
        assert ("unpool_filter" in called) is not (own is not None and not short and overlap == "sum")
        assert type(dx) is type(x)
        np.testing.assert_array_equal(bits(dx), bits(wanted))
    with pytest.raises(ValueError, match="convolution_pool: precision is 'half'"):
        ops.convolution_pool(x, weight, window=3, precision="half", backend=emulated)
    with pytest.raises(ValueError, match="unpool_filter: precision is 'half'"):
        ops.unpool_filter(signal, switches, weight, x.shape, maps.shape[1:3], **{**fused, "precision": "half"})


def bits(array):
    return array.bits if isinstance(array, ops.Bfloat16) else array


@pytest.mark.parametrize("window", [3, 9])
def test_operations(window):
    """Every backend has both, fused or not; windows of more than 64 cells are not fused."""
    shapes = ((2, 14, 13, 3), (5, 3, 3, 3), 5)
    x, weight, bias = (integers(shape, np.float32, seed) for seed, shape in enumerate(shapes))
    sizes = {"window": window, "window_stride": 2, "padding": 1}
    results = []
    for backend in (emulated, numba):
        y, switches = ops.convolution_pool(x, weight, bias, activation="relu", ceil_mode=True, backend=backend, **sizes)
        results.append([y, switches, *(
            ops.unpool_filter(y - 20, switches, weight, x.shape, (14, 13), overlap=overlap, rectify=rectify,
                              backend=backend, **sizes)
            for overlap in ("sum", "last") for rectify in (True, False))])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    maps = ops.convolution(x, weight, bias, padding=1, activation="relu")
    np.testing.assert_array_equal(results[0][0], ops.max_pool(maps, window=window, stride=2, ceil_mode=True)[0])


def test_crops_and_refusals():
    x, weight = integers((2, 9, 9, 3), np.float32, 0), integers((4, 3, 3, 3), np.float32, 1)
    tile = Tile(np.array([[-2, 0], [1, 3]], np.int32), (8, 8))
    for backend in (emulated, numba):
        y, switches = ops.convolution_pool(x, weight, window=3, window_stride=2, tile=tile, backend=backend)
        maps = ops.clear_outside(ops.convolution(x, weight), tile)
        expected = ops.max_pool(maps, window=3, stride=2, tile=tile)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(switches, expected[1])
        for size, shape, error in (((7, 6), x.shape, "size is .*; allowed: .7, 7."),
                                   ((7, 7), (2, 9, 9, 4), "weight.shape")):
            with pytest.raises(ValueError, match=f"unpool_filter: {error}"):
                ops.unpool_filter(y, switches, weight, shape, size, window=3, window_stride=2, backend=backend)
        with pytest.raises(ValueError, match="unpool_filter: y.shape is"):
            ops.unpool_filter(y[:, 1:], switches[:, 1:], weight, x.shape, (7, 7), window=3, window_stride=2,
                              backend=backend)
        with pytest.raises(ValueError, match="convolution_pool: window is 17"):
            ops.convolution_pool(x, weight, window=17, backend=backend)
        with pytest.raises(ValueError, match="convolution_pool: padding is 2"):
            ops.convolution_pool(x, weight, window=3, window_padding=2, backend=backend)
