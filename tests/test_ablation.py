"""The ablation study: rows trained and measured, kept and taken up again, drawn, and by the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zfcore import Network, models
from zfcore.cli import main
from zfcore.data import Arrays
from zfcore.models.ablation import ablated
from zfcore.pictures import ablation_picture
from zfcore.study import ablation as module
from zfcore.study.ablation import ERRORS, PAPER, Ablation, ablation
from zfcore.study.results import ResultError
from zfcore.training.recipes import Recipe

RECIPE = Recipe(name="quick", epochs=2, batch_size=16, optimizer={"kind": "sgd", "learning_rate": 0.01, "radius": 0.1},
                network={"initial_weights": "zf-scaled", "mean": "pixel"}, augmentation={"crop": "network", "pad": 1})
ROWS = ("whole", "without-3-4", "without-6-7")


def pictures(count: int, seed: int) -> Arrays:
    """Three classes: a bright square at one of three places."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    images = generator.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label + 2:8 * label + 8, 4:20] += 150
    return Arrays(images, labels, class_names=["top", "middle", "bottom"])


def small() -> Network:
    return models.zfnet_mnist(3, widths=(6, 6, 6, 6, 6), hidden=(8, 6))


def run(**options: Any) -> Ablation:
    return ablation(small(), pictures(48, 0), pictures(30, 1), RECIPE,
                    **{"rows": ROWS, "seeds": (0, 1), "progress": False, **options})


@pytest.fixture(scope="module")
def found() -> Ablation:
    return run()


def test_every_row_and_seed_is_measured(found: Ablation) -> None:
    for name in ERRORS:
        errors = getattr(found, name)
        assert errors.shape == (3, 2) and (errors >= 0).all() and (errors <= 1).all()
    assert (found.train_top5 == 0).all() and (found.validation_top5 == 0).all()  # three classes
    assert found.parameters.tolist() == [ablated(small(), row).parameter_count for row in ROWS]
    assert (np.diff(found.multiply_adds) != 0).all() and (found.seconds > 0).all()
    assert found.rows == ROWS and found.titles[1] == "without layers 3, 4" and found.seeds == (0, 1)


def test_a_row_is_the_training_that_it_says(found: Ablation) -> None:
    from zfcore.training import Training, measure
    from zfcore.training.preparation import held_out_feed, training_feed

    net = ablated(small(), "without-3-4")
    RECIPE.prepare(net)
    RECIPE.initialize(net, 1)
    feed = training_feed(net, pictures(48, 0), RECIPE, seed=1)
    Training(net, feed, RECIPE.make_optimizer(), seed=1).run(2, progress=False)
    accuracy = measure(net, held_out_feed(net, pictures(30, 1))).accuracy
    assert found.validation_top1[1, 1] == 1 - accuracy


def test_numbers_are_over_the_seeds(found: Ablation) -> None:
    values = found.validation_top1[2]
    assert found.spread("validation_top1", 2) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert found.change(0) == (0, 0)
    assert found.change(1)[0] == pytest.approx((found.validation_top1[1] - found.validation_top1[0]).mean())
    row = found.summary["rows"]["without-6-7"]
    assert row["validation_top1"]["each"] == [round(100 * float(value), 3) for value in values]
    json.dumps(found.summary, allow_nan=False)
    lines = found.table().splitlines()
    assert len(lines) == 4 and lines[2].startswith("without layers 3, 4") and lines[2].endswith("AlexNet 45.4")
    assert lines[1].endswith("AlexNet 40.5, ZFNet 38.4")


def test_it_is_saved_and_loaded(found: Ablation, tmp_path: Path) -> None:
    found.save(tmp_path / "kept")
    again = Ablation.load(tmp_path / "kept")
    assert again.summary == found.summary
    np.testing.assert_array_equal(again.seconds, found.seconds)


def test_it_is_taken_up_row_by_row(found: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = module._errors, []

    def stops(*arguments: Any) -> Any:
        calls.append(arguments[4])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "_errors", stops)
    with pytest.raises(KeyboardInterrupt):
        run(state=tmp_path / "state")
    half = module.kept(tmp_path / "state").furthest()
    assert np.isfinite(half.seconds).sum() == 3 and np.isnan(half.validation_top1[1, 1])
    assert half.table().splitlines()[3].split()[4] == "-"
    json.dumps(half.summary, allow_nan=False)
    assert ablation_picture(half).dtype == np.uint8  # of what is there so far
    calls[:] = [0] * 10
    whole = run(state=tmp_path / "state")
    assert len(calls) == 13  # the three that were missing
    for name in ERRORS:
        np.testing.assert_array_equal(getattr(whole, name), getattr(found, name))
    calls.clear()
    run(state=tmp_path / "state")
    assert not calls


