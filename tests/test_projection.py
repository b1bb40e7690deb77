"""Projections: crops equal whole images bit for bit, items do not depend on each other, bad units."""

from __future__ import annotations

import numpy as np
import pytest
import real_alexnet
from architectures import images, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore import Network, Unit, layers
from zfcore.network import walk
from zfcore.rules import RULES


def random_units(net: Network, layer: str, rng: np.random.Generator, count: int,
                 batch: int) -> list[tuple[int, Unit]]:
    """Units of one layer at random places, corners among them."""
    height, width, maps = net.tensor_shape(layer)
    units = [(int(rng.integers(batch)), Unit(layer, int(rng.integers(maps)), int(rng.integers(height)),
                                             int(rng.integers(width)))) for _ in range(count)]
    corners = [(0, 0), (height - 1, width - 1), (0, width - 1)]
    return units + [(0, Unit(layer, int(rng.integers(maps)), *corner)) for corner in corners]


def assert_crops_equal_whole(net: Network, x: np.ndarray, units: list[tuple[int, Unit]], rule: str,
                             seed: str = "activation") -> None:
    crops = net.project(x, units, rule, seed, allow_negative=True)
    whole = net.project(x, units, rule, seed, crop=False, allow_negative=True)
    cone = net.cone(units[0][1].layer)
    np.testing.assert_array_equal(crops.values, whole.values)
    np.testing.assert_array_equal(crops.pixels, cone.extract(whole.pixels, range(len(units)), crops.origins))
    # Nothing is outside the receptive field.
    np.testing.assert_array_equal(np.count_nonzero(crops.pixels, axis=(1, 2, 3)),
                                  np.count_nonzero(whole.pixels, axis=(1, 2, 3)))
    assert crops.pixels.shape[1:3] == cone.size


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_crops_equal_whole_images(seed: int) -> None:
    net, rng = random_network(seed)
    x = images(net, rng, 3)
    names = [name for name in net.nodes if not net.cone(name).whole]
    assert "first" in names
    for layer in {"first", names[-1], str(rng.choice(names))}:
        units = random_units(net, layer, rng, 5, 3)
        for rule in RULES:
            assert_crops_equal_whole(net, x, units, rule)


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_crops_equal_whole_images_before_the_relu_and_in_float64(seed: int) -> None:
    net, rng = random_network(seed, "convolution max add", stages=3)
    net.astype(np.float64)
    x = images(net, rng, 2, np.float64)
    fused = [name for name, node in net.nodes.items() if node.layer.activation and not net.cone(name).whole]
    units = random_units(net, f"{fused[-1]}.pre", rng, 4, 2)
    for rule in RULES:
        assert_crops_equal_whole(net, x, units, rule, "one")


def test_family_covers_every_layer_with_a_cone() -> None:
    seen: set[str] = set()
    for seed in range(60):
        net, _ = random_network(seed)
        seen |= {type(node.layer).__name__ for name, node in net.nodes.items() if not net.cone(name).whole}
    assert seen >= {"Convolution", "MaxPool", "AveragePool", "ResponseNorm", "ContrastNorm", "BatchNorm",
                    "ReLU", "Dropout", "Add", "Concat"}


@pytest.fixture(scope="module")
def small() -> Network:
    net, _ = random_network(3, "convolution max response", stages=3, sizes=(28, 34))
    return net


