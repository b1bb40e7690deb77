"""`zfcore train` and `zfcore evaluate`: what they write, how they stop and go on, and what they refuse."""

from __future__ import annotations

import csv
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
from training_cases import result

import zfcore
from zfcore.cli import main
from zfcore.layers import BatchNorm, Convolution, Dropout, Flatten, Linear, MaxPool, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

Run = Callable[..., tuple[int, str, str]]


def pictures(folder: Path, count: int, seed: int, classes: tuple[str, ...] = ("bottom", "left", "top")) -> Path:
    """Folders of noise whose bright side is the class."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 120, (12, 12))
            part = {"top": pixels[:5], "bottom": pixels[7:], "left": pixels[:, :5]}.get(name, pixels[4:8, 4:8])
            part += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def network(classes: int = 3, names: list[str] | None = None) -> Network:
    net = Network("tiny", (8, 8, 1), scheme="he", algorithm="direct", class_names=names,
                  preprocessing=Preprocessing("L", mean=110.0, scale=1 / 64, size=10, crop=8))
    net.add("conv1", Convolution(4, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(2, 2))
    net.add("norm1", BatchNorm())
    net.add("flat", Flatten())
    net.add("fc2", Linear(6, activation="relu"))
    net.add("drop2", Dropout(0.2))
    net.add("fc3", Linear(classes))
    net.add("prob", Softmax())
    return net.initialize(2)


RECIPE = """
epochs = 4
batch_size = 8
[optimizer]
kind = "sgd"
learning_rate = 0.05
radius = 0.3
[schedule]
kind = "plateau"
patience = 2
[network]
dropout = 0.1
mean = "pixel"
[augmentation]
size = 10
crop = "network"
mirror = false
jitter = 0.05
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a model file, a recipe, and a run of them."""
    folder = tmp_path_factory.mktemp("work")
    pictures(folder / "train", 12, 0)
    pictures(folder / "test", 5, 1)
    pictures(folder / "other", 6, 2, ("left", "middle"))
    zfcore.save(network(names=["bottom", "left", "top"]), folder / "tiny.safetensors")
    (folder / "mine.toml").write_text(RECIPE)
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in command(folder, folder / "run")])
    assert not end.value.code
    return folder


def command(work: Path, out: Path, *more: object) -> list[object]:
    return ["train", work / "tiny.safetensors", work / "train", "--recipe", work / "mine.toml", "--validation",
            work / "test", "--seed", "3", "--log-every", "1", "--out", out, *more]


def one_line(found: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, and a last line on stderr that says what is wrong."""
    code, out, err = found
    assert code == 2 and out == "", found
    last = err.splitlines()[-1]
    assert last.startswith("zfcore: ") and "Traceback" not in err, err
    for word in words:
        assert word in last, last


def test_none_takes_a_setting_away(work: Path, tmp_path: Path, run: Run) -> None:
    recipe = json.loads((work / "run" / "run.json").read_text())["recipe"]
    assert "radius" in recipe["optimizer"]
    assert run(*command(work, tmp_path / "run", "--epochs", "1", "--set", "optimizer.radius=none"))[0] == 0
    changed = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert changed["optimizer"] == {key: value for key, value in recipe["optimizer"].items() if key != "radius"}
    one_line(run(*command(work, tmp_path / "other", "--set", "epochs=none")), "epochs")


def test_what_is_written(work: Path, run: Run) -> None:
    described = json.loads((work / "run" / "run.json").read_text())
    assert described["arguments"]["model"] == str(work / "tiny.safetensors")
    assert described["recipe"]["optimizer"]["learning_rate"] == 0.05
    summary = json.loads((work / "run" / "summary.json").read_text())
    assert summary["epochs"] == 4 and summary["images"] == 36 and summary["validation_images"] == 15
    net = zfcore.load(work / "run" / "model.safetensors")
    assert net.class_names == ["bottom", "left", "top"] and net.nodes["drop2"].layer.rate == 0.1
    assert net.preprocessing is not None
    # The file brings its own mean, whatever the recipe says: the parameters were learned with it.
    assert (net.preprocessing.size, net.preprocessing.crop, float(net.preprocessing.mean)) == (10, 8, 110.0)
    code, out, _ = run("train", "--resume", "--out", work / "run", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 4


def test_goes_on_with_more_epochs_and_equals_a_whole_run(work: Path, tmp_path: Path, run: Run) -> None:
    assert run(*command(work, tmp_path / "run", "--epochs", "2", "--keep", "1,4"))[0] == 0
    code, _, err = run("train", "--resume", "--out", tmp_path / "run", "--epochs", "4", "--log-every", "1")
    assert code == 0 and "going on after epoch 2 of 4" in err
    assert result(tmp_path / "run") == result(work / "run")
    # What to keep was said once; other epochs may be chosen later.
    assert sorted(path.name for path in (tmp_path / "run").glob("epoch-*")) == [
        "epoch-0001.safetensors", "epoch-0004.safetensors"]
    assert run("train", "--resume", "--out", tmp_path / "run", "--epochs", "5", "--keep", "5")[0] == 0
    assert (tmp_path / "run" / "epoch-0005.safetensors").is_file()


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "zfcore", *map(str, words)], stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def until_trained(process: subprocess.Popen[str], log: Path, lines: int) -> None:
    """Wait until the run has logged some steps."""
    for _ in range(6000):
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    pytest.fail(f"no step was logged: {process.communicate()[1]}")


