"""The ablation study as a plot: a line for each network, a mark for each seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .atlas import FAINT, INK, PAPER, _font
from .maps import DISTINCT
from .plots import GRID, ticks

TRAIN, VALIDATION = (tuple(int(part) for part in DISTINCT[place]) for place in (4, 0))


def ablation_picture(result: Any, width: int = 920) -> np.ndarray:
    """Training and validation errors of every row: a bar to the mean, a mark for each seed, the spread.

    Parameters
    ----------
    result : a `study.ablation.Ablation`; rows that are not trained yet stay empty
    width : of the picture, in pixels

    Returns
    -------
    uint8 (height, width, 3)
    """
    scale, font = 2, 13  # drawn twice as large and reduced, for smooth lines
    text, small = _font(font), _font(11)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = round(max(pen.textlength(title, text) for title in result.titles)) + 24
    right, top, bottom, step = 170, 42, 44, 40
    height = top + step * len(result.rows) + bottom
    known = np.concatenate([result.train_top1[np.isfinite(result.train_top1)],
                            result.validation_top1[np.isfinite(result.validation_top1)]]) * 100
    high = float(known.max(initial=1.0)) * 1.04
    across = (width - left - right) / high
    marks = ticks(0, high, 6)
    sheet = Image.new("RGB", (width * scale, height * scale), PAPER)
    pen = ImageDraw.Draw(sheet)

    def line(x: float, y: float, to_x: float, to_y: float, color: Any, thick: float = 1) -> None:
        pen.line([x * scale, y * scale, to_x * scale, to_y * scale], color, max(round(thick * scale), 1))

    for value in marks:
        line(left + value * across, top, left + value * across, height - bottom, GRID)
    whole = np.nanmean(result.validation_top1[0]) * 100 if np.isfinite(result.validation_top1[0]).any() else None
    if whole is not None:
        line(left + whole * across, top, left + whole * across, height - bottom, FAINT)
    for number in range(len(result.rows)):
        middle = top + step * (number + 0.5)
        for errors, color, offset in ((result.train_top1[number], TRAIN, -7), (result.validation_top1[number],
                                                                              VALIDATION, 7)):
            values = errors[np.isfinite(errors)] * 100
            if not len(values):
                continue
            y, mean = middle + offset, values.mean()
            pale = tuple(round(255 - (255 - part) * 0.35) for part in color)
            pen.rectangle([left * scale, (y - 6) * scale, (left + mean * across) * scale, (y + 6) * scale], pale)
            line(left + mean * across, y - 6, left + mean * across, y + 6, color, 1.5)
            if len(values) > 1:
                spread = values.std(ddof=1)
                line(left + (mean - spread) * across, y, left + (mean + spread) * across, y, color)
            for value in values:
                x = (left + value * across) * scale
                pen.ellipse([x - 2.5 * scale, (y - 2.5) * scale, x + 2.5 * scale, (y + 2.5) * scale], color)
    sheet = sheet.resize((width, height), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 8), "training error", TRAIN, text)
    pen.text((left + 110, 8), "validation error", VALIDATION, text)
    pen.text((left + 230, 10), "(marks: seeds; lines: mean and standard deviation)", FAINT, small)
    for number, (title, count) in enumerate(zip(result.titles, result.parameters, strict=True)):
        middle = top + step * (number + 0.5)
        pen.text((left - 10, middle), title, INK, text, anchor="rm")
        errors = result.validation_top1[number]
        errors = errors[np.isfinite(errors)] * 100
        if len(errors):
            spread = f" ± {errors.std(ddof=1):.1f}" if len(errors) > 1 else ""
            pen.text((width - right + 12, middle - 8), f"{errors.mean():.1f}{spread} %", INK, text, anchor="lm")
        pen.text((width - right + 12, middle + 8), f"{_count(int(count))} parameters", FAINT, small, anchor="lm")
    for value in marks:
        pen.text((left + value * across, height - bottom + 4), f"{value:g}", FAINT, text, anchor="ma")
    pen.text(((left + width - right) / 2, height - 6), "top-1 error, %", INK, text, anchor="md")
    return np.asarray(sheet)


def _count(number: int) -> str:
    """A number of parameters for people."""
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k" if number >= 1e3 else str(number)
