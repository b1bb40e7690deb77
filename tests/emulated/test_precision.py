"""Precisions by name on the public operations, networks and PyTorch's tensors; the kernels have tests of their own."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import Network, backends, ops
from zfcore.layers import Convolution, Flatten, Linear, MaxPool
from zfcore.training import SGD, train_step

from .storage import BFLOAT16, FLOAT16, stored, wide
from .test_convolution import integers

emulated, numba = backends.get("emulated"), backends.get("numba")
SHORT = {"float16": FLOAT16, "bfloat16": BFLOAT16}
short = pytest.mark.parametrize("name", SHORT)


@pytest.fixture
def on_emulated():
    backends.use("emulated")
    yield
    backends.use(None)


def arrays():
    """Integers, which every precision holds; x, weight, bias, and sizes with a stride and an odd padding."""
    return (integers((2, 7, 8, 5), np.float32, 0), integers((6, 3, 3, 5), np.float32, 1), integers(6, np.float32, 2),
            {"stride": (2, 1), "padding": (1, 0, 2, 1)})


def as_given(array, name):
    """An array of 16 bits as a caller holds it."""
    bits = stored(array, SHORT[name])
    return ops.Bfloat16(bits) if name == "bfloat16" else bits


def numbers(array):
    return wide(array.bits if isinstance(array, ops.Bfloat16) else array)


@pytest.mark.parametrize("name", ["tf32", "tf32x3", "float16", "bfloat16"])
def test_float32_arrays_are_exact_on_integers(name):
    """The factors are exact in 16 bits and tf32, and sums of this size in float32; results are rounded to 16 bits."""
    x, weight, bias, sizes = arrays()
    run = {**sizes, "precision": name, "backend": emulated}
    expected = ops.convolution(x, weight, bias, **sizes, activation="relu", backend=numba)
    y = ops.convolution(x, weight, bias, **run, activation="relu")
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, numbers(as_given(expected, name)) if name in SHORT else expected)
    dy = integers(y.shape, np.float32, 3)
    expected = ops.convolution_input_gradient(dy, weight, x.shape, **sizes, backend=numba)
    dx = ops.convolution_input_gradient(dy, weight, x.shape, **run)
    np.testing.assert_array_equal(dx, numbers(as_given(expected, name)) if name in SHORT else expected)
    np.testing.assert_array_equal(ops.convolution_weight_gradient(dy, x, weight.shape, **run),
                                  ops.convolution_weight_gradient(dy, x, weight.shape, **sizes, backend=numba))

    x, weight, bias = x.reshape(4, -1), integers((9, 140), np.float32, 1), integers(9, np.float32, 2)
    run = {"precision": name, "backend": emulated}
    expected = x @ weight.T + bias
    y = ops.linear(x, weight, bias, **run)
    np.testing.assert_array_equal(y, numbers(as_given(expected, name)) if name in SHORT else expected)
    dy = integers(y.shape, np.float32, 3)
    expected = dy @ weight
    np.testing.assert_array_equal(ops.linear_input_gradient(dy, weight, **run),
                                  numbers(as_given(expected, name)) if name in SHORT else expected)
    np.testing.assert_array_equal(ops.linear_weight_gradient(dy, x, **run), dy.T @ x)


def test_float32_is_the_default_and_true():
    generator = np.random.default_rng(0)
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((1, 6, 6, 8), (8, 3, 3, 8)))
    y = ops.convolution(x, weight, backend=emulated)
    np.testing.assert_array_equal(y, ops.convolution(x, weight, precision="float32", backend=emulated))
    np.testing.assert_array_equal(y, ops.convolution(x, weight, backend=numba))
    errors = {name: abs(ops.convolution(x, weight, precision=name, backend=emulated) - y).max()
              for name in ("tf32", "tf32x3", "float16", "bfloat16")}
    assert 0 < errors["tf32x3"] < errors["tf32"] / 256
    assert 0 < errors["tf32"] < errors["bfloat16"]
    assert 0 < errors["float16"] < errors["bfloat16"]


@short
def test_arrays_of_sixteen_bits(name):
    """Results are of the caller's kind; gradients of filters and sums stay float32; a bias may be of either type."""
    x, weight, bias, sizes = arrays()
    given = [as_given(array, name) for array in (x, weight)]
    expected = numbers(as_given(ops.convolution(x, weight, bias, **sizes), name))
    for precision in (None, name, "float32"):
        for own in (bias, as_given(bias, name)):
            y = ops.convolution(*given, own, **sizes, precision=precision, backend=emulated)
            assert type(y) is type(given[0])
            np.testing.assert_array_equal(numbers(y), expected)
    dweight = ops.convolution_weight_gradient(y, given[0], weight.shape, **sizes, backend=emulated)
    assert dweight.dtype == np.float32
    np.testing.assert_array_equal(dweight, ops.convolution_weight_gradient(expected, x, weight.shape, **sizes))
    np.testing.assert_array_equal(ops.channel_sum(y, backend=emulated), ops.channel_sum(expected))

    pooled, switches = ops.max_pool(y, window=3, stride=2, backend=emulated)
    wanted, places = ops.max_pool(expected, window=3, stride=2)
    np.testing.assert_array_equal(numbers(pooled), wanted)
    np.testing.assert_array_equal(switches, places)
    back = ops.max_unpool(pooled, switches, y.shape, window=3, stride=2, overlap="last", backend=emulated)
    np.testing.assert_array_equal(numbers(back), ops.max_unpool(wanted, places, y.shape, window=3, stride=2,
                                                                overlap="last"))
    rectified = ops.relu_backward(back, ops.relu(back, backend=emulated), rule="guided", backend=emulated)
    np.testing.assert_array_equal(numbers(rectified), np.maximum(numbers(back), 0))
    joined = ops.concat(pooled, pooled, backend=emulated)
    np.testing.assert_array_equal(numbers(ops.split(joined, (6, 6), backend=emulated)[1]), wanted)
    norm = ops.response_norm(pooled, size=3, backend=emulated)
    np.testing.assert_allclose(numbers(norm), ops.response_norm(wanted, size=3), rtol=2 * SHORT[name][3])


