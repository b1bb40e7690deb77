"""A site of one result of every kind, of a small network, with names that try to be markup."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import training_cases

from zfcore import explain, layers
from zfcore.data import Arrays
from zfcore.formats import results
from zfcore.network import Network
from zfcore.pictures import png
from zfcore.preprocessing import Preprocessing
from zfcore.study.architecture import architecture
from zfcore.study.correspondence import correspondence
from zfcore.study.evolution import Recorder
from zfcore.study.invariance import invariance
from zfcore.study.occlusion import occlusion
from zfcore.study.scan import scan
from zfcore.training import SGD, fit

EVIL = ["<script>alert(1)</script>", "two\nlines\udcff", "\"><img src=x onerror=alert(2)>", "{{ 7 * 7 }}", "-dash&amp;"]
SHAPE = (20, 18, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), dtype=np.uint8)


def network(name: str = "<b>net</b>", seed: int = 3) -> Network:
    """Two convolutions, one of them with a name that is a path, a concatenation and a classifier."""
    net = Network(name, SHAPE, preprocessing=Preprocessing("BGR", mean=110.0, scale=0.02), class_names=EVIL)
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    net.add("pool1", layers.MaxPool(2))
    net.add("block/a", layers.Convolution(5, 3, padding=1, activation="relu"), "pool1")
    net.add("block/b", layers.Convolution(3, 1, activation="relu"), "pool1")
    net.add("both", layers.Concat(), ["block/a", "block/b"])
    net.add("Block_a", layers.Convolution(4, 3, groups=2, activation="relu"))
    net.add("flat", layers.Flatten())
    net.add("fc", layers.Linear(5))
    net.add("prob", layers.Softmax())
    net.initialize(seed, scheme="he")
    net.nodes["block/a"].layer.parameters["weight"][2] = 0  # a dead map
    return net


@cache
def data_set() -> Arrays:
    """Labelled images with hostile names."""
    return Arrays(IMAGES, np.arange(12) % 5, [EVIL[index % 5] + str(index) for index in range(12)], class_names=EVIL)


LAYERS = ["conv1", "block/a", "block/b", "Block_a", "fc"]


def save_results(folder: Path) -> list[Path]:
    """One result of every kind, saved; an atlas first."""
    net = network()
    scan(net, data_set(), LAYERS, 4, progress=False).save(folder / "atlas")
    occlusion(net, IMAGES[0], "block/a", window=5, stride=4, progress=False).save(folder / "hidden")
    invariance(net, IMAGES[:2], ["conv1", "fc"], progress=False).save(folder / "moved")
    boxes: Any = [[2, 3, 8, 9], [1, 1, 7, 8]]
    correspondence(net, IMAGES[:2], {"<i>part</i>": boxes}, ["Block_a"], progress=False).save(
        folder / "parts")
    architecture([net, network("other", 5)], IMAGES, labels=["<u>one</u>", "two"], maps=2, progress=False).save(
        folder / "first")
    recorder = Recorder(net, IMAGES, {"conv1": [0, 2], "block/a": [1]}, epochs=(1, 2))
    fit(net, IMAGES, np.arange(12) % 5, epochs=2, batch_size=6, optimizer=SGD(0.001), progress=False, callback=recorder)
    recorder.result().save(folder / "grown")
    x = net.preprocessing.apply(IMAGES[:2])  # type: ignore[union-attr]
    (folder / "why").mkdir()
    explain.saliency(net, x, [0, 1]).save(folder / "why" / "saliency")
    explain.gradient(net, x, [0, 1]).save(folder / "why" / "gradient")
    explain.ascent(net, [1], steps=2).save(folder / "why" / "ascent")
    for layer in ("conv1", "fc"):  # one method, two results
        explain.inversion(net, x, layer, steps=2).save(folder / "why" / f"inversion-{layer}")
    training_cases.begin(folder / "trained", epochs=2, keep=(0, 2))
    (folder / "space").mkdir()
    png(folder / "space" / "fc-grid.png", IMAGES[0])
    results.save(folder / "space" / "fc", "embedding", {"layer": "<i>fc</i>", "names": EVIL},
                 {"points": np.zeros((5, 2)), "cells": np.zeros((5, 2), np.int64)})
    results.save(folder / "else", "something", {"values": {"<b>why</b>": [1, "/tmp/secret/name.png"]}},
                 {"numbers": np.arange(3.0)})
    return [folder / name for name in ("atlas", "hidden", "moved", "parts", "first", "grown", "why", "trained", "space",
                                       "else")]
