"""`zfcore explain`: what it writes, and what it refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_nets import classifier

import zfcore
from zfcore import explain
from zfcore.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a colour picture, a folder of two, a gray model."""
    folder = tmp_path_factory.mktemp("explain")
    net = classifier()
    net.class_names = ["ant", "bee", "<cat>", "dog", "emu"]
    zfcore.save(net, folder / "net.safetensors")
    zfcore.save(classifier(1), folder / "gray.safetensors")
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in ("one.png", "images/a.png", "images/b.png"):
        pixels = generator.integers(0, 256, (30, 26, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((60, 52)).save(folder / name)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; (exit code, stdout, stderr)."""

    def command(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return command


def test_several_methods_make_one_figure(run: Run, work: Path) -> None:
    methods = "saliency,gradient,gradient-input,smoothgrad,guided,deconvnet,gradcam,guided-gradcam"
    code, out, err = run("explain", work / "net.safetensors", work / "images", "--method", methods,
                         "--samples", 2, "--out", work / "all")
    assert code == 0, err
    assert "a.png" in out and "b.png" in out
    summary = json.loads((work / "all" / "summary.json").read_text())
    assert [row["image"] for row in summary["images"]] == ["a.png", "b.png"]
    figure = np.asarray(Image.open(work / "all" / "figure.png"))
    assert figure.shape[1] > 9 * 200 and figure.std() > 10
    page = (work / "all" / "index.html").read_text()
    assert "figure.png" in page and "Selvaraju" in page and "<cat>" not in page
    net = zfcore.load(work / "net.safetensors")
    for name in methods.split(","):
        found = explain.Attribution.load(work / "all" / name)
        assert len(found.values) == 2 and np.isfinite(found.values).all()
        assert found.targets == explain.Attribution.load(work / "all" / "saliency").targets
    pixels = np.stack([zfcore.ImageFolder(work / "images").load(index, net.preprocessing) for index in range(2)])
    np.testing.assert_array_equal(explain.saliency(net, net.preprocessing.apply(pixels)).values,
                                  explain.Attribution.load(work / "all" / "saliency").values)


@pytest.mark.parametrize(("target", "name"), [("2", "class 2"), ("<cat>", "class 2"), ("conv2:3", "conv2:3"),
                                              ("conv2:3@2,4", "conv2:3@2,4")])
def test_targets(run: Run, work: Path, target: str, name: str) -> None:
    code, out, err = run("explain", work / "net.safetensors", work / "one.png", "--target", target, "--json",
                         "--out", work / "target", "--force", "--shared-scale")
    assert code == 0, err
    assert json.loads(out)["images"][0]["target"].startswith(name)
    assert explain.Attribution.load(work / "target" / "saliency").targets == [name]


def test_gray_networks(run: Run, work: Path) -> None:
    code, _, err = run("explain", work / "gray.safetensors", work / "one.png", "--method", "gradient,gradcam",
                       "--out", work / "gray")
    assert code == 0, err
    assert explain.Attribution.load(work / "gray" / "gradient").values.shape == (1, 20, 23, 1)


def test_segment(run: Run, work: Path) -> None:
    pytest.importorskip("cv2")
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "segment",
                       "--out", work / "segment")
    assert code == 0, err
    mask = explain.Attribution.load(work / "segment" / "segment").values
    assert set(np.unique(mask)) == {0.0, 1.0}


@pytest.mark.parametrize(("words", "complaint"), [
    (["--method", "magic"], "saliency"), (["--target", "99"], "0 to 4"), (["--target", "conv9:1"], "conv1"),
    (["--method", "cam"], "global average pool"), (["--method", "gradcam", "--layer", "fc3"], "layer of maps"),
    (["--samples", "0"], "--samples"), (["--batch-size", "-1"], "--batch-size"), (["--target", "-4"], ">= 0"),
    (["--device", "cuda"], "CUDA")])
def test_refusals(run: Run, work: Path, words: list[str], complaint: str) -> None:
    code, out, err = run("explain", work / "net.safetensors", work / "one.png", "--out", work / "never", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and complaint in err, err
    assert not (work / "never").exists()


def test_synthesis_in_one_figure(run: Run, work: Path) -> None:
    methods = "ascent,inversion,dream,adversarial,activations,gradcam"
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", methods, "--layer",
                       "conv1,conv2", "--target", 1, "--target", "dog", "--steps", 2, "--out", work / "made")
    assert code == 0, err
    summary = json.loads((work / "made" / "summary.json").read_text())
    assert [row["target"] for row in summary["images"]] == ["class 1: bee", "class 3: dog"]
    climbed = explain.Synthesis.load(work / "made" / "ascent")
    assert climbed.targets == ["class 1", "class 3"] and climbed.scores.shape == (3, 2)
    for name in ("inversion-conv1", "inversion-conv2"):
        assert explain.Synthesis.load(work / "made" / name).images.shape == (2, 20, 23, 3)
    assert explain.Attribution.load(work / "made" / "gradcam-conv1").settings == {"layer": "conv1"}
    found = explain.Adversarial.load(work / "made" / "adversarial")
    assert found.found.shape == (2,)
    assert np.asarray(Image.open(work / "made" / "figure.png")).shape[1] > 11 * 200


def test_facets_and_invariances(run: Run, work: Path) -> None:
    code, _, err = run("explain", work / "net.safetensors", work / "images", "--method", "facets", "--target",
                       "conv2:5", "--count", 2, "--steps", 2, "--out", work / "facets")
    assert code == 0, err
    assert explain.Facets.load(work / "facets" / "facets").images.shape == (2, 20, 23, 3)
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "invariances",
                       "--target", "conv2:5@4,6", "--steps", 5, "--out", work / "invariances")
    assert code == 0, err
    found = explain.Invariances.load(work / "invariances" / "invariances")
    assert found.directions.shape == (6, 20, 23, 3) and (np.diff(found.curvatures) <= 0).all()


def test_class_names_from_a_file(run: Run, work: Path) -> None:
    (work / "names.txt").write_text("\n".join("vwxyz"))
    code, out, err = run("explain", work / "gray.safetensors", work / "one.png", "--target", "x", "--class-names",
                         work / "names.txt", "--out", work / "named")
    assert code == 0 and "class 2: x" in out, err
    (work / "few.txt").write_text("a\nb")
    code, _, err = run("explain", work / "gray.safetensors", work / "one.png", "--class-names", work / "few.txt",
                       "--out", work / "never")
    assert code == 2 and "2 lines" in err


@pytest.mark.parametrize(("words", "complaint"), [
    (["--method", "facets,saliency"], "by itself"), (["--method", "facets", "--target", "1", "--target", "2"], "one"),
    (["--preset", "best"], "yosinski-1"), (["--steps", "0"], "--steps"), (["--layer", "conv9"], "conv1"),
    (["--method", "dream", "--layer", "fc3"], "maps"), (["--target", "1", "--target", "conv1:2"], "class")])
def test_refusals_of_synthesis(run: Run, work: Path, words: list[str], complaint: str) -> None:
    code, out, err = run("explain", work / "net.safetensors", work / "one.png", "--out", work / "never", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and complaint in err, err
    assert not (work / "never").exists()