def test_bfloat16_by_its_bits():
    x = np.array([1.0, -2.5, 1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf], np.float32)
    made = ops.Bfloat16.rounded(x, emulated)
    assert repr(made) == "Bfloat16(5,)"
    np.testing.assert_array_equal(made.bits, stored(x, BFLOAT16))
    np.testing.assert_array_equal(made.wide(emulated), [1.0, -2.5, 1.0, 1 + 2.0**-6, np.inf])
    with pytest.raises(TypeError, match="bits.dtype is dtype\\('float32'\\); allowed: uint16"):
        ops.Bfloat16(x)
    with pytest.raises(ValueError, match="backend is 'numba'; allowed: one with kernels of 16 bits"):
        ops.Bfloat16.rounded(x)
    with pytest.raises(TypeError, match=r"x.dtype is uint16; allowed: another type, or ops.Bfloat16\(x\)"):
        ops.relu(made.bits, backend=emulated)


def test_what_cannot_be_is_refused():
    x, weight, bias, _ = arrays()
    for backend, precision, kind, allowed in (
        (emulated, "half", np.float32, "one of 'float32', 'tf32', 'float16', 'bfloat16', 'tf32x3'"),
        (numba, "tf32", np.float32, "'float32' on the backend 'numba'"),
        (numba, "tf32x3", np.float32, "'float32' on the backend 'numba'"),
        (emulated, "bfloat16", np.float64, "'float32' for arrays of float64"),
        (emulated, "bfloat16", np.float16, "'float32' or 'float16' for arrays of float16"),
        (emulated, "tf32", np.float16, "'float32' or 'float16' for arrays of float16"),
        (emulated, "tf32x3", np.float16, "'float32' or 'float16' for arrays of float16"),
        (emulated, "tf32x3", np.float64, "'float32' for arrays of float64"),
    ):
        with pytest.raises(ValueError, match=f"convolution: precision is '{precision}'; allowed: {allowed}"):
            ops.convolution(x.astype(kind), weight.astype(kind), precision=precision, backend=backend)
    with pytest.raises(TypeError, match="float32 or float64 .the backend 'numba' has no kernels of 16 bits; 'cuda'"):
        ops.relu(x.astype(np.float16), backend=numba)
    with pytest.raises(TypeError, match="dtypes is .*; allowed: one dtype for all"):
        ops.convolution(x.astype(np.float16), weight, backend=emulated)
    with pytest.raises(ValueError, match="bias.dtype is dtype.'float64'.; allowed: float32, or"):
        ops.convolution(*(a.astype(np.float16) for a in (x, weight)), bias.astype(np.float64), backend=emulated)
    with pytest.raises(TypeError, match="allowed: an array of float32 or float64"):
        ops.softmax(np.ones((2, 3), np.float16), backend=emulated)
    with pytest.raises(ValueError, match="Network: precision is 'half'"):
        Network("n", (3, 3, 1), precision="half")


