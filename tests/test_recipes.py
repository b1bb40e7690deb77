"""Schedules and recipes: data, checked when they are read, and what they say happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zfcore import models
from zfcore.data import Arrays, Augmentation
from zfcore.layers import Dropout
from zfcore.training.optimizers import SGD, Adam, optimizer_from_config
from zfcore.training.preparation import class_count, held_out_feed, training_feed
from zfcore.training.recipes import NAMES, Recipe, recipe
from zfcore.training.schedules import ByHand, Constant, CosineDecay, LinearDecay, Plateau, Step, schedule_from_config

SCHEDULES = [Constant(), ByHand({3: 0.1, 1: 0.5}), Step(2, 0.5), Plateau(0.5, 2, times=1), LinearDecay(), CosineDecay()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.kind)
def test_a_schedule_is_data(schedule: Any) -> None:
    again = schedule_from_config(json.loads(json.dumps(schedule.to_config())))
    assert again == schedule
    errors = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert [again.rate(1.0, epoch, 6, errors) for epoch in range(6)] == [
        schedule.rate(1.0, epoch, 6, errors) for epoch in range(6)]


def test_rates() -> None:
    def rates(schedule: Any, count: int = 6, errors: Any = ()) -> list[float]:
        return [schedule.rate(0.8, epoch, count, errors) for epoch in range(count)]

    assert rates(Constant()) == [0.8] * 6
    assert rates(ByHand({"4": 0.01, 1: 0.5})) == [0.8, 0.5, 0.5, 0.5, 0.01, 0.01]
    assert rates(Step(2, 0.5)) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    assert rates(LinearDecay(), 4) == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert rates(CosineDecay(), 2) == pytest.approx([0.8, 0.4])


def naive_plateau(errors: list[float], patience: int, threshold: float, times: int | None) -> list[int]:
    """Drops before each epoch, by keeping state as one would by hand."""
    best, waited, drops, found = float("inf"), 0, 0, [0]
    for error in errors:
        if error < best - threshold:
            waited = 0
        else:
            waited += 1
            if waited == patience and (times is None or drops < times):
                drops, waited = drops + 1, 0
        best = min(best, error)
        found.append(drops)
    return found


@pytest.mark.parametrize(("patience", "threshold", "times"), [(1, 0, None), (2, 0, None), (3, 0.05, 2), (2, 0.01, 0)])
def test_a_plateau_is_seen(patience: int, threshold: float, times: int | None) -> None:
    errors = np.random.default_rng(patience).random(30).round(2).tolist()
    schedule = Plateau(0.5, patience, threshold, times)
    expected = [0.8 * 0.5 ** drops for drops in naive_plateau(errors, patience, threshold, times)]
    assert [schedule.rate(0.8, epoch, 31, errors[:epoch]) for epoch in range(31)] == expected
    assert len(set(expected)) > 1 or times == 0
    assert Plateau(0.1, 2).rate(1.0, 4, 9, [0.5, 0.4, 0.4, 0.4]) == 0.1


@pytest.mark.parametrize("config", [
    {}, {"kind": "x"}, {"kind": "step", "every": 0}, {"kind": "step", "often": 3}, {"kind": "plateau", "factor": 1},
    {"kind": "plateau", "patience": 0}, {"kind": "plateau", "times": -1}, {"kind": "plateau", "threshold": 1},
    {"kind": "by-hand", "rates": {"-1": 0.1}}, {"kind": "by-hand", "rates": {"1": 0}},
    {"kind": "by-hand", "rates": {"a": 1.0}}, {"kind": "by-hand", "rates": 3}, {"kind": "step", "factor": "x"}])
def test_bad_schedules(config: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="allowed: "):
        schedule_from_config(config)


@pytest.mark.parametrize("optimizer", [SGD(0.1, decay=1e-3, radius=0.1, factors={"fc8": 10.0}), Adam(1e-4)])
def test_an_optimizer_is_data(optimizer: Any) -> None:
    assert optimizer_from_config(json.loads(json.dumps(optimizer.to_config()))) == optimizer


@pytest.mark.parametrize("config", [{}, {"kind": "x"}, {"kind": "adam", "momentum": 0.9}, {"kind": "sgd", "radius": 0},
                                    {"kind": "sgd", "factors": {"a": -1}}, {"kind": "sgd", "factors": 3}])
def test_bad_optimizers(config: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="allowed: "):
        optimizer_from_config(config)


def test_the_papers_recipes() -> None:
    assert {"adam-study", "krizhevsky", "zf"} <= set(NAMES)
    zf, krizhevsky, study = (recipe(name) for name in ("zf", "krizhevsky", "adam-study"))
    assert zf.make_optimizer() == SGD(0.01, momentum=0.9, decay=0.0, radius=0.1)
    assert (zf.batch_size, zf.epochs, zf.network["dropout"], zf.network["initial_weights"]) == (128, 70, 0.5, "zf")
    assert krizhevsky.make_optimizer() == SGD(0.01, momentum=0.9, decay=5e-4)
    assert krizhevsky.make_schedule() == Plateau(0.1, 5, times=3)
    assert study.make_optimizer() == Adam(1e-3) and study.network["dropout"] == 0.3
    for each in (zf, krizhevsky, study):
        assert Recipe(**json.loads(json.dumps(each.to_config()))) == each
    net = models.build("zfnet", classes=3)
    assert zf.make_augmentation(net) == Augmentation(256, 224, views="ten")
    assert krizhevsky.make_augmentation(net) == Augmentation(256, 224, mirror=True, jitter=0.1)
    small = models.build("convnetjs")
    assert zf.make_augmentation(small) == Augmentation(None, 32, views="ten")
    zf.prepare(net)
    assert {node.layer.rate for node in net.nodes.values() if isinstance(node.layer, Dropout)} == {0.5}
    study.prepare(net)
    assert {node.layer.rate for node in net.nodes.values() if isinstance(node.layer, Dropout)} == {0.3}


def test_settings_are_changed() -> None:
    changed = recipe("zf").changed(**{"epochs": 3, "optimizer.learning_rate": 0.5, "optimizer.radius": None,
                                      "schedule.kind": "step", "schedule.every": 2})
    assert (changed.epochs, changed.batch_size) == (3, 128)
    assert changed.make_optimizer() == SGD(0.5) and changed.make_schedule() == Step(2)
    assert recipe("zf").changed(**{"optimizer.kind": "adam"}).make_optimizer() == Adam(0.01)
    assert recipe("zf").changed().to_config() == recipe("zf").to_config()


@pytest.mark.parametrize("values", [
    {"epochs": 0}, {"epochs": "x"}, {"batch_size": 0}, {"speed": 3}, {"optimizer.speed": 3}, {"optimizer.kind": "x"},
    {"network.scheme": "he"}, {"network.initial_weights": "x"}, {"network.dropout": 1.0}, {"network.mean": "median"},
    {"network.shares": 3}, {"network.shares": {"conv1": -1}}, {"network.algorithm": "fast"},
    {"augmentation.crop": 0}, {"augmentation.views": "eleven"}, {"augmentation.wobble": 1}, {"a.b": 1},
    {"schedule": 3}, {"name": 3}])
def test_bad_settings(values: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="allowed: "):
        recipe("zf").changed(**values)


def test_recipes_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 3\n[optimizer]\nkind = 'adam'\n[schedule]\nkind = 'by-hand'\nrates = {1 = 1e-4}\n"
                    "[network]\nshares = {conv1 = 0.5}\n")
    mine = recipe(str(path))
    assert (mine.name, mine.epochs, mine.batch_size) == ("mine", 3, 128)
    assert mine.make_schedule() == ByHand({1: 1e-4})
    nets = [models.build("mnist") for _ in range(2)]
    mine.initialize(nets[0], 4)
    nets[1].initialize(4)
    for name, array in nets[1].parameters().items():
        factor = np.float32(0.5 if name == "conv1.weight" else 1)
        assert (nets[0].parameters()[name] == array * factor).all()
    with pytest.raises(ValueError, match="a layer of network.shares is 'conv1'"):
        mine.initialize(models.build("vgg16").at_size(32, 32, "conv1_2"), 0)
    for text in ("epochs = ", "speed = 3", "[optimizer]\nkind = 3", "epochs = 'three'"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"mine\.toml: "):
            recipe(str(path))
    with pytest.raises(FileNotFoundError, match=r"other\.toml"):
        recipe(str(tmp_path / "other.toml"))
    with pytest.raises(ValueError, match="krizhevsky, zf"):
        recipe("zeiler")


def test_feeds_fit_the_network() -> None:
    """The network's own preprocessing becomes that of the view's centre, with the training images' mean."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 44, 3)).astype(np.uint8)
    images = Arrays(pixels, np.arange(12) % 3)
    assert class_count(images) == 3
    net = models.build("convnetjs", classes=3)
    config = recipe("zf").changed(**{"augmentation.size": 36, "batch_size": 5})
    feed = training_feed(net, images, config, seed=3)
    batches = list(feed.epoch(0))
    assert [batch.shape for batch, _ in batches] == [(5, 32, 32, 3), (5, 32, 32, 3), (2, 32, 32, 3)]
    assert net.preprocessing is not None and net.preprocessing.crop == 32 and net.preprocessing.size == 36
    assert net.preprocessing.mean.shape == (32, 32, 3)
    small = Arrays(pixels[:, :36, :36], np.arange(12) % 3)  # not resized, which has other rounding for other parts
    one, ten = (next(held_out_feed(net, small, crops=crops, batch_size=50).epoch(0))[0] for crops in (1, 10))
    assert ten.shape == (5, 10, 32, 32, 3) and one.shape == (12, 32, 32, 3)
    assert (ten[:, 4] == one[:5]).all()  # the fifth crop is the central one
    kept = models.build("convnetjs", classes=3)
    before = kept.preprocessing
    assert before is not None
    training_feed(kept, images, config, own_mean=False)
    assert kept.preprocessing is not None and (kept.preprocessing.mean == before.mean).all()
    with pytest.raises(ValueError, match="pictures' shape"):
        training_feed(models.build("convnetjs"), images, config.changed(**{"augmentation.crop": 30}))
    with pytest.raises(ValueError, match="crops is 10; allowed: 1"):
        held_out_feed(models.build("convnetjs"), images, crops=10)
    for call in (training_feed, held_out_feed):
        more = [config] if call is training_feed else []
        with pytest.raises(ValueError, match="highest class is 2; allowed: 0 to 1"):
            call(models.build("convnetjs", classes=2), small, *more)
    with pytest.raises(ValueError, match="^pictures have no class"):
        class_count(Arrays(pixels))
    with pytest.raises(ValueError, match="2 of 12 pictures have no class, such as 'image-00005'"):
        class_count(Arrays(pixels, [-1 if index in (5, 7) else index % 3 for index in range(12)]))
    with pytest.raises(ValueError, match="no pictures"):
        class_count(Arrays(pixels[:0], []))
