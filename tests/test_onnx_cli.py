"""The command line on ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import helper
from onnx_models import single
from PIL import Image

import zfcore
from zfcore.cli import main

NODE = helper.make_node


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    proto = single(
        NODE("Conv", ["x", "conv1.weight"], ["c"], strides=[2, 2]), NODE("Relu", ["c"], ["r"]),
        NODE("GlobalAveragePool", ["r"], ["g"]), NODE("Flatten", ["g"], ["f"]), NODE("Gemm", ["f", "fc.weight"], ["y"]),
        inputs={"x": ("n", 3, "h", "w")}, outputs=["y"],
        constants={"conv1.weight": rng.standard_normal((4, 3, 5, 5)).astype(np.float32),
                   "fc.weight": rng.standard_normal((4, 2)).astype(np.float32)})
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def test_info(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", model) == 2
    error = capsys.readouterr().err
    assert "input_shape" in error and error.count("\n") == 1
    assert call("info", model, "--input-size", "20x24", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["input_shape"] == [20, 24, 3] and summary["layers"][0]["name"] == "conv1"
    for wrong in ("0", "axb", "20x24x3", "-5"):
        assert call("info", model, f"--input-size={wrong}") == 2
        assert "--input-size" in capsys.readouterr().err
    assert call("info", "zfnet", "--input-size", "20") == 2


def test_convert_and_project(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    assert call("convert", model, out, "--input-size", "20", "--preprocessing", "zero-one") == 0
    net = zfcore.load(out)
    x = np.random.default_rng(1).random((2, 20, 20, 3), np.float32)
    np.testing.assert_array_equal(net(x), zfcore.load(model, input_shape=20)(x))
    assert net.preprocessing is not None and net.preprocessing.size == (20, 20)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (30, 40, 3), np.uint8)).save(picture)
    assert call("project", model, picture, "--unit", "conv1:2", "--out", tmp_path / "p", "--input-size", "20") == 2
    assert "preprocessing" in capsys.readouterr().err
    assert call("project", model, picture, "--unit", "conv1:2", "--out", tmp_path / "p", "--input-size", "20",
                "--preprocessing", "zero-one") == 0
    assert (tmp_path / "p" / "projections.png").stat().st_size > 0
    assert call("atlas", model, picture, "--layers", "conv1", "--out", tmp_path / "a", "--input-size", "20") == 2
    error = capsys.readouterr().err
    assert "preprocessing" in error and "torchvision" in error


def test_fine_tuning_and_evaluating(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that says neither how large its input is nor what pixels become, on three classes instead of two."""
    generator = np.random.default_rng(2)
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 255, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    said = ["--input-size", "20", "--preprocessing", "zero-one"]
    words = ["train", model, tmp_path / "data", "--recipe", "adam-study", "--epochs", "1", "--out", tmp_path / "run"]
    assert call(*words) == 2 and "input_shape" in capsys.readouterr().err
    assert call(*words, *said[:2]) == 2 and "--preprocessing" in capsys.readouterr().err
    assert call(*words, *said) == 0
    assert call("train", "--resume", "--epochs", "2", "--out", tmp_path / "run") == 0
    tuned = tmp_path / "run" / "model.safetensors"
    assert zfcore.load(tuned).class_names == ["a", "b", "c"] and call("evaluate", tuned, tmp_path / "data") == 0
    assert call("train", "mnist", tmp_path / "data", "--recipe", "adam-study", "--out", tmp_path / "no", *said) == 2
    capsys.readouterr()
    (tmp_path / "data" / "c").rename(tmp_path / "c")
    assert call("evaluate", model, tmp_path / "data", *said, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6


def test_a_broken_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    assert call("info", path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "broken.onnx" in error and "no ONNX file" in error
    assert call("info", tmp_path / "absent.onnx") == 2
