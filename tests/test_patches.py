"""Patches that are cut when they are read: the same bits as an array of all, less memory, and nothing else changes."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_atlas import IMAGES, LAYERS, NET, SHAPE, network, same

from zfcore.data import Arrays
from zfcore.study import patches, results
from zfcore.study.atlas import Atlas
from zfcore.study.patches import NOBODY, Shelf, Uncut
from zfcore.study.scan import scan
from zfcore.study.state import State


def run(layers: Any = LAYERS, **options: Any) -> Atlas:
    return scan(NET, Arrays(IMAGES), layers, 5, progress=False, **options)


def uncut(atlas: Atlas) -> list[bool]:
    return [isinstance(part.held, Uncut) for part in atlas.layers.values()]


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """An atlas whose patches were cut during the scan."""
    with monkeypatch.context() as change:
        change.setattr(patches, "RECENT", 0)
        atlas = run()
    assert not any(uncut(atlas))
    return atlas


def test_a_shelf_against_padded_images() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(1, 256, (12, 6, 5, 3), dtype=np.uint8)
    shelf = Shelf()
    for begin in range(0, 12, 4):
        shelf.put(np.arange(begin, begin + 4) * 2, images[begin:begin + 4])
    wanted = np.array([22, 0, 0, 6, 14, 5])  # 5 is on no shelf
    origins = generator.integers(-9, 9, (6, 2)).astype(np.int32)
    found = np.full((8, 4, 7, 3), 77, np.uint8)
    shelf.cut(found, np.array([6, 0, 1, 7, 2, 3]), wanted, origins)
    padded = np.pad(images, ((0, 0), (20, 20), (20, 20), (0, 0)))
    for place, image, (row, column) in zip([6, 0, 1, 7, 2], wanted, origins + 20, strict=False):
        assert np.array_equal(found[place], padded[image // 2, row:row + 4, column:column + 7])
    assert (found[3:6] == 77).all() and shelf.nbytes == images.nbytes

    few = shelf.only(np.array([0, 2, 4, 6, 22, 5]))
    assert few.nbytes == images[:5].nbytes
    again = np.full_like(found, 77)
    few.cut(again, np.array([6, 0, 1, 7, 2, 3]), wanted, origins)
    assert np.array_equal(again[[6, 0, 1, 7]], found[[6, 0, 1, 7]]) and (again[2] == 77).all()


def test_patches_are_cut_when_they_are_read(early: Atlas) -> None:
    atlas = run()
    assert all(uncut(atlas)) and atlas.patch_bytes == early.patch_bytes
    part, expected = atlas["conv2"], early["conv2"]
    assert part.patch_shape == expected.patch_shape == expected.patches.shape[2:]
    assert str(part) == str(expected) == (
        f"LayerTop(7 maps, 5 entries each, patches of {part.patch_shape[0]} x {part.patch_shape[1]} pixels)")
    for maps in (3, np.int64(6), [2, 0], np.array([1, 1]), slice(2, 5), np.arange(7) == 4):
        chosen = np.arange(7)[maps] if isinstance(maps, slice) else maps
        assert np.array_equal(part.cut(chosen), expected.patches[chosen])
        assert np.array_equal(part.cut(chosen), expected.cut(chosen))
    with pytest.raises(IndexError):
        part.cut(7)
    assert all(uncut(atlas))
    assert np.array_equal(part.patches, expected.patches) and part.patches is part.patches
    assert uncut(atlas) == [True, False, True, True]
    assert same(atlas, early)


def test_nothing_but_reading_cuts(tmp_path: Path, early: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving, projecting, merging and showing leave the patches uncut, and give what an atlas of arrays gives."""
    monkeypatch.setattr(patches, "PIECE", 2000)  # several pieces a layer
    atlas = run()
    atlas.save(tmp_path / "uncut")
    early.save(tmp_path / "early")
    for file in sorted((tmp_path / "early").iterdir()):
        if file.suffix == ".npy":
            assert (tmp_path / "uncut" / file.name).read_bytes() == file.read_bytes()
    assert same(Atlas.load(tmp_path / "uncut"), early)
    for layer, pixels in atlas.project("guided").items():
        assert np.array_equal(pixels, early.project("guided", layers=[layer])[layer])
    assert atlas.summary == early.summary and atlas._repr_html_() == early._repr_html_()
    halves = [run(shard=(number, 2)) for number in range(2)]
    assert same(halves[1].merge(halves[0]), early)
    assert all(uncut(atlas)) and all(map(all, map(uncut, halves)))


