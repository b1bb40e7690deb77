"""Whole ways on the device: training, projections, the promises about bits, other libraries' arrays, streams."""

from __future__ import annotations

import os

import numpy as np
import pytest

from zfcore import Network, backends, explain, ops
from zfcore.layers import BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool, ResponseNorm
from zfcore.training import SGD, CapturedStep, train_step

pytestmark = pytest.mark.gpu
on_a_device = pytest.mark.skipif(bool(os.environ.get("ZFCORE_STAND_IN")), reason="the stand-in has no streams")


def network(backend: str, norm: bool = True) -> Network:
    net = Network("small", (33, 31, 3), scheme="he", backend=backend)
    net.add("conv1", Convolution(16, 5, stride=2, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", ResponseNorm())
    net.add("conv2", Convolution(24, 3, padding=1, groups=2, activation="relu"))
    if norm:
        net.add("batch2", BatchNorm())
    net.add("pool2", MaxPool(2, 2))
    net.add("flat", Flatten())
    net.add("fc3", Linear(32, activation="relu"))
    net.add("drop3", Dropout(0.5))
    net.add("fc4", Linear(10))
    return net.initialize(3)


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 33, 31, 3)).astype(np.float32)


def trained(backend: str, steps: int = 3) -> tuple[list[float], dict[str, np.ndarray]]:
    net, optimizer = network(backend), SGD(learning_rate=0.05, decay=1e-4, radius=0.1)
    labels = np.arange(6) % 10
    losses = [train_step(net, images(), labels, optimizer, seed=5, step=step)[0] for step in range(steps)]
    return losses, {name: backends.to_numpy(array) for name, array in net.parameters().items()}


def test_training(cuda):
    """Numba's losses within rounding; run to run the same bits (D1)."""
    losses, parameters = trained("cuda")
    again, same = trained("cuda")
    assert losses == again
    for name, array in parameters.items():
        np.testing.assert_array_equal(array, same[name])
    expected, _ = trained("numba")
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


def test_a_captured_step(cuda):
    """One CUDA graph, launched for every batch: the bits of the plain steps, and no memory asked for."""
    results = []
    for captured in (False, True):
        net, optimizer = network("cuda"), SGD(learning_rate=0.05, decay=1e-4, radius=0.1)
        step_of, losses, held = CapturedStep(net, optimizer, seed=5) if captured else None, [], set()
        for step in range(5):
            optimizer.learning_rate = 0.05 / (step + 1)
            labels = (np.arange(6) + step) % 10
            if step_of is None:
                losses.append(train_step(net, images() + step, labels, optimizer, seed=5, step=step))
            else:
                losses.append(step_of(images() + step, labels, step))
                held.add(step_of._recording.bytes)
        assert len(held) == int(captured)
        results.append((losses, {name: backends.to_numpy(array) for name, array in net.parameters().items()}))
    assert results[0][0] == results[1][0]
    for name, array in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], array)


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "float16", "bfloat16"])
def test_precisions(cuda, precision):
    """On tensor cores: near float32, run to run the same, an image's bits those it has alone."""
    plain, net = network("cuda"), network("cuda")
    net.precision = precision
    found, expected = (each.forward(images(), to="conv2").output for each in (net, plain))
    scale = np.abs(expected).max()
    unit = {"bfloat16": 2.0**-8, "tf32x3": 2.0**-21}.get(precision, 2.0**-11)
    assert 0 < np.abs(found - expected).max() <= 16 * unit * scale
    np.testing.assert_array_equal(net.forward(images(), to="conv2").output, found)
    np.testing.assert_array_equal(net.forward(images()[3:4], to="conv2").output[0], found[3])


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_tensors_of_sixteen_bits(cuda, storage):
    """Near float32 on the way up and down, run to run the same, an image's bits those it has alone."""
    plain, net = network("cuda"), network("cuda")
    net.storage = storage
    unit = 2.0**-8 if storage == "bfloat16" else 2.0**-11
    results = []
    for each in (plain, net):
        up = each.forward(images(), to="fc4", cache=True, keep=("norm1", "conv2"))
        down = each.backward(up, np.ones_like(up.output))
        results.append({"output": up.output, **up.kept, **down.gradients})
        assert {array.dtype for array in (down.input, *results[-1].values())} == {np.dtype(np.float32)}
    for name in ("norm1", "conv2", "output"):
        scale = np.abs(results[0][name]).max()
        assert 0 < np.abs(results[1][name] - results[0][name]).max() <= 16 * unit * scale
    again = net.forward(images(), to="fc4", keep=("conv2",))
    np.testing.assert_array_equal(again.output, results[1]["output"])
    alone = net.forward(images()[3:4], to="fc4", keep=("conv2",))
    np.testing.assert_array_equal(alone.output[0], results[1]["output"][3])
    np.testing.assert_array_equal(alone.kept["conv2"][0], results[1]["conv2"][3])


