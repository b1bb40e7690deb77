"""Draw first-layer filters over a run's epochs, and with and without renormalisation.

    python docs/pictures/training.py WITH WITHOUT

WITH and WITHOUT are folders of checkpoints of two runs of `zfcore train`, copied after chosen epochs. Prints
what the filters' sizes were.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from zfcore.pictures import filter_picture, png, titled_panels
from zfcore.training.checkpoint import Checkpoint

TARGET = Path(__file__).with_name("training")
LAYER = "conv1.weight"


def epochs(folder: Path) -> dict[int, np.ndarray]:
    """First-layer filters by finished epochs."""
    found = {}
    for path in sorted(folder.iterdir()):
        checkpoint = Checkpoint.read(path)
        if checkpoint.state["step"] == 0:
            found[checkpoint.state["epoch"]] = checkpoint.parameters[LAYER]
    return dict(sorted(found.items()))


def sizes(filters: np.ndarray) -> str:
    """How large the filters are, against one another."""
    rms = np.sqrt((filters.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
    return (f"RMS {rms.min():.3f} to {rms.max():.3f}, median {np.median(rms):.3f}; largest / median "
            f"{rms.max() / np.median(rms):.2f}; energy of the strongest eighth "
            f"{np.sort(rms ** 2)[-(len(rms) // 8):].sum() / (rms ** 2).sum():.2f}")


def draw(kept: Path, free: Path) -> None:
    """Both pictures."""
    TARGET.mkdir(exist_ok=True)
    runs = {"renormalised at RMS 0.1": epochs(kept), "not renormalised": epochs(free)}
    for name, found in runs.items():
        for epoch, filters in found.items():
            sys.stdout.write(f"{name}, epoch {epoch}: {sizes(filters)}\n")
    common = max(set(runs["not renormalised"]) & set(runs["renormalised at RMS 0.1"]))
    panels = []
    for name, found in runs.items():
        rms = np.sqrt((found[common].astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
        panels.append((f"{name}, epoch {common}", filter_picture(found[common], columns=8, smallest=40),
                       f"one scale for all; RMS {rms.min():.2f} to {rms.max():.2f}, median {np.median(rms):.2f}"))
    png(TARGET / "renormalisation.png", titled_panels(panels, side=0))
    shown = runs["renormalised at RMS 0.1"]
    panels = [(f"epoch {epoch}", filter_picture(filters, columns=4, smallest=25), "")
              for epoch, filters in shown.items() if epoch in (1, 2, 3, 5, 7, 10, 14, 20)]
    png(TARGET / "first-layer.png", titled_panels(panels, side=0))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
