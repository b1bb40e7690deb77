"""The atlas at scale: resumed after any stop with the same bits, several entries an image, tables."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_atlas import IMAGES, LAYERS, NET, X, same

from zfcore.data import Arrays, ImageError
from zfcore.study.atlas import Atlas, AtlasError
from zfcore.study.results import ResultError
from zfcore.study.scan import scan
from zfcore.study.state import State
from zfcore.study.tables import class_text, entries_csv, histogram, units_csv

CLASSES = ["plain", "=1+1", "<b>,\"x\"", "line\nbreak"]


class Stopping(Arrays):
    """Pictures of which some are bad; loading `stop` raises as if the power had failed."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__(IMAGES, np.arange(len(IMAGES)) % 4, class_names=CLASSES)
        self.stop, self.on_bad, self.loaded = stop, "skip", set()  # type: int | None, str, set[int]

    def pixels(self, index: int) -> np.ndarray:
        self.loaded.add(index)
        if index == self.stop:
            raise KeyboardInterrupt
        if index in (4, 5, 17):
            raise ImageError(f"{self.names[index]}: broken")
        return super().pixels(index)


def run(source: Any, **options: Any) -> Atlas:
    return scan(NET, source, LAYERS, 5, progress=False, **{"batch_size": 3, "threads": 1, **options})


@pytest.fixture(scope="module")
def whole() -> Atlas:
    return run(Stopping())


@pytest.mark.parametrize("one_per_image", [True, False])
@pytest.mark.parametrize("save_every", [1, 4, 9])
def test_a_stopped_scan_goes_on_to_the_same_bits(tmp_path: Path, whole: Atlas, save_every: int,
                                                 one_per_image: bool) -> None:
    expected = whole if one_per_image else run(Stopping(), one_per_image=False)
    for stop in (2, 11, 12, 20, 29):
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(stop), state=tmp_path / "s", save_every=save_every, one_per_image=one_per_image)
    last = Stopping()
    found = run(last, state=tmp_path / "s", save_every=save_every, batch_size=7, one_per_image=one_per_image)
    assert same(found, expected) and found.one_per_image == one_per_image
    assert min(last.loaded) >= 25 - save_every  # it did not begin anew
    again = Stopping()
    assert same(run(again, state=tmp_path / "s", one_per_image=one_per_image), expected) and not again.loaded
    assert len(expected.skipped) == 3


def test_patches_on_disk_resume_too(tmp_path: Path, whole: Atlas) -> None:
    options = {"memory_limit": 1000, "scratch": tmp_path, "state": tmp_path / "s", "save_every": 5}
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(22), **options)
    found = run(Stopping(), **options)
    assert isinstance(found["conv1"].patches, np.memmap) and same(found, whole)


def test_shards_resume_and_join(tmp_path: Path, whole: Atlas) -> None:
    parts = []
    for number in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(Stopping(12 if number == 0 else 24), state=tmp_path / str(number), save_every=3, shard=(number, 2))
        parts.append(run(Stopping(), state=tmp_path / str(number), save_every=3, shard=(number, 2)))
    assert same(parts[0].merge(parts[1]), whole)
    with pytest.raises(AtlasError, match="another part"):
        run(Stopping(), state=tmp_path / "1")


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_atlas_scale as here

class Slow(here.Stopping):
    def pixels(self, index):
        time.sleep(0.03)
        return super().pixels(index)