def test_killed_and_stopped_processes_come_to_the_same_end(work: Path, tmp_path: Path, run: Run) -> None:
    """kill -9, then SIGTERM, then Ctrl-C, each in the middle of a run of its own process."""
    folder, epochs = tmp_path / "run", ["--epochs", "40"]
    plain = command(work, tmp_path / "whole", *epochs)
    assert run(*plain)[0] == 0
    for number, code, lines in ((signal.SIGKILL, -9, 5), (signal.SIGTERM, 143, 60), (signal.SIGINT, 130, 100)):
        words = command(work, folder, *epochs) if number == signal.SIGKILL else [
            "train", "--resume", "--out", folder, "--log-every", "1"]
        process = start(*words)
        until_trained(process, folder / "log.jsonl", lines)
        if number == signal.SIGKILL:  # a second run is refused while this one is alive, not after its end
            one_line(run("train", "--resume", "--out", folder), "another process is training")
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == code, err
        if number != signal.SIGKILL:
            assert "--resume goes on from there" in err and "Traceback" not in err
    assert run("train", "--resume", "--out", folder, "--log-every", "1")[0] == 0
    assert result(folder) == result(tmp_path / "whole")


def test_fine_tuning(work: Path, tmp_path: Path, run: Run) -> None:
    """Two other classes: the last layer begins anew, a frozen one stays."""
    code, _, err = run("train", work / "run" / "model.safetensors", work / "other", "--recipe", "adam-study",
                       "--epochs", "2", "--freeze", "conv1,norm1", "--factors", "fc3=2,fc2=0.1", "--out",
                       tmp_path / "tuned")
    assert code == 0 and "begun anew: fc3;" in err
    before, net = zfcore.load(work / "run" / "model.safetensors"), zfcore.load(tmp_path / "tuned" / "model.safetensors")
    assert net.class_names == ["left", "middle"] and net.tensor_shape("prob") == (2,)
    for name, array in net.parameters().items():
        frozen = name.startswith(("conv1.", "norm1."))
        assert name.startswith("fc3.") or (array.tobytes() == before.parameters()[name].tobytes()) == frozen, name
    code, _, err = run("train", work / "tiny.safetensors", work / "train", "--recipe", "adam-study", "--epochs", "1",
                       "--replace", "fc2,fc3", "--out", tmp_path / "replaced")
    assert code == 0 and "begun anew: fc2, fc3;" in err


def test_a_model_without_preprocessing_is_told_one(work: Path, tmp_path: Path, run: Run) -> None:
    net = network()
    net.preprocessing = None
    zfcore.save(net, tmp_path / "bare.safetensors")
    (tmp_path / "pixels.json").write_text(json.dumps({"channels": "L", "mean": 100.0, "scale": 0.02, "size": 8,
                                                      "crop": 8}))
    words = ["train", tmp_path / "bare.safetensors", work / "train", "--recipe", "adam-study", "--epochs", "1", "--out",
             tmp_path / "run"]
    one_line(run(*words), "bare.safetensors", "--preprocessing")
    one_line(run("evaluate", tmp_path / "bare.safetensors", work / "test"), "bare.safetensors", "--preprocessing")
    assert run(*words, "--preprocessing", tmp_path / "pixels.json")[0] == 0
    assert run("train", "--resume", "--out", tmp_path / "run", "--epochs", "2")[0] == 0
    found = zfcore.load(tmp_path / "run" / "model.safetensors").preprocessing
    assert found is not None and float(found.mean) == 100.0


def test_initial_parameters_of_a_built_in_network(tmp_path: Path, run: Run) -> None:
    net = zfcore.models.build("mnist", classes=10)
    zfcore.save(net.initialize(8), tmp_path / "ten.safetensors")
    pictures(tmp_path / "pictures", 4, 0)
    code, _, err = run("train", "mnist", tmp_path / "pictures", "--initial", tmp_path / "ten.safetensors", "--recipe",
                       "adam-study", "--epochs", "1", "--freeze", "conv1,conv2,fc3", "--out", tmp_path / "run")
    assert code == 0 and "begun anew: fc4;" in err
    found = zfcore.load(tmp_path / "run" / "model.safetensors").parameters()
    assert found["conv1.weight"].tobytes() == net.parameters()["conv1.weight"].tobytes()
    assert found["fc4.weight"].shape == (3, 128)


