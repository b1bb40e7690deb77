"""The demo, and every command and every piece of Python in README and docs, run as they are written."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zfcore
from zfcore import demo
from zfcore.cli import main
from zfcore.data import digits
from zfcore.kernels.threads import set_num_threads
from zfcore.study.atlas import Atlas

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/quickstart.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of two epochs, in a folder called zfcore-demo."""
    folder = tmp_path_factory.mktemp("demo") / "zfcore-demo"
    demo.run(folder, epochs=2, progress=False)
    return folder


def test_the_summary_is_measured(result: Path) -> None:
    """The accuracy is that of the saved model on images that it was not trained on."""
    summary = json.loads((result / "summary.json").read_text())
    net = zfcore.load(result / "model.safetensors")
    training, held_out = digits(seed=0)
    assert (summary["training_images"], summary["held_out_images"]) == (len(training), len(held_out)) == (1198, 599)
    predictions = net(net.preprocessing.apply(held_out.images)).argmax(axis=1)
    assert summary["accuracy"] == (predictions == held_out.labels).mean()
    assert summary["wrong"] == (predictions != held_out.labels).sum()
    assert summary["accuracy"] > 0.7  # two epochs
    assert not {image.tobytes() for image in training.images} & {image.tobytes() for image in held_out.images}


def test_every_map_is_in_the_atlas(result: Path) -> None:
    net = zfcore.load(result / "model.safetensors")
    atlas = Atlas.load(result / "atlas", net)
    assert {name: part.values.shape for name, part in atlas.layers.items()} == {
        "conv1": (24, 9), "conv2": (48, 9), "conv3": (64, 9)}
    _, held_out = digits(seed=0)
    tensor = net.features(net.preprocessing.apply(held_out.images), ["conv3"])["conv3"]
    strongest = np.sort(tensor.max(axis=(1, 2)), axis=0)[::-1][:9].T
    np.testing.assert_array_equal(atlas["conv3"].values, strongest)


def test_the_page_needs_no_network(result: Path) -> None:
    page = (result / "index.html").read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    for path in re.findall(r"src=\"([^\"]+)\"", page):
        assert path.startswith("data:") or (result / path).is_file(), path
    assert len(list(result.rglob("*.png"))) > 100


def test_training_repeats_bit_for_bit(result: Path) -> None:
    training, _ = digits(seed=0)
    try:
        set_num_threads(1)
        net = demo.train(training, epochs=2, progress=False)
    finally:
        set_num_threads(None)
    saved = zfcore.load(result / "model.safetensors").parameters()
    for name, array in net.parameters().items():
        assert array.tobytes() == saved[name].tobytes(), name


def test_a_low_accuracy_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LEARNING_RATE", 0.0)
    with pytest.raises(SystemExit) as end:
        main(["demo", "--out", str(tmp_path / "out"), "--epochs", "1"])
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert "below the 98%" in err.splitlines()[-1]
    assert "held-out digits are right" in out and out.splitlines()[-1] == f"open {tmp_path / 'out' / 'index.html'}"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["accuracy"] < 0.5


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of a page's fenced blocks."""
    for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        yield found[1], found[2]


def commands(text: str) -> Iterator[list[str]]:
    """The words after `zfcore` of every such line."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "zfcore":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES)
def test_pages_run_as_they_are_written(page: str, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    """One namespace a page, in a folder where `make demo` has run."""
    (tmp_path / "zfcore-demo").symlink_to(result)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    ran = 0
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), namespace)
            ran += 1
        elif language == "sh":
            for words in commands(text):
                with pytest.raises(SystemExit) as end:
                    main(words)
                assert not end.value.code, (words, capsys.readouterr().err)
                ran += 1
    assert ran >= 5


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in
                                        [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_links_and_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target
    makefiles = [ROOT / "Makefile", *ROOT.glob("csrc/*.mk")]
    rules = {rule for file in makefiles for rule in re.findall(r"^([\w-]+):", file.read_text(), re.MULTILINE)}
    for target in re.findall(r"(?:^    |`)make ([\w-]+)", text, re.MULTILINE):
        assert target in rules, target


def test_what_it_takes_is_said_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def stops(*_: object, **__: object) -> None:
        said.append(capsys.readouterr().err)
        raise ZeroDivisionError

    monkeypatch.setattr(demo, "train", stops)
    with pytest.raises(ZeroDivisionError):
        demo.run(tmp_path / "out")
    assert re.search(r"demo: 1,198 training images, 16 epochs; 599 images in the atlas, \d+ feature maps; "
                     r"about \d+.* MB of memory for arrays, about \d+ (s|min)\n", said[0]), said[0]
