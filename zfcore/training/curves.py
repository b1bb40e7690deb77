"""Learning curves: loss and error by epoch, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..pictures import legend_picture, plot, titled_panels
from ..pictures.maps import DISTINCT

__all__ = ["curves_picture"]


def curves_picture(epochs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Loss, error and learning rate by epoch: uint8 (height, width, 3).

    Parameters
    ----------
    epochs : a log's records of kind "epoch", one or more
    """
    x = np.array([row["epoch"] for row in epochs], np.float64)

    def column(name: str, error: bool = False) -> np.ndarray:
        values = np.array([np.nan if row.get(name) is None else row[name] for row in epochs], np.float64)
        return 100 * (1 - values) if error else values

    losses = [column("loss"), column("validation_loss")]
    errors = [column("accuracy", True), column("validation_accuracy", True), column("validation_top5", True)]
    names = ["training (dropout and augmentation included)", "validation", "validation, top-5"]
    shown = [bool(np.isfinite(each).any()) for each in errors]
    colors = [tuple(int(part) for part in color) for color in DISTINCT[:3]]
    size = (250, 360)
    items = [("", plot(x, np.stack(losses), title="loss", x_label="epoch", size=size), ""),
             ("", plot(x, np.stack(errors), title="error, %", x_label="epoch", size=size), ""),
             ("", plot(x, column("rate"), title="learning rate", x_label="epoch", size=size), "")]
    legend = legend_picture([(name, (color[0], color[1], color[2]))
                             for name, color, used in zip(names, colors, shown, strict=True) if used])
    sheet = titled_panels(items, side=0)
    below = np.full((legend.shape[0] + 16, sheet.shape[1], 3), 255, np.uint8)
    below[:legend.shape[0], 30:30 + legend.shape[1]] = legend[:, :sheet.shape[1] - 30]
    return np.concatenate([sheet, below])