@pytest.mark.parametrize("captured", [False, True])
def test_training_in_bfloat16(cuda, captured):
    """Losses near float32's; the captured step has the bits of the plain one; parameters stay float32."""
    losses, parameters = {}, []
    for storage, recorded in (("float32", False), ("bfloat16", False), ("bfloat16", captured)):
        net, optimizer = network("cuda"), SGD(learning_rate=0.02, radius=0.1)
        net.storage = storage
        step_of = CapturedStep(net, optimizer, seed=5) if recorded else None
        labels = np.arange(6) % 10
        losses[storage, recorded] = [
            (step_of(images(), labels, step) if step_of else
             train_step(net, images(), labels, optimizer, seed=5, step=step))[0] for step in range(4)]
        parameters.append({name: backends.to_numpy(array) for name, array in net.parameters().items()})
    np.testing.assert_allclose(losses["bfloat16", False], losses["float32", False], rtol=0.05)
    assert losses["bfloat16", captured] == losses["bfloat16", False]
    for name, array in parameters[1].items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(parameters[2][name], array)


def test_the_first_stage(cuda):
    """Up by the fused chain, down by the other: the bits of the layers one by one."""
    net = network("cuda", norm=False)
    assert net.forward(images()).nodes[:2] == ("conv1", "pool1")
    up = net.forward(images(), keep=("conv1",))  # what is asked for is computed by itself
    np.testing.assert_array_equal(net.forward(images()).output, up.output)
    unit = (2, "conv2:3@2,2")
    found = net.project(images(), [unit], "deconvnet", "one", crop=False).pixels[0]
    cache = net.forward(images(3)[2:], to="conv2", cache=True)
    signal = np.zeros_like(cache.output)
    signal[0, 2, 2, 3] = 1
    np.testing.assert_array_equal(net.backward(cache, signal, "deconvnet", parameters=False).input[0], found)
    for net.storage in ("float32", "bfloat16"):
        fused, single = (net.forward(images(), cache=True, fused=together) for together in (True, False))
        np.testing.assert_array_equal(fused.output, single.output)
        expected = net.backward(single, np.ones_like(up.output))
        down = net.backward(fused, np.ones_like(up.output))
        for name, gradient in (expected.gradients | {"input": expected.input}).items():
            np.testing.assert_array_equal((down.gradients | {"input": down.input})[name], gradient)


def test_an_image_does_not_depend_on_its_batch(cuda):
    """D2: the same bits alone, in a batch, at any place of it."""
    net = network("cuda")
    whole = net.forward(images(), keep=("conv2", "norm1"))
    for index in (0, 3, 5):
        alone = net.forward(images()[index:index + 1], keep=("conv2", "norm1"))
        np.testing.assert_array_equal(alone.output[0], whole.output[index])
        for name in ("conv2", "norm1"):
            np.testing.assert_array_equal(alone.kept[name][0], whole.kept[name][index])


@pytest.mark.parametrize("rule", ["deconvnet", "gradient", "guided"])
def test_projections(cuda, rule):
    """On crops the bits of whole images; Numba's pixels within rounding."""
    units = [(index, f"conv2:{index}@{index},2") for index in range(6)]
    net = network("cuda", norm=False)
    crops, whole = (net.project(images(), units, rule, crop=crop) for crop in (True, False))
    np.testing.assert_array_equal(crops.values, whole.values)
    for tile, picture, (row, column) in zip(crops.pixels, whole.pixels, crops.origins.tolist(), strict=True):
        top, left = max(row, 0), max(column, 0)
        inside = tile[top - row:, left - column:][:33 - top, :31 - left]
        np.testing.assert_array_equal(inside, picture[top:, left:][:inside.shape[0], :inside.shape[1]])
    expected = network("numba", norm=False).project(images(), units, rule)
    scale = np.abs(expected.pixels).max()
    np.testing.assert_allclose(crops.pixels, expected.pixels, rtol=0, atol=1e-4 * scale)


def test_saliency(cuda):
    found, expected = (explain.saliency(network(name, norm=False), images(2), [1, 2]).values
                       for name in ("cuda", "numba"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@on_a_device
def test_streams_and_other_libraries(cuda):
    """CuPy's current stream is used; PyTorch's tensors go in and come out by DLPack, on PyTorch's stream."""
    import cupy

    x = np.random.default_rng(0).standard_normal((4, 30, 30, 8)).astype(np.float32)
    expected, switches = ops.max_pool(x, window=3, stride=2)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        y, _ = ops.max_pool(cuda.asarray(x), window=3, stride=2)
        stream.synchronize()
    np.testing.assert_array_equal(cuda.to_numpy(y), expected)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    tensor = torch.from_numpy(x).cuda()
    got, places = ops.max_pool(tensor, window=3, stride=2)
    assert got.is_cuda
    np.testing.assert_array_equal(got.cpu().numpy(), expected)
    np.testing.assert_array_equal(places.cpu().numpy(), switches)


@on_a_device
def test_operators_of_torch(cuda):
    """Values and gradients of the custom operators are the CPU's, on a stream of PyTorch's own."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    from zfcore.interop import torch as zf

    results = []
    for device in ("cpu", "cuda"):
        x, weight = (torch.arange(int(np.prod(shape)), dtype=torch.float32).remainder(modulus).reshape(shape)
                     .to(device).requires_grad_() for shape, modulus in (((2, 8, 9, 9), 17), ((4, 8, 3, 3), 5)))
        stream = torch.cuda.Stream() if device == "cuda" else None
        with torch.cuda.stream(stream):
            y = zf.convolution(x, weight, None, [1, 1], [1, 1, 1, 1], [1, 1], 1)
            y, _ = zf.max_pool(y, [3, 3], [2, 2], [0, 0, 0, 0], False)
            y.sum().backward()
        if stream is not None:
            stream.synchronize()
        results.append([each.detach().cpu().numpy() for each in (y, x.grad, weight.grad)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
