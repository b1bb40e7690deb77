"""Graph layers on crops: projections on receptive fields are those on whole images, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zfcore import Network, layers
from zfcore.rules import RULES


def stem() -> Network:
    net = Network("crops", (30, 34, 3))
    net.add("c1", layers.Convolution(8, 3, 2, padding=1, activation="relu"))
    return net


def build(add: Callable[[Network], Any]) -> Network:
    """A stem, the layers in question, and a convolution on top of them."""
    net = stem()
    add(net)
    net.add("top", layers.Convolution(4, 3, padding=1))
    return net.initialize(3, "he")


CASES: dict[str, Callable[[Network], Any]] = {
    "clip": lambda net: net.add("l", layers.Clip(0.0, 0.5)),
    "scale": lambda net: net.add("l", layers.Scale()),
    "pad": lambda net: net.add("l", layers.Pad((2, 1, 0, 3))),
    "pad maps": lambda net: net.add("l", layers.Pad((0, 0, 1, 1), (2, 1))),
    "shuffle": lambda net: net.add("l", layers.Rearrange((15 * 17, 2, 4), (0, 2, 1), (15, 17, 8))),
    "slice": lambda net: net.add("l", layers.Slice(2, 5)),
    "subtract": lambda net: net.add("l", layers.Subtract(), [
        net.add("a", layers.Convolution(5, 3, padding="same"), "c1"), net.add("b", layers.Convolution(5, 1), "c1")]),
    "expand": lambda net: net.add("l", layers.Expand((15, 17, 6)),
                                  net.add("a", layers.Convolution(1, 3, padding=1))),
    "mirrored norm": lambda net: net.add("l", layers.ResponseNorm(4, 0.3, 0.75, 1.5, True, True)),
}
SMOOTH: dict[str, Callable[[Network], Any]] = {
    "leaky": lambda net: net.add("l", layers.LeakyReLU(0.2)),
    "prelu": lambda net: net.add("l", layers.PReLU()),
    "sigmoid": lambda net: net.add("l", layers.Sigmoid()),
    "tanh": lambda net: net.add("l", layers.Tanh()),
    "multiply": lambda net: net.add("l", layers.Multiply(), ["c1", net.add("g", layers.Convolution(8, 1))]),
    "divide": lambda net: net.add("l", layers.Divide(), ["c1", net.add("g", layers.Sigmoid(), net.add(
        "h", layers.Convolution(8, 1)))]),
    "log softmax": lambda net: net.add("l", layers.LogSoftmax()),
}
WHOLE: dict[str, Callable[[Network], Any]] = {
    "reflect": lambda net: net.add("l", layers.Pad((1, 1, 1, 1), mode="reflect")),
    "value": lambda net: net.add("l", layers.Pad((1, 1, 1, 1), value=1.0)),
    "numbers of its own for every place": lambda net: net.add("l", layers.Scale((15, 17, 1))),
    "resize": lambda net: net.add("l", layers.Resize((20, 20))),
    "transpose": lambda net: net.add("l", layers.Rearrange((15, 17, 8), (1, 0, 2), (17, 15, 8))),
    "deconvolution": lambda net: net.add("l", layers.TransposedConvolution(4, 3, 2)),
    "unpool": lambda net: net.add("l", layers.MaxUnpool(2), [net.add("p", layers.MaxPool(2)), "c1"]),
}


def same_on_crops(net: Network, rules: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 30, 34, 3)).astype(np.float32)
    units = [(image, f"top:{index}@{row},{column}") for image, index, row, column in
             ((0, 0, 0, 0), (0, 1, 7, 8), (1, 2, 14, 16), (1, 3, 3, 15))]
    assert not net.cone("top").whole
    for rule in rules:
        crops, whole = (net.project(x, units, rule, "one", crop=crop) for crop in (True, False))
        assert np.abs(whole.pixels).max() > 0
        np.testing.assert_array_equal(crops.values, whole.values)
        height, width = crops.pixels.shape[1:3]
        for index, (row, column) in enumerate(crops.origins.tolist()):
            placed = np.zeros((30 + 2 * height, 34 + 2 * width, 3), np.float32)
            placed[row + height:row + 2 * height, column + width:column + 2 * width] = crops.pixels[index]
            np.testing.assert_array_equal(placed[height:height + 30, width:width + 34], whole.pixels[index])
            placed[height:height + 30, width:width + 34] = 0
            assert not placed.any()


@pytest.mark.parametrize("name", CASES)
def test_every_rule_on_crops(name: str) -> None:
    same_on_crops(build(CASES[name]), RULES)


@pytest.mark.parametrize("name", SMOOTH)
def test_layers_that_only_have_a_gradient(name: str) -> None:
    net = build(SMOOTH[name])
    same_on_crops(net, ["gradient"])
    x = np.zeros((1, 30, 34, 3), np.float32)
    for rule in ("deconvnet", "guided"):
        with pytest.raises(ValueError, match="no deconvnet or guided rule"):
            net.project(x, "top:0@3,3", rule, "one")


@pytest.mark.parametrize("name", WHOLE)
def test_what_crops_cannot_hold_runs_on_whole_images(name: str) -> None:
    net = build(WHOLE[name])
    assert net.cone("top").whole
    x = np.random.default_rng(0).standard_normal((1, 30, 34, 3)).astype(np.float32)
    for rule in RULES:
        assert net.project(x, "top:0@3,3", rule, "one").pixels.shape == (1, 30, 34, 3)


def test_a_clip_from_zero_is_a_relu_in_every_rule() -> None:
    x = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]], np.float32)
    signal = np.array([[1.0, 2.0, -3.0, 4.0, -5.0]], np.float32)
    layer = layers.Clip(0.0, 1.0)
    from zfcore import ops

    y, cache = layer.forward(ops.bind(), x)
    np.testing.assert_array_equal(y, [[0, 0, 0.5, 1, 1]])
    down = {name: layer.backward(ops.bind(), signal, cache, rule)[0][0] for name, rule in RULES.items()}
    np.testing.assert_array_equal(down["gradient"], [[0, 0, -3, 0, 0]])
    np.testing.assert_array_equal(down["deconvnet"], [[1, 2, 0, 4, 0]])
    np.testing.assert_array_equal(down["guided"], [[0, 0, 0, 0, 0]])
