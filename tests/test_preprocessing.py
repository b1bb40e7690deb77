"""Pixels to numbers: channel order, means, patches, description."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zfcore import Preprocessing
from zfcore.geometry import Tile

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 11, 9, 3), np.uint8)


def test_channel_order_mean_and_scale() -> None:
    found = Preprocessing("BGR", mean=(104, 117, 123), scale=(1, 0.5, 2)).apply(PIXELS)
    expected = (PIXELS[..., ::-1].astype(np.float32) - np.float32([104, 117, 123])) * np.float32([1, 0.5, 2])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(Preprocessing().apply(PIXELS), PIXELS)
    assert Preprocessing("BGR", mean=(1, 2, 3)).apply(PIXELS[:0]).shape == (0, 11, 9, 3)
    gray = PIXELS[..., :1]
    np.testing.assert_array_equal(Preprocessing("L", mean=128.0).apply(gray), gray.astype(np.float32) - 128)


@pytest.mark.parametrize("mean", [7.5, (1.0, 2.0, 3.0), np.random.default_rng(1).random((11, 9, 3)) * 255])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_patches_equal_their_place_in_the_image(mean: object, channels: str) -> None:
    preprocessing = Preprocessing(channels, mean=mean, scale=0.7)
    whole = np.pad(preprocessing.apply(PIXELS), ((0, 0), (20, 20), (20, 20), (0, 0)))
    padded = np.pad(PIXELS, ((0, 0), (20, 20), (20, 20), (0, 0)), constant_values=255)
    for origins in ([[0, 0], [5, 4], [-3, 7]], [[-20, 0], [12, 3], [-4, -4]], [[10, 8], [11, 9], [-5, -6]]):
        patches = np.stack([padded[i, 20 + r:26 + r, 20 + c:25 + c] for i, (r, c) in enumerate(origins)])
        expected = np.stack([whole[i, 20 + r:26 + r, 20 + c:25 + c] for i, (r, c) in enumerate(origins)])
        found = preprocessing.apply(patches, Tile(np.array(origins, np.int32), (11, 9)))
        np.testing.assert_array_equal(found, expected)


def test_description_travels_as_json() -> None:
    for preprocessing in (Preprocessing("BGR", (1.0, 2.0, 3.0), 0.5, (256, 256), 227), Preprocessing("L", 3.0, size=9),
                          Preprocessing(mean=np.ones((11, 9, 3)) * 3, scale=(1.0, 2.0, 3.0))):
        config = json.loads(json.dumps(preprocessing.to_config()))
        again = Preprocessing.from_config(config, preprocessing.tensors())
        assert again.to_config() == preprocessing.to_config()
        if preprocessing.mode == "RGB":
            np.testing.assert_array_equal(again.apply(PIXELS), preprocessing.apply(PIXELS))
    assert Preprocessing("BGR").mode == "RGB" and Preprocessing("L").mode == "L"


@pytest.mark.parametrize(("options", "what"), [
    ({"channels": "CMYK"}, "channels"), ({"mean": (1, 2)}, "mean"), ({"mean": np.ones((3, 3))}, "mean"),
    ({"mean": float("nan")}, "mean"), ({"mean": "gray"}, "mean"), ({"scale": (1, 2)}, "scale"),
    ({"scale": float("inf")}, "scale"), ({"scale": np.ones((2, 2, 3))}, "scale"), ({"size": 0}, "size"),
    ({"size": (1, 2, 3)}, "size"), ({"size": 2.5}, "size"), ({"crop": -1}, "crop"), ({"crop": True}, "crop"),
    ({"channels": "L", "mean": (1, 2, 3)}, "mean"), ({"crop": ()}, "crop"), ({"channels": ["L"]}, "channels"),
    ({"scale": 10**400}, "scale"), ({"size": 10**30}, "size"), ({"crop": (1, 10**30)}, "crop"),
])
def test_bad_descriptions(options: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=f"Preprocessing: {what}"):
        Preprocessing(**options)


@pytest.mark.parametrize("mean", [7.5, (1.0, 2.0, 3.0), np.random.default_rng(1).random((11, 9, 3)) * 255])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_numbers_go_where_they_are_wanted(mean: object, channels: str) -> None:
    preprocessing = Preprocessing(channels, mean=mean, scale=(0.7, 1.0, 1.1))
    ordered = PIXELS[..., ::-1] if channels == "BGR" else PIXELS
    expected = (ordered.astype(np.float32) - np.float32(mean)) * np.float32([0.7, 1.0, 1.1])
    found = np.full((5, 11, 9, 3), np.nan, np.float32)
    assert preprocessing.apply(PIXELS, out=found[1:4]).base is found
    assert np.array_equal(found[1:4], expected) and np.isnan(found[[0, 4]]).all()
    for out in (found, found[1:4].astype(np.float64), found.transpose(0, 2, 1, 3)[:3], found[1:4, :, ::-1]):
        with pytest.raises(ValueError, match="Preprocessing: out"):
            preprocessing.apply(PIXELS, out=out)


def test_bad_pixels_and_configurations() -> None:
    with pytest.raises(TypeError, match="uint8"):
        Preprocessing().apply(PIXELS.astype(np.float32))
    for pixels in (PIXELS[0], PIXELS[..., :1]):
        with pytest.raises(ValueError, match="pixels.shape"):
            Preprocessing().apply(pixels)
    with pytest.raises(ValueError, match="per-pixel mean"):
        Preprocessing(mean=np.ones((10, 9, 3))).apply(PIXELS)
    with pytest.raises(ValueError, match="per-pixel mean"):
        Preprocessing(mean=np.ones((10, 9, 3))).apply(PIXELS, Tile(np.zeros((3, 2), np.int32), (11, 9)))
    for config in ([], {"other": 1}, {"channels": "X"}, {"mean": None}):
        with pytest.raises(ValueError, match="Preprocessing"):
            Preprocessing.from_config(config)  # type: ignore[arg-type]