def test_a_share_is_held_out(work: Path, tmp_path: Path, run: Run) -> None:
    code, out, _ = run("train", work / "tiny.safetensors", work / "train", "--recipe", "adam-study", "--validation",
                       "0.25", "--epochs", "1", "--set", "optimizer.learning_rate=0.01", "--set",
                       "schedule.kind=cosine", "--json", "--out", tmp_path / "run")
    found = json.loads(out)
    assert code == 0 and (found["images"], found["validation_images"], found["rate"]) == (27, 9, 0.01)


def test_evaluate(work: Path, tmp_path: Path, run: Run) -> None:
    model = work / "run" / "model.safetensors"
    code, out, _ = run("evaluate", model, work / "test", "--json")
    found, trained = json.loads(out), json.loads((work / "run" / "summary.json").read_text())
    assert code == 0 and found["images"] == 15
    assert found["accuracy"] == trained["validation_accuracy"] and found["loss"] == trained["validation_loss"]
    assert [each["images"] for each in found["classes"]] == [5, 5, 5]
    ensemble = f"{model},{work / 'run' / 'best.safetensors'}"
    code, out, _ = run("evaluate", ensemble, work / "test", "--crops", "10", "--out", tmp_path / "found")
    assert code == 0 and "average of all" in out and out.count("top-1") == 3
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert len(summary["members"]) == 2 and summary["crops"] == 10
    rows = list(csv.reader((tmp_path / "found" / "confusion.csv").read_text().splitlines()))
    assert rows[0][1:] == ["bottom", "left", "top"] and sum(int(cell) for row in rows[1:] for cell in row[1:]) == 15
    assert np.asarray(Image.open(tmp_path / "found" / "confusion.png")).std() > 0
    one_line(run("evaluate", ensemble, work / "test", "--out", tmp_path / "found"), "--force")
    shutil.copytree(work / "test", tmp_path / "test")
    bad = tmp_path / "test" / "top" / "4.png"
    bad.write_bytes(bad.read_bytes()[:60])
    one_line(run("evaluate", model, tmp_path / "test"), "top/4.png")
    code, out, _ = run("evaluate", model, tmp_path / "test", "--on-bad-image", "skip", "--batch-size", 1)
    assert code == 0 and "on 14 pictures" in out and "1 picture could not be read, left out" in out
    out = run("evaluate", model, tmp_path / "test", "--on-bad-image", "skip", "--crops", "10", "--json")[1]
    assert list(json.loads(out)["skipped"]) == ["top/4.png"]


def test_what_evaluate_refuses(work: Path, run: Run) -> None:
    model = work / "run" / "model.safetensors"
    for words, expected in (
            ([model, work / "other"], "'left'"),
            ([model, work / "test", "--crops", "5"], "allowed: 1, 10"),
            ([model, work / "test" / "top"], "no class"),
            ([model, work / "nothing"], "nothing"),
            ([f"{model},", work / "test"], "commas"),
            ([model, work / "test", "--on-bad-image", "ignore"], "fail, skip")):
        one_line(run("evaluate", *words), expected)


@pytest.mark.parametrize(("more", "expected"), [
    (["--epochs", "0"], "--epochs is '0'"), (["--batch-size", "x"], "--batch-size"), (["--seed", "-1"], "--seed"),
    (["--learning-rate", "fast"], "--learning-rate"), (["--learning-rate", "0"], "a number above 0"),
    (["--set", "epochs"], "KEY=VALUE"),
    (["--set", "optimizer.speed=1"], "speed"), (["--recipe", "zeiler"], "krizhevsky, zf"),
    (["--recipe", "nothing.toml"], "no such file"), (["--validation", "1.5"], "a share above 0"),
    (["--validation", "nowhere"], "nowhere"), (["--freeze", "conv9"], "conv1, pool1"),
    (["--factors", "fc3"], "LAYER=X"), (["--factors", "fc9=1"], "fc3"), (["--replace", "conv9"], "conv9"),
    (["--initial", "x.safetensors"], "--initial is for built-in names"), (["--checkpoint-every", "-1"], "number >= 0"),
    (["--freeze", "conv1,norm1,fc2,fc3"], "not every layer"),
    (["--preprocessing", "sepia"], "sepia"),
    (["--keep", "1,x"], "--keep is '1,x'"), (["--keep", "-1"], "--keep"),
    (["--on-bad-image", "x"], "fail, skip"), (["--device", "tpu"], "cpu"), (["--resume", "--force"], "one of them")])
def test_what_train_refuses(work: Path, tmp_path: Path, run: Run, more: list[str], expected: str) -> None:
    one_line(run(*command(work, tmp_path / "run", *more)), expected)
    assert not (tmp_path / "run").exists()


