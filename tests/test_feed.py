"""The feed against a plain loop: order, views, colours, resumption, threads, bad pictures, memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore.data import (
    Arrays,
    Augmentation,
    Feed,
    ImageError,
    ImageFolder,
    Images,
    open_images,
    statistics,
    ten_crops,
    with_mean,
)
from zfcore.preprocessing import Preprocessing

RANDOM = np.random.default_rng(5)
COUNT, SHAPE = 23, (9, 8, 3)
PIXELS = RANDOM.integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
LABELS = RANDOM.integers(0, 4, COUNT)
IMAGES = Arrays(PIXELS, LABELS)
MEAN = RANDOM.uniform(90, 140, SHAPE)
COLORS = ((3.0, 2.0, 1.0), (-1.0, 1.0, 0.5), (0.1, -0.2, 0.3))
PREPROCESSINGS = [Preprocessing("RGB"), Preprocessing("BGR", (104, 117, 123), 1 / 58), Preprocessing("RGB", MEAN),
                  Preprocessing("BGR", MEAN, (0.1, 0.2, 0.3))]
AUGMENTATIONS = [Augmentation(), Augmentation(mirror=True), Augmentation(pad=2, mirror=True),
                 Augmentation(pad=3, fill=7, crop=(12, 5)), Augmentation(crop=(6, 5), mirror=True),
                 Augmentation(crop=(6, 5), views="ten"), Augmentation(crop=4, views="centre"),
                 Augmentation(pad=20, crop=6), Augmentation(crop=6, jitter=0.1, colors=COLORS, mirror=True)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def naive(pixels: np.ndarray, preprocessing: Preprocessing, augmentation: Augmentation, places: np.ndarray,
          colors: np.ndarray) -> np.ndarray:
    """Whole picture first: mean, colours, scale, padding; then the view, pixel by pixel."""
    ordered = pixels[:, :, ::-1] if preprocessing.channels == "BGR" else pixels
    values = ordered.astype(np.float32) - preprocessing.mean
    if augmentation.jitter:
        shift = sum(augmentation.jitter * colors[k] * np.array(augmentation.colors)[k] for k in range(3))
        values = values + (shift[::-1] if preprocessing.channels == "BGR" else shift).astype(np.float32)
    values = values * preprocessing.scale
    height, width, channels = values.shape
    tall, wide = (height, width) if augmentation.crop is None else (
        (augmentation.crop, augmentation.crop) if isinstance(augmentation.crop, int) else augmentation.crop)
    flat = preprocessing.mean.mean(axis=(0, 1)) if preprocessing.mean.ndim == 3 else preprocessing.mean
    outside = 0.0 if augmentation.fill is None else (np.float32(augmentation.fill) - flat) * preprocessing.scale
    pad = augmentation.pad
    if augmentation.views == "ten":
        which = int(places[0] * 10)
        return ten_crops(values[None], (tall, wide))[0, which]
    if augmentation.views == "centre":
        row, column = (height + 2 * pad - tall) // 2, (width + 2 * pad - wide) // 2
    else:
        row = int(np.floor(places[0] * (height + 2 * pad - tall + 1)))
        column = int(np.floor(places[1] * (width + 2 * pad - wide + 1)))
    result = np.empty((tall, wide, channels), np.float32)
    for r in range(tall):
        for c in range(wide):
            y, x = row + r - pad, column + c - pad
            result[r, c] = values[y, x] if 0 <= y < height and 0 <= x < width else outside
    return result[:, ::-1] if augmentation.mirror and places[2] < 0.5 else result


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_every_batch_is_what_a_plain_loop_makes(preprocessing: Preprocessing, augmentation: Augmentation) -> None:
    feed = Feed(IMAGES, preprocessing, batch_size=5, seed=3, augmentation=augmentation, threads=2)
    assert len(feed) == 5 and feed.count == COUNT
    for number in (0, 2):
        order = np.random.default_rng([3, number]).permutation(COUNT)
        draws = augmentation.draws(3, number, COUNT)
        batches = list(feed.epoch(number))
        assert [len(batch) for batch, _ in batches] == [5, 5, 5, 5, 3]
        values = np.concatenate([batch for batch, _ in batches])
        labels = np.concatenate([each for _, each in batches])
        assert values.dtype == np.float32 and labels.dtype == np.int64 and values.shape[1:] == feed.shape
        assert (labels == LABELS[order]).all()
        expected = np.stack([naive(PIXELS[index], preprocessing, augmentation, draws.places[place],
                                   draws.colors[place]) for place, index in enumerate(order)])
        if augmentation.jitter:  # the sum over components is taken in another order
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        else:
            assert np.array_equal(values, expected)


@pytest.mark.parametrize("memory_limit", [0, 700, 10**6])
def test_threads_memory_and_the_first_step_do_not_show(memory_limit: int) -> None:
    augmentation = Augmentation(pad=2, mirror=True, jitter=0.2, colors=COLORS)
    whole = list(Feed(IMAGES, PREPROCESSINGS[1], batch_size=4, seed=1, augmentation=augmentation, threads=1).epoch(1))
    for threads in (1, 3, 8):
        feed = Feed(IMAGES, PREPROCESSINGS[1], batch_size=4, seed=1, augmentation=augmentation, threads=threads,
                    memory_limit=memory_limit)
        for first in (0, 1, 5, 6):
            rest = list(feed.epoch(1, first_step=first))
            assert len(rest) == len(whole) - first
            for (batch, labels), (other, others) in zip(rest, whole[first:], strict=True):
                assert np.array_equal(batch, other) and np.array_equal(labels, others)


def test_the_draws_of_a_position_do_not_depend_on_the_count() -> None:
    few, many = Augmentation().draws(1, 2, 5), Augmentation().draws(1, 2, 50)
    assert np.array_equal(few.places, many.places[:5]) and np.array_equal(few.colors, many.colors[:5])
    assert not np.array_equal(few.places, Augmentation().draws(1, 3, 5).places)


def test_the_order_is_the_trainers_and_can_be_left_alone() -> None:
    feed = Feed(IMAGES, PREPROCESSINGS[0], batch_size=100, shuffle=False)
    (batch, labels), = feed.epoch(0)
    assert np.array_equal(batch, PREPROCESSINGS[0].apply(PIXELS)) and np.array_equal(labels, LABELS)


class Counting(Images):
    """Counts decodings; some pictures are bad."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), on_bad: str = "fail", side: int = 4) -> None:
        super().__init__([f"picture {index}" for index in range(count)], np.arange(count), on_bad=on_bad)
        self.bad, self.loaded, self.side = bad, 0, side

    def load(self, index: int, preprocessing: Any) -> np.ndarray:
        self.loaded += 1
        if index in self.bad:
            raise ImageError(f"{self.names[index]}: broken")
        return np.full((self.side, self.side, 1), index % 256, np.uint8)

    def _content(self) -> list[Any]:
        return [self.bad]