@pytest.mark.parametrize("crop", [True, False])
def test_an_item_depends_on_nothing_but_itself(small: Network, crop: bool) -> None:
    rng = np.random.default_rng(0)
    x = images(small, rng, 4)
    units = random_units(small, small.output, rng, 9, 4)
    together = small.project(x, units, "guided", crop=crop, allow_negative=True)
    again = small.project(x, units, "guided", crop=crop, allow_negative=True)
    np.testing.assert_array_equal(together.pixels, again.pixels)
    in_pieces = small.project(x, units, "guided", crop=crop, allow_negative=True, batch_size=2)
    np.testing.assert_array_equal(together.pixels, in_pieces.pixels)
    order = rng.permutation(len(units))
    shuffled = small.project(x, [units[i] for i in order], "guided", crop=crop, allow_negative=True)
    np.testing.assert_array_equal(together.pixels[order], shuffled.pixels)
    np.testing.assert_array_equal(together.values[order], shuffled.values)
    for place in (0, 5):
        alone = small.project(x, [units[place]], "guided", crop=crop, allow_negative=True)
        np.testing.assert_array_equal(together.pixels[place], alone.pixels[0])


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("crop", [True, False])
def test_units_that_share_a_tile_go_up_once_with_the_same_bits(small: Network, crop: bool, rule: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    x, layer = images(small, rng, 2), small.output
    maps = small.tensor_shape(layer)[2]
    places = [(0, 0, 0), (1, 1, 0), (0, 1, 1)]
    units = [(image, Unit(layer, int(index), row, column)) for index in rng.integers(maps, size=5)
             for image, row, column in places]
    went_up = []
    up = walk.up
    monkeypatch.setattr(walk, "up", lambda ops, tiles, *rest, **named: (went_up.append(len(tiles)),
                                                                        up(ops, tiles, *rest, **named))[1])
    together = small.project(x, units, rule, crop=crop, allow_negative=True)
    assert went_up == [len(places)]
    for each, unit in enumerate(units):
        alone = small.project(x, [unit], rule, crop=crop, allow_negative=True)
        np.testing.assert_array_equal(together.pixels[each], alone.pixels[0])
        assert together.values[each] == alone.values[0]


def test_tiles_equal_images(small: Network) -> None:
    rng = np.random.default_rng(1)
    x, layer = images(small, rng, 3), small.output
    chosen = random_units(small, layer, rng, 6, 3)
    cone = small.cone(layer)
    indices = [image for image, _ in chosen]
    maps, rows, columns = np.array([(unit.map, unit.row, unit.column) for _, unit in chosen]).T
    origins = cone.origins(rows, columns)
    tiles = cone.extract(x, indices, origins)
    before = tiles.copy()
    pixels, values = small.project_tiles(tiles, origins, layer, maps, rows, columns, allow_negative=True)
    expected = small.project(x, chosen, allow_negative=True)
    np.testing.assert_array_equal(pixels, expected.pixels)
    np.testing.assert_array_equal(values, expected.values)
    np.testing.assert_array_equal(tiles, before)


def test_first_layer_unit_is_its_filter() -> None:
    net = Network("one", (9, 9, 2))
    net.add("conv1", layers.Convolution(3, 3, activation="relu"))
    net.initialize(0, "he")
    x = np.random.default_rng(0).standard_normal((1, 9, 9, 2)).astype(np.float32)
    found = net.project(x, "conv1:1", seed="one")
    np.testing.assert_array_equal(found.pixels[0], net.parameters()["conv1.weight"][1])
    value = net(x)[0, :, :, 1]
    unit = found.units[0]
    assert value[unit.row, unit.column] == value.max() == found.values[0]
    assert found.pixels.min() < 0  # the picture is signed


def test_units_above_a_flatten_use_the_whole_image() -> None:
    net = Network("classes", (12, 12, 1))
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    net.add("flatten", layers.Flatten())
    net.add("fc2", layers.Linear(5))
    net.add("prob", layers.Softmax())
    net.initialize(1, "he")
    x = np.random.default_rng(0).standard_normal((2, 12, 12, 1)).astype(np.float32)
    assert net.cone("fc2").whole and not net.cone("conv1").whole
    found = net.project(x, ["fc2:3", "fc2:4"], "gradient", "one")
    assert found.pixels.shape == (2, 12, 12, 1) and not found.origins.any()
    np.testing.assert_array_equal(found.values, net.forward(x, to="fc2").output[[0, 1], [3, 4]])
    for rule in ("deconvnet", "guided"):
        with pytest.raises(ValueError, match="Softmax: rule"):
            net.project(x, "prob:1", rule)
    net.project(x, "prob:1", "gradient")


def test_one_unit_in_every_image_and_its_strongest_place(small: Network) -> None:
    x = images(small, np.random.default_rng(2), 3)
    layer = small.output
    found = small.project(x, f"{layer}:1", allow_negative=True)
    tensor = small.forward(x, to=layer).output[..., 1]
    np.testing.assert_array_equal(found.values, tensor.reshape(3, -1).max(axis=1))
    np.testing.assert_array_equal(found.images, [0, 1, 2])
    assert [str(unit) for unit in found.units] == [
        f"{layer}:1@{r},{c}" for r, c in (np.unravel_index(plane.argmax(), plane.shape) for plane in tensor)]
    second = small.project(x, f"{layer}:1", images=[2], allow_negative=True)
    np.testing.assert_array_equal(second.pixels[0], found.pixels[2])


def test_branches_of_different_strides_use_the_whole_image() -> None:
    net = Network("odd", (16, 16, 1))
    net.add("a", layers.MaxPool(2, 2, ceil_mode=True))
    net.add("b", layers.Convolution(1, 9), "input")
    net.add("c", layers.Concat(), ["a", "b"])
    net.initialize(0)
    cone = net.cone("c")
    assert cone.whole and cone.size == (16, 16)


def test_bad_units(small: Network) -> None:
    x, layer = images(small, np.random.default_rng(2), 2), small.output
    height, width, maps = small.tensor_shape(layer)
    with pytest.raises(ValueError, match="first, "):
        small.project(x, "conv9:0")
    for unit, what in ((f"{layer}:{maps}", "map"), (f"{layer}:0@{height},0", "row"),
                       (f"{layer}:0@0,{width}", "column")):
        with pytest.raises(ValueError, match=f"{what} is .*allowed: 0 to"):
            small.project(x, unit)
    with pytest.raises(ValueError, match="with a map"):
        small.project(x, layer)
    with pytest.raises(ValueError, match="one layer"):
        small.project(x, ["first:0", f"{layer}:0"])
    with pytest.raises(ValueError, match="index"):
        small.project(x, ["first:0", "first:1", "first:2"])
    with pytest.raises(ValueError, match="image index"):
        small.project(x, [(2, "first:0")])
    with pytest.raises(ValueError, match="empty"):
        small.project(x, [])
    with pytest.raises(ValueError, match="rule is"):
        small.project(x, "first:0", "deconv")
    with pytest.raises(ValueError, match="seed is"):
        small.project(x, "first:0", seed="two")
    with pytest.raises(ValueError, match="batch_size"):
        small.project(x, "first:0", batch_size=0)
    with pytest.raises(ValueError, match="x.shape"):
        small.project(x[:, :-1], "first:0")
    with pytest.raises(ValueError, match="input"):
        small.project(x, "input:0")
    for text in ("", "conv5:", "conv5:1@2", "conv5:a", "conv5:1@1,2,3", "conv5@1,2", 7):
        with pytest.raises(ValueError, match="unit is"):
            small.project(x, [text] * 2)


def test_negative_units_are_an_error_unless_allowed() -> None:
    net = Network("n", (5, 5, 1))
    net.add("conv1", layers.Convolution(1, 3, activation="relu"))
    net.initialize(0)
    net.load_parameters({"conv1.weight": np.ones((1, 3, 3, 1)), "conv1.bias": np.zeros(1)})
    x = -np.ones((1, 5, 5, 1), np.float32)
    with pytest.raises(ValueError, match=r"conv1.pre:0@1,1 is -9.0; allowed: a value >= 0"):
        net.project(x, "conv1.pre:0@1,1")
    assert net.project(x, "conv1.pre:0@1,1", allow_negative=True).pixels.max() == -9
    assert net.project(x, "conv1.pre:0@1,1", seed="one").pixels.max() == 1
    assert net.project(x, "conv1:0@1,1").values[0] == 0
    with pytest.raises(ValueError, match="no fused ReLU"):
        net.add("pool", layers.MaxPool(3))
        net.project(x, "pool.pre:0")


def test_bad_tiles(small: Network) -> None:
    layer = small.output
    cone = small.cone(layer)
    tiles = np.zeros((1, *cone.size, small.input_shape[2]), np.float32)
    good = cone.origins([0], [0])
    small.project_tiles(tiles, good, layer, [0], [0], [0])
    for arguments, what in (((tiles[:, 1:], good, layer, [0], [0], [0]), "tiles.shape"),
                            ((tiles, good + 1, layer, [0], [0], [0]), "origins"),
                            ((tiles, good, layer, [99], [0], [0]), "maps"),
                            ((tiles, good, layer, [0], [-1], [0]), "rows"),
                            ((tiles, good, layer, [0], [0], [999]), "columns"),
                            ((tiles, good, layer, [0, 1], [0], [0]), "maps")):
        with pytest.raises(ValueError, match=what):
            small.project_tiles(*arguments)


def test_real_alexnet_crops_and_values() -> None:
    net, top = real_alexnet.alexnet(), real_alexnet.top9()
    entries = [("conv5", int(name), entry) for name, found in top["conv5"].items() for entry in found[:1]]
    x = net.preprocessing.apply(real_alexnet.photographs([entry["image"] for _, _, entry in entries[:3]]))
    units = [(place, Unit("conv5", number, entry["row"], entry["column"]))
             for place, (_, number, entry) in enumerate(entries[:3])]
    found = net.project(x, units)
    np.testing.assert_allclose(found.values, [entry["value"] for _, _, entry in entries[:3]], atol=1e-3)
    assert found.pixels.shape == (3, 163, 163, 3)
    whole = net.project(x, units[:1], crop=False)
    tile = net.cone("conv5").extract(whole.pixels, [0], found.origins[:1])
    np.testing.assert_array_equal(tile[0], found.pixels[0])


def _some_crop_differs() -> bool:
    """Whether any of a few random networks shows a difference between crops and whole images."""
    for seed in range(6):
        net, rng = random_network(seed, "convolution max response", stages=3)
        x = images(net, rng, 1)
        layer = [name for name in net.nodes if not net.cone(name).whole][-1]
        height, width, _ = net.tensor_shape(layer)
        corners = [(0, Unit(layer, 0, row, column)) for row in (0, height - 1) for column in (0, width - 1)]
        try:
            for rule in RULES:
                assert_crops_equal_whole(net, x, corners, rule, "one")
        except (AssertionError, ValueError, IndexError):
            return True
    return False


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells outside the map left as they are, a shifted field, a field too small, filters of another map."""
    from zfcore.geometry import Field
    from zfcore.network import cones

    assert not _some_crop_differs()
    with monkeypatch.context() as patch:
        patch.setattr(cones.Crop, "_clear", lambda self, ops, tensor, field, array: array)
        assert _some_crop_differs()
    below = Field.below
    for shift in ((0, 1), (1, 0)):
        def shifted(self: Field, window: object, shift: tuple[int, int] = shift) -> Field:
            field = below(self, window)  # type: ignore[arg-type]
            return Field(field.size, field.stride, (field.offset[0] + shift[0], field.offset[1] + shift[1]))

        with monkeypatch.context() as patch:
            patch.setattr(Field, "below", shifted)
            assert _some_crop_differs()
    step = layers.Convolution.unit_gradient
    with monkeypatch.context() as patch:
        patch.setattr(layers.Convolution, "unit_gradient",
                      lambda self, ops, maps, values, shape: step(self, ops, (maps + 1) % self.filters, values, shape))
        assert _some_crop_differs()
