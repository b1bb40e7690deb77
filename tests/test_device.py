"""The CUDA backend on a stand-in for CuPy and the emulated kernels: whole ways run there, copies at the edges only.

Skipped where the emulated kernels are not built (make emulated). Nothing here has seen a GPU.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import stand_in

from zfcore import Network, backends, explain, ops
from zfcore.data import Arrays
from zfcore.formats import safetensors
from zfcore.geometry import Tile
from zfcore.layers import (
    AveragePool,
    BatchNorm,
    ContrastNorm,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    ResponseNorm,
    Softmax,
)
from zfcore.preprocessing import Preprocessing
from zfcore.study.occlusion import occlusion
from zfcore.study.scan import scan
from zfcore.training import SGD, Adam, evaluate, train_step

if backends.why_not("emulated"):
    pytest.skip("the emulated kernels are not built (make emulated)", allow_module_level=True)


@pytest.fixture
def cuda():
    with stand_in.installed() as backend:
        stand_in.copies.clear()
        yield backend


def network(backend: str) -> Network:
    """Every kind of layer that the papers' networks have, and batch norm."""
    net = Network("small", (17, 15, 3), scheme="he", backend=backend,
                  preprocessing=Preprocessing(size=(17, 15), mean=[100, 110, 120]))
    net.add("conv1", Convolution(6, 3, stride=2, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(5, 3, padding=1, groups=1, bias=False))
    net.add("batch2", BatchNorm())
    net.add("local2", ContrastNorm(3))
    net.add("mean2", AveragePool(2, 1))
    net.add("flat", Flatten())
    net.add("fc3", Linear(7, activation="relu"))
    net.add("drop3", Dropout(0.5))
    net.add("fc4", Linear(4))
    net.add("softmax", Softmax())
    return net.initialize(3)


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 17, 15, 3), np.uint8)


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 17, 15, 3)).astype(np.float32)


def same(one, other) -> None:
    """Bit for bit, both on the host."""
    assert type(one) is np.ndarray
    np.testing.assert_array_equal(one, other)


def test_the_same_names_and_parameters(cuda):
    for name, function in vars(backends.get("emulated")).items():
        if inspect.isroutine(function) and not name.startswith("_") and name not in ("Launchers", "load"):
            given = list(inspect.signature(getattr(cuda, name)).parameters)
            assert given == list(inspect.signature(function).parameters), name


def test_a_training_step_copies_at_its_edges(cuda):
    """Images and labels up, losses and probabilities down; what is on the device stays there."""
    labels = np.array([0, 3, 1])
    results = []
    for name in ("emulated", "cuda"):
        for optimizer in (SGD(learning_rate=0.1, decay=1e-3, radius=0.1), Adam()):
            net = network(name)
            net.parameters()
            for step in range(2):
                stand_in.copies.clear()
                loss, hits = train_step(net, images(), labels, optimizer, seed=5, step=step)
            moved = dict(stand_in.copies)
            parameters = {key: backends.to_numpy(array) for key, array in net.parameters().items()}
            results.append((loss, hits, parameters))
        assert moved == ({} if name == "emulated" else {"up": 2, "down": 2, "read": moved["read"]})
    assert moved["read"] <= 6  # the labels' range, no row of -inf: single values
    for (loss, hits, parameters), (others_loss, others_hits, others) in zip(results[:2], results[2:], strict=True):
        assert (loss, hits) == (others_loss, others_hits)
        for key, array in parameters.items():
            same(others[key], array)


def test_what_comes_back_is_of_the_callers_kind(cuda):
    net, twin, x = network("cuda"), network("emulated"), images()
    up, expected = (each.forward(x, keep=("conv2", "norm1"), cache=True) for each in (net, twin))
    same(up.output, expected.output)
    for name, array in expected.kept.items():
        same(up.kept[name], array)
    signal = np.ones_like(up.output)
    down, wanted = (each.backward(f, signal, keep=("pool1",)) for each, f in ((net, up), (twin, expected)))
    same(down.input, wanted.input)
    for name, array in (*wanted.gradients.items(), *wanted.kept.items()):
        same((down.gradients | down.kept)[name], array)
    there = net.forward(cuda.asarray(x)).output
    assert isinstance(there, stand_in.ndarray)
    same(cuda.to_numpy(there), expected.output)
    with pytest.raises(TypeError, match="x is 'an array of cupy'; allowed: numpy or numpy"):
        twin.forward(cuda.asarray(x))


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_tensors_of_sixteen_bits(cuda, storage):
    """On the device they stay, and no more is copied; what comes back is float32, of the caller's kind."""
    x, results = images(), []
    for name in ("emulated", "cuda"):
        net = network(name)
        net.storage = storage
        net.parameters()
        stand_in.copies.clear()
        up = net.forward(x, keep=("conv2", "norm1"), cache=True, to="fc4")
        down = net.backward(up, np.ones_like(up.output), keep=("pool1",))
        results.append({"output": up.output, "input": down.input, **up.kept, **down.kept, **down.gradients})
        if name == "cuda":
            assert stand_in.copies == {"up": 2, "down": len(results[1]), "read": 3}  # of batch norm: its variance
    for name, array in results[0].items():
        assert array.dtype == np.float32
        same(results[1][name], array)
    there = net.forward(cuda.asarray(x), to="fc4").output
    assert isinstance(there, stand_in.ndarray)
    same(cuda.to_numpy(there), results[1]["output"])
    if storage == "bfloat16":
        loss, _ = train_step(net, x, np.array([0, 3, 1]), SGD(learning_rate=0.1))
        assert loss == train_step(network_in(storage), x, np.array([0, 3, 1]), SGD(learning_rate=0.1))[0]