def test_pictures_are_kept_within_the_limit() -> None:
    for limit, again in ((0, 20), (5 * 16, 15), (10**6, 0)):
        images = Counting(20)
        feed = Feed(images, Preprocessing("L"), batch_size=4, memory_limit=limit)
        list(feed.epoch(0))
        before = images.loaded
        list(feed.epoch(1))
        assert images.loaded - before == again


def test_the_feed_works_ahead_but_not_far() -> None:
    images = Counting(1000)
    feed = Feed(images, Preprocessing("L"), batch_size=4, threads=2, augmentation=Augmentation(crop=2))
    batches = feed.epoch(0)
    next(batches)
    assert images.loaded <= 4 * 3
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert 8 <= images.loaded <= 4 * 4


def test_a_bad_picture_fails_or_is_left_out_and_recorded() -> None:
    with pytest.raises(ImageError, match="picture 5: broken"):
        list(Feed(Counting(9, (5,)), Preprocessing("L"), batch_size=2).epoch(0))
    expected = None
    for threads in (1, 4):
        feed = Feed(Counting(30, (0, 7, 21), "skip"), Preprocessing("L"), batch_size=8, threads=threads)
        batches = list(feed.epoch(0))
        assert sum(len(labels) for _, labels in batches) == 27 and len(batches) == len(feed) == 4
        assert sorted(feed.skipped) == [0, 7, 21] and "broken" in feed.skipped[7]
        for batch, labels in batches:
            assert np.array_equal(batch[:, 0, 0, 0], labels) and not {0, 7, 21} & set(labels.tolist())
        assert expected is None or all(np.array_equal(a, b) for (a, _), (b, _) in zip(batches, expected, strict=True))
        expected = batches
    alone = Feed(Counting(5, (3,), "skip"), Preprocessing("L"), batch_size=1, shuffle=False)
    assert [labels.tolist() for _, labels in alone.epoch(0)] == [[0], [1], [2], [], [4]]  # steps keep their numbers
    assert [batch.shape[0] for batch, _ in alone.epoch(0, first_step=3)] == [0, 1]
    cropped = Feed(Counting(3, (0, 1, 2), "skip"), Preprocessing("L"), batch_size=1, augmentation=Augmentation(crop=2))
    with pytest.raises(ImageError, match="broken .and no other of 3 pictures can be read"):
        list(cropped.epoch(0))
    with pytest.raises(ImageError, match="no picture"):
        Feed(Counting(2, (0, 1), "skip"), Preprocessing("L"), batch_size=1)


