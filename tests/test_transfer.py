"""Transfer against plain loops: features, classifiers, average precision, the protocols, the command."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zfcore
from zfcore import layers
from zfcore.data import Arrays, ImageError, Images, folds, subset
from zfcore.network import Network
from zfcore.pictures import pascal_picture, table_picture, transfer_picture
from zfcore.pictures.transfer import percent
from zfcore.preprocessing import Preprocessing
from zfcore.study.classifiers import (
    average_precision,
    chosen_strength,
    class_accuracies,
    fit_scores,
    prepared,
)
from zfcore.study.features import Features, features, pooled
from zfcore.study.pascal import Pascal, pascal
from zfcore.study.results import ResultError
from zfcore.study.transfer import Transfer, default_layers, from_scratch, transfer

RANDOM = np.random.default_rng(3)
SIDE = 12


def network(seed: int = 0, maps: int = 4) -> Network:
    net = Network("small", (SIDE, SIDE, 1), preprocessing=Preprocessing("L", 110.0, 0.02))
    net.add("conv1", layers.Convolution(maps, 3, padding=1, activation="relu"))
    net.add("pool1", layers.MaxPool(2, 2))
    net.add("conv2", layers.Convolution(5, 3, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc3", layers.Linear(6, activation="relu"))
    net.add("fc4", layers.Linear(3))
    net.add("prob", layers.Softmax())
    return net.initialize(seed, "he")


def pictures(count: int = 10, classes: int = 3) -> Arrays:
    """Classes that lie at different places, with noise."""
    images, labels = [], []
    for label in range(classes):
        for _ in range(count):
            image = RANDOM.integers(0, 90, (SIDE, SIDE))
            image[3 * label:3 * label + 4, 2:10] += 120
            images.append(image)
            labels.append(label)
    return Arrays(np.array(images, np.uint8), labels, class_names=[f"<{label}>" for label in range(classes)])


NET, IMAGES = network(), pictures()


# Features

@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("cells", [1, 2, 3, 5, 9])
def test_pooling_equals_a_plain_loop(pooling: str, cells: int) -> None:
    maps = RANDOM.standard_normal((2, 7, 4, 3)).astype(np.float32)
    found = pooled(maps, pooling, cells)
    tall, wide = min(7, cells), min(4, cells)
    assert found.shape == (2, tall, wide, 3) and found.dtype == np.float32
    for r in range(tall):
        for c in range(wide):
            part = maps[:, math.floor(r * 7 / tall):math.ceil((r + 1) * 7 / tall),
                        math.floor(c * 4 / wide):math.ceil((c + 1) * 4 / wide)]
            expected = part.mean(axis=(1, 2)) if pooling == "average" else part.max(axis=(1, 2))
            np.testing.assert_allclose(found[:, r, c], expected, rtol=1e-5, atol=1e-6)
    assert pooled(maps, "none", 1) is maps and pooled(maps[:, 0, 0], "max", 1).shape == (2, 3)


@pytest.mark.parametrize("pooling", ["average", "none"])
def test_features_are_the_networks(tmp_path: Path, pooling: str) -> None:
    found = features(NET, IMAGES, ["conv1", "conv2", "fc3"], pooling=pooling, cells=3, batch_size=7, progress=False)
    x = NET.preprocessing.apply(IMAGES.images)
    for name in ("conv1", "conv2", "fc3"):
        expected = pooled(NET.features(x, [name])[name], pooling, 3).reshape(len(IMAGES), -1)
        assert np.array_equal(found.values[name], expected) and isinstance(found.values[name], np.memmap)
    assert found.shapes["conv1"].tolist() == ([3, 3, 4] if pooling == "average" else [12, 12, 4])
    assert found.labels is not None and found.labels.tolist() == IMAGES.labels.tolist()
    found.save(tmp_path / "kept")
    again = Features.load(tmp_path / "kept")
    assert all(np.array_equal(again.values[name], found.values[name]) for name in found.values)
    assert again.images_manifest == IMAGES.manifest() and again.class_names == IMAGES.class_names


def test_features_leave_bad_pictures_out_and_clean_up(tmp_path: Path) -> None:
    class Broken(Images):
        def load(self, index: int, preprocessing: Any) -> np.ndarray:
            if index in (1, 4):
                raise ImageError("broken")
            return IMAGES.load(index, preprocessing)

        def _content(self) -> list[Any]:
            return []

    with pytest.raises(ImageError, match="broken"):
        features(NET, Broken("abcdef"), "fc3", scratch=tmp_path, progress=False)
    assert os.listdir(tmp_path) == []
    found = features(NET, Broken("abcdef", range(6), on_bad="skip"), "fc3", scratch=tmp_path, progress=False)
    assert found.indices.tolist() == [0, 2, 3, 5] and found.labels is not None and found.labels.tolist() == [0, 2, 3, 5]
    whole = features(NET, IMAGES, "fc3", progress=False)
    assert np.array_equal(found.values["fc3"], whole.values["fc3"][[0, 2, 3, 5]]) and len(os.listdir(tmp_path)) == 1
    del found
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="at least one"):
        features(NET, subset(Broken("abcdef", on_bad="skip"), [1, 4]), "fc3", progress=False)


# Classifiers

def test_preparing_changes_no_product() -> None:
    train, test = RANDOM.standard_normal((8, 30)) * 5 + 2, RANDOM.standard_normal((5, 30))
    train[:, 3] = test[:, 3] = 7.0
    values, others = prepared(train, test)
    assert values.shape == (8, 8) and others.shape == (5, 8)
    deviation = train.std(axis=0)
    deviation[3] = np.inf
    plain, judged = ((part - train.mean(axis=0)) / deviation / np.sqrt(29) for part in (train, test))
    np.testing.assert_allclose(values @ values.T, plain @ plain.T, atol=1e-12)
    np.testing.assert_allclose(others @ values.T, judged @ plain.T, atol=1e-12)
    np.testing.assert_allclose((values ** 2).sum() / 8, 1)
    narrow, _ = prepared(train[:, :4], test[:, :4])
    assert narrow.shape == (8, 4)
    assert (prepared(np.ones((3, 2)), np.zeros((1, 2)))[0] == 0).all()


@pytest.mark.parametrize("classifier", ["softmax", "svm"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_turned_space_gives_the_same_classifier(classifier: str, classes: int) -> None:
    labels = np.arange(12) % classes
    train, test = RANDOM.standard_normal((12, 40)) + labels[:, None], RANDOM.standard_normal((6, 40))
    values, others = prepared(train, test)
    deviation = train.std(axis=0) * np.sqrt(40)
    plain, judged = ((part - train.mean(axis=0)) / deviation for part in (train, test))
    found = fit_scores(classifier, values, labels, others, 3.0)
    assert found.shape == (6, classes)
    np.testing.assert_allclose(found, fit_scores(classifier, plain, labels, judged, 3.0), atol=2e-3)


def test_the_softmax_is_the_minimum_of_its_loss() -> None:
    """Against plain gradient descent on the documented objective."""
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    x, y = RANDOM.standard_normal((8, 3)), np.eye(3)[labels]
    weight, bias = np.zeros((3, 3)), np.zeros(3)
    for _ in range(20_000):
        z = np.exp(x @ weight.T + bias)
        difference = z / z.sum(axis=1, keepdims=True) - y
        weight -= 0.02 * (2.0 * difference.T @ x + weight)
        bias -= 0.02 * 2.0 * difference.sum(axis=0)
    other = RANDOM.standard_normal((4, 3))
    expected = np.exp(other @ weight.T + bias)
    found = fit_scores("softmax", x, labels, other, 2.0)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=2e-3)


def test_several_labels_are_judged_one_by_one() -> None:
    x = RANDOM.standard_normal((20, 3))
    targets = np.stack([x[:, 0] > 0, x[:, 1] > 0, np.zeros(20), np.ones(20)], axis=1).astype(int)
    for classifier in ("softmax", "svm"):
        scores = fit_scores(classifier, x, targets, x, 10.0)
        assert scores.shape == (20, 4) and (scores[:, 2] == 0).all() and (scores[:, 3] == 1).all()
        assert average_precision(scores[:, 0], targets[:, 0] > 0) == 1.0
    with pytest.raises(ValueError, match="classifier is 'tree'"):
        fit_scores("tree", x, targets, x, 1.0)


def naive_precision(scores: np.ndarray, positive: np.ndarray, ignored: np.ndarray) -> float:
    """Precision at every rank; at each recall the best precision at that recall or above; the area."""
    kept = [(float(score), bool(hit)) for score, hit, out in zip(scores, positive, ignored, strict=True) if not out]
    kept = sorted(kept, key=lambda pair: -pair[0])
    total = sum(hit for _, hit in kept)
    points, hits = [], 0
    for rank, (_, hit) in enumerate(kept, 1):
        hits += hit
        points.append((hits / total, hits / rank))
    area, before = 0.0, 0.0
    for recall in sorted({recall for recall, _ in points if recall > 0}):
        area += (recall - before) * max(precision for other, precision in points if other >= recall)
        before = recall
    return area


def test_average_precision() -> None:
    assert average_precision(np.array([3.0, 2, 1]), np.array([1, 0, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([1.0, 2]), np.array([0, 1])) == 1.0
    assert math.isnan(average_precision(np.ones(3), np.zeros(3)))
    for _ in range(50):
        count = int(RANDOM.integers(2, 30))
        scores, positive = RANDOM.standard_normal(count), RANDOM.random(count) < 0.4
        ignored = RANDOM.random(count) < 0.2
        if (positive & ~ignored).any():
            found = average_precision(scores, positive, ignored)
            assert found == pytest.approx(naive_precision(scores, positive, ignored))


def test_class_accuracies() -> None:
    scores = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]])
    found = class_accuracies(scores, np.array([0, 1, 1, 0]))
    assert found[:2].tolist() == [1.0, 0.5] and math.isnan(found[2])


def test_the_strength_comes_from_the_training_pictures() -> None:
    labels = np.arange(30) % 3
    x = RANDOM.standard_normal((30, 6)) + 3 * np.eye(6)[labels]
    for classifier in ("softmax", "svm"):
        assert chosen_strength(classifier, x, labels, (1e-9, 10.0)) in (1e-9, 10.0)
        assert chosen_strength(classifier, x, labels, (5.0,)) == 5.0
    # with one picture a class nothing can be held out; a strength that cannot learn must not win
    assert chosen_strength("softmax", x[:3], labels[:3], (1.0, 2.0, 3.0)) == 2.0
    uneven = np.array([0] * 20 + [1] * 10)
    y = RANDOM.standard_normal((30, 4)) + 2.0 * uneven[:, None]
    assert chosen_strength("softmax", y, uneven, (1e-7, 1.0)) == 1.0
    targets = np.stack([uneven, 1 - uneven], axis=1)
    assert chosen_strength("softmax", y, targets, (1e-7, 1.0)) in (1e-7, 1.0)


# The Caltech protocol

def test_transfer_equals_its_steps(tmp_path: Path) -> None:
    other = network(7)
    found = transfer({"one": NET, "two": other}, IMAGES, ["conv1", "fc3"], per_class=(2, 6), count=2, most=3,
                     strengths=(1.0, 30.0), cells=2, seed=4, progress=False)
    assert found.classes.shape == (2, 2, 2, 2, 3) and found.test_pictures.tolist() == [9, 9]
    for place, net in enumerate((NET, other)):
        for layer, name in enumerate(("conv1", "fc3")):
            values = features(net, IMAGES, name, cells=2, progress=False).values[name]
            for column, amount in enumerate((2, 6)):
                for fold, (train, test) in enumerate(folds(IMAGES, amount, 2, 3, 4)):
                    rows, judged = prepared(values[train], values[test])
                    strength = chosen_strength("softmax", rows, IMAGES.labels[train], (1.0, 30.0), 4)
                    assert found.strengths[place, layer, column, fold] == strength
                    scores = fit_scores("softmax", rows, IMAGES.labels[train], judged, strength)
                    truth = IMAGES.labels[test]
                    right = [np.mean(scores[truth == label].argmax(axis=1) == label) for label in range(3)]
                    np.testing.assert_allclose(found.classes[place, layer, column, fold], right)
    rows = found.table()
    assert [row[:2] for row in rows] == [("one", "conv1"), ("one", "fc3"), ("two", "conv1"), ("two", "fc3")]
    np.testing.assert_allclose(rows[0][2], found.classes[0, 0].mean(axis=(1, 2)))
    np.testing.assert_allclose(rows[0][3], found.classes[0, 0].mean(axis=2).std(axis=1, ddof=1))
    assert found.summary["accuracy"]["one"]["conv1"]["mean"][1] > 0.8  # classes lie at different places
    found.save(tmp_path / "result")
    again = Transfer.load(tmp_path / "result")
    assert again.summary == found.summary and again.networks == found.networks and again.scratch is None
    manifest = tmp_path / "result" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("conv1", "conv7"))
    with pytest.raises(ResultError):
        Transfer.load(tmp_path / "result")


def test_transfer_with_gaps_among_the_classes() -> None:
    labels = np.where(IMAGES.labels == 1, -1, 2 * IMAGES.labels)  # classes 0 and 4; pictures without one
    found = transfer(NET, Arrays(IMAGES.images, labels), "conv1", per_class=(3,), count=1, classifier="svm", cells=3,
                     progress=False)
    assert found.classes.shape == (1, 1, 1, 1, 2) and found.test_pictures.tolist() == [14]
    assert np.isnan(found.table()[0][3]).tolist() == [True] and found.classes.mean() > 0.8  # one fold has no deviation
    assert found.summary["accuracy"]["network"]["conv1"]["deviation"] == [None]
    assert transfer_picture(found).std() > 5 and percent(0.5, np.nan) == "50.0" and percent(0.5, 0.01) == "50.0 ± 1.0"


def test_a_class_without_readable_pictures_is_an_error_or_left_out() -> None:
    class Broken(Images):
        def __init__(self, bad: Any) -> None:
            super().__init__(IMAGES.names, IMAGES.labels, on_bad="skip")
            self.bad = set(np.asarray(bad).tolist())

        def load(self, index: int, preprocessing: Any) -> np.ndarray:
            if index in self.bad:
                raise ImageError("broken")
            return IMAGES.load(index, preprocessing)

        def _content(self) -> list[Any]:
            return []

    (train, test), = folds(IMAGES, 2, 1, 3)
    with pytest.raises(ValueError, match="none of whose training pictures"):
        transfer(NET, Broken(train[:2]), "conv1", per_class=(2,), count=1, most=3, progress=False)
    found = transfer(NET, Broken(test[:3]), "conv1", per_class=(2,), count=1, most=3, progress=False)
    assert np.isnan(found.classes[0, 0, 0, 0]).tolist() == [True, False, False]
    assert found.accuracies[0, 0, 0, 0] == found.classes[0, 0, 0, 0, 1:].mean()


def test_from_scratch_learns_and_leaves_the_network_alone() -> None:
    before = {name: array.copy() for name, array in NET.parameters().items()}
    (train, test), = folds(IMAGES, 7, 1, 3)
    found = from_scratch(NET, IMAGES, train, test, "conv2", epochs=30, batch_size=7, progress=False)
    assert found.shape == (3,) and found.mean() > 0.8
    again = from_scratch(NET, IMAGES, train, test, "conv2", epochs=30, batch_size=7, threads=3, progress=False)
    assert np.array_equal(found, again)
    assert all(np.array_equal(array, before[name]) for name, array in NET.parameters().items())


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"layers": "conv9"}, ValueError, "conv9"), ({"layers": []}, ValueError, "layers"),
    ({"layers": ["conv1", "conv1"]}, ValueError, "each once"), ({"per_class": (5, 2)}, ValueError, "rising"),
    ({"per_class": (10,)}, ValueError, "class '<0>' has 10 pictures"), ({"per_class": (0,)}, ValueError, "per_class"),
    ({"classifier": "tree"}, ValueError, "classifier"), ({"strengths": ()}, ValueError, "strengths"),
    ({"pooling": "median"}, ValueError, "pooling"), ({"cells": 0}, ValueError, "cells"),
    ({"networks": {}}, ValueError, "networks"),
    ({"networks": {"a": NET, "b": network(maps=3)}}, ValueError, "size of 'conv1' is .6, 6, 3.; allowed: .6, 6, 4."),
    ({"images": Arrays(IMAGES.images)}, ValueError, "labels")])
def test_bad_settings(options: dict[str, Any], error: type[Exception], said: str) -> None:
    given = {"networks": NET, "images": IMAGES, "layers": "conv1", "per_class": (2,), "count": 1} | options
    with pytest.raises(error, match=said):
        transfer(given.pop("networks"), given.pop("images"), given.pop("layers"), **given, progress=False)


def test_default_layers() -> None:
    assert default_layers(NET) == ["conv1", "conv2", "fc3"]
    from zfcore import models

    with pytest.raises(ValueError, match="name them"):
        default_layers(models.build("torchvision/resnet18"))


# PASCAL VOC

def voc_folder(root: Path) -> Path:
    from test_protocols import annotation, picture, thing

    place = root / "VOC2012"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {"train": [], "val": []}
    kinds = {"dog": 40, "cat": 130, "car": 230}
    for number in range(24):
        kind = list(kinds)[number % 3]
        name = f"2012_{number:06d}"
        things = [thing(kind, (1, 1, 9, 9))]
        if number % 6 == 0:
            things.append(thing("person", (2, 2, 4, 4)))
        if number % 8 == 1:
            things.append(thing("car", (2, 2, 4, 4), 1))
        (place / "Annotations" / f"{name}.xml").write_bytes(annotation(*things))
        picture(place / "JPEGImages" / f"{name}.jpg", kinds[kind] + number % 5, (SIDE, SIDE))
        names["train" if number < 15 else "val"].append(name)
    for part, listed in names.items():
        (place / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(listed))
    return root


@pytest.mark.parametrize("loss", ["exclusive", "multi-label"])
@pytest.mark.parametrize("classifier", ["softmax", "svm"])
def test_pascal(tmp_path: Path, loss: str, classifier: str) -> None:
    root = voc_folder(tmp_path)
    found = pascal({"one": NET, "two": network(3)}, f"voc:{root}:train", f"voc:{root}:val", ["conv1", "fc3"], loss=loss,
                   classifier=classifier, cells=2, progress=False)
    values = dict(zip(found.class_names, found.precisions[0, 0], strict=True))
    assert values["dog"] > 0.9 and values["cat"] > 0.9 and values["car"] > 0.9  # told by brightness
    assert math.isnan(values["sheep"]) and 0 < values["person"] <= 1  # two of the val pictures hold a person
    row = found.summary["precision"]["one"]["conv1"]
    assert row["mean"] == pytest.approx(np.nanmean(found.precisions[0, 0])) and row["classes"]["sheep"] is None
    found.save(tmp_path / "result")
    assert Pascal.load(tmp_path / "result").summary == found.summary
    assert pascal_picture(found).shape[2] == 3
    with pytest.raises(TypeError, match="PASCAL VOC"):
        pascal(NET, IMAGES, f"voc:{root}:val", "conv1")


# Pictures and the command

def test_pictures() -> None:
    found = transfer({"pretrained": NET, "<random>\n": network(5)}, IMAGES, ["conv1", "fc3"], per_class=(1, 3), count=2,
                     cells=2, scratch_epochs=1, progress=False)
    assert found.scratch is not None and found.scratch.shape == (2, 2, 3)
    assert found.table()[-1][:2] == ("from scratch", "1 epochs")
    other = transfer({"pretrained": NET}, IMAGES, "fc3", per_class=(1, 3), count=2, cells=2, scratch_epochs=1,
                     batch_size=5, progress=False)
    assert np.array_equal(found.scratch, other.scratch)  # whatever the pictures at a time
    picture = transfer_picture(found)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 5
    wide = table_picture(["a", "b", "c"], [["x" * 40, "y", "1"]])
    assert wide.shape[1] > table_picture(["a", "b", "c"], [["x", "y", "1"]]).shape[1]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    zfcore.save(NET, folder / "net.safetensors")
    np.savez(folder / "set.npz", train_images=IMAGES.images, train_labels=IMAGES.labels)
    voc_folder(folder / "voc")
    return folder


def test_the_command(run: Run, work: Path, tmp_path: Path) -> None:
    words = ["transfer", work / "net.safetensors", f"{work}/set.npz:train", "--layers", "conv1,fc3", "--per-class",
             "2,4", "--folds", 2, "--cells", 2, "--against", "random,scratch", "--epochs", 1, "--out", tmp_path / "out"]
    code, out, _ = run(*words, "--json")
    summary = json.loads(out)
    assert code == 0 and summary["accuracy"]["pretrained"]["conv1"]["mean"][1] > 0.6
    assert set(summary["accuracy"]) == {"pretrained", "random weights", "from scratch"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (tmp_path / "out" / "transfer.png").stat().st_size > 1000
    lines = (tmp_path / "out" / "transfer.csv").read_text().splitlines()
    assert len(lines) == 6 and lines[0].startswith("network,layer,accuracy at 2 a class")
    assert Transfer.load(tmp_path / "out" / "result").summary["accuracy"] == summary["accuracy"]
    assert sorted(os.listdir(tmp_path)) == ["out"]  # the features beside it are gone
    assert run(*words)[0] == 2
    code, out, _ = run("transfer", work / "net.safetensors", f"voc:{work}/voc:train", "--test", f"voc:{work}/voc:val",
                       "--layers", "conv1", "--loss", "multi-label", "--out", tmp_path / "voc")
    assert code == 0 and "pretrained, conv1: mean average precision" in out
    assert len((tmp_path / "voc" / "transfer.csv").read_text().splitlines()[0].split(",")) == 23
    shutil.copytree(work / "voc", tmp_path / "torn")
    bad = sorted((tmp_path / "torn").rglob("*.jpg"))[0]
    bad.write_bytes(b"torn")
    words = ["transfer", work / "net.safetensors", f"voc:{tmp_path}/torn:train", "--test", f"voc:{tmp_path}/torn:val",
             "--layers", "conv1", "--loss", "multi-label", "--out", tmp_path / "some"]
    assert run(*words)[0] == 2
    code, out, _ = run(*words, "--on-bad-image", "skip")
    assert code == 0 and "1 picture could not be read" in out
    assert list(json.loads((tmp_path / "some" / "summary.json").read_text())["skipped"]) == [bad.name]


@pytest.mark.parametrize(("words", "said"), [
    (["--classifier", "tree"], "--classifier is 'tree'; allowed: softmax, svm"), (["--pooling", "sum"], "--pooling"),
    (["--per-class", "x"], "--per-class"), (["--per-class", "99"], "class"), (["--folds", "0"], "--folds"),
    (["--layers", "conv7"], "conv7"), (["--against", "other"], "--against is 'other'"), (["--loss", "x"], "--loss"),
    (["--learning-rate", "-1"], "--learning-rate"), (["--test", "voc:x", "--against", "scratch"], "--test"),
    (["--device", "cuda"], "cuda"), (["--epochs", "0"], "--epochs"), (["--most", "0"], "--most")])
def test_a_mistake_is_one_line(run: Run, work: Path, tmp_path: Path, words: list[str], said: str) -> None:
    command = ("transfer", work / "net.safetensors", f"{work}/set.npz:train", "--out", tmp_path / "out")
    code, out, err = run(*command, *words)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1 and os.listdir(tmp_path) == []


def test_force_does_not_replace_what_is_read(run: Run, work: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    np.savez(tmp_path / "out" / "set.npz", train_images=IMAGES.images, train_labels=IMAGES.labels)
    for data in (f"{tmp_path}/out/set.npz:train", f"voc:{tmp_path}/out:train"):
        code, _, err = run("transfer", work / "net.safetensors", data, "--out", tmp_path / "out", "--force")
        assert code == 2 and "will not replace what is read" in err