def network_in(storage: str) -> Network:
    net = network("emulated")
    net.storage = storage
    return net


@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
def test_projections(cuda, rule):
    """A batch of tiles goes up, pixels and values come down; besides them only where the units lie."""
    units = [(0, "conv2:1@1,2"), (2, "conv2:3@3,0"), (1, "conv2:0@2,2")]
    results = []
    for name in ("emulated", "cuda"):
        net = network(name)
        net.parameters()
        for crop in (True, False):
            stand_in.copies.clear()
            results.append(net.project(images(), units, rule, crop=crop, allow_negative=True))
            if name == "cuda":
                moved = stand_in.copies
                assert moved["down"] == 2
                assert moved["read"] == 0
                # tiles, places, maps; on crops the borders of each tensor's tiles, a few numbers a unit
                assert moved["up"] <= (12 if crop else 2)
    for one, other in zip(results[:2], results[2:], strict=True):
        same(other.pixels, one.pixels)
        same(other.values, one.values)
    assert np.abs(results[0].pixels).max() > 0
    found = [network(name).project(images(1), "conv1:2", rule) for name in ("emulated", "cuda")]
    assert found[0].units == found[1].units
    same(found[1].pixels, found[0].pixels)


def test_an_atlas(cuda):
    atlases = []
    for name in ("emulated", "cuda"):
        net = network(name)
        net.parameters()
        stand_in.copies.clear()
        atlases.append(scan(net, Arrays(pictures(5)), ["conv1", "conv2", "fc3"], top=2, batch_size=3, progress=False))
        if name == "cuda":
            # Two batches: images up; maxima, places and the vector's values down; the lowest variance looked at.
            # The parameters once, for the hash that an atlas keeps.
            assert stand_in.copies == {"up": 2, "down": 2 * 5 + len(net.parameters()), "read": 2}
    for layer, top in atlases[0].layers.items():
        same(atlases[1].layers[layer].values, top.values)
        same(np.asarray(atlases[1].layers[layer].patches), np.asarray(top.patches))


@pytest.mark.parametrize("method", ["saliency", "gradcam", "guided"])
def test_attributions(cuda, method):
    options = {"layer": "conv1"} if method == "gradcam" else {}
    maps = [getattr(explain, method)(network(name), images(2), [1, 3], **options).values
            for name in ("emulated", "cuda")]
    same(maps[1], maps[0])


def test_occlusion(cuda):
    """Only what a change can reach is computed, on the device too."""
    found = [occlusion(network(name), pictures(1)[0], "conv1", window=8, stride=6, batch_size=4)
             for name in ("emulated", "cuda")]
    same(found[1].activity, found[0].activity)
    same(found[1].probability, found[0].probability)


def test_evaluation_and_files(cuda, tmp_path):
    results, hashes = [], []
    for name in ("emulated", "cuda"):
        net = network(name)
        results.append(evaluate(net, pictures(), [0, 1, 2], batch_size=2))
        safetensors.save(net, tmp_path / f"{name}.safetensors")
        hashes.append((tmp_path / f"{name}.safetensors").read_bytes())
    assert results[0].loss == results[1].loss
    assert hashes[0] == hashes[1]


def test_cam(cuda):
    maps = []
    for name in ("emulated", "cuda"):
        net = Network("gap", (9, 9, 2), scheme="he", backend=name)
        net.add("conv1", Convolution(4, 3, activation="relu"))
        net.add("gap", GlobalAveragePool())
        net.add("fc", Linear(3))
        x = np.random.default_rng(2).standard_normal((2, 9, 9, 2)).astype(np.float32)
        maps.append(explain.cam(net.initialize(0), x, [0, 2]).values)
    same(maps[1], maps[0])


