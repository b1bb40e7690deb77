"""Every layer: finite differences in float64, shapes, configuration, bad sizes."""

from __future__ import annotations

import json
from typing import Any

import graph_cases
import numpy as np
import pytest

from zfcore import layers, ops
from zfcore.layers import REGISTRY, Layer, Run, from_config

OPS = ops.bind()
STEP = 6.9e-6

CASES: list[tuple[Layer, list[tuple[int, ...]], Run]] = [
    (layers.Convolution(4, 3, stride=2, padding=(1, 0, 2, 1), activation="relu"), [(7, 6, 2)], Run()),
    (layers.Convolution(4, (2, 3), dilation=(2, 1), groups=2, bias=False), [(7, 6, 4)], Run()),
    (layers.Convolution(3, 3, stride=2, padding="same"), [(6, 7, 2)], Run()),
    (layers.Linear(5, activation="relu"), [(7,)], Run()),
    (layers.Linear(5, bias=False), [(7,)], Run()),
    (layers.ReLU(), [(4, 5, 2)], Run()),
    (layers.MaxPool(3, 2, ceil_mode=True), [(8, 7, 2)], Run()),
    (layers.MaxPool((2, 3), 1, padding=(1, 1)), [(5, 6, 2)], Run()),
    (layers.MaxPool(3, 2, padding="same"), [(6, 5, 2)], Run()),
    (layers.AveragePool(3, 2, padding=1, ceil_mode=True), [(6, 7, 2)], Run()),
    (layers.AveragePool(3, 2, padding=1, ceil_mode=True, divisor="padded"), [(6, 7, 2)], Run()),
    (layers.AveragePool(2, divisor="window"), [(4, 6, 2)], Run()),
    (layers.GlobalAveragePool(), [(4, 3, 2)], Run()),
    (layers.GlobalMaxPool(), [(4, 3, 2)], Run()),
    (layers.ResponseNorm(3, 0.5, 0.75, 2.0), [(2, 3, 5)], Run()),
    (layers.ResponseNorm(4, 0.5, 0.6, 1.0, True), [(2, 3, 5)], Run()),
    (layers.ContrastNorm(3, 0.5, 0.75, 1.0), [(6, 5, 2)], Run()),
    (layers.ContrastNorm(2, 0.5, 0.75, 1.0, False, "subtractive"), [(5, 6, 2)], Run()),
    (layers.BatchNorm(), [(3, 4, 2)], Run()),
    (layers.BatchNorm(), [(3,)], Run()),
    (layers.BatchNorm(), [(3, 4, 2)], Run(training=True)),
    (layers.BatchNorm(), [(3,)], Run(training=True)),
    (layers.Dropout(0.4), [(4, 5, 2)], Run()),
    (layers.Dropout(0.4), [(4, 5, 2)], Run(training=True, seed=5, step=3)),
    (layers.Add(), [(3, 2, 2)] * 3, Run()),
    (layers.Add(activation="relu"), [(3, 2, 2)] * 2, Run()),
    (layers.Concat(), [(3, 2, 2), (3, 2, 3)], Run()),
    (layers.Flatten(), [(3, 2, 2)], Run()),
    (layers.Softmax(), [(5,)], Run()),
    *graph_cases.CASES,
]


