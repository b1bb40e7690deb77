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


def test_several_methods_make_one_figure(run: Run, work: Path) -> None:
    methods = "saliency,gradient,gradient-input,smoothgrad,guided,deconvnet,gradcam,guided-gradcam,occlusion"
    code, out, err = run("explain", work / "net.safetensors", work / "images", "--method", methods,
                         "--samples", 2, "--window", 8, "--stride", "4x5", "--out", work / "all")
    assert code == 0, err
    assert "a.png" in out and "b.png" in out
    summary = json.loads((work / "all" / "summary.json").read_text())
    assert [row["image"] for row in summary["images"]] == ["a.png", "b.png"]
    figure = np.asarray(Image.open(work / "all" / "figure.png"))
    assert figure.shape[1] > 10 * 200 and figure.std() > 10
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
    (["--method", "occlusion", "--window", "-4"], "--window"), (["--method", "occlusion", "--stride", "0"], "--stride"),
    (["--method", "occlusion"], "20 x 23"), (["--method", "deconvnet", "--target", "prob:1"], "Softmax"),
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
    assert explain.Synthesis.load(work / "made" / "dream-conv2-2").images.shape == (1, 52, 60, 3)
    assert explain.Activations.load(work / "made" / "activations-conv1").maps.shape == (2, 6, 20, 23)
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
    (["--set", "rate"], "rate=float"), (["--set", "speed=3"], "NAME=VALUE"), (["--set", "rate=fast"], "rate=float"),
    (["--set", "rate=-1"], "rate"), (["--set", "limits=2"], "true or false"), (["--start", "nowhere"], "nowhere"),
    (["--method", "adversarial", "--towards", "conv1:2"], "--towards"),
    (["--method", "adversarial", "--towards", "9"], "0 to 4"),
    (["--preset", "best"], "yosinski-1"), (["--steps", "0"], "--steps"), (["--layer", "conv9"], "conv1"),
    (["--method", "dream", "--layer", "fc3"], "maps"), (["--target", "1", "--target", "conv1:2"], "class")])
def test_refusals_of_synthesis(run: Run, work: Path, words: list[str], complaint: str) -> None:
    code, out, err = run("explain", work / "net.safetensors", work / "one.png", "--out", work / "never", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and complaint in err, err
    assert not (work / "never").exists()


def test_ascent_starts_where_it_is_told(run: Run, work: Path) -> None:
    """From the mean of the target's class, of all pictures, the picture itself, and with settings."""
    generator = np.random.default_rng(1)
    (work / "classes").mkdir()
    for name in ("ant", "<cat>", "other"):
        (work / "classes" / name).mkdir()
        for number in range(2):
            pixels = generator.integers(0, 256, (20, 23, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(work / "classes" / name / f"{number}.png")
    net = zfcore.load(work / "net.safetensors")
    assert net.preprocessing is not None

    def begun(*words: object) -> np.ndarray:
        code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "ascent", "--steps", 1,
                           "--set", "rate=0", "--set", "jitter=0", "--set", "l2=0", "--set", "step=plain", *words,
                           "--out", work / "begun", "--force")
        assert code == 0, err
        return explain.Synthesis.load(work / "begun" / "ascent").images

    source = zfcore.ImageFolder(work / "classes")
    x = net.preprocessing.apply(np.stack([source.load(index, net.preprocessing) for index in range(6)]))
    both = begun("--target", "<cat>", "--target", 0, "--start", work / "classes")
    rows = [np.flatnonzero(source.labels == source.class_names.index(name)) for name in ("<cat>", "ant")]
    np.testing.assert_allclose(both, np.stack([x[row].mean(axis=0) for row in rows]), atol=1e-5)
    np.testing.assert_array_equal(both, explain.class_means(net, source, ["<cat>", "ant"], batch_size=5))
    alone = begun("--target", "conv2:3", "--start", work / "classes" / "ant")
    np.testing.assert_allclose(alone[0], x[rows[1]].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(begun("--target", "conv2:3", "--start", work / "classes")[0], x.mean(axis=0), atol=1e-5)
    picture = zfcore.data.open_images(work / "one.png").load(0, net.preprocessing)
    np.testing.assert_allclose(begun("--target", 1, "--start", "picture"), net.preprocessing.apply(picture[None]),
                               atol=1e-5)
    for name in ("zero", "noise"):
        found = explain.ascent(net, [1], start=name, steps=1, rate=0.0, jitter=0, l2=0.0, step="plain")
        assert found.settings["start"] == name
        np.testing.assert_array_equal(begun("--target", 1, "--start", name), found.images)
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "ascent", "--target", "dog",
                       "--start", work / "classes", "--out", work / "never")
    assert code == 2 and "'dog'" in err and "ant" in err and err.count("\n") == 1


def test_a_change_towards_a_class(run: Run, work: Path) -> None:
    net = zfcore.load(work / "net.safetensors")
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "adversarial", "--out",
                       work / "free")
    assert code == 0, err
    before = int(explain.Adversarial.load(work / "free" / "adversarial").before[0])
    wanted = (before + 1) % 5
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "adversarial", "--towards",
                       net.class_names[wanted], "--out", work / "towards")
    found = explain.Adversarial.load(work / "towards" / "adversarial")
    assert code == 0 and found.wanted[0] == wanted and (not found.found[0] or found.after[0] == wanted), err
    code, _, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "adversarial", "--towards",
                       before, "--out", work / "never")
    assert code == 2 and "already" in err


