"""Augmentations as data, ten crops, the data's own mean and colours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zfcore.data import Arrays, Augmentation, ImageError, Images, Shifts, statistics, ten_crops, with_mean
from zfcore.data.statistics import _place
from zfcore.preprocessing import Preprocessing

PIXELS = np.random.default_rng(2).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
RGB = Preprocessing("RGB")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zfcore.kernels.compile import cache_folder

    monkeypatch.setenv("ZFCORE_CACHE_DIR", str(tmp_path / "cache"))
    cache_folder.cache_clear()
    yield
    cache_folder.cache_clear()


def test_an_augmentation_is_data() -> None:
    for each in (Augmentation(), Augmentation(256, 224, mirror=True, jitter=0.1),
                 Augmentation(crop=(3, 4), views="ten"),
                 Augmentation(pad=4, fill=0, colors=((1, 2, 3), (0, 1, 0), (0, 0, 1)))):
        assert Augmentation.from_config(json.loads(json.dumps(each.to_config()))) == each
    assert Augmentation.from_config({"mirror": True}) == Augmentation(mirror=True)


@pytest.mark.parametrize("config", [
    {"size": 0}, {"crop": 0}, {"crop": [1, 2, 3]}, {"pad": -1}, {"pad": 1.5}, {"fill": 256}, {"mirror": 1},
    {"jitter": -0.1}, {"jitter": float("nan")}, {"jitter": "much"}, {"views": "all"}, {"views": "ten"},
    {"views": "ten", "crop": 4, "mirror": True}, {"views": "ten", "crop": 4, "pad": 1}, {"colors": [[1, 2], [3, 4]]},
    {"colors": [["a"]]}, {"colors": [[1, 2, 3], [1, 2, 3], [1, 2, float("inf")]]}, {"flip": True}, [], "mirror", None])
def test_a_bad_augmentation_is_refused(config: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="Augmentation: .*; allowed: "):
        Augmentation.from_config(config)


@pytest.mark.parametrize("size", [3, (6, 2), (1, 5), (6, 5)])
def test_ten_crops(size: Any) -> None:
    tall, wide = (size, size) if isinstance(size, int) else size
    found = ten_crops(PIXELS, size)
    assert found.shape == (7, 10, tall, wide, 3) and found.dtype == np.uint8
    places = [(0, 0), (0, 5 - wide), (6 - tall, 0), (6 - tall, 5 - wide), ((6 - tall) // 2, (5 - wide) // 2)]
    for image in range(7):
        for view in range(10):
            row, column = places[view % 5]
            for r in range(tall):
                for c in range(wide):
                    across = wide - 1 - c if view >= 5 else c
                    assert (found[image, view, r, c] == PIXELS[image, row + r, column + across]).all()


@pytest.mark.parametrize("size", [0, 7, (6, 6), (1, 2, 3)])
def test_bad_ten_crops(size: Any) -> None:
    with pytest.raises(ValueError, match="ten_crops"):
        ten_crops(PIXELS, size)
    with pytest.raises(ValueError, match="ten_crops"):
        ten_crops(PIXELS[0], 2)


def test_random_views_cover_every_place_evenly() -> None:
    augmentation = Augmentation(crop=(4, 4), mirror=True)
    places = augmentation.draws(0, 0, 6000).places
    seen = [tuple(each) for each in augmentation.origins(6, 5, places).tolist()]
    counts = {key: seen.count(key) for key in set(seen)}
    assert set(counts) == {(row, column, mirrored) for row in range(3) for column in range(2) for mirrored in (0, 1)}
    assert 400 < min(counts.values()) and max(counts.values()) < 600
    ten = Augmentation(crop=4, views="ten")
    assert len(np.unique(ten.origins(8, 9, ten.draws(0, 0, 400).places), axis=0)) == 10
    edge = np.full((1, 3), np.nextafter(1.0, 0.0))
    assert augmentation.origins(6, 5, edge).tolist() == [[2, 1, 0]] and ten.origins(8, 9, edge)[0, 2] == 1


def test_statistics_are_exact() -> None:
    found = statistics(Arrays(PIXELS), RGB, batch_size=2)
    assert found.count == 7 and found.skipped == 0
    np.testing.assert_array_equal(found.mean, PIXELS.astype(np.float64).sum(axis=0) / 7)
    rows = PIXELS.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), rtol=1e-12)
    np.testing.assert_allclose(found.channel_mean, rows.mean(axis=0))
    values, vectors = np.linalg.eigh(np.cov((rows / 255).T, bias=True))
    for row, value, vector in zip(found.colors(), values[::-1], vectors.T[::-1], strict=True):
        assert np.abs(row).argmax() == np.argmax(row)
        np.testing.assert_allclose(np.abs(row), np.abs(255 * value * vector), rtol=1e-9)
    deviations = np.linalg.norm(found.colors("deviation"), axis=1)
    np.testing.assert_allclose(deviations, 255 * np.sqrt(values[::-1]), rtol=1e-9)
    for size, threads in ((1, 1), (100, 3)):
        again = statistics(Arrays(PIXELS), RGB, batch_size=size, threads=threads, cache=False)
        assert np.array_equal(again.mean, found.mean) and np.array_equal(again.covariance, found.covariance)


def test_the_mean_is_in_the_networks_order() -> None:
    images = Arrays(PIXELS)
    mean = PIXELS.mean(axis=0)
    assert np.array_equal(with_mean(images, Preprocessing("BGR", scale=0.5)).mean, mean[..., ::-1].astype(np.float32))
    assert with_mean(images, Preprocessing("BGR", scale=0.5)).scale == 0.5
    channel = with_mean(images, RGB, "channel").mean
    np.testing.assert_allclose(channel, mean.mean(axis=(0, 1)), rtol=1e-6)
    gray = with_mean(Arrays(PIXELS[..., 0]), Preprocessing("L"))
    assert np.array_equal(gray.mean, mean[..., :1].astype(np.float32))
    with pytest.raises(ValueError, match="with_mean: per"):
        with_mean(images, RGB, "picture")


def test_the_pass_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, loads = Arrays(PIXELS), []
    load = Arrays.load
    monkeypatch.setattr(Arrays, "load", lambda self, *rest: (loads.append(1), load(self, *rest))[1])
    first = statistics(images, RGB)
    again = statistics(Arrays(PIXELS.copy()), Preprocessing("BGR", 3.0))
    assert len(loads) == 7 and np.array_equal(first.mean, again.mean)
    place = _place(images, RGB)
    for damage in (lambda: place.write_bytes(place.read_bytes()[:200]), lambda: place.write_bytes(b""),
                   lambda: np.savez(place, mean=np.zeros(3)), lambda: os.truncate(place, 40)):
        damage()
        before = len(loads)
        assert np.array_equal(statistics(images, RGB).mean, first.mean) and len(loads) == before + 7
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] ^= 255
    assert not np.array_equal(statistics(Arrays(changed), RGB).mean, first.mean)
    assert statistics(images, Preprocessing("RGB", crop=2)).mean.shape == (2, 2, 3)


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert statistics(Arrays(PIXELS), RGB).count == 7


def test_statistics_of_what_cannot_be_read() -> None:
    class Bad(Images):
        def load(self, index: int, preprocessing: Any) -> np.ndarray:
            if index in (1, 2):
                raise ImageError("broken")
            return np.full((2 + (index == 5), 2, 1), index, np.uint8)

        def _content(self) -> list[Any]:
            return []

    with pytest.raises(ImageError, match="broken"):
        statistics(Bad(["a"] * 5), RGB)
    found = statistics(Bad(["a"] * 5, on_bad="skip"), RGB)
    assert (found.count, found.skipped) == (3, 2) and (found.mean == 7 / 3).all()
    with pytest.raises(ImageError, match="broken"):  # also when the mean without them is known
        statistics(Bad(["a"] * 5), RGB)
    for size in (2, 6):
        with pytest.raises(ImageError, match="one size for all"):
            statistics(Bad(["a"] * 6, on_bad="skip"), RGB, batch_size=size)
    with pytest.raises(ValueError, match="at least one"):
        statistics(Bad([]), RGB)


def test_shifts_live_in_both_places() -> None:
    from zfcore import training

    assert training.Shifts is Shifts
