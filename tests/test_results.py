"""Result folders: whole or refused, never half written, never pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zfcore.formats import results
from zfcore.formats.results import ResultError, load, save

ARRAYS = {"values": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 5), np.int32),
          "flags": np.array([True, False])}
DESCRIPTION = {"layers": ["conv1", "<b>"], "names": {3: "a\nb", 12: "\udcff"}, "pair": (1, 2), "none": None}


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path / "r", "thing", DESCRIPTION, ARRAYS)
    description, arrays = load(tmp_path / "r", "thing")
    assert description == {**DESCRIPTION, "names": {"3": "a\nb", "12": "\udcff"}, "pair": [1, 2]}
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and np.array_equal(arrays[name], array)
    assert isinstance(arrays["values"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        arrays["values"][0, 0] = 1
    assert sorted(path.suffix for path in (tmp_path / "r").iterdir()) == [".json", ".npy", ".npy", ".npy"]


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_any_description_survives(tmp_path_factory: pytest.TempPathFactory, description: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("any") / "r"
    save(folder, "thing", description, {})
    assert load(folder, "thing")[0] == description


def damage_manifest(change: Callable[[dict[str, Any]], Any], seal: bool = False) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        if seal:
            manifest["checksum"] = results._checksum(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return damage


def flip(folder: Path) -> None:
    data = bytearray((folder / "values.npy").read_bytes())
    data[-3] ^= 4
    (folder / "values.npy").write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped bit": (flip, "SHA-256"),
    "truncated": (lambda f: os.truncate(f / "values.npy", 140), "values.npy"),
    "emptied": (lambda f: os.truncate(f / "values.npy", 0), "values.npy"),
    "missing": (lambda f: (f / "values.npy").unlink(), "missing"),
    "another shape": (lambda f: np.save(f / "values.npy", np.zeros((4, 3), np.float32)), "as the manifest says"),
    "another type": (lambda f: np.save(f / "values.npy", np.zeros((3, 4), np.int32)), "as the manifest says"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not a result"),
    "cut manifest": (lambda f: os.truncate(f / "manifest.json", 50), "damaged"),
    "binary manifest": (lambda f: (f / "manifest.json").write_bytes(b"\xff\x00"), "damaged"),
    "deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "damaged"),
    "foreign manifest": (lambda f: (f / "manifest.json").write_text('{"name": "an app"}'), "not the manifest"),
    "list manifest": (lambda f: (f / "manifest.json").write_text("[1]"), "not the manifest"),
    "edited": (damage_manifest(lambda m: m["description"].update(pair=[2, 1])), "checksum"),
    "newer": (damage_manifest(lambda m: m.update(version=99), True), "version 99"),
    "another kind": (damage_manifest(lambda m: m.update(kind="else"), True), "kind 'else'"),
    "outside": (damage_manifest(lambda m: m["arrays"].update({"../x": m["arrays"]["values"]}), True), "not the man"),
    "no arrays": (damage_manifest(lambda m: m.pop("arrays"), True), "not the manifest"),
    "odd arrays": (damage_manifest(lambda m: m["arrays"].update(values=3), True), "not the manifest"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_folders_are_refused(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "r", "thing", DESCRIPTION, ARRAYS)
    damage, word = DAMAGES[kind]
    damage(tmp_path / "r")
    with pytest.raises(ResultError, match=word):
        load(tmp_path / "r", "thing")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    save(tmp_path / "r", "thing", DESCRIPTION, ARRAYS)
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }"
    (tmp_path / "r" / "values.npy").write_bytes(header + text.ljust(117) + b"\n" + b"cos\nsystem\n")
    with pytest.raises(ResultError, match=r"values\.npy"):
        load(tmp_path / "r", "thing", verify=False)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere", "thing")


@pytest.mark.parametrize("arrays", [{"a": np.array(["text"])}, {"a": np.array([{}])}, {"../a": np.zeros(1)},
                                    {"": np.zeros(1)}, {".hidden": np.zeros(1)}])
def test_odd_arrays_are_not_saved(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        save(tmp_path / "r", "thing", {}, arrays)
    assert not list(tmp_path.iterdir())


def test_existing_folders_are_guarded(tmp_path: Path) -> None:
    save(tmp_path / "r", "thing", {"n": 1}, {})
    with pytest.raises(FileExistsError, match="--force"):
        save(tmp_path / "r", "thing", {"n": 2}, {})
    save(tmp_path / "r", "thing", {"n": 2}, {}, force=True)
    assert load(tmp_path / "r", "thing")[0] == {"n": 2}
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="not replaced"):
        save(tmp_path / "precious", "thing", {}, {}, force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "r", "thing", {"n": 1}, {})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.np, "save", full)
    for name in ("r", "new"):
        with pytest.raises(OSError, match="No space"):
            save(tmp_path / name, "thing", {"n": 2}, ARRAYS, force=True)
    assert load(tmp_path / "r", "thing")[0] == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