def test_facets_of_the_strongest_of_many(run: Run, work: Path) -> None:
    generator = np.random.default_rng(2)
    (work / "many").mkdir()
    for number in range(70):
        Image.fromarray(generator.integers(0, 256, (20, 23, 3)).astype(np.uint8)).save(work / "many" / f"{number}.png")
    words = ("explain", work / "net.safetensors", work / "many", "--method", "facets", "--steps", 1, "--count", 2)
    code, _, err = run(*words, "--target", "conv2:5", "--out", work / "chosen", "--json")
    assert code == 0, err
    net = zfcore.load(work / "net.safetensors")
    source = zfcore.ImageFolder(work / "many")
    indices, scores = explain.strongest(net, source, "conv2:5", 64, batch_size=9)
    summary = json.loads((work / "chosen" / "summary.json").read_text())
    assert [row["image"] for row in summary["images"]] == [source.names[index] for index in indices]
    x = net.preprocessing.apply(np.stack([source.load(index, net.preprocessing) for index in range(70)]))
    expected = net.features(x, ["conv2"])["conv2"][..., 5].mean(axis=(1, 2))
    np.testing.assert_array_equal(indices, np.argsort(-expected, kind="stable")[:64])
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][:64], rtol=1e-6)
    code, _, err = run(*words, "--out", work / "never")
    assert code == 2 and "70 pictures" in err and "--target" in err


def test_no_opencv(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    code, out, err = run("explain", work / "net.safetensors", work / "one.png", "--method", "segment", "--out",
                         work / "never")
    assert code == 2 and out == "" and err.count("\n") == 1 and "opencv-python-headless" in err
    assert not (work / "never").exists()


def test_pictures_that_cannot_be_taken(run: Run, work: Path) -> None:
    (work / "bad.png").write_bytes(b"\x89PNG\r\n not at all")
    (work / "empty").mkdir()
    for image, word in (("bad.png", "bad.png"), ("empty", "empty"), ("missing.png", "missing.png")):
        code, out, err = run("explain", work / "net.safetensors", work / image, "--out", work / "never")
        assert code == 2 and out == "" and err.count("\n") == 1 and word in err, err
    with pytest.raises(ValueError, match="20, 23, 3"):
        explain.saliency(zfcore.load(work / "net.safetensors"), np.zeros((1, 19, 23, 3), np.float32))