Slow.__name__ = "Stopping"  # the manifest names the class
here.run(Slow(), state=sys.argv[2], save_every=2, batch_size=2)
"""


def test_kill_9(tmp_path: Path, whole: Atlas) -> None:
    state = tmp_path / "s"
    generator = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(state)],
                                   stderr=subprocess.PIPE)
        seen = {path: path.stat().st_mtime_ns for path in state.glob("?/manifest.json")} if state.exists() else {}
        limit = time.monotonic() + 60
        while time.monotonic() < limit and process.poll() is None:
            now = {path: path.stat().st_mtime_ns for path in state.glob("?/manifest.json") if path.exists()}
            if now != seen:
                break
            time.sleep(0.005)
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(float(generator.uniform(0, 0.15)))  # a moment between or within two states
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    last = Stopping()
    assert same(run(last, state=state, save_every=2), whole)
    assert len(last.loaded) < len(IMAGES) and set(os.listdir(state)) <= {"0", "1", "lock"}


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, whole: Atlas,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(21), state=state, save_every=3)
    names = sorted(("0", "1"), key=lambda name: Atlas.load(state / name).scanned)
    newest = state / names[1] / "layer0-patches.npy"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    last = Stopping()
    assert same(run(last, state=state), whole) and "going on from the other state" in capsys.readouterr().err
    for name in ("0", "1"):
        (state / name / "manifest.json").write_text("{")
    with pytest.raises(ResultError, match="manifest"):
        run(Stopping(), state=state)


def test_states_of_other_scans_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(21), state=state, save_every=3)
    for options, word in (({"one_per_image": False}, "rules for images"), ({"shard": (0, 2)}, "another part")):
        with pytest.raises(AtlasError, match=word):
            run(Stopping(), state=state, **options)
    with pytest.raises(AtlasError, match="top"):
        scan(NET, Stopping(), LAYERS, 4, state=state, progress=False)
    with pytest.raises(AtlasError, match="layers"):
        scan(NET, Stopping(), "conv1", 5, state=state, progress=False)
    with pytest.raises(AtlasError, match="data sets"):
        run(Arrays(IMAGES[::-1]), state=state)
    other = type(NET).from_config(NET.to_config()).initialize(9, "he")
    with pytest.raises(AtlasError, match="networks"):
        scan(other, Stopping(), LAYERS, 5, state=state, progress=False)
    with State(state).locked(), pytest.raises(BlockingIOError, match="another process"):
        run(Stopping(), state=state)
    with pytest.raises(ValueError, match="save_every"):
        run(Stopping(), state=state, save_every=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=r"letter\.txt"):
        run(Stopping(), state=tmp_path / "mine")
    with pytest.raises(FileExistsError, match="not a folder"):
        run(Stopping(), state=tmp_path / "mine" / "letter.txt")


@pytest.mark.parametrize("top", [1, 5, 40])
def test_several_entries_an_image_equal_a_full_sort(top: int) -> None:
    atlas = scan(NET, IMAGES, LAYERS, top, one_per_image=False, batch_size=7, progress=False)
    for layer in LAYERS:
        tensor = NET.features(X, [layer])[layer]
        tensor = tensor.reshape(len(IMAGES), 1, 1, -1) if tensor.ndim == 2 else tensor
        part = atlas[layer]
        for index in range(tensor.shape[3]):
            entries = sorted((-float(value), *place) for place, value in np.ndenumerate(tensor[..., index]))[:top]
            assert part.filled[index].sum() == len(entries)
            for rank, (value, image, row, column) in enumerate(entries):
                assert part.values[index, rank] == np.float32(-value)
                assert (part.images[index, rank], part.rows[index, rank], part.columns[index, rank]) == (
                    image, row, column)
    halves = [scan(NET, IMAGES, LAYERS, top, one_per_image=False, shard=(number, 2), progress=False)
              for number in range(2)]
    assert same(halves[0].merge(halves[1]), atlas)
    with pytest.raises(AtlasError, match="rules for images"):
        halves[0].merge(scan(NET, IMAGES, LAYERS, top, shard=(1, 2), progress=False))


def test_several_entries_have_their_own_patches(tmp_path: Path) -> None:
    atlas = scan(NET, IMAGES, "conv2", 6, one_per_image=False, progress=False)
    part, cone = atlas["conv2"], NET.cone("conv2")
    padded = np.pad(IMAGES, ((0, 0), (40, 40), (40, 40), (0, 0)))
    assert any(len(set(images)) < 6 for images in part.images.tolist())
    for index, rank in np.ndindex(*part.values.shape):
        row, column = cone.origins(part.rows[index, rank], part.columns[index, rank])[0] + 40
        height, width = part.patches.shape[2:4]
        assert np.array_equal(part.patches[index, rank],
                              padded[part.images[index, rank], row:row + height, column:column + width])
    atlas.project(layers=["conv2"])
    atlas.save(tmp_path / "a")
    assert not Atlas.load(tmp_path / "a").one_per_image


def test_nan_is_found_among_several() -> None:
    from test_atlas import network

    net = network()
    net.nodes["conv2"].layer.parameters["bias"][3] = np.nan
    with pytest.raises(ValueError, match=r"conv2:3 on 'image-00000' is nan"):
        scan(net, IMAGES, "conv2", one_per_image=False, progress=False)


def test_histograms_and_tables(whole: Atlas) -> None:
    numbers, counts = histogram(whole, "conv2")
    for index in range(7):
        labels = [int(image) % 4 for image in whole["conv2"].images[index]]
        assert [labels.count(number) for number in numbers] == counts[index].tolist()
    rows = list(csv.DictReader(io.StringIO(units_csv(whole))))
    assert len(rows) == sum(part.maps for part in whole.layers.values())
    row = next(row for row in rows if (row["layer"], row["map"]) == ("conv2", "2"))
    assert row["dead"] == "1" and float(row["value"]) == 0 and row["entries"] == "5"
    for row in rows:
        part, index = whole[row["layer"]], int(row["map"])
        assert np.float32(row["value"]) == part.values[index, 0] and row["image"] == whole.names[part.images[index, 0]]
        shares = dict(piece.rsplit(":", 1) for piece in row["classes"].lstrip("'").split("; "))
        assert sum(int(count) for count in shares.values()) == 5
        assert float(row["commonest_share"]) == max(int(count) for count in shares.values()) / 5
        assert not row["commonest_class"].startswith("=") and "\n" not in row["classes"]
    entries = list(csv.DictReader(io.StringIO(entries_csv(whole))))
    assert len(entries) == 5 * len(rows) and np.float32(entries[7]["value"]) == whole["conv1"].values[1, 2]
    assert class_text(whole, 3) == "line\\nbreak" and class_text(whole, 9) == "9" and class_text(whole, -1) == ""


def test_tables_without_classes_or_entries() -> None:
    bare = scan(NET, IMAGES[:2], "conv1", 3, progress=False)
    rows = list(csv.DictReader(io.StringIO(units_csv(bare))))
    assert rows[0]["classes"] == rows[0]["class"] == "" and rows[0]["entries"] == "2"
    empty = scan(NET, IMAGES[:1], "conv1", 3, shard=(0, 2), progress=False)
    assert list(csv.DictReader(io.StringIO(units_csv(empty))))[0]["entries"] == "0"
    assert entries_csv(empty).count("\n") == 1
