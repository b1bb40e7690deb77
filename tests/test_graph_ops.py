"""Operations of graph networks against naive loops in float64, as adjoints, and on bad input."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from zfcore import ops

RNG = np.random.default_rng(11)
U = 2.0**-24


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


def padded(x: np.ndarray, pads: list[tuple[int, int]], mode: str, value: float) -> np.ndarray:
    """Padding by looking up every cell."""
    shape = [size + sum(pad) for size, pad in zip(x.shape, pads, strict=True)]
    y = np.empty(shape)
    for place in itertools.product(*map(range, shape)):
        source = [index - pad[0] for index, pad in zip(place, pads, strict=True)]
        inside = all(0 <= index < size for index, size in zip(source, x.shape, strict=True))
        if mode == "edge":
            source = [min(max(index, 0), size - 1) for index, size in zip(source, x.shape, strict=True)]
        elif mode == "reflect":
            source = [index + (index < 0) * -2 * index - (index >= size) * 2 * (index - size + 1)
                      for index, size in zip(source, x.shape, strict=True)]
        y[place] = x[tuple(source)] if inside or mode != "constant" else value
    return y


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(("padding", "channels"), [((1, 2, 0, 3), (1, 0)), ((2, 0, 1, 1), (0, 0)),
                                                   ((-1, 1, 2, -2), (0, 1)), ((0, 0, 0, 0), (0, 0))])
def test_pad(mode: str, padding: tuple[int, ...], channels: tuple[int, int]) -> None:
    x = integers(2, 4, 5, 3)
    y = ops.pad(x, padding, channels, mode=mode, value=7.0)
    # Cropped first: a mirrored border is that of what is left.
    crops = [(0, 0), *((max(-a, 0), max(-b, 0)) for a, b in (padding[:2], padding[2:], channels))]
    kept = x[tuple(slice(a, size - b) for size, (a, b) in zip(x.shape, crops, strict=True))]
    pads = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in (padding[:2], padding[2:], channels))]
    np.testing.assert_array_equal(y, padded(kept, pads, mode, 7.0))
    dy = integers(*y.shape)
    linear = ops.pad(x, padding, channels, mode=mode)
    dx = ops.pad_gradient(dy, x.shape, padding, channels, mode=mode)
    assert (linear * dy).sum() == (x * dx).sum()


def place_of(index: int, size: int, out: int, coordinates: str) -> float:
    scale = out / size
    return {"half_pixel": (index + 0.5) / scale - 0.5, "asymmetric": index / scale,
            "half_pixel_symmetric": (index + 0.5) / scale - 0.5,
            "pytorch_half_pixel": (index + 0.5) / scale - 0.5 if out > 1 else 0.0,
            "align_corners": index * (size - 1) / (out - 1) if out > 1 else 0.0}[coordinates]


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric",
                                         "align_corners"])
@pytest.mark.parametrize("size", [(8, 3), (4, 6), (1, 1), (5, 13)])
def test_resize(coordinates: str, size: tuple[int, int]) -> None:
    x = RNG.standard_normal((2, 4, 6, 3)).astype(np.float32)
    y = ops.resize(x, size, mode="linear", coordinates=coordinates)
    near = ops.resize(x, size, coordinates=coordinates, nearest="floor")
    for row, column in itertools.product(range(size[0]), range(size[1])):
        r, c = place_of(row, 4, size[0], coordinates), place_of(column, 6, size[1], coordinates)
        low = math.floor(r), math.floor(c)
        total = np.zeros((2, 3))
        for down, right in itertools.product((0, 1), (0, 1)):
            share = abs(1 - down - (r - low[0])) * abs(1 - right - (c - low[1]))
            total += share * x[:, min(max(low[0] + down, 0), 3), min(max(low[1] + right, 0), 5)]
        np.testing.assert_allclose(y[:, row, column], total, rtol=0, atol=8 * U * np.abs(x).max())
        np.testing.assert_array_equal(near[:, row, column], x[:, min(max(low[0], 0), 3), min(max(low[1], 0), 5)])
    dy = RNG.standard_normal(y.shape).astype(np.float32)
    for mode in ("nearest", "linear"):
        up = ops.resize(x, size, mode=mode, coordinates=coordinates).astype(np.float64)
        down_again = ops.resize_gradient(dy, x.shape, mode=mode, coordinates=coordinates).astype(np.float64)
        both = (up * dy).sum(), (x * down_again).sum()
        assert abs(both[0] - both[1]) <= 64 * U * (np.abs(up) * np.abs(dy)).sum() + 64 * U * (
            np.abs(x) * np.abs(down_again)).sum()


def test_rearrange_is_reshape_transpose_reshape() -> None:
    x = integers(2, 3, 4, 6)
    y = ops.rearrange(x, (3, 4, 2, 3), (0, 1, 3, 2), (3, 4, 6))
    np.testing.assert_array_equal(y, x.reshape(2, 3, 4, 2, 3).transpose(0, 1, 2, 4, 3).reshape(2, 3, 4, 6))
    np.testing.assert_array_equal(ops.rearrange(x, (72,), (0,), (72,)), x.reshape(2, 72))
    assert ops.rearrange(x[:0], (12, 6), (1, 0), (72,)).shape == (0, 72)


def test_pool_at_is_the_adjoint_of_unpooling() -> None:
    x = RNG.permutation(2 * 7 * 6 * 3).reshape(2, 7, 6, 3).astype(np.float32)
    y, switches = ops.max_pool(x, window=(3, 2))
    np.testing.assert_array_equal(ops.pool_at(x, switches, window=(3, 2)), y)
    values, other = integers(*y.shape), integers(*x.shape)
    up = ops.max_unpool(values, switches, x.shape, window=(3, 2))
    assert (up * other).sum() == (values * ops.pool_at(other, switches, window=(3, 2))).sum()
    with pytest.raises(IndexError):
        ops.pool_at(x, np.full_like(switches, 6), window=(3, 2))
    assert ops.pool_at(x[:0], switches[:0], window=(3, 2)).shape == (0, *y.shape[1:])


def test_broadcasting_and_its_adjoint() -> None:
    small, shape = integers(2, 1, 4, 1), (2, 3, 4, 5)
    big = ops.expand(small, shape)
    np.testing.assert_array_equal(big, np.broadcast_to(small, shape))
    dy = integers(*shape)
    assert (big * dy).sum() == (small * ops.reduce_to(dy, small.shape)).sum()
    np.testing.assert_array_equal(ops.reduce_to(dy, (5,)), dy.sum((0, 1, 2)))
    np.testing.assert_array_equal(ops.reduce_to(dy, shape), dy)
    assert ops.expand(small[:0], (0, 3, 4, 5)).shape == (0, 3, 4, 5)


def test_functions_of_one_number() -> None:
    x = np.concatenate([RNG.standard_normal(1000) * 8, [0.0, -0.0, 1e4, -1e4]]).astype(np.float32)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(ops.sigmoid(x), 1 / (1 + np.exp(-wide)), rtol=2 * U)
    np.testing.assert_allclose(ops.tanh(x), np.tanh(wide), rtol=2 * U)
    np.testing.assert_array_equal(ops.leaky_relu(x, 0.25), np.where(x > 0, x, x * np.float32(0.25)))
    np.testing.assert_array_equal(ops.clip(x, -1, 2), np.minimum(np.maximum(x, -1), 2))
    rows = np.stack([x[:1000].reshape(100, 10)[0], np.full(10, 1e4), np.full(10, -1e4)]).astype(np.float32)
    y = ops.log_softmax(rows)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(np.exp(y.astype(np.float64)).sum(-1), 1, rtol=20 * U)
    bad = np.array([np.nan, 1, -1], np.float32)
    for function in (ops.sigmoid, ops.tanh, lambda x: ops.leaky_relu(x, 0.1), lambda x: ops.clip(x, 0, 1)):
        assert np.isnan(function(bad)[0]) and not np.isnan(function(bad)[1:]).any()
        assert function(x[:0]).shape == (0,)


def test_an_element_does_not_depend_on_its_place() -> None:
    x = RNG.standard_normal((5, 37)).astype(np.float32)
    for function in (ops.sigmoid, ops.tanh, ops.log_softmax):
        whole = function(x)
        for index in range(5):
            np.testing.assert_array_equal(function(x[index:index + 1]), whole[index:index + 1])


X = np.ones((2, 4, 5, 3), np.float32)


@pytest.mark.parametrize(("call", "error", "what"), [
    (lambda: ops.leaky_relu(X.astype(np.int32), 0.1), TypeError, "x.dtype"),
    (lambda: ops.leaky_relu(X, np.ones(4, np.float32)), ValueError, "slope"),
    (lambda: ops.leaky_relu(X, np.ones(3)), TypeError, "one dtype"),
    (lambda: ops.leaky_relu(X, float("nan")), TypeError, "slope"),
    (lambda: ops.clip(X, "0", 1), TypeError, "low"),
    (lambda: ops.clip_backward(X, X[:1], 0, 1), ValueError, "x.shape"),
    (lambda: ops.clip_backward(X, X, 0, 1, rule="other"), ValueError, "rule"),
    (lambda: ops.sigmoid("x"), TypeError, "array"),
    (lambda: ops.sigmoid_gradient(X, X[..., :1]), ValueError, "y.shape"),
    (lambda: ops.log_softmax(X[..., :0]), ValueError, "class"),
    (lambda: ops.subtract(X, X[0]), ValueError, "b.shape"),
    (lambda: ops.multiply(X, X.astype(np.float64)), TypeError, "one dtype"),
    (lambda: ops.scale(X, np.ones((4, 3), np.float32)), ValueError, "scale.shape"),
    (lambda: ops.scale(X, None, np.ones((2, 2, 4, 5, 3), np.float32)), ValueError, "bias.shape"),
    (lambda: ops.expand(X, (2, 4, 5)), ValueError, "shape"),
    (lambda: ops.expand(X, (2, 8, 5, 3)), ValueError, "broadcasts"),
    (lambda: ops.expand(X[:, :1, :1, :1], (2, 2**16, 2**16, 3)), ValueError, "2\\*\\*31"),
    (lambda: ops.reduce_to(X, (2, 4, 1, 2)), ValueError, "broadcasts"),
    (lambda: ops.rearrange(X, (4, 5), (0, 1), (60,)), ValueError, "product"),
    (lambda: ops.rearrange(X, (20, 3), (0, 0), (60,)), ValueError, "permutation"),
    (lambda: ops.rearrange(X, (20, 3), (1, 0), (61,)), ValueError, "shape"),
    (lambda: ops.pad(X, (1, 1, 1)), ValueError, "four integers"),
    (lambda: ops.pad(X, (1.5, 1, 1, 1)), ValueError, "four integers"),
    (lambda: ops.pad(X, (-2, -2, 0, 0)), ValueError, "leave"),
    (lambda: ops.pad(X, (4, 0, 0, 0), mode="reflect"), ValueError, "reflect"),
    (lambda: ops.pad(X, (2**30, 0, 0, 0)), ValueError, "2\\*\\*31"),
    (lambda: ops.pad(X[0], (1, 1, 1, 1)), ValueError, "4 dimensions"),
    (lambda: ops.pad_gradient(X, (2, 4, 5, 3), (1, 0, 0, 0)), ValueError, "dy.shape"),
    (lambda: ops.resize(X, (0, 3)), ValueError, "size"),
    (lambda: ops.resize(X, (3, 3), mode="cubic"), ValueError, "mode"),
    (lambda: ops.resize(X, (3, 3), coordinates="corner"), ValueError, "coordinates"),
    (lambda: ops.resize(X, (3, 3), scales=(0.0, 1.0)), ValueError, "scale"),
    (lambda: ops.resize(X, (2**16, 2**16)), ValueError, "2\\*\\*31"),
    (lambda: ops.resize_gradient(X, (3, 4, 5, 3)), ValueError, "input_shape"),
])
def test_bad_input(call: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        call()


def test_decoders_agree_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    from zfcore import layers

    x = RNG.standard_normal((2, 5, 6, 4))
    for sizes in ((3, 2, 1, 1, 2, 1), ((2, 3), (1, 2), (0, 1, 0, 1), (2, 1), 1, 0)):
        window, stride, padding, dilation, groups, more = sizes
        layer = layers.TransposedConvolution(6, *sizes)
        layer.parameters = {key: RNG.standard_normal(shape)
                            for key, shape in layer.parameter_shapes(x.shape[1:]).items()}
        y, _ = layer.forward(ops.bind(), x)
        pads = padding if isinstance(padding, int) else padding[1::2]
        expected = functional.conv_transpose2d(
            torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(layer.parameters["weight"].transpose(0, 3, 1, 2)),
            torch.tensor(layer.parameters["bias"]), stride, pads if isinstance(padding, int) else 0, more, groups,
            dilation).numpy().transpose(0, 2, 3, 1)
        if not isinstance(padding, int):  # torch has one number an axis: cut the rest off
            top, bottom, left, right = padding
            expected = expected[:, top:expected.shape[1] - bottom, left:expected.shape[2] - right]
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    pooled, switches = functional.max_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), 2, return_indices=True)
    unpooled = functional.max_unpool2d(pooled, switches, 2, output_size=(5, 6)).numpy().transpose(0, 2, 3, 1)
    found, _ = layers.MaxUnpool(2).forward(ops.bind(), pooled.numpy().transpose(0, 2, 3, 1).copy(), x)
    np.testing.assert_array_equal(found, unpooled)
