"""Sizes, receptive fields, names of units."""

from __future__ import annotations

import numpy as np
import pytest
from architectures import images, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore import Unit, models
from zfcore.geometry import POINTWISE, Field, Window, output_size, same_padding


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_every_stride_a_position(size: int, window: int, stride: int, dilation: int) -> None:
    before, after = same_padding(size, window, stride, dilation)
    assert output_size(size, window, stride, before, after, dilation) == -(-size // stride)
    assert 0 <= after - before <= 1


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
def test_ceil_mode_windows_start_inside(size: int, window: int, stride: int, pad: int) -> None:
    pad = min(pad, window // 2)
    if window > size + 2 * pad:
        return
    floor, ceil = (output_size(size, window, stride, pad, pad, ceil_mode=mode) for mode in (False, True))
    assert floor <= ceil <= floor + 1
    assert (ceil - 1) * stride < size + pad  # no window starts in the padding after the map
    if ceil == floor and floor * stride < size + pad:
        assert (floor - 1) * stride + window >= size + 2 * pad  # nothing is left over


def test_zfnet_sizes_need_ceil_mode() -> None:
    assert output_size(110, 3, 2, 0, 0, ceil_mode=True) == 55
    assert output_size(110, 3, 2, 0, 0) == 54
    assert output_size(26, 3, 2, 0, 0, ceil_mode=True) == 13
    assert same_padding(224, 3, 2) == (0, 1)


@pytest.mark.parametrize(("name", "fields"), [
    ("zfnet", {"conv1": 7, "conv2": 27, "conv3": 75, "conv4": 107, "conv5": 139}),
    ("alexnet", {"conv1": 11, "conv2": 51, "conv3": 99, "conv4": 131, "conv5": 163}),
    ("vgg16", {"conv1_1": 3, "conv2_2": 14, "conv3_3": 40, "conv5_3": 196}),
])
def test_receptive_fields_of_the_papers(name: str, fields: dict[str, int]) -> None:
    net = models.build(name)
    rows = {row.name: row for row in net.layers()}
    for layer, side in fields.items():
        assert rows[layer].receptive_field.size == (side, side)
        cone = net.cone(layer)
        if not cone.whole:
            assert (cone.size, cone.stride, cone.offset) == (
                rows[layer].receptive_field.size, rows[layer].receptive_field.stride,
                rows[layer].receptive_field.offset)
    assert rows["fc6"].receptive_field is None and net.cone("fc6").whole


def test_zfnet_origins() -> None:
    cone = models.zfnet().cone("conv5")
    # conv1 pads by 1, conv3 to conv5 by 1 each at stride 16: -1 - 3 * 16.
    np.testing.assert_array_equal(cone.origins([0, 6], [1, 12]), [[-49, -33], [47, 143]])
    assert cone.origins([0], [0]).dtype == np.int32


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_pixels_outside_the_receptive_field_do_not_matter(seed: int) -> None:
    """And some pixel inside does, so that the field is not merely large."""
    net, rng = random_network(seed, "convolution max average contrast add", stages=3, sizes=(20, 30))
    x = images(net, rng, 1)
    for layer in list(net.nodes)[-2:]:
        cone = net.cone(layer)
        if cone.whole:
            continue
        height, width, _ = net.tensor_shape(layer)
        row, column = int(rng.integers(height)), int(rng.integers(width))
        top, left = cone.origins([row], [column])[0].tolist()
        inside = np.zeros(x.shape[1:3], bool)
        inside[max(top, 0):max(top + cone.size[0], 0), max(left, 0):max(left + cone.size[1], 0)] = True
        before = net.forward(x, to=layer).output[0, row, column]
        other = np.where(inside[None, :, :, None], x, rng.standard_normal(x.shape).astype(np.float32))
        np.testing.assert_array_equal(net.forward(other, to=layer).output[0, row, column], before)


def test_field_of_a_border_pixel_is_felt() -> None:
    """The receptive field's corners are really seen: a linear net whose weights are 1."""
    from zfcore import Network, layers

    net = Network("ones", (21, 19, 1))
    net.add("a", layers.Convolution(1, 3, stride=2, padding=1, bias=False))
    net.add("b", layers.Convolution(1, 3, dilation=2, bias=False))
    net.load_parameters({key: np.ones(shape) for key, shape in net.parameter_shapes().items()})
    cone = net.cone("b")
    top, left = cone.origins([1], [1])[0]
    for row, column, seen in ((top, left, True), (top + cone.size[0] - 1, left + cone.size[1] - 1, True),
                              (top - 1, left, False), (top + cone.size[0], left, False)):
        x = np.zeros((1, 21, 19, 1), np.float32)
        x[0, row, column] = 1
        assert bool(net(x)[0, 1, 1, 0]) == seen


def test_fields_compose() -> None:
    unit = Field()
    window = Window((2, 3), (1, 0), (5, 4))
    below = unit.below(window)
    assert below == Field((5, 4), (2, 3), (-1, 0))
    assert unit.below(POINTWISE) == unit
    assert below.hull(Field((1, 9), (2, 3), (3, -2))) == Field((5, 9), (2, 3), (-1, -2))
    assert below.hull(Field((5, 4), (1, 3), (-1, 0))) is None


@pytest.mark.parametrize(("text", "unit"), [
    ("conv5", Unit("conv5")), ("conv5:42", Unit("conv5", 42)), ("conv5:42@6,7", Unit("conv5", 42, 6, 7)),
    ("conv5.pre:0@0,0", Unit("conv5.pre", 0, 0, 0)), ("block/1_a-b:3", Unit("block/1_a-b", 3)),
])
def test_names_of_units(text: str, unit: Unit) -> None:
    assert Unit.parse(text) == unit
    assert str(unit) == text
    assert Unit.parse(f"  {text} ") == unit
    assert Unit.parse(unit) is unit


def test_bad_units() -> None:
    for text in ("", "a b", "a:", "a:-1", "a:1@", "a:1@2", "a:1@2,", "a@1,2", "a:1.5", "a:99999999999", None):
        with pytest.raises(ValueError, match="unit is"):
            Unit.parse(text)  # type: ignore[arg-type]
    for values in ({"row": 1, "column": 1}, {"map": 1, "row": 1}, {"map": 1, "column": 0}):
        with pytest.raises(ValueError, match="row, column"):
            Unit("a", **values)
