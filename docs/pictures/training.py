"""Draw first-layer filters over a run's epochs, and with and without renormalisation.

    python docs/pictures/training.py WITH WITHOUT

WITH and WITHOUT are folders of two runs, `zfcore train --keep 0,1,2,4,6`. Prints what the filters' sizes were.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import zfcore
from zfcore.pictures import filter_picture, png, titled_panels
from zfcore.training.folder import kept_models

TARGET = Path(__file__).with_name("training")
LAYER = "conv1.weight"


def epochs(folder: Path) -> dict[int, np.ndarray]:
    """First-layer filters by the number of epochs."""
    return {epoch: zfcore.load(path).parameters()[LAYER] for epoch, path in kept_models(folder).items()}


def sizes(filters: np.ndarray) -> str:
    """How large the filters are, against one another."""
    rms = np.sqrt((filters.astype(np.float64) ** 2).mean(axis=(1, 2, 3)))
    return (f"RMS {rms.min():.3f} to {rms.max():.3f}, median {np.median(rms):.3f}; largest / median "
            f"{rms.max() / np.median(rms):.2f}; energy of the strongest "
            f"{(rms ** 2).max() / (rms ** 2).sum():.2f}")


def draw(kept: Path, free: Path) -> None:
    """Both pictures."""
    TARGET.mkdir(exist_ok=True)
    runs = {"renormalised at RMS 0.1": epochs(kept), "not renormalised": epochs(free)}
    for name, found in runs.items():
        for epoch, filters in found.items():
            sys.stdout.write(f"{name}, epoch {epoch}: {sizes(filters)}\n")
    first, second = runs.values()
    common = max(set(first) & set(second))
    panels = []
    for name, found in runs.items():
        rms = np.sort(np.sqrt((found[common].astype(np.float64) ** 2).mean(axis=(1, 2, 3))))
        panels.append((f"{name}, after epoch {common}", filter_picture(found[common], columns=8, smallest=40),
                       f"one scale for all 32; RMS: largest {rms[-1]:.3f}, second {rms[-2]:.3f}, "
                       f"median {np.median(rms):.3f}"))
    png(TARGET / "renormalisation.png", titled_panels(panels, side=0))
    panels = [("as it begins" if epoch == 0 else f"epoch {epoch}", filter_picture(filters, columns=4, smallest=25), "")
              for epoch, filters in first.items()]
    png(TARGET / "first-layer.png", titled_panels(panels, side=0))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
