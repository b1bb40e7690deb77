"""`zfcore atlas --resume`, killed by SIGKILL in the middle of a few hundred picture files, ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zfcore
from zfcore.layers import Convolution, MaxPool
from zfcore.network import Network
from zfcore.preprocessing import Preprocessing

COUNT, EVERY = 300, 20


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and pictures of two classes, three of them broken; large, so that decoding takes its time."""
    folder = tmp_path_factory.mktemp("work")
    net = Network("tiny", (24, 24, 3), scheme="he", preprocessing=Preprocessing("RGB", 110.0, 1 / 64, size=(24, 24)))
    net.add("conv1", Convolution(6, 5, stride=2, activation="relu"))
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("conv2", Convolution(8, 3, activation="relu"))
    zfcore.save(net.initialize(0), folder / "tiny.safetensors")
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        place = folder / "images" / ("one", "two")[number % 2] / f"{number:03}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(place, quality=90)
        if number in (7, 100, 251):
            place.write_bytes(place.read_bytes()[:200])
    return folder


def command(work: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "zfcore", "atlas", str(work / "tiny.safetensors"), str(work / "images"), "--out",
            str(out), "--resume", "--save-every", str(EVERY), "--batch-size", "10", "--on-bad-image", "skip"]


def states(state: Path) -> dict[Path, int]:
    found = {}
    for path in state.glob("?/manifest.json"):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # replaced at this very moment
            continue
    return found


def killed_after(words: list[str], state: Path, count: int, wait: float) -> int:
    """Kill the command when it has saved its state `count` times, and a moment later; its exit code."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    before, limit = states(state), time.monotonic() + 120
    while count and process.poll() is None and time.monotonic() < limit:
        now = states(state)
        if now != before:
            before, count = now, count - 1
        time.sleep(0.002)
    time.sleep(wait)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode


def test_killed_three_times(work: Path, tmp_path: Path) -> None:
    whole, out, state = tmp_path / "whole", tmp_path / "out", tmp_path / "out.state"
    subprocess.run(command(work, whole), check=True, capture_output=True)
    generator = np.random.default_rng(5)
    for count in (2, 3, 2):
        code = killed_after(command(work, out), state, count, float(generator.uniform(0, 0.03)))
        assert code == -signal.SIGKILL and not out.exists() and states(state)
    subprocess.run(command(work, out), check=True, capture_output=True)
    assert not state.exists()
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file()) and len(names) > 40
    for name in names:
        if name.name != "summary.json":  # which holds times
            assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    text = (out / "index.html").read_text()
    assert "Images that were left out: 3" in text and sorted(os.listdir(tmp_path)) == ["out", "whole"]