def test_the_manifest_names_all_that_decides() -> None:
    def manifest(images: Images = IMAGES, preprocessing: Preprocessing = PREPROCESSINGS[2], **options: Any) -> str:
        return Feed(images, preprocessing, **{"batch_size": 4, **options}).manifest()

    changed = PIXELS.copy()
    changed[3, 1, 1, 1] ^= 1
    shifted = Preprocessing("RGB", MEAN + 1)
    manifests = [manifest(), manifest(Arrays(changed, LABELS)), manifest(Arrays(PIXELS, LABELS[::-1])),
                 manifest(preprocessing=shifted), manifest(batch_size=5), manifest(seed=1), manifest(shuffle=False),
                 manifest(augmentation=Augmentation(mirror=True))]
    assert len(set(manifests)) == len(manifests)
    assert manifest() == manifest(threads=3, memory_limit=0) == manifests[0]


def test_colours_are_the_datas_own() -> None:
    feed = Feed(IMAGES, PREPROCESSINGS[0], batch_size=4, augmentation=Augmentation(jitter=0.1))
    assert feed.augmentation.colors == statistics(IMAGES, PREPROCESSINGS[0]).colors()


def test_pictures_of_different_sizes_need_a_crop(tmp_path: Path) -> None:
    class Mixed(Counting):
        def load(self, index: int, preprocessing: Any) -> np.ndarray:
            return np.full((4 + index % 2, 5, 1), index, np.uint8)

    with pytest.raises(ImageError, match=r"picture \d: is \(5, 5, 1\) where others are \(4, 5, 1\)"):
        list(Feed(Mixed(4), Preprocessing("L"), batch_size=2).epoch(0))
    (batch, _), = Feed(Mixed(4), Preprocessing("L"), batch_size=4, augmentation=Augmentation(crop=3)).epoch(0)
    assert batch.shape == (4, 3, 3, 1)
    with pytest.raises(ValueError, match="crop is 6; allowed: at most"):
        list(Feed(Mixed(4), Preprocessing("L"), batch_size=2, augmentation=Augmentation(crop=6)).epoch(0))
    with pytest.raises(ValueError, match="per-pixel mean"):
        list(Feed(IMAGES, Preprocessing("RGB", MEAN[1:]), batch_size=2, augmentation=Augmentation(crop=6)).epoch(0))


@pytest.mark.parametrize(("options", "error"), [({"batch_size": 0}, ValueError), ({"seed": -1}, ValueError),
                                                ({"threads": 0}, ValueError), ({"memory_limit": -1}, ValueError),
                                                ({"batch_size": True}, TypeError)])