def test_a_kill_while_the_state_is_written_loses_no_training(found: Ablation, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    """The old folder is aside and the new one not yet in its place, or it is there and damaged."""
    state, keeper = tmp_path / "state", module.kept(tmp_path / "state")
    for trained in (3, 4, 5):
        part = replace(found, seconds=np.where(np.arange(found.seconds.size) < trained, found.seconds.ravel(), np.nan
                                               ).reshape(found.seconds.shape))
        keeper.save(part)
    newest = state / "0"
    newest.rename(state / ".0.x.old")
    assert np.isfinite(module.kept(state).furthest().seconds).sum() == 4
    (state / ".0.x.old").rename(newest)
    for path in newest.rglob("*seconds*"):
        path.write_bytes(path.read_bytes()[:-1])
    calls: list[Any] = []
    monkeypatch.setattr(module, "_errors", lambda *arguments: calls.append(arguments) or (0.0, 0.0, 0.0, 0.0))
    run(state=state)
    assert len(calls) == found.seconds.size - 4 and "going on from the other state" in capsys.readouterr().err
    with keeper.locked(), pytest.raises(BlockingIOError, match="another process is at work on this state of ablation"):
        run(state=state)


def test_a_state_of_another_ablation_is_refused(found: Ablation, tmp_path: Path) -> None:
    module.kept(tmp_path / "state").save(found)
    with pytest.raises(ResultError, match="another ablation \\(seeds differ\\)"):
        run(state=tmp_path / "state", seeds=(0, 2))
    with pytest.raises(ResultError, match="settings differ"):
        ablation(small(), pictures(48, 3), pictures(30, 1), RECIPE, rows=ROWS, seeds=(0, 1), state=tmp_path / "state",
                 progress=False)


def test_bad_calls_come_before_any_training() -> None:
    with pytest.raises(ValueError, match="row is 'without-8'; allowed: one of"):
        run(rows=("whole", "without-8"))
    with pytest.raises(ValueError, match="seeds is \\(1, 1\\)"):
        run(seeds=(1, 1))
    with pytest.raises(ValueError, match="rows is \\(\\)"):
        run(rows=())
    with pytest.raises(ValueError, match="a layer's number is 4; allowed: 1 to 3: convnetjs"):
        ablation(models.convnetjs(3), pictures(8, 0), pictures(8, 1), RECIPE, rows=["without-3-4"], progress=False)


def test_the_picture_shows_seeds_and_spread(found: Ablation) -> None:
    picture = ablation_picture(found)
    assert picture.shape[1:] == (920, 3) and picture.shape[0] > 3 * 30
    other = replace(found, validation_top1=found.validation_top1 * 0)
    assert (ablation_picture(other) != picture).any()


def test_the_papers_table_is_about_known_rows() -> None:
    from zfcore.models.ablation import ROWS as KNOWN

    assert {row for table in PAPER.values() for row in table} == set(KNOWN)
    assert PAPER["AlexNet"]["without-3-4-6-7"] == (71.1, 71.3, 50.1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["ablate", *arguments])
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    for part, count in (("train", 24), ("test", 12)):
        source = pictures(count, len(part))
        for index, label in enumerate(source.labels):
            folder = tmp_path / part / source.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.images[index, ..., 0]).save(folder / f"{index}.png")
    recipe = tmp_path / "quick.toml"
    recipe.write_text('epochs = 1\nbatch_size = 64\n[network]\ninitial_weights = "zf-scaled"\n', "utf-8")
    out = tmp_path / "ablated"
    words = ["zfnet-mnist", str(tmp_path / "train"), "--validation", str(tmp_path / "test"), "--recipe", str(recipe),
             "--rows", "whole,without-3-4-6-7", "--seeds", "4", "--out", str(out)]
    code, text, _ = told(*words)
    assert code == 0 and "without layers 3, 4, 6, 7" in text and (out / "ablation.png").is_file()
    assert (out / "table.txt").read_text("utf-8").strip() in text
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["seeds"] == [4] and Ablation.load(out / "result").seeds == (4,)
    assert not (tmp_path / "ablated.state").exists()
    for wrong, message in ((words, "exists already; --force"), ([*words[:-1], str(tmp_path / "b"), "--seeds", "a"],
                                                               "--seeds is 'a'"),
                           (["convnetjs", *words[1:-1], str(tmp_path / "b")], "a layer's number is 4")):
        code, _, error = told(*wrong)
        assert code == 2 and message in error and len(error.strip().splitlines()) == 1