def test_what_train_refuses_of_data_and_folders(work: Path, tmp_path: Path, run: Run) -> None:
    model, data = work / "tiny.safetensors", work / "train"
    for label, name in ((7, "seven"), (0, "one")):
        (work / f"{name}.csv").write_text(f"path,label\ntest/top/0.png,{label}\n")
    for words, *expected in (
            ([], "MODEL is missing"), ([model], "DATA is missing"), ([model, work / "train" / "top"], "no class"),
            (["lenet", data], "no built-in name"), ([model, work / "nothing"], "nothing"),
            ([model, data, "--recipe", "zf"], "--validation is missing"),
            ([model, data, "--validation", work / "other"], "'middle'"),
            ([model, data, "--validation", work / "test" / "top"], "--validation", "no class"),
            ([model, data, "--validation", work / "seven.csv"], "highest class is 7"),
            ([model, work / "one.csv"], "1 class; allowed: 2")):
        recipe = [] if "--recipe" in words else ["--recipe", "adam-study"]
        one_line(run("train", *words, *recipe, "--out", tmp_path / "run"), *expected)
        assert not (tmp_path / "run").exists(), words
    one_line(run("train", model, data, "--out", tmp_path / "no" / "run"), "parent folder")
    one_line(run("train", model, data, "--out", work / "run"), "holds a run", "--resume", "--force")
    one_line(run("train", work / "mine.toml", data, "--resume", "--out", work / "run"), "begun with")
    one_line(run("train", "--resume", "--out", work / "run", "--seed", "4"), "seed is 4", "begun with 3")
    one_line(run("train", "--resume", "--out", work / "run", "--learning-rate", "0.5"),
             "learning rate of epoch 1 was 0.05 and would now be 0.5")
    one_line(run("train", work / "run" / "best.safetensors", data, "--force", "--out", work / "run"),
             "best.safetensors", "will not replace what is read")
    one_line(run("train", "--resume", "--out", work), "and no run")
    one_line(run("train", "--resume", "--out", tmp_path / "none"), "MODEL is missing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    one_line(run("train", "--resume", "--out", tmp_path / "bad"), "no description of a run")


def test_a_bad_picture_fails_or_is_left_out_and_recorded(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "pictures", 4, 0)
    zfcore.save(network(), tmp_path / "tiny.safetensors")
    bad = tmp_path / "pictures" / "top" / "2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ["train", tmp_path / "tiny.safetensors", tmp_path / "pictures", "--recipe", "adam-study", "--epochs", "1",
             "--out", tmp_path / "run"]
    one_line(run(*words), "top/2.png")
    for more in (["--force"], ["--resume", "--epochs", "2"]):
        code, out, _ = run(*words, "--on-bad-image", "skip", *more)
        assert code == 0 and "1 picture could not be read" in out
        assert list(json.loads((tmp_path / "run" / "summary.json").read_text())["skipped"]) == ["top/2.png"]


def test_defaults_may_be_said_and_bad_pictures_left_out_from_now_on(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "pictures", 4, 0)
    zfcore.save(network(), tmp_path / "tiny.safetensors")
    words = ["train", tmp_path / "tiny.safetensors", tmp_path / "pictures", "--recipe", "adam-study", "--out",
             tmp_path / "run", "--epochs"]
    assert run(*words, "1")[0] == 0
    one_line(run(*words, "2", "--resume", "--seed", "1"), "begun with 0")
    bad = tmp_path / "pictures" / "top" / "2.png"
    bad.write_bytes(bad.read_bytes()[:-30] + bytes(30))  # of the same size
    one_line(run(*words, "2", "--resume", "--seed", "0"), "top/2.png")
    code, out, _ = run(*words, "2", "--resume", "--on-bad-image", "skip")
    assert code == 0 and "1 picture could not be read" in out


def test_a_log_that_was_lost_costs_no_more_than_the_log(work: Path, tmp_path: Path, run: Run) -> None:
    assert run(*command(work, tmp_path / "run"))[0] == 0
    (tmp_path / "run" / "log.jsonl").unlink()
    code, out, err = run("train", "--resume", "--out", tmp_path / "run")
    assert code == 0 and out.startswith("4 epochs") and "has lost" in err


def test_a_changed_picture_is_noticed(tmp_path: Path, run: Run) -> None:
    pictures(tmp_path / "pictures", 4, 0)
    zfcore.save(network(), tmp_path / "tiny.safetensors")
    words = ["train", tmp_path / "tiny.safetensors", tmp_path / "pictures", "--recipe", "adam-study", "--epochs", "1",
             "--out", tmp_path / "run"]
    assert run(*words)[0] == 0
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "pictures" / "top" / "2.png")
    one_line(run("train", "--resume", "--out", tmp_path / "run", "--epochs", "2"), "training data changed")
