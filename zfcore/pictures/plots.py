"""Line plots, drawn with Pillow: enough for the paper's figures, no plotting library needed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .. import checks
from .atlas import FAINT, INK, PAPER, _font
from .maps import DISTINCT

GRID = (226, 228, 232)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(about, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999), default=10)
    first = np.ceil(low / step - 1e-9)
    count = int(np.floor(high / step + 1e-9) - first) + 1
    return [float((first + number) * step) for number in range(count)]


def plot(x: np.ndarray, curves: np.ndarray, *, title: str = "", x_label: str = "", y_label: str = "",
         y_range: tuple[float, float] | None = None, size: tuple[int, int] = (230, 330), font: int = 12
         ) -> np.ndarray:
    """Curves over one axis; colours follow the order of the curves.

    Parameters
    ----------
    x : (n,) rising
    curves : (count, n); NaN interrupts a curve
    title, x_label, y_label : texts
    y_range : of the vertical axis; None: from 0 (or the least value below it) to the largest value
    size : (height, width) in pixels
    font : size of the text

    Returns
    -------
    uint8 (height, width, 3)
    """
    x, curves = np.asarray(x, np.float64), np.atleast_2d(np.asarray(curves, np.float64))
    checks.require(x.ndim == 1 and len(x) > 0 and curves.shape[1:] == x.shape, "plot", "curves.shape",
                   curves.shape, f"(count, {x.shape[0] if x.ndim else 0})")
    known = curves[np.isfinite(curves)]
    low, high = y_range or (min(float(known.min(initial=0)), 0.0), float(known.max(initial=0)))
    high = high if high > low else low + 1
    begin, end = float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1
    text = _font(font)
    left, right, top, bottom = round(font * 4.2), font, round(font * 2.2), round(font * 3.2)
    scale = 2  # drawn twice as large and reduced, for smooth lines
    height, width = size
    sheet = Image.new("RGB", (width * scale, height * scale), PAPER)
    pen = ImageDraw.Draw(sheet)

    def across(value: float) -> float:
        return left + (value - begin) / (end - begin) * (width - left - right)

    def down(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    for value in ticks(low, high):
        pen.line([(left * scale, down(value) * scale), ((width - right) * scale, down(value) * scale)], GRID, 1)
    for value in ticks(begin, end):
        pen.line([(across(value) * scale, top * scale), (across(value) * scale, (height - bottom) * scale)], GRID, 1)
    for number, curve in enumerate(curves):
        color = tuple(int(part) for part in DISTINCT[number % len(DISTINCT)])
        points = [(across(a) * scale, down(min(max(b, low), high)) * scale) if np.isfinite(b) else None
                  for a, b in zip(x, curve, strict=True)]
        for first, second in zip(points[:-1], points[1:], strict=True):
            if first is not None and second is not None:
                pen.line([first, second], color, 2 * scale)
        if len(x) == 1 and points[0] is not None:
            pen.ellipse([points[0][0] - 4, points[0][1] - 4, points[0][0] + 4, points[0][1] + 4], color)
    pen.rectangle([left * scale, top * scale, (width - right) * scale, (height - bottom) * scale], outline=FAINT)
    sheet = sheet.resize((width, height), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(sheet)
    pen.text((left, font * 0.4), title, INK, text)
    for value in ticks(low, high):
        pen.text((left - 4, down(value)), f"{value:g}", FAINT, text, anchor="rm")
    for value in ticks(begin, end):
        pen.text((across(value), height - bottom + 3), f"{value:g}", FAINT, text, anchor="ma")
    pen.text(((left + width - right) / 2, height - font * 0.4), x_label, INK, text, anchor="md")
    if y_label:
        pen.text((width - right, font * 0.4), y_label, FAINT, text, anchor="ra")
    return np.asarray(sheet)
