"""Saved models: read back, by other readers too; hostile files are refused with the reason."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import zfcore
from zfcore import Network, Preprocessing, layers, models
from zfcore.formats.safetensors import read


def small() -> Network:
    net = Network("small", (8, 8, 3), class_names=["cat <b>", "hünd"], preprocessing=Preprocessing(
        "BGR", mean=np.random.default_rng(0).random((8, 8, 3)) * 255, size=(16, 16), crop=8))
    net.add("conv1", layers.Convolution(4, 3, padding=(1, 0, 0, 1), activation="relu"))
    net.add("bn", layers.BatchNorm())
    net.add("pool", layers.GlobalAveragePool())
    net.add("fc2", layers.Linear(2))
    return net.initialize(0, "he")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "net.safetensors"
    zfcore.save(small(), target, metadata={"accuracy": "0.98"})
    return target


def test_round_trip_is_exact(path: Path) -> None:
    net, again = small(), zfcore.load(path)
    for key, value in net.parameters().items():
        np.testing.assert_array_equal(again.parameters()[key], value)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(again(again.preprocessing.apply(pixels)), net(net.preprocessing.apply(pixels)))
    assert again.to_config() == net.to_config()
    assert again.class_names == ["cat <b>", "hünd"] and again.metadata == {"accuracy": "0.98"}
    assert zfcore.load(str(path)).name == "small"


def test_other_readers_read_it(path: Path) -> None:
    arrays = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays["conv1.weight"], small().parameters()["conv1.weight"])
    assert "preprocessing.mean" in arrays
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "zfcore" and metadata["version"] == zfcore.__version__
    assert json.loads(metadata["network"])["layers"][0]["type"] == "Convolution"


@pytest.mark.parametrize("name", ["mnist", "convnetjs", "digits", "five-class"])
def test_models_round_trip(name: str, tmp_path: Path) -> None:
    net = models.build(name).initialize(0)
    zfcore.save(net, tmp_path / "m")
    again = zfcore.load(tmp_path / "m")
    x = np.random.default_rng(0).standard_normal((1, *net.input_shape)).astype(np.float32)
    np.testing.assert_array_equal(again(x), net(x))


def test_existing_files_are_kept_unless_forced(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="force"):
        zfcore.save(small(), path)
    assert path.read_bytes() == before
    zfcore.save(small().initialize(1), path, force=True)
    assert path.read_bytes() != before
    assert os.listdir(path.parent) == [path.name]


def test_nothing_is_written_if_saving_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Network("bare", (4, 4, 1))
    bare.add("conv1", layers.Convolution(1, 3))
    with pytest.raises(ValueError, match="no parameters"):
        zfcore.save(bare, tmp_path / "bare")
    with pytest.raises(FileNotFoundError, match="folder"):
        zfcore.save(small(), tmp_path / "missing" / "net")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        zfcore.save(small(), tmp_path / "net")
    assert os.listdir(tmp_path) == []


def raw(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(encoded) if length is None else length).to_bytes(8, "little") + encoded + body


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "empty": b"", "short": b"\1\2", "header over 100 MB": raw(b"{}", length=100_000_001),
    "header of 2**63": raw(b"{}", length=2**63), "header beyond the file": raw(b"{}", length=50),
    "no JSON": raw(b"{nope"), "bad UTF-8": raw(b'{"\xff\xfe": 1}'), "a list": raw([1, 2]), "nested": raw(b"[" * 90000),
    "overlap": raw({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)),
    "hole": raw({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)),
    "beyond": raw({"a": tensor([4], 0, 16)}, bytes(8)), "negative": raw({"a": tensor([1], -4, 0)}, bytes(4)),
    "overflow": raw({"a": tensor([2**62, 8], 0, 4)}, bytes(4)), "sizes": raw({"a": tensor([3], 0, 4)}, bytes(4)),
    "unknown type": raw({"a": tensor([1], 0, 4, "X99")}, bytes(4)),
    "pickle": b"\x80\x04\x95" + bytes(40), "text": b"hello world, this is a text file of some length",
    "html": b"<!DOCTYPE html><html><body>not found</body></html>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_value_errors_with_the_path(name: str, tmp_path: Path) -> None:
    target = tmp_path / "bad.safetensors"
    target.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match="bad.safetensors"):
        zfcore.load(target)
    if name == "pickle":
        with pytest.raises(ValueError, match="pickle"):
            zfcore.load(target)
    if name.startswith(("header of", "header over")):
        with pytest.raises(ValueError, match="100000000"):
            zfcore.load(target)


def test_truncated_and_flipped_files(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    for length in (7, 8, 100, len(content) - 1):
        target = tmp_path / "cut.safetensors"
        target.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cut.safetensors"):
            zfcore.load(target)


def test_torch_zip_and_foreign_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)
    with pytest.raises(ValueError, match="pickle.*refused"):
        zfcore.load(tmp_path / "model.pt")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, foreign)
    with pytest.raises(ValueError, match="not one that zfcore saved"):
        zfcore.load(foreign)
    assert set(read(foreign)[0]) == {"conv1.weight"}
    with pytest.raises(FileNotFoundError):
        zfcore.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        zfcore.load(tmp_path)


@pytest.mark.parametrize("change", [
    lambda arrays, texts: texts.update(network="{"), lambda arrays, texts: texts.update(network="[" * 100_000),
    lambda arrays, texts: texts.update(network="null"), lambda arrays, texts: arrays.pop("fc2.bias"),
    lambda arrays, texts: arrays.pop("preprocessing.mean"), lambda arrays, texts: texts.update(metadata="3"),
    lambda arrays, texts: arrays.update({"fc2.bias": np.zeros(2, np.int64)}),
    lambda arrays, texts: arrays.update({"more": np.zeros(2, np.float32)}),
    lambda arrays, texts: arrays.update({"fc2.bias": np.zeros(3, np.float32)}),
    lambda arrays, texts: texts.update(network=texts["network"].replace('"Linear"', '"Evil"')),
    lambda arrays, texts: texts.update(network=texts["network"].replace('"filters": 4', '"filters": 99999999')),
])
def test_files_that_describe_another_network(path: Path, change: Any) -> None:
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        texts = dict(file.metadata())
    change(arrays, texts)
    safetensors.numpy.save_file(arrays, path, metadata=texts)
    with pytest.raises(ValueError, match="describes no network that this version understands"):
        zfcore.load(path)
