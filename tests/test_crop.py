"""Clearing what lies outside a map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerance import same_bits

from zfcore import ops
from zfcore.geometry import Tile
from zfcore.kernels.crop import cut_patches


def by_hand(x, origins, extent):
    out = x.copy()
    for n, r, s in np.ndindex(*x.shape[:3]):
        row, column = origins[n][0] + r, origins[n][1] + s
        if not (0 <= row < extent[0] and 0 <= column < extent[1]):
            out[n, r, s] = 0
    return out


@given(st.lists(st.tuples(st.integers(-6, 9), st.integers(-6, 9)), max_size=4),
       st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(0, 5), st.integers(0, 5))
def test_clear_outside(origins, extent, height, width):
    x = np.random.default_rng(0).standard_normal((len(origins), height, width, 3)).astype(np.float32)
    x[..., 0] = np.nan  # cleared as well
    expected = by_hand(x, origins, extent)
    tile = Tile(np.array(origins, np.int32).reshape(len(origins), 2), extent)
    assert ops.clear_outside(x, tile) is x
    same_bits(x, expected)


def test_bad_crops():
    x = np.ones((2, 3, 3, 1), np.float32)
    tile = Tile(np.zeros((2, 2), np.int32), (3, 3))
    for change, argument, error in (
        (lambda a: a[0], "x.shape", ValueError), (lambda a: a.astype(np.int32), "x.dtype", TypeError),
        (lambda a: np.asfortranarray(np.repeat(a, 2, 3)), "x.flags", ValueError),
        (lambda a: np.broadcast_to(a, a.shape), "x.flags", ValueError),
    ):
        with pytest.raises(error, match=f"clear_outside: {argument} is .*allowed"):
            ops.clear_outside(change(x), tile)
    with pytest.raises(ValueError, match=r"tile.origins.shape is \(1, 2\)"):
        ops.clear_outside(x, Tile(np.zeros((1, 2), np.int32), (3, 3)))
    with pytest.raises(ValueError, match="tile.extent is"):
        ops.clear_outside(x, Tile(np.zeros((2, 2), np.int32), (0, 3)))
    assert (x == 1).all()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-6, 9), st.integers(-6, 9)), max_size=5),
       st.integers(1, 6), st.integers(1, 6))
def test_patches_are_cut_with_zeros_outside(found, height, width):
    images = np.random.default_rng(0).integers(1, 256, (3, 5, 6, 2), dtype=np.uint8)
    patches = np.full((7, height, width, 2), 99, np.uint8)
    places = np.arange(7)[::-1][: len(found)].astype(np.int64)
    items = np.array([item for item, _, _ in found], np.int64)
    origins = np.array([place for _, *place in found], np.int32).reshape(len(found), 2)
    cut_patches(patches, places, images, items, origins)
    padded = np.pad(images, ((0, 0), (16, 16), (16, 16), (0, 0)))
    for place, (item, row, column) in zip(places, found, strict=True):
        same_bits(patches[place], padded[item, row + 16:row + 16 + height, column + 16:column + 16 + width])
    assert (np.delete(patches, places, axis=0) == 99).all()
