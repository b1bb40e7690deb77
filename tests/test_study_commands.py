"""Commands of the experiments: what they write, and one line with exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfcore
from zfcore.cli.studies import integers, numbers, pair
from zfcore.layers import Convolution, Flatten, Linear, MaxPool, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and pictures of two classes, one name with markup."""
    folder = tmp_path_factory.mktemp("work")
    net = Network("tiny", (24, 24, 1), scheme="he", class_names=["a", "<b>"],
                  preprocessing=Preprocessing("L", mean=100.0, scale=1 / 64, size=(24, 24)))
    net.add("conv1", Convolution(4, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", Convolution(6, 3, padding=1, activation="relu"))
    net.add("flatten", Flatten())
    net.add("fc3", Linear(2))
    net.add("prob", Softmax())
    zfcore.save(net.initialize(0), folder / "tiny.safetensors")
    zfcore.save(net.initialize(1), folder / "other.safetensors")
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.integers(0, 256, (26, 30), dtype=np.uint8)
        name = f"<i>{number}" if number == 2 else f"picture {number}"
        place = folder / "images" / ("one", "two")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{name}.png")
    (folder / "empty").mkdir()
    return folder


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, a last line on stderr that holds the words, no traceback."""
    code, out, err = result
    assert code == 2 and out == "", (out, err)
    assert err.splitlines()[-1].startswith("zfcore: ") and "Traceback" not in err
    for word in words:
        assert word in err.splitlines()[-1], err


def test_option_texts() -> None:
    assert pair("--a", "32") == 32 and pair("--a", "3x4") == (3, 4)
    assert numbers("--a", "-2:2:1.5") == [-2, -0.5, 1] and numbers("--a", "1,2.5") == [1, 2.5]
    assert integers("--a", "0:4:2") == [0, 2, 4]
    for bad in ("", "x", "0", "3x", "3x0", "-1"):
        with pytest.raises(ValueError, match="--a"):
            pair("--a", bad)
    for bad in ("", "a", "1:0:1", "0:1:0", "1,,2", "0:1e9:1"):
        with pytest.raises(ValueError, match="--a"):
            numbers("--a", bad)
    with pytest.raises(ValueError, match="integers"):
        integers("--a", "1,2.5")


def test_occlusion(run: Run, work: Path, tmp_path: Path) -> None:
    picture, out = work / "images" / "one" / "<i>2.png", tmp_path / "o"
    words = ("occlusion", work / "tiny.safetensors", picture, "--window", "6", "--stride", "6x5", "--out", out)
    code, text, err = run(*words, "--images", work / "images")
    assert code == 0, err
    assert text.splitlines()[-1] == f"open {out / 'occlusion.png'}" and (out / "occlusion.png").exists()
    from zfcore.study.occlusion import Occlusion

    found = Occlusion.load(out / "result")
    assert found.activity.shape == (4, 5) and found.top_values is not None
    assert json.loads((out / "summary.json").read_text())["image"] == "<i>2.png"
    refused(run(*words), "--force")
    code, text, _ = run(*words, "--force", "--json", "--unit", "conv1:2", "--class", "<b>", "--fill", "0")
    assert code == 0 and json.loads(text)["unit"].startswith("conv1:2@") and json.loads(text)["class"] == "<b>"


@pytest.mark.parametrize(("words", "expected"), [
    (("--window", "25"), "24 x 24"), (("--window", "x"), "--window"), (("--stride", "0"), "--stride"),
    (("--fill", "300"), "fill"), (("--unit", "conv9"), "conv1"), (("--unit", "conv2:6"), "0 to 5"),
    (("--unit", "conv2:1@0,0"), "--unit"), (("--class", "cat"), "cat"), (("--rule", "x"), "deconvnet"),
    (("--images", "EMPTY"), "no file"), (("--device", "cuda"), "CUDA")])
def test_occlusion_refuses(run: Run, work: Path, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    given = [str(work / "empty") if word == "EMPTY" else word for word in words]
    refused(run("occlusion", work / "tiny.safetensors", work / "images" / "two" / "picture 1.png", "--out",
                tmp_path / "o", *(() if "--window" in words else ("--window", 8)), *given), expected)
    assert not list(tmp_path.iterdir())
    refused(run("occlusion", work / "tiny.safetensors", work / "images", "--out", tmp_path / "o"), "one picture")


def test_class_names_and_what_force_will_not_replace(run: Run, work: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names.txt", tmp_path / "o"
    names.write_text("first\n<second>\n")
    picture = work / "images" / "one" / "picture 0.png"
    words = ("occlusion", work / "tiny.safetensors", picture, "--window", 8, "--stride", 8)
    code, text, _ = run(*words, "--class-names", names, "--class", "<second>", "--json", "--out", out)
    assert code == 0 and json.loads(text)["class"] == "<second>"
    names.write_text("only one\n")
    refused(run(*words, "--class-names", names, "--out", out, "--force"), "1 lines", "2, one a class")
    (out / "mine.png").write_bytes(picture.read_bytes())
    refused(run("occlusion", work / "tiny.safetensors", out / "mine.png", "--out", out, "--force"), "mine.png")
    assert (out / "mine.png").exists()


def test_correspondence(run: Run, work: Path, tmp_path: Path) -> None:
    file, out = work / "images" / "parts.json", tmp_path / "c"
    boxes = [[3, 3, 9, 9], [12, 10, 20, 20]]
    file.write_text(json.dumps({"images": ["one/<i>2.png", "two/picture 1.png"], "parts": {"<b>": boxes}}))
    words = ("correspondence", work / "tiny.safetensors", file, "--out", out, "--draws", "2")
    code, text, err = run(*words, "--layers", "conv1,conv2.pre")
    assert code == 0, err
    assert (out / "correspondence.png").exists() and (out / "table.txt").read_text() in text + "\n"
    code, text, _ = run(*words, "--force", "--json", "--seed", "3")
    assert code == 0 and set(json.loads(text)["layers"]["conv2"]) == {"<b>", "random", "same place"}
    for extra, word in ((("--layers", "conv9"), "conv1"), (("--draws", "x"), "--draws"), (("--fill", "256"), "fill")):
        refused(run(*words, "--force", *extra), word)
    file.write_text(json.dumps({"images": ["one/<i>2.png", "gone.png"], "parts": {"<b>": boxes}}))
    refused(run(*words, "--force"), "gone.png")
    refused(run("correspondence", work / "tiny.safetensors", tmp_path / "none.json", "--out", tmp_path / "d"),
            "none.json")


def test_invariance(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "i"
    words = ("invariance", work / "tiny.safetensors", work / "images", "--out", out, "--translations=-4:4:4",
             "--scales", "1,1.5", "--rotations", "0:90:45")
    code, text, err = run(*words)
    assert code == 0 and "probability under rotation" in text, err
    assert (out / "invariance.png").exists()
    code, text, _ = run(*words, "--force", "--json", "--relative", "--layers", "conv1")
    assert code == 0 and list(json.loads(text)["layers"]) == ["conv1"] and "<i>2.png" in text
    for extra, word in ((("--layers", "conv9"), "conv1"), (("--scales", "0,1"), "above 0"), (("--border", "x"), "edge"),
                        (("--rotations", "x"), "--rotations"), (("--fill", "256"), "fill")):
        refused(run(*words, "--force", *extra), word)
    refused(run("invariance", work / "tiny.safetensors", work / "empty", "--out", tmp_path / "j"), "no file")


def test_evolution(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    words = ("evolution", work / "tiny.safetensors", work / "images", "--out", out, "--epochs", 2, "--at", "1,2,9",
             "--maps", 2, "--learning-rate", "0.001")
    code, text, err = run(*words)
    assert code == 0 and text.startswith("epochs 1, 2:"), err
    assert (out / "evolution.png").exists()
    from zfcore.study.evolution import Evolution

    assert Evolution.load(out / "result").values["conv2"].shape == (2, 2)
    assert zfcore.load(out / "model.safetensors").name == "tiny"
    for extra, word in ((("--layers", "conv9"), "conv1"), (("--at", "3"), "--at"), (("--maps", "0"), "--maps"),
                        (("--learning-rate", "-1"), "--learning-rate"), (("--epochs", "0"), "--epochs")):
        refused(run(*words, "--force", *extra), word)
    refused(run("evolution", work / "tiny.safetensors", work / "images" / "two", "--out", tmp_path / "f"), "class")


def test_architecture(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    images = ("--images", work / "images")
    words = ("architecture", work / "tiny.safetensors", work / "other.safetensors", *images, "--out", out)
    code, text, err = run(*words)
    assert code == 0 and text.startswith("tiny 1: stride 1") and "tiny 2" in text, err
    assert (out / "architecture.png").exists()
    code, text, _ = run(*words, "--force", "--json", "--maps", 2)
    assert code == 0 and json.loads(text)["networks"]["tiny 2"]["filters"] == 4
    for extra, word in ((("--edges", "0.1"), "--edges"), (("--edges", "0.3,0.2"), "edges"), (("--top", "0"), "--top")):
        refused(run(*words, "--force", *extra), word)
    refused(run("architecture", work / "none.safetensors", *images, "--out", tmp_path / "b"), "none")


@pytest.mark.parametrize("name", ["atlas", "occlusion", "correspondence", "invariance", "evolution", "architecture"])
def test_what_every_experiment_refuses(run: Run, work: Path, tmp_path: Path, name: str) -> None:
    """Models and images that do not exist, empty folders, bad options: one line, and nothing is written."""
    model, images, empty = work / "tiny.safetensors", work / "images", work / "empty"
    parts = tmp_path / "parts.json"
    parts.write_text(json.dumps({"images": [], "parts": {"a": []}}))

    def words(model: object, images: object) -> tuple[object, ...]:
        if name == "architecture":
            return name, model, "--images", images
        return name, model, images

    good = {"occlusion": images / "one" / "picture 0.png", "correspondence": parts}.get(name, images)
    out = ("--out", tmp_path / "out")
    refused(run(*words(work / "none.safetensors", good), *out), "none.safetensors")
    refused(run(*words("nonsense", good), *out), "nonsense", "zfnet")
    refused(run(*words(model, work / "nowhere<b>.png"), *out), "nowhere<b>.png")
    if name == "correspondence":
        refused(run(*words(model, parts), *out), "images")
        one = {"images": [str(images / "one" / "picture 0.png")], "parts": {"a": [[0, 0, 5, 5]]}}
        parts.write_text(json.dumps(one))
        refused(run(*words(model, parts), *out), "len(images) is 1", "two images or more")
    else:
        refused(run(*words(model, empty), *out), "no file in it")
    for option, value, said in (("--batch-size", "0", "--batch-size"), ("--seed", "-1", "--seed"),
                                ("--device", "tpu", "--device"),
                                ("--preprocessing", "magic", "magic"), ("--rule", "magic", "deconvnet")):
        if name in ("correspondence", "invariance") and option == "--rule":
            continue  # they project nothing
        refused(run(*words(model, good), *out, option, value), said)
    refused(run(*words(model, good), "--out", tmp_path / "no" / "out"), "parent folder")
    (tmp_path / "there").mkdir()
    refused(run(*words(model, good), "--out", tmp_path / "there"), "--force")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["parts.json", "there"]


def test_fewer_images_than_entries_and_names_with_markup(run: Run, work: Path, tmp_path: Path) -> None:
    few = work / "images" / "one" / "<i>2.png"
    code, _, err = run("atlas", work / "tiny.safetensors", few, "--top", 9, "--out", tmp_path / "a")
    assert code == 0, err
    text = (tmp_path / "a" / "index.html").read_text()
    assert "&lt;i&gt;2.png" in text and "<i>" not in text
    code, _, err = run("architecture", work / "tiny.safetensors", "--images", few, "--out", tmp_path / "b")
    assert code == 0, err
    code, _, err = run("occlusion", work / "tiny.safetensors", few, "--images", few, "--window", 24, "--out",
                       tmp_path / "c")
    assert code == 0, err


def test_atlas_of_chosen_maps(run: Run, work: Path, tmp_path: Path) -> None:
    words = ("atlas", work / "tiny.safetensors", work / "images", "--layers", "conv1,conv2", "--top", 2)
    code, _, err = run(*words, "--maps", "0,3", "--start", "one", "--no-sanity", "--rule", "guided", "--out",
                       tmp_path / "a")
    assert code == 0, err
    text = (tmp_path / "a" / "index.html").read_text()
    assert text.count("<article") == 4 and "1 at every unit" in text and not (tmp_path / "a" / "sanity.csv").exists()
    refused(run(*words, "--maps", "0,5", "--out", tmp_path / "b"), "0 to 3 in layer conv1")
    refused(run(*words, "--maps", "x", "--out", tmp_path / "b"), "--maps")
    refused(run(*words, "--start", "two", "--out", tmp_path / "b"), "--start")
    refused(run(*words, "--class-names", work / "none.txt", "--out", tmp_path / "b"), "none.txt")


def test_atlas_resumes(run: Run, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zfcore.study.atlas import Atlas

    words = ("atlas", work / "tiny.safetensors", work / "images", "--layers", "conv2", "--top", 2)
    assert run(*words, "--out", tmp_path / "whole")[0] == 0
    broken = work / "images" / "two" / "picture 5.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:50] + bytes(len(content) - 50))  # as long as before: the data set stays the same
    out = tmp_path / "a"
    refused(run(*words, "--out", out, "--resume", "--save-every", 1, "--batch-size", 2), "picture 5.png")
    assert (tmp_path / "a.state" / "0").is_dir() and not out.exists()
    broken.write_bytes(content)
    code, _, err = run(*words, "--out", out, "--resume")
    assert code == 0 and not (tmp_path / "a.state").exists(), err
    first, second = (Atlas.load(tmp_path / name / "atlas")["conv2"] for name in ("whole", "a"))
    assert all(np.array_equal(value, second.arrays()[key]) for key, value in first.arrays().items())
    assert (out / "units.csv").read_text() == (tmp_path / "whole" / "units.csv").read_text()
    assert "one an image" in (out / "index.html").read_text()
    code, _, _ = run(*words, "--out", tmp_path / "b", "--many-per-image")
    assert code == 0 and "one an image" not in (tmp_path / "b" / "index.html").read_text()
    refused(run(*words, "--out", tmp_path / "c", "--save-every", "x"), "--save-every")