def test_choosing(cuda, monkeypatch):
    x = cuda.zeros((1, 2, 2, 1), np.float32)
    assert backends.of(x) is cuda
    assert backends.of(np.zeros(1)).name == "numba"
    assert isinstance(ops.relu(x), stand_in.ndarray)
    assert backends.for_device("cuda") == backends.for_device("auto") == "cuda"
    backends.use("cuda")
    assert backends.default() == "cuda"
    assert backends.of(np.zeros(1)).name == "numba"  # NumPy's arrays are the CPU's
    assert Network("n", (3, 3, 1)).ops.backend is cuda
    backends.use(backends.for_device("cpu"))
    assert backends.default() != "cuda"
    monkeypatch.setenv("ZFCORE_BACKEND", "cuda")
    assert backends.default() == "cuda"
    assert backends.for_device("auto") is None
    assert backends.for_device("cpu") == "numba"


def test_arrays_in_two_places_are_refused(cuda):
    x, weight = np.ones((1, 3, 3, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(TypeError, match="x on the CPU, weight on the GPU"):
        ops.convolution(x, cuda.asarray(weight))
    with pytest.raises(TypeError, match="arrays are of cupy; allowed: of numpy"):
        ops.relu(cuda.asarray(x), backend=backends.get("numba"))
    same(ops.bind("cuda").convolution(x, weight), x)  # bound, the host's arrays go there and back


def test_in_place(cuda):
    weight, velocity = (cuda.asarray(np.ones((2, 3), np.float32)) for _ in range(2))
    ops.sgd_step(weight, velocity, cuda.asarray(np.ones((2, 3), np.float32)), learning_rate=0.5)
    same(cuda.to_numpy(weight), np.full((2, 3), 0.5, np.float32))
    with pytest.raises(TypeError, match="arrays are of numpy; allowed: of cupy"):
        ops.renormalize_filters(np.ones((2, 3), np.float32), 1.0, backend=cuda)
    with pytest.raises(ValueError, match="shares memory"):
        ops.sgd_step(weight, weight, velocity, learning_rate=0.5)


def test_switches(cuda):
    """Bad ones are an error on the device too; those of a pooling layer are trusted, and nothing waits."""
    x = cuda.asarray(np.ones((1, 6, 6, 2), np.float32))
    y, switches = ops.max_pool(x, window=3, stride=2)
    flat = ops.switches_to_flat(switches, x.shape, window=3, stride=2)
    stand_in.copies.clear()
    again = ops.switches_from_flat(flat, x.shape, window=3, stride=2)
    same(cuda.to_numpy(ops.switches_to_flat(again, x.shape, window=3, stride=2)), cuda.to_numpy(flat))
    same(cuda.to_numpy(ops.pool_at(x, switches, window=3, stride=2)), cuda.to_numpy(y))
    same(cuda.to_numpy(again), cuda.to_numpy(switches))
    assert stand_in.copies["down"] == 6 and not stand_in.copies["up"]  # those of this test
    assert stand_in.copies["read"] == 5  # flags, and the least and largest index
    with pytest.raises(IndexError, match="outside its window"):
        ops.switches_from_flat(flat * 0, x.shape, window=3, stride=2)
    stand_in.copies.clear()
    ops.max_unpool(y, switches, x.shape, window=3, stride=2, trusted=True)
    assert not stand_in.copies
    switches[0, 1, 1, 1] = 200
    with pytest.raises(IndexError, match="entries up to 200"):
        ops.max_unpool(y, switches, x.shape, window=3, stride=2)


def test_crops(cuda):
    tile = Tile(np.array([[-1, -2], [3, 4]], np.int32), (6, 7))
    expected = ops.clear_outside(np.ones((2, 5, 5, 3), np.float32), tile)
    x = cuda.asarray(np.ones((2, 5, 5, 3), np.float32))
    same(cuda.to_numpy(ops.clear_outside(x, tile)), expected)


WITHOUT_KERNELS = {
    "leaky_relu": lambda x, y: ops.leaky_relu(x, 0.1),
    "leaky_relu_gradient": lambda x, y: ops.leaky_relu_gradient(y, x, y[:1, :1, :1]),
    "clip": lambda x, y: ops.clip(x, -0.5, 0.7),
    "clip_backward": lambda x, y: ops.clip_backward(y, x, -0.5, 0.7, rule="guided"),
    "sigmoid": lambda x, y: ops.sigmoid(x),
    "sigmoid_gradient": lambda x, y: ops.sigmoid_gradient(y, x),
    "tanh": lambda x, y: ops.tanh(x),
    "tanh_gradient": lambda x, y: ops.tanh_gradient(y, x),
    "log_softmax": lambda x, y: ops.log_softmax(x),
    "log_softmax_gradient": lambda x, y: ops.log_softmax_gradient(y, x),
    "subtract": lambda x, y: ops.subtract(x, y),
    "multiply": lambda x, y: ops.multiply(x, y),
    "divide": lambda x, y: ops.divide(x, y),
    "scale": lambda x, y: ops.scale(x, y[:1, :1, :1], y[:, :, :1]),
    "expand": lambda x, y: ops.expand(x[:, :1], x.shape),
    "reduce_to": lambda x, y: ops.reduce_to(x, (1, 1, 4)),
    "rearrange": lambda x, y: ops.rearrange(x, (5, 6, 2, 2), (0, 1, 3, 2), (5, 6, 4)),
    "pad": lambda x, y: ops.pad(x, (1, -1, 2, 0), (0, 1), value=0.5),
    "pad reflect": lambda x, y: ops.pad(x, (1, 2, 2, 0), mode="reflect"),
    "pad_gradient": lambda x, y: ops.pad_gradient(x, (2, 3, 4, 4), (1, 1, 2, 0), mode="edge"),
    "resize": lambda x, y: ops.resize(x, (7, 4)),
    "resize linear": lambda x, y: ops.resize(x, (7, 4), mode="linear"),
    "resize_gradient": lambda x, y: ops.resize_gradient(x, (2, 3, 4, 4), mode="linear"),
}


@pytest.mark.parametrize("name", WITHOUT_KERNELS)
def test_operations_without_kernels(cuda, name):
    """CuPy computes them: nothing comes down, and nothing goes up but where a resizing reads."""
    x, y = (np.random.default_rng(seed).standard_normal((2, 5, 6, 4)).astype(np.float32) for seed in (0, 1))
    expected = WITHOUT_KERNELS[name](x, y)
    there = [cuda.asarray(each) for each in (x, y)]
    stand_in.copies.clear()
    found = WITHOUT_KERNELS[name](*there)
    assert set(stand_in.copies) <= ({"up"} if "resize" in name else set())
    same(cuda.to_numpy(found), expected)


def test_out_of_memory(cuda, monkeypatch):
    monkeypatch.setattr(stand_in, "LIMIT", 1000)
    with pytest.raises(MemoryError, match=r"shape \(1, 20, 20, 1\) needs 1600 bytes, and 1000 of the device's 1000"):
        ops.relu(np.zeros((1, 20, 20, 1), np.float32), backend=cuda)


def test_another_device(cuda):
    x = cuda.zeros((1, 2, 2, 1), np.float32)
    x.device = SimpleNamespace(id=1)
    with pytest.raises(ValueError, match="an array is on device 1; allowed: the current device, 0"):
        ops.relu(x)


def test_the_command_line(cuda, capsys, monkeypatch):
    from zfcore import cli

    with pytest.raises(SystemExit) as end:
        cli.main(["info", "--system", "--json"])
    assert end.value.code == 0
    assert '"cuda": "available"' in capsys.readouterr().out


@pytest.mark.parametrize(("changed", "says"), [
    ({"stream": 0}, "has stream 0; allowed: None, 1 .* 2 .*, or a stream's address"),
    ({"data": (64, True)}, "is of a read-only array"),
])
def test_cuda_array_interface(cuda, changed, says):
    described = {"shape": (1,), "typestr": "<f4", "data": (64, False), "version": 3, "stream": 1}
    with pytest.raises(ValueError, match=f"renormalize_filters: weight of type .*{says}"):
        ops.renormalize_filters(SimpleNamespace(__cuda_array_interface__={**described, **changed}), 1.0)


def test_out_of_memory_in_a_step(cuda, monkeypatch):
    """Wherever it happens, no parameter has moved: a step is taken whole or not at all."""
    ended = []
    for allowed in range(0, 90, 6):
        net, optimizer = network("cuda"), SGD(learning_rate=0.1, radius=0.1)
        before = {name: cuda.to_numpy(array) for name, array in net.parameters().items()}
        left = [allowed]

        def limited(make, left=left):
            def made(*arguments):
                left[0] -= 1
                if left[0] < 0:
                    raise stand_in.OutOfMemoryError("out of memory allocating")
                return make(*arguments)
            return made

        with monkeypatch.context() as patch:
            for name in ("empty", "zeros"):
                patch.setattr(cuda._cupy, name, limited(getattr(cuda._cupy, name)))
            try:
                train_step(net, images(), np.array([0, 1, 2]), optimizer)
            except MemoryError:
                ended.append(False)
            else:
                ended.append(True)
        moved = [name for name, array in net.parameters().items()
                 if not np.array_equal(cuda.to_numpy(array), before[name])]
        statistics = {"batch2.mean", "batch2.variance"}  # moved on the way up, as they are in any training pass
        assert ended[-1] == bool(set(moved) - statistics)
    assert ended[0] is False
    assert ended[-1] is True
    assert sorted(ended) == ended
