"""The command line: what it writes, and one line with exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zfcore.cli import main
from zfcore.layers import Convolution, Flatten, Linear, MaxPool, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a few pictures of odd kinds and names."""
    import zfcore

    folder = tmp_path_factory.mktemp("work")
    net = Network("tiny", (20, 20, 1), scheme="he", class_names=["a", "<b>"],
                  preprocessing=Preprocessing("L", mean=100.0, scale=1 / 64, size=24, crop=20))
    net.add("conv1", Convolution(4, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", Convolution(6, 3, padding=1, activation="relu"))
    net.add("flatten", Flatten())
    net.add("fc3", Linear(2))
    net.add("prob", Softmax())
    net.initialize(0)
    zfcore.save(net, folder / "tiny.safetensors")
    generator = np.random.default_rng(0)
    (folder / "images" / "-sub").mkdir(parents=True)
    kinds = [("L", (30, 40)), ("RGB", (25, 25)), ("RGBA", (24, 60)), ("CMYK", (33, 31)), ("P", (28, 28)),
             ("L", (1, 1))]
    for number, (mode, size) in enumerate(kinds):
        pixels = generator.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.fromarray(pixels).convert(mode).save(folder / "images" / f"picture {number}.{suffix}")
    Image.fromarray(pixels).save(folder / "images" / "-sub" / "<script>alert(1)<.png")
    return folder


def one_line(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds the words."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("zfcore: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


# What goes right


def test_help_teaches(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "info", "atlas", "project", "merge"):
        assert command in out
        code, text, _ = run(command, "--help")
        assert code == 0 and f"zfcore {command}" in text.split("Options")[0].split("Usage")[-1]
    assert run("--version")[1].startswith("zfcore ")


def test_info(run: Run, work: Path) -> None:
    code, out, err = run("info", work / "tiny.safetensors")
    assert code == 0 and "conv2" in out and "20x20" in out and err == ""
    summary = json.loads(run("info", work / "tiny.safetensors", "--json")[1])
    rows = {row["name"]: row for row in summary["layers"]}
    assert rows["conv2"]["receptive_field"]["size"] == [9, 9] and rows["conv1"]["parameters"] == 40
    assert summary["class_names"] == ["a", "<b>"] and summary["parameters"] == sum(
        row["parameters"] for row in rows.values())


def test_info_of_a_built_in_architecture(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("info", "zfnet", "--json")[1])["layers"]}
    assert [rows[name]["receptive_field"]["size"][0] for name in ("conv2", "conv3", "conv4", "conv5")] == [
        27, 75, 107, 139]


def test_info_of_the_system(run: Run) -> None:
    code, out, _ = run("info", "--system")
    assert code == 0 and "cuda: " in out and "numba: available" in out
    summary = json.loads(run("info", "--system", "--json")[1])
    assert summary["backends"]["numba"] == "available" and summary["threads"] >= 1


def test_atlas(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "atlas"
    code, text, err = run("atlas", work / "tiny.safetensors", work / "images", "--layers", "conv1,conv2",
                          "--top", 3, "--out", out)
    assert code == 0, err
    assert f"open {out / 'index.html'}" in text.splitlines()[-1]
    assert "images" in err  # the forecast
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 7 and set(summary["layers"]) == {"conv1", "conv2"}
    page = (out / "index.html").read_text()
    assert "<script>alert" not in page and "conv2" in page
    assert list(out.rglob("*.png"))

    import zfcore
    from zfcore.study.atlas import Atlas

    net = zfcore.load(work / "tiny.safetensors")
    atlas = Atlas.load(out / "atlas", net)
    assert atlas["conv2"].values.shape == (6, 3)


def test_json_is_alone_on_stdout(run: Run, work: Path, tmp_path: Path) -> None:
    code, text, _ = run("atlas", work / "tiny.safetensors", work / "images", "--layers", "conv1", "--out",
                        tmp_path / "a", "--json")
    assert code == 0 and json.loads(text)["layers"]["conv1"]["maps"] == 4


def test_shards_merge_to_one_pass(run: Run, work: Path, tmp_path: Path) -> None:
    from zfcore.study.atlas import Atlas

    model, images = work / "tiny.safetensors", work / "images"
    common = ("--layers", "conv2", "--top", 2)
    assert run("atlas", model, images, *common, "--out", tmp_path / "whole", "--batch-size", 3)[0] == 0
    for number in (2, 1):
        part = ("--shard", f"{number}/2", "--out", tmp_path / f"{number}")
        assert run("atlas", model, images, *common, *part)[0] == 0
    code, text, err = run("merge", tmp_path / "2", tmp_path / "1", "--model", model, "--out",
                          tmp_path / "merged")
    assert code == 0, err
    assert "index.html" in text.splitlines()[-1]
    whole, merged = (Atlas.load(tmp_path / name / "atlas")["conv2"] for name in ("whole", "merged"))
    for name, array in whole.arrays().items():
        assert np.asarray(array).tobytes() == np.asarray(merged.arrays()[name]).tobytes(), name
    code, text, _ = run("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "arrays")
    assert code == 0 and not (tmp_path / "arrays" / "index.html").exists() and "--model" in text
    one_line(run("merge", tmp_path / "1", tmp_path / "1", "--out", tmp_path / "twice"), "two of the atlases")


def test_a_merge_says_what_it_takes_and_what_is_missing(run: Run, work: Path, tmp_path: Path) -> None:
    model, images = work / "tiny.safetensors", work / "images"
    for number in (1, 3):
        part = ("--shard", f"{number}/3", "--out", tmp_path / f"{number}")
        assert run("atlas", model, images, "--layers", "conv2", "--top", 2, *part)[0] == 0
    code, text, err = run("merge", tmp_path / "1", tmp_path / "3", "--out", tmp_path / "some", "--memory-limit", "500B",
                          "--model", model)
    assert code == 0 and text.startswith("5 of 7 images"), (text, err)
    assert "merge: 2 atlases, 6 feature maps" in err and "on disk" in err and "to project and draw" in err
    assert "WARNING: the atlases cover 5 of 7 images (2..3 missing)" in err
    assert err.index("merge: 2 atlases") < err.index("WARNING") and sorted(
        each.name for each in tmp_path.iterdir()) == ["1", "3", "some"]
    assert not (tmp_path / "some" / "projections").exists()  # beyond the limit
    code, text, err = run("merge", tmp_path / "1", "--out", tmp_path / "one", "--json")
    assert code == 0 and "cover 2 of 7" in err
    summary = json.loads(text)
    assert (summary["scanned"], summary["images"]) == (2, 7)


def test_a_bad_picture_fails_or_is_recorded(run: Run, work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        Image.new("L", (30, 30), 90).save(folder / name)
    (folder / "b.png").write_bytes(b"not a picture")
    command = ("atlas", work / "tiny.safetensors", folder, "--layers", "conv1", "--out", tmp_path / "out")
    code, out, err = run(*command)
    assert code == 2 and out == "" and "b.png" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert run(*command, "--on-bad-image", "skip")[0] == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["skipped"] == 1


def test_project(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    picture = work / "images" / "picture 1.png"
    code, text, err = run("project", work / "tiny.safetensors", picture, "--unit", "conv2:1", "--unit",
                          "conv1:0@3,4", "--rule", "gradient", "--start", "one", "--out", out)
    assert code == 0, err
    assert text.splitlines()[-1] == f"open {out / 'projections.png'}"
    summary = json.loads((out / "summary.json").read_text())
    assert [row["unit"].split("@")[0] for row in summary["units"]] == ["conv2:1", "conv1:0"]
    for row in summary["units"]:
        pixels = np.load(out / row["projection"], allow_pickle=False)
        assert pixels.dtype == np.float32 and pixels.ndim == 3 and (out / row["picture"]).exists()
    assert np.load(out / summary["units"][1]["projection"]).shape == (3, 3, 1)


def test_random_weights_are_said_loudly(run: Run, work: Path, tmp_path: Path) -> None:
    code, _, err = run("project", "mnist", work / "images" / "picture 0.png", "--unit", "conv1:0", "--rule",
                       "gradient", "--out", tmp_path / "r")
    assert code == 0 and "RANDOM" in err


def test_force_replaces_only_what_zfcore_made(run: Run, work: Path, tmp_path: Path) -> None:
    command = ("atlas", work / "tiny.safetensors", work / "images", "--layers", "conv1", "--top", 1, "--out")
    out = tmp_path / "o"
    assert run(*command, out)[0] == 0
    one_line(run(*command, out), "exists", "--force")
    assert run(*command, out, "--force")[0] == 0
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    one_line(run(*command, mine, "--force"), "did not make")
    assert (mine / "thesis.tex").read_text() == "years"
    one_line(run(*command, work / "tiny.safetensors", "--force"), "not a folder")
    one_line(run(*command, tmp_path / "no" / "such"), "parent folder")


# What goes wrong


@pytest.mark.parametrize(("words", "said"), [
    (["atlas", "missing.safetensors", "IMAGES", "--out", "OUT"], ["missing.safetensors"]),
    (["atlas", "resnet", "IMAGES", "--out", "OUT"], ["resnet", "zfnet"]),
    (["atlas", "MODEL", "missing", "--out", "OUT"], ["missing"]),
    (["atlas", "MODEL", "IMAGES", "--layers", "conv9", "--out", "OUT"], ["conv9", "conv1", "conv2"]),
    (["atlas", "MODEL", "IMAGES", "--layers", "", "--out", "OUT"], ["--layers"]),
    (["atlas", "MODEL", "IMAGES", "--layers", "conv1,,conv2", "--out", "OUT"], ["--layers"]),
    (["atlas", "MODEL", "IMAGES", "--top", "0", "--out", "OUT"], ["top"]),
    (["atlas", "MODEL", "IMAGES", "--top", "nine", "--out", "OUT"], ["nine"]),
    (["atlas", "MODEL", "IMAGES", "--batch-size", "0", "--out", "OUT"], ["--batch-size"]),
    (["atlas", "MODEL", "IMAGES", "--batch-size", "-1", "--out", "OUT"], ["-1"]),
    (["atlas", "MODEL", "IMAGES", "--memory-limit", "lots", "--out", "OUT"], ["lots", "2GB"]),
    (["atlas", "MODEL", "IMAGES", "--memory-limit", "0", "--out", "OUT"], ["--memory-limit"]),
    (["atlas", "MODEL", "IMAGES", "--memory-limit", "9" * 400, "--out", "OUT"], ["--memory-limit"]),
    (["atlas", "MODEL", "IMAGES", "--out", "n" * 300], ["name too long"]),
    (["atlas", "MODEL", "IMAGES", "--shard", "3/2", "--out", "OUT"], ["3/2"]),
    (["atlas", "MODEL", "IMAGES", "--shard", "0/2", "--out", "OUT"], ["0/2"]),
    (["atlas", "MODEL", "IMAGES", "--shard", "half", "--out", "OUT"], ["half"]),
    (["atlas", "MODEL", "IMAGES", "--on-bad-image", "cry", "--out", "OUT"], ["cry", "skip"]),
    (["atlas", "MODEL", "IMAGES", "--device", "cuda", "--out", "OUT"], ["cuda", "cpu"]),
    (["atlas", "MODEL", "IMAGES", "--device", "tpu", "--out", "OUT"], ["tpu"]),
    (["atlas", "MODEL", "IMAGES", "--seed", "-3", "--out", "OUT"], ["-3"]),
    (["atlas", "MODEL", "IMAGES"], ["--out"]),
    (["atlas", "MODEL"], ["IMAGES"]),
    (["atlas", "MODEL", "EMPTY", "--out", "OUT"], ["no file in it"]),
    (["atlas", "GARBAGE", "IMAGES", "--out", "OUT"], ["garbage.safetensors"]),
    (["atlas", "zfnet", "IMAGES", "--shard", "x", "--out", "OUT"], ["x"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv9:1", "--out", "OUT"], ["conv9"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1:4", "--out", "OUT"], ["0 to 3"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1:0@20,0", "--out", "OUT"], ["row"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1", "--out", "OUT"], ["map"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1:x", "--out", "OUT"], ["conv1:x", "conv5:42@6,7"]),
    (["project", "MODEL", "PICTURE", "--unit", "", "--out", "OUT"], ["unit"]),
    (["project", "MODEL", "PICTURE", "--out", "OUT"], ["--unit"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1:0", "--rule", "magic", "--out", "OUT"],
     ["magic", "guided"]),
    (["project", "MODEL", "PICTURE", "--unit", "conv1:0", "--start", "two", "--out", "OUT"],
     ["two", "activation"]),
    (["project", "MODEL", "GARBAGE", "--unit", "conv1:0", "--out", "OUT"], ["garbage"]),
    (["project", "MODEL", "missing.png", "--unit", "conv1:0", "--out", "OUT"], ["missing.png"]),
    (["project", "MODEL", "IMAGES", "--unit", "conv1:0", "--out", "OUT"], ["one picture"]),
    (["info", "missing.safetensors"], ["missing.safetensors"]),
    (["info"], ["MODEL", "zfnet"]),
    (["info", "GARBAGE"], ["garbage.safetensors"]),
    (["info", "IMAGES"], ["images"]),
    (["merge", "missing", "--out", "OUT"], ["missing"]),
    (["merge", "IMAGES", "--out", "OUT"], ["images"]),
    (["merge", "--out", "OUT"], ["ATLAS"]),
    (["demo", "--out", "OUT", "--epochs", "0"], ["--epochs"]),
    (["demo", "--out", "OUT", "--epochs", "many"], ["many"]),
    (["demo", "--out", "FILE"], ["not a folder"]),
    (["demo", "--out", "OUT", "--device", "cuda"], ["cuda"]),
    (["fly"], ["fly"]),
    (["atlas", "--fly"], ["--fly"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_line(run: Run, work: Path, tmp_path: Path, words: list[str], said: list[str]
                               ) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "garbage.safetensors").write_bytes(b"\xff" * 64)
    places = {"MODEL": work / "tiny.safetensors", "IMAGES": work / "images", "OUT": tmp_path / "out",
              "PICTURE": work / "images" / "picture 0.png", "EMPTY": tmp_path / "empty",
              "FILE": tmp_path / "file", "GARBAGE": tmp_path / "garbage.safetensors"}
    one_line(run(*(places.get(word, word) for word in words)), *said)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "garbage.safetensors"]


def test_force_keeps_what_is_read(run: Run, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(work, out)
    (out / "summary.json").write_text("{}")
    model, images = out / "tiny.safetensors", out / "images"
    one_line(run("atlas", model, work / "images", "--out", out, "--force"), "tiny.safetensors", "is read")
    one_line(run("atlas", work / "tiny.safetensors", images, "--out", out, "--force"), "images", "is read")
    one_line(run("project", work / "tiny.safetensors", images / "picture 0.png", "--unit", "conv1:0", "--out", out,
                 "--force"), "picture 0", "is read")
    one_line(run("embed", work / "tiny.safetensors", images, "--out", out, "--force"), "images", "is read")
    one_line(run("explain", model, work / "images" / "picture 0.png", "--out", out, "--force"), "tiny", "is read")
    one_line(run("merge", out, "--out", out, "--force"), "is read")
    assert model.exists() and images.exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that even root cannot fill")
def test_an_unwritable_place_is_found_before_the_work(run: Run, work: Path) -> None:
    result = run("atlas", work / "tiny.safetensors", work / "images", "--out", "/proc/out")
    one_line(result, "--out", "nothing can be written there")  # and no line of a scan


def test_a_folder_with_a_built_in_name_hides_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                      ) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert run("info", "mnist")[0] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place_is_one_line(run: Run, work: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    one_line(run("atlas", work / "tiny.safetensors", work / "images", "--out", tmp_path / "out"), "out")


def test_a_pickle_is_refused(run: Run, tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00]\x94.")
        one_line(run("info", tmp_path / name), name)


def test_a_training_that_runs_away_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zfcore.demo.LEARNING_RATE", 1e30)
    code, out, err = run("demo", "--out", tmp_path / "out", "--epochs", 1)
    assert code == 2 and out == "" and "Traceback" not in err
    assert err.splitlines()[-1].startswith("zfcore: ") and "the loss is not finite at step" in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [TypeError("relu: x is None; allowed: numpy.ndarray"),
                                   NotImplementedError("not yet"), FloatingPointError("overflow")], ids=repr)
def test_what_can_be_foreseen_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          error: Exception) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("zfcore.demo.run", fails)
    one_line(run("demo", "--out", tmp_path / "out"), str(error))


def test_an_early_end_of_what_is_read_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EOFError("cut short")

    monkeypatch.setattr("zfcore.demo.run", fails)
    code, out, err = run("demo", "--out", tmp_path / "out")
    assert (code, out, err.strip()) == (2, "", "zfcore: cut short")  # typer begins a line, as after Ctrl-D


def test_a_mistake_of_zfcores_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise TypeError("unsupported operand type(s)")

    monkeypatch.setattr("zfcore.demo.run", fails)
    with pytest.raises(TypeError, match="unsupported"):
        main(["demo", "--out", str(tmp_path / "out")])


def test_names_with_line_breaks_stay_on_one_line(run: Run) -> None:
    one_line(run("info", "no\nsuch\x1b[31mmodel\r.safetensors"), "no such")


def test_a_names_bytes_that_are_no_text(work: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"
    result = subprocess.run([sys.executable.encode(), b"-m", b"zfcore", b"info", name], capture_output=True)
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1 and b"Traceback" not in result.stderr


def test_a_reader_that_leaves_early_is_no_traceback(work: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "zfcore", "info", "zfnet"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C and kill: the shell's exit codes, no traceback, nothing half written."""
    process = subprocess.Popen([sys.executable, "-m", "zfcore", "demo", "--out", str(tmp_path / "demo"),
                                "--epochs", "500"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    os.set_blocking(process.stderr.fileno(), False)
    seen = b""
    for _ in range(600):
        seen += process.stderr.read() or b""
        if b"training" in seen:
            break
        time.sleep(0.1)
    process.send_signal(number)
    os.set_blocking(process.stderr.fileno(), True)
    try:
        rest = process.communicate(timeout=90)[1]
    finally:
        process.kill()
    assert process.returncode == code, seen + rest
    assert b"Traceback" not in rest
    assert b"interrupted" in rest
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_falls_into_a_finalizer_is_not_lost() -> None:
    program = (
        "import os, signal, time\n"
        "from zfcore import cli\n"
        "class Last:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        [0 for _ in range(10**5)]\n"
        "def app(**_):\n"
        "    Last()\n"
        "    time.sleep(20)\n"
        "cli.app = app\n"
        "cli.main([])\n")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=15)
    assert result.returncode == 130 and b"interrupted" in result.stderr, result.stderr


def test_convert_to_onnx_and_back(run: Run, work: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    import zfcore

    out = tmp_path / "tiny.onnx"
    code, told, _ = run("convert", work / "tiny.safetensors", out, "--json")
    summary = json.loads(told)
    assert code == 0 and summary["bytes"] == out.stat().st_size and summary["layers"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.onnx"]
    one_line(run("convert", work / "tiny.safetensors", out), "exists already")
    assert run("convert", work / "tiny.safetensors", out, "--force")[0] == 0
    assert run("convert", out, tmp_path / "back.safetensors")[0] == 0
    first, second = zfcore.load(work / "tiny.safetensors"), zfcore.load(tmp_path / "back.safetensors")
    assert second.class_names == ["a", "<b>"] and second.preprocessing.to_config() == first.preprocessing.to_config()
    x = np.random.default_rng(0).standard_normal((2, 20, 20, 1)).astype(np.float32)
    assert np.array_equal(first(x), second(x))
    code, told, _ = run("info", out, "--json")
    assert code == 0 and [row["name"] for row in json.loads(told)["layers"]] == list(first.nodes)


def test_weights_alone_need_their_architecture(run: Run, work: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    import torch_models

    module = torch_models.randomize(torch_models.SqueezeNet("1_1", 4))
    path = tmp_path / "weights.safetensors"
    files.save_file(module.state_dict(), path)
    one_line(run("info", path), "--architecture")
    one_line(run("info", path, "--architecture", "torchvision/alexnet"), "missing: features.3.weight")
    one_line(run("info", path, "--architecture", "alexnet"), "'torchvision/alexnet'")
    one_line(run("info", "zfnet", "--architecture", "torchvision/alexnet"), "are for files")
    code, told, _ = run("info", path, "--architecture", "torchvision/squeezenet1_1", "--json")
    assert code == 0 and json.loads(told)["preprocessing"]["crop"] == 224
    code, told, _ = run("info", path, "--architecture", "torchvision/squeezenet1_1",
                        "--preprocessing", "caffe-bgr", "--json")
    assert code == 0 and json.loads(told)["preprocessing"]["channels"] == "BGR"
    out = tmp_path / "atlas"
    code, told, said = run("atlas", path, work / "images", "--architecture", "torchvision/squeezenet1_1",
                           "--layers", "fire2.squeeze", "--top", "2", "--out", out)
    assert code == 0 and (out / "index.html").is_file(), said


@pytest.mark.parametrize("words", [("out.pth",), ("missing/out.onnx",), (".",)])
def test_convert_checks_its_file_first(run: Run, work: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    one_line(run("convert", work / "tiny.safetensors", tmp_path / words[0]), "FILE is")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_inside_compiled_text_ends_with_the_shells_code(tmp_path: Path) -> None:
    """Where a KeyboardInterrupt passed through exec of a string, `python -m` ends by the signal."""
    (tmp_path / "interrupted.py").write_text(
        "from zfcore import cli\n"
        "text = 'import os, signal; os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10**6)]'\n"
        "cli.app = lambda **_: exec(text)\n"
        "cli.main([])\n")
    paths = os.pathsep.join([str(Path(__file__).parent.parent), str(tmp_path)])
    result = subprocess.run([sys.executable, "-m", "interrupted"], capture_output=True,
                            env={**os.environ, "PYTHONPATH": paths})
    assert result.returncode == 130 and result.stderr.startswith(b"zfcore: interrupted"), result
