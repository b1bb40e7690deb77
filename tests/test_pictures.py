"""Pictures: gray is zero, one scale, channels in the right order, grids and files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zfcore.pictures import (
    GRAY,
    atlas_picture,
    card_pictures,
    encode_small,
    enlarge,
    filter_picture,
    grid,
    in_rgb_order,
    png,
    resize_tiles,
    signed,
    symmetric_scale,
)


def test_gray_is_zero_and_the_scale_is_symmetric() -> None:
    values = np.array([-4.0, -2, 0, 2, 4, 8], np.float32)
    assert signed(values, 4).tolist() == [1, 64, 128, 192, 255, 255]
    assert signed(values).tolist()[2] == GRAY and signed(values).max() == 255
    assert signed(np.zeros((2, 2))).tolist() == [[GRAY, GRAY], [GRAY, GRAY]]
    assert symmetric_scale(values) == 8 and symmetric_scale(np.zeros(3)) == 1
    assert symmetric_scale(np.arange(-1000, 1001), 50) == pytest.approx(500, abs=1)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_opposite_values_get_opposite_shades(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    assert (signed(values).astype(int) + signed(-values) == 2 * GRAY).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        signed(np.array([0, bad]))


def test_scales_and_percentiles_are_checked() -> None:
    for scale in (0, -1, np.array([1.0, 0.0])):
        with pytest.raises(ValueError, match="scale"):
            signed(np.ones(2), scale)
    with pytest.raises(ValueError, match="percentile"):
        symmetric_scale(np.ones(2), 0)


def test_channel_orders() -> None:
    blue_first = np.zeros((1, 1, 3))
    blue_first[..., 0] = 1
    assert in_rgb_order(blue_first, "BGR")[0, 0].tolist() == [0, 0, 1]
    assert in_rgb_order(blue_first, "RGB")[0, 0].tolist() == [1, 0, 0]
    assert in_rgb_order(blue_first[..., :1], "L").shape == (1, 1, 1)
    with pytest.raises(ValueError, match="RGB"):
        in_rgb_order(blue_first, "GBR")
    weight = np.zeros((1, 2, 2, 3), np.float32)
    weight[..., 2] = 1  # red, for a BGR network
    assert filter_picture(weight, "BGR", smallest=2)[0, 0].tolist() == [255, GRAY, GRAY]


def test_small_tiles_are_repeated_by_a_whole_factor() -> None:
    tile = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    large = enlarge(tile, 8)
    assert large.shape == (1, 6, 9, 1) and np.array_equal(large[:, ::3, ::3], tile)
    assert (large[0, :3, :3] == tile[0, 0, 0]).all() and enlarge(tile, 3) is tile
    assert resize_tiles(np.full((2, 200, 100, 3), 7, np.uint8), 64, 96).shape == (2, 96, 48, 3)
    assert resize_tiles(np.zeros((0, 200, 100, 3), np.uint8), 64, 96).shape[0] == 0


def test_a_grid_puts_tiles_in_rows() -> None:
    tiles = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    sheet = grid(tiles, 3, gap=1, background=99)
    assert sheet.shape == (5, 11, 1)
    assert [sheet[3 * (index // 3), 4 * (index % 3), 0] for index in range(5)] == [0, 1, 2, 3, 4]
    assert (sheet[2] == 99).all() and sheet[3, 8, 0] == 99
    assert grid(tiles).shape == (5, 11, 1) and grid(tiles[:0], 3).size > 0
    for bad in (tiles[0], tiles.astype(float)):
        with pytest.raises(ValueError, match="uint8"):
            grid(bad)


def card(channels: str = "RGB", depth: int = 3, **options: Any) -> tuple[np.ndarray, np.ndarray, float]:
    generator = np.random.default_rng(0)
    projections = generator.normal(size=(9, 8, 6, depth)).astype(np.float32)
    patches = generator.integers(0, 256, (9, 8, 6, depth), dtype=np.uint8)
    origins = np.zeros((9, 2), np.int32)
    origins[0], origins[1] = (-3, -2), (5, 7)
    return card_pictures(projections, patches, origins, (12, 10), channels, gap=0, smallest=1, **options)


def test_a_card_has_one_scale_and_gray_borders() -> None:
    left, right, scale = card()
    assert left.shape == right.shape == (24, 18, 3)
    assert (right[:3, :6] == GRAY).all() and (right[:8, :2] == GRAY).all()      # above and left of the image
    assert (right[7:8, 6:12] == GRAY).all() and (right[:8, 9:12] == GRAY).all()  # below and right of it
    assert not (right[3:8, 2:6] == GRAY).all()
    assert card(scale=2 * scale)[2] == 2 * scale
    empty = card(filled=np.arange(9) != 4)[1]
    assert (empty[8:16, 6:12] == GRAY).all()


def test_cards_of_bgr_and_gray_networks() -> None:
    assert np.array_equal(card("BGR")[0], card("RGB")[0][..., ::-1])
    assert np.array_equal(card("BGR")[1], card("RGB")[1])  # patches are RGB already
    assert card("L", 1)[0].shape == (24, 18, 1)


def test_a_sheet_holds_every_card() -> None:
    left, right, _ = card("L", 1, largest=8)
    big = [(enlarge(left, 120), enlarge(right, 120))] * 5
    sheet = atlas_picture(big, [f"conv1:{index}" for index in range(5)], ["max 1"] * 5, title="conv1", columns=2)
    height, width = big[0][0].shape[:2]
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert sheet.shape[0] > 3 * height and sheet.shape[1] > 4 * width
    found = sum(np.array_equal(sheet[top:top + height, x:x + width, :1], big[0][0])
                for top in range(sheet.shape[0] - height) for x in (30, 28, 26, 24, 22, 32, 34, 36))
    assert found == 3  # one a row in the first column
    plain = atlas_picture(big, [""] * 5, columns=2)
    assert (sheet.shape[0] > plain.shape[0]) and not np.array_equal(sheet, plain)
    for cards, labels in (([], []), (big, ["a"])):
        with pytest.raises(ValueError, match="one label a card"):
            atlas_picture(cards, labels)


def test_filters_share_a_scale_unless_each_has_its_own() -> None:
    weight = np.zeros((12, 3, 3, 1), np.float32)
    weight[0, 0, 0], weight[1, 0, 0] = 1, -0.5
    picture = filter_picture(weight, "L", smallest=3, gap=0)
    assert picture.shape == (9, 12, 1)  # 4 columns: a divisor of 12, near twice as wide as tall
    assert picture[0, 0, 0] == 255 and picture[0, 3, 0] == 64
    assert filter_picture(weight, "L", each=True, smallest=3, gap=0)[0, 3, 0] == 1
    with pytest.raises(ValueError, match="1 or 3"):
        filter_picture(np.zeros((2, 3, 3, 5)))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_png_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and np.array_equal(np.asarray(picture), pixels.reshape(np.shape(picture)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
def test_odd_arrays_are_no_png(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        png(tmp_path / "a.png", bad)
    assert not list(tmp_path.iterdir())


def test_large_photographs_become_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    content, suffix = encode_small(noise, 2000)
    assert suffix == ".jpg" and Image.open(io.BytesIO(content)).format == "JPEG"
    content, suffix = encode_small(noise * 0, 2000)
    assert suffix == ".png" and Image.open(io.BytesIO(content)).format == "PNG"