def network(precision: str, backend: str = "emulated") -> Network:
    net = Network("small", (12, 11, 3), scheme="he", backend=backend, precision=precision)
    net.add("conv1", Convolution(8, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(2))
    net.add("conv2", Convolution(8, 3, activation="relu"))
    net.add("flat", Flatten())
    net.add("fc3", Linear(16, activation="relu"))
    net.add("fc4", Linear(4))
    return net.initialize(1)


@pytest.mark.parametrize(("precision", "unit"), [
    ("tf32", 2.0**-11), ("tf32x3", 2.0**-21), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_networks(precision, unit):
    """Tensors and parameters stay float32; steps follow float32's; looking inside is float32, to the bit."""
    x = np.random.default_rng(0).standard_normal((3, 12, 11, 3)).astype(np.float32)
    labels = np.array([0, 1, 3])
    losses = {}
    for name in ("float32", precision):
        net, optimizer = network(name), SGD(learning_rate=1e-3)
        losses[name] = [train_step(net, x, labels, optimizer, step=step)[0] for step in range(2)]
        assert {array.dtype for array in net.parameters().values()} == {np.dtype(np.float32)}
    assert losses[precision] != losses["float32"]
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=8 * unit)
    found, expected = (network(name).project(x, "conv2:3", allow_negative=True) for name in (precision, "float32"))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    resized = network(precision).at_size(20, 20, "pool1")
    assert resized.precision == precision
    with pytest.raises(ValueError, match=f"precision is '{precision}'; allowed: 'float32' on the backend 'numba'"):
        network(precision, "numba")(x)


@short
def test_tensors_of_torch(name, on_emulated):
    """Taken over and handed back as such, by `zfcore.ops` and the custom operators, gradients too."""
    torch = pytest.importorskip("torch")
    from zfcore.interop import torch as zf

    dtype = getattr(torch, name)
    x, weight, bias = (torch.from_numpy(each).to(dtype) for each in arrays()[:3])
    y = ops.convolution(x, weight, bias, padding=1)
    assert y.dtype == dtype
    expected = ops.convolution(*(each.float().numpy() for each in (x, weight, bias)), padding=1)
    assert torch.equal(y.float(), torch.from_numpy(expected).to(dtype).float())
    assert ops.convolution_weight_gradient(y, x, tuple(weight.shape), padding=1).dtype == torch.float32
    pooled, switches = ops.max_pool(y, window=2)
    assert (pooled.dtype, switches.dtype) == (dtype, torch.uint8)

    results = []
    for kind in (dtype, torch.float32):
        given = [each.detach().to(kind).permute(*order).requires_grad_()
                 for each, order in ((x, (0, 3, 1, 2)), (weight, (0, 3, 1, 2)), (bias, (0,)))]
        z = zf.convolution(*given, [1, 1], [1, 1, 1, 1], [1, 1], 1)
        z, places = zf.max_pool(z, [2, 2], [2, 2], [0, 0, 0, 0], False)
        back = zf.max_unpool(z, places, (7, 8), [2, 2], [2, 2], [0, 0, 0, 0], True)
        back.sum().backward()
        assert z.dtype == kind
        assert [each.grad.dtype for each in given] == [kind] * 3
        results.append([each.grad.float() for each in given])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2.0**-6, atol=0)
    normed = zf.response_norm(z.detach().to(dtype), 3, 1e-2, 0.75, 2.0, False)
    assert normed.dtype == dtype
    given = [each.detach().to(dtype).requires_grad_() for each in given]
    torch.library.opcheck(zf.convolution, (*given, [1, 1], [1, 1, 1, 1], [1, 1], 1),
                          test_utils=("test_schema", "test_faketensor"))
