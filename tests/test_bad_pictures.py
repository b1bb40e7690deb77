"""Pictures that cannot be read: every command over a data set stops, or leaves them out and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zfcore
from zfcore.data import ImageError, Images, readable
from zfcore.layers import Convolution, Flatten, Linear, MaxPool, Softmax
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

Run = Callable[..., tuple[int, str, str]]


def test_every_command_over_a_data_set_may_leave_bad_pictures_out(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    for kind in ("dark", "light"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 120, (16, 16, 3)) + 130 * (kind == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / kind / f"{number}.png")
    (tmp_path / "set" / "dark" / "2.png").write_bytes(b"not a picture")
    data, model = tmp_path / "set", tmp_path / "net.safetensors"
    net = Network("tiny", (8, 8, 3), preprocessing=Preprocessing("RGB", mean=128.0, scale=1 / 128, size=8))
    net.add("conv1", Convolution(4, 3, padding=1, activation="relu"))
    net.add("pool1", MaxPool(2, 2))
    net.add("flatten", Flatten())
    net.add("fc2", Linear(2))
    net.add("prob", Softmax())
    zfcore.save(net.initialize(0, "he"), model)
    for words in (["transfer", model, data, "--layers", "conv1", "--per-class", 2, "--folds", 1],
                  ["embed", model, data, "--method", "pca", "--layer", "pool1", "--neighbours", 2],
                  ["ablate", model, data, "--validation", data, "--rows", "whole", "--seeds", 0, "--epochs", 1],
                  ["evolution", model, data, "--epochs", 1, "--at", 1, "--maps", 1, "--layers", "conv1"],
                  ["evaluate", model, data]):
        out = tmp_path / str(words[0])
        code, _, err = run(*words, "--out", out)
        assert code == 2 and "2.png" in err.splitlines()[-1] and not out.exists(), (words, err)
        code, _, err = run(*words, "--out", out, "--on-bad-image", "cry")
        assert code == 2 and "fail, skip" in err and not out.exists(), (words, err)
        code, text, err = run(*words, "--out", out, "--on-bad-image", "skip")
        assert code == 0 and "1 picture could not be read" in text, (words, text, err)
        skipped = json.loads((out / "summary.json").read_text())["skipped"]
        assert list(skipped) == ["dark/2.png"] and "not" in skipped["dark/2.png"]


class Damaged(Images):
    """Pictures of which some cannot be decoded."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__("abcdef", [0, 1, 0, 1, 0, 1], ["x", "y"], on_bad="skip")
        self.bad = bad

    def pixels(self, index: int) -> np.ndarray:
        if index in self.bad:
            raise ImageError(f"{self.names[index]}: torn")
        return np.full((2, 2, 3), index, np.uint8)

    def _content(self) -> list[Any]:
        return [sorted(self.bad)]


@pytest.mark.parametrize("threads", [1, 3])
def test_readable(threads: int) -> None:
    whole = Damaged(set())
    assert readable(whole, threads=threads) == (whole, {})
    kept, reasons = readable(Damaged({0, 4}), threads=threads)
    assert reasons == {"a": "a: torn", "e": "e: torn"}
    assert kept.names == ["b", "c", "d", "f"] and kept.labels is not None and kept.labels.tolist() == [1, 0, 1, 1]
    assert [int(kept.pixels(index)[0, 0, 0]) for index in range(4)] == [1, 2, 3, 5]
    nothing, reasons = readable(Damaged(set(range(6))))
    assert len(nothing) == 0 and len(reasons) == 6
    with pytest.raises(ValueError, match="threads"):
        readable(whole, threads=0)