def test_bad_settings(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="Feed"):
        Feed(IMAGES, PREPROCESSINGS[0], **{"batch_size": 2, **options})
    feed = Feed(IMAGES, PREPROCESSINGS[0], batch_size=2)
    for number, first in ((-1, 0), (0, -1), (0, len(feed) + 1)):
        with pytest.raises(ValueError, match="Feed.epoch"):
            feed.epoch(number, first)


def test_a_feed_needs_a_class_for_every_picture() -> None:
    for labels in (None, np.r_[LABELS[:-1], -1]):
        with pytest.raises(ValueError, match="a class for every picture"):
            Feed(Arrays(PIXELS, labels), PREPROCESSINGS[0], batch_size=2)
    with pytest.raises(ValueError, match="at least one image"):
        Feed(Arrays(PIXELS[:0], LABELS[:0]), PREPROCESSINGS[0], batch_size=2)


def test_the_papers_preparation_equals_its_steps() -> None:
    """Centre square, per-pixel mean of the square, one of ten crops: each step by itself on one picture."""
    tall = np.random.default_rng(1).integers(0, 256, (6, 14, 10, 3), dtype=np.uint8)
    images = Arrays(tall, np.arange(6))
    augmentation = Augmentation(size=10, crop=8, views="ten")
    loading = augmentation.loading(Preprocessing("RGB"))
    own = with_mean(images, loading)
    squares = tall[:, 2:12]
    expected_mean = squares.astype(np.float64).mean(axis=0)
    assert np.array_equal(own.mean, expected_mean.astype(np.float32))
    feed = Feed(images, own, batch_size=6, augmentation=augmentation, shuffle=False)
    (batch, _), = feed.epoch(0)
    crops = ten_crops(squares.astype(np.float32) - expected_mean.astype(np.float32), 8)
    places = augmentation.draws(0, 0, 6).places
    for number in range(6):
        assert np.array_equal(batch[number], crops[number, int(places[number, 0] * 10)])
    central = augmentation.central(own)
    assert np.array_equal(central.apply(np.stack([images.load(number, central) for number in range(6)])), crops[:, 4])
    assert dataclasses.replace(central).crop == 8 and central.size == 10


def photographs(root: Path) -> Path:
    for number in range(8):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


def test_a_corrupt_file_among_whole_ones(tmp_path: Path) -> None:
    root = photographs(tmp_path / "set")
    small = Preprocessing("RGB", size=12, crop=10)
    before = dict(zip(ImageFolder(root).names, np.concatenate(
        [batch for batch, _ in Feed(root, small, batch_size=3, shuffle=False).epoch(0)]), strict=True))
    data = (root / "a" / "2.jpg").read_bytes()
    for damaged in (data[:len(data) // 2], b"", b"no picture", data[:2] + bytes(len(data) - 2)):
        (root / "a" / "2.jpg").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"2\.jpg: "):
            list(Feed(root, small, batch_size=3).epoch(0))
        feed = Feed(open_images(root, on_bad="skip"), small, batch_size=3, shuffle=False, memory_limit=0)
        batch = np.concatenate([batch for batch, _ in feed.epoch(0)])
        assert list(feed.skipped) == [1] and "2.jpg" in feed.skipped[1]
        names = [name for name in feed.images.names if name != "a/2.jpg"]
        assert np.array_equal(batch, np.stack([before[name] for name in names]))


def test_a_changed_data_set_has_another_manifest(tmp_path: Path) -> None:
    root = photographs(tmp_path / "set")
    small = Preprocessing("RGB", size=12, crop=10)
    first = Feed(root, small, batch_size=3).manifest()
    assert Feed(root, small, batch_size=3).manifest() == first
    extra = (root / "b" / "1.jpg").read_bytes()
    (root / "b" / "9.jpg").write_bytes(extra)
    added = Feed(root, small, batch_size=3).manifest()
    (root / "b" / "1.jpg").unlink()
    removed = Feed(root, small, batch_size=3).manifest()
    (root / "b" / "9.jpg").rename(root / "a" / "9.jpg")
    moved = Feed(root, small, batch_size=3).manifest()
    (root / "a" / "9.jpg").write_bytes(extra + b"\0")
    assert len({first, added, removed, moved, Feed(root, small, batch_size=3).manifest()}) == 5