def test_entries_that_are_not_filled_stay_empty() -> None:
    atlas = scan(NET, IMAGES[:2], "conv3", 4, progress=False)
    assert uncut(atlas) == [True] and not atlas["conv3"].cut(1)[2:].any() and atlas["conv3"].cut(1)[:2].any()
    nothing = scan(NET, IMAGES[:1], "conv3", 4, shard=(0, 2), progress=False)
    assert (nothing["conv3"].images == NOBODY).all() and not nothing["conv3"].patches.any()


def test_images_are_kept_only_where_they_are_smaller() -> None:
    many = np.concatenate([IMAGES, *(IMAGES[:1] * 0 for _ in range(400))])
    small = scan(NET, many, "conv1", 1, progress=False)  # five patches of 27 bytes
    assert uncut(small) == [False]
    large = scan(NET, many, LAYERS, 9, progress=False)
    wanted = {int(image) for part in large.layers.values() for image in part.images.ravel()}
    assert all(uncut(large)) and 9 < len(wanted) < 100
    assert large["conv1"].held._shelf.nbytes == len(wanted) * many[0].nbytes  # those of the others are let go
    assert len({id(part.held._shelf) for part in large.layers.values()}) == 1


def test_the_memory_of_an_unread_atlas() -> None:
    """Less than half of its patches' bytes, while it is scanned, kept and saved in pieces."""
    images = np.random.default_rng(3).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    tracemalloc.start()
    try:
        atlas = scan(NET, images, ["fc"] * 1, 40, batch_size=4, progress=False)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert atlas.patch_bytes == 6 * 40 * 21 * 18 * 3 and kept < atlas.patch_bytes / 2


def test_states_hold_uncut_patches_too(tmp_path: Path, early: Atlas) -> None:
    found = run(state=tmp_path / "s", save_every=8, batch_size=4)
    assert all(uncut(found)) and same(found, early)
    assert same(State(tmp_path / "s").furthest(), early)
    again = run(state=tmp_path / "s")
    assert not any(uncut(again)) and same(again, early)


def test_the_hash_is_that_of_the_parameters_during_the_scan() -> None:
    net = network()
    expected = results.network_hash(net)
    atlas = scan(net, IMAGES, "conv1", progress=False)
    net.nodes["conv1"].layer.parameters["weight"] += 1
    assert atlas.hashes["network"] == expected != results.network_hash(net)


def test_the_network_does_not_change_while_it_is_scanned() -> None:
    class Changing(Arrays):
        def pixels(self, index: int) -> np.ndarray:
            if index == 9:
                net.nodes["conv1"].layer.parameters["weight"][:] = 0
            return super().pixels(index)

    net = network()
    with pytest.raises(ValueError, match="read-only"):
        scan(net, Changing(IMAGES), "conv1", batch_size=2, threads=1, progress=False)
    net.nodes["conv1"].layer.parameters["weight"][:] = 0  # as before


def test_the_forecast_says_when_patches_come_later(capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    scan(NET, IMAGES, LAYERS, 5)
    said = capsys.readouterr().err
    assert "of patches in memory (34 kB until they are read)" in said
    monkeypatch.setattr(patches, "RECENT", 0)
    scan(NET, IMAGES, LAYERS, 5)
    assert "until they are read" not in capsys.readouterr().err
