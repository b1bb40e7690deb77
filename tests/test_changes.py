"""Local recomputation equals a pass over the whole changed image, bit for bit, in any network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from architectures import images, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore import Network, layers
from zfcore.network.changes import Changes


def changed_images(x: np.ndarray, tiles: np.ndarray, origins: np.ndarray) -> np.ndarray:
    whole = np.repeat(x, len(tiles), axis=0)
    for image, tile, (row, column) in zip(whole, tiles, origins, strict=True):
        image[row:row + tile.shape[0], column:column + tile.shape[1]] = tile
    return whole


def random_change(net: Network, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    height, width, channels = net.input_shape
    size = int(rng.integers(1, height + 1)), int(rng.integers(1, min(9, width) + 1))
    origins = np.stack([rng.integers(0, height - size[0] + 1, count), rng.integers(0, width - size[1] + 1, count)],
                       axis=1)
    return rng.standard_normal((count, *size, channels)).astype(np.float32), origins


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_every_tensor_equals_the_whole_pass(seed: int) -> None:
    net, rng = random_network(seed)
    net.algorithm = "direct"  # the one whose bits do not depend on the place in the map
    if len(net.tensor_shape(net.output)) == 3:
        net.add("pool", layers.GlobalAveragePool())
    net.add("fc", layers.Linear(3, activation="relu"))
    for name, shape in net.parameter_shapes().items():
        if name.startswith("fc."):
            net.nodes["fc"].layer.parameters[name[3:]] = rng.standard_normal(shape).astype(np.float32)
    keep = [*net.nodes, *(f"{name}.pre" for name, node in net.nodes.items() if node.layer.activation), "input"]
    x = images(net, rng, 1)
    tiles, origins = random_change(net, rng, 3)
    changes = Changes(net, x, keep)
    found = changes.run(tiles, origins)
    expected = net.forward(changed_images(x, tiles, origins), keep=keep).kept
    for name in keep:
        np.testing.assert_array_equal(changes.whole(name, found[name]), expected[name], err_msg=name)
    assert 0 < changes.computed <= changes.dense


def test_small_changes_are_cheap_and_whole_passes_are_not() -> None:
    net = Network("deep", (64, 64, 1))
    for number in range(3):
        net.add(f"conv{number}", layers.Convolution(4, 3, padding=1, activation="relu"))
    net.initialize(0, "he")
    x = np.ones((1, 64, 64, 1), np.float32)
    tiles, origins = np.zeros((2, 4, 4, 1), np.float32), np.array([[0, 0], [30, 17]])
    local, whole = Changes(net, x, ["conv2"]), Changes(net, x, ["conv2"], local=False)
    part = local.run(tiles, origins)["conv2"]
    assert part.array.shape == (2, 10, 10, 4) and part.origins.tolist() == [[0, 0], [27, 14]]
    assert np.array_equal(local.whole("conv2", part), whole.run(tiles, origins)["conv2"].array)
    assert whole.computed == whole.dense == local.dense > 20 * local.computed


def test_no_image_gives_no_part() -> None:
    net, rng = random_network(3)
    changes = Changes(net, images(net, rng, 1), [net.output])
    part = changes.run(np.zeros((0, 2, 2, net.input_shape[2]), np.float32), np.zeros((0, 2), int))[net.output]
    assert len(changes.whole(net.output, part)) == 0


@pytest.mark.parametrize(("keep", "count", "origin", "word"), [
    ([], 1, (0, 0), "keep"), (["nine"], 1, (0, 0), "first"), (["first"], 2, (0, 0), "unchanged image"),
    (["first"], 1, (-1, 0), "inside"), (["first"], 1, (0, 1000), "inside")])
def test_bad_arguments(keep: Any, count: int, origin: tuple[int, int], word: str) -> None:
    net, rng = random_network(5)
    with pytest.raises(ValueError, match=word):
        changes = Changes(net, images(net, rng, count), keep)
        changes.run(np.zeros((1, 2, 2, net.input_shape[2]), np.float32), np.array([origin]))