def fill(layer: Layer, shapes: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    layer.parameters = {key: rng.standard_normal(shape) for key, shape in layer.parameter_shapes(*shapes).items()}
    if "variance" in layer.parameters:
        layer.parameters["variance"] = 0.5 + rng.random(layer.parameters["variance"].shape)


def test_every_layer_has_a_case() -> None:
    assert {type(layer).__name__ for layer, _, _ in CASES} == set(REGISTRY)


@pytest.mark.parametrize(("layer", "shapes", "run"), CASES, ids=lambda value: getattr(type(value), "__name__", ""))
def test_gradients_by_finite_differences(layer: Layer, shapes: list[tuple[int, ...]], run: Run) -> None:
    rng = np.random.default_rng(0)
    fill(layer, shapes, rng)
    inputs = [rng.standard_normal((3, *shape)) for shape in shapes]
    start = {key: value.copy() for key, value in layer.parameters.items()}

    def forward() -> tuple[Any, Any]:
        for key in ("mean", "variance"):  # a training pass moves them
            if key in start:
                layer.parameters[key] = start[key].copy()
        return layer.forward(OPS, *inputs, run=run)

    y, cache = forward()
    assert y.shape == (3, *layer.output_shape(*shapes)) and y.dtype == np.float64
    signal = rng.standard_normal(y.shape)
    dxs, gradients = layer.backward(OPS, signal, cache)
    assert set(gradients) == set(layer.trainable) & set(layer.parameters)
    assert len(dxs) == len(inputs)

    def check(array: np.ndarray, gradient: np.ndarray) -> None:
        flat, found = array.reshape(-1), gradient.reshape(-1)
        for place in rng.permutation(flat.size)[:25]:
            kept = flat[place]
            losses = []
            for shift in (STEP, -STEP, 4 * STEP, -4 * STEP):
                flat[place] = kept + shift
                losses.append(float((forward()[0] * signal).sum()))
            flat[place] = kept
            near, far = (losses[0] - losses[1]) / (2 * STEP), (losses[2] - losses[3]) / (8 * STEP)
            if abs(near - far) < 1e-5:  # else a kink lies within four steps
                assert found[place] == pytest.approx(near, rel=1e-6, abs=1e-6)

    for array, dx in zip(inputs, dxs, strict=True):
        if dx is None:  # an input that only says where: nothing changes with its value
            assert isinstance(layer, layers.MaxUnpool) and array is inputs[1]
            dx = np.zeros_like(array)
        check(array, dx)
    for key, gradient in gradients.items():
        check(layer.parameters[key], gradient)
    np.testing.assert_array_equal(forward()[0], y)


@pytest.mark.parametrize(("layer", "shapes", "run"), CASES, ids=lambda value: getattr(type(value), "__name__", ""))
def test_configuration_travels_as_json(layer: Layer, shapes: list[tuple[int, ...]], run: Run) -> None:
    again = from_config(json.loads(json.dumps(layer.to_config())))
    assert again == layer
    assert again.output_shape(*shapes) == layer.output_shape(*shapes)


@pytest.mark.parametrize("layer", [layer for layer, _, _ in CASES[:5]])
def test_unwanted_gradients_are_not_made(layer: Layer) -> None:
    shapes = next(shapes for item, shapes, _ in CASES if item is layer)
    rng = np.random.default_rng(0)
    fill(layer, shapes, rng)
    y, cache = layer.forward(OPS, *(rng.standard_normal((2, *shape)) for shape in shapes), run=Run(parameters=False))
    dxs, gradients = layer.backward(OPS, np.ones_like(y), cache, parameters=False)
    assert gradients == {} and dxs[0] is not None
    y, cache = layer.forward(OPS, *(rng.standard_normal((2, *shape)) for shape in shapes))
    dxs, gradients = layer.backward(OPS, np.ones_like(y), cache, inputs=False)
    assert gradients and dxs == (None,)


def test_fused_relu_and_the_tensor_before_it() -> None:
    rng = np.random.default_rng(0)
    fused = layers.Convolution(4, 3, activation="relu")
    fill(fused, [(5, 5, 2)], rng)
    x = rng.standard_normal((2, 5, 5, 2))
    y, _ = fused.forward(OPS, x)
    again, cache = fused.forward(OPS, x, run=Run(pre=True))
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(np.maximum(cache["pre"], 0), y)
    assert cache["pre"].min() < 0
    below, _ = fused.backward(OPS, None, cache, pre=np.ones_like(y))
    assert np.abs(below[0]).max() > 0


def test_average_pool_cones_know_when_the_padding_ends() -> None:
    assert layers.AveragePool(3, 2, 1, False, "padded").geometry((7, 7, 1)) is not None
    assert layers.AveragePool(3, 2, 0, True, "padded").geometry((8, 8, 1)) is None
    assert layers.AveragePool(3, 2, 0, True, "valid").geometry((8, 8, 1)) is not None


def test_batch_norm_moves_its_statistics_in_training_only() -> None:
    layer = layers.BatchNorm(momentum=0.75)
    rng = np.random.default_rng(0)
    fill(layer, [(4, 4, 2)], rng)
    before = {key: value.copy() for key, value in layer.parameters.items()}
    x = rng.standard_normal((5, 4, 4, 2))
    layer.forward(OPS, x)
    for key, value in before.items():
        np.testing.assert_array_equal(layer.parameters[key], value)
    layer.forward(OPS, x, run=Run(training=True))
    np.testing.assert_allclose(layer.parameters["mean"], 0.75 * before["mean"] + 0.25 * x.mean((0, 1, 2)))
    np.testing.assert_allclose(layer.parameters["variance"],
                               0.75 * before["variance"] + 0.25 * x.var((0, 1, 2), ddof=1))
    np.testing.assert_array_equal(layer.parameters["scale"], before["scale"])


@pytest.mark.parametrize(("make", "error", "what"), [
    (lambda: layers.Convolution(0, 3), ValueError, "filters"),
    (lambda: layers.Convolution(4, 0), ValueError, "window"),
    (lambda: layers.Convolution(4, 3, stride=0), ValueError, "stride"),
    (lambda: layers.Convolution(4, 3, dilation=-1), ValueError, "dilation"),
    (lambda: layers.Convolution(4, 3, padding=-1), ValueError, "padding"),
    (lambda: layers.Convolution(4, 3, padding="valid"), (ValueError, TypeError), "padding"),
    (lambda: layers.Convolution(4, 3, groups=0), ValueError, "groups"),
    (lambda: layers.Convolution(4, 3, activation="tanh"), ValueError, "activation is 'tanh'"),
    (lambda: layers.Convolution(True, 3), TypeError, "filters"),
    (lambda: layers.Linear(-1), ValueError, "units"),
    (lambda: layers.MaxPool(0), ValueError, "window"),
    (lambda: layers.MaxPool(2, padding="same", ceil_mode=True), ValueError, "ceil_mode"),
    (lambda: layers.AveragePool(2, divisor="all"), ValueError, "divisor"),
    (lambda: layers.ResponseNorm(0), ValueError, "size"),
    (lambda: layers.ResponseNorm(alpha=-1), ValueError, "alpha"),
    (lambda: layers.ContrastNorm(mode="other"), ValueError, "mode"),
    (lambda: layers.BatchNorm(epsilon=0.0), ValueError, "epsilon"),
    (lambda: layers.Dropout(1.0), ValueError, "rate"),
    (lambda: layers.Clip(float("nan")), ValueError, "low"),
    (lambda: layers.Scale(scale=False, bias=False), ValueError, "scale, bias"),
    (lambda: layers.Rearrange((2, 3), (0, 0), (6,)), ValueError, "order"),
    (lambda: layers.Rearrange((2, 3), (0, 1), (5,)), ValueError, "shape"),
    (lambda: layers.Slice(2, 2), ValueError, "stop"),
    (lambda: layers.Pad((1, 1)), ValueError, "padding"),
    (lambda: layers.Pad(mode="wrap"), ValueError, "mode"),
    (lambda: layers.Pad(value=float("-inf")), ValueError, "finite"),
    (lambda: layers.Resize((0, 3)), ValueError, "size"),
    (lambda: layers.Resize((3, 3), "cubic"), ValueError, "mode"),
    (lambda: layers.TransposedConvolution(4, 3, output_padding=1), ValueError, "output_padding"),
    (lambda: layers.MaxUnpool(3, 2), ValueError, "overlapping"),
])
def test_bad_configurations(make: Any, error: Any, what: str) -> None:
    with pytest.raises(error, match=what):
        make()


@pytest.mark.parametrize(("layer", "shapes", "what"), [
    (layers.Convolution(4, 9), [(5, 5, 3)], "window"),
    (layers.Convolution(4, 3, groups=2), [(5, 5, 3)], "groups"),
    (layers.Convolution(4, 3), [(5,)], "shape"),
    (layers.Linear(4), [(5, 5, 3)], "Flatten"),
    (layers.MaxPool(9), [(5, 5, 3)], "window"),
    (layers.MaxPool(2, padding=2), [(5, 5, 3)], "half"),
    (layers.ResponseNorm(5), [(5, 5, 3)], "maps"),
    (layers.Add(), [(5, 5, 3), (5, 5, 4)], "one shape"),
    (layers.Concat(), [(5, 5, 3), (5, 4, 3)], "height and width"),
    (layers.Subtract(), [(5, 5, 3), (5, 5, 4)], "one shape"),
    (layers.Scale((2, 1)), [(5, 5, 3)], "broadcasts"),
    (layers.PReLU((4,)), [(5, 5, 3)], "broadcasts"),
    (layers.Expand((5, 5, 4)), [(5, 5, 3)], "broadcasts"),
    (layers.Rearrange((5, 5), (1, 0), (25,)), [(5, 5, 3)], "product"),
    (layers.Slice(1, 4), [(5, 5, 3)], "at most"),
    (layers.Pad((-3, -3, 0, 0)), [(5, 5, 3)], "leave"),
    (layers.Pad((5, 0, 0, 0), mode="reflect"), [(5, 5, 3)], "reflect"),
    (layers.TransposedConvolution(4, 3, padding=4), [(5, 5, 3)], "padding"),
    (layers.TransposedConvolution(4, 3, groups=2), [(5, 5, 3)], "groups"),
    (layers.MaxUnpool(2), [(3, 3, 3), (5, 5, 3)], "pool"),
    (layers.GlobalMaxPool(), [(5,)], "shape"),
])
def test_bad_shapes(layer: Layer, shapes: list[tuple[int, ...]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        layer.output_shape(*shapes)


@pytest.mark.parametrize("config", [
    None, [], {}, {"type": 3}, {"type": "Convolution"}, {"type": "Layer2"}, {"type": "_Pool", "window": 3},
    {"type": "ReLU", "extra": 1}, {"type": "Convolution", "filters": "4", "window": 3},
    {"type": "Convolution", "filters": 4, "window": [3, 3, 3]}, {"type": "Dropout", "rate": "x"},
    {"type": "ReLU", "parameters": {}},
])
def test_bad_descriptions_are_value_errors(config: Any) -> None:
    with pytest.raises(ValueError, match="allowed|missing|Convolution|Dropout"):
        from_config(config)
