"""Line plots as SVG: sharp at any size, coloured by the page around them, readable without a picture."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from .. import checks
from .plots import ticks

WIDTH, HEIGHT = 360, 230
RIGHT, TOP, BOTTOM = 12, 12, 38  # margins; the left one fits its labels
COLORS = 8  # classes c0 .. c7, which the page's style colours, each with a pattern of dashes


def line_plot(x: np.ndarray, curves: np.ndarray, names: Sequence[str], *, title: str, x_label: str = "",
              y_range: tuple[float, float] | None = None) -> str:
    """Curves over one axis as an SVG element with a title and a description.

    Parameters
    ----------
    x : (n,) rising
    curves : (count, n); what is not finite interrupts a curve
    names : of the curves; shown when pointed at
    title : what the plot shows, for readers who hear it
    x_label : under the axis
    y_range : of the vertical axis; None: from 0 (or the least value below it) to the largest value
    """
    x, curves = np.asarray(x, np.float64), np.atleast_2d(np.asarray(curves, np.float64))
    checks.require(x.ndim == 1 and len(x) > 0 and curves.shape[1:] == x.shape, "line_plot", "curves.shape",
                   curves.shape, f"(count, {len(np.atleast_1d(x))})")
    checks.require(len(names) == len(curves), "line_plot", "len(names)", len(names), f"{len(curves)}, one a curve")
    known = curves[np.isfinite(curves)]
    low, high = y_range or (min(float(known.min(initial=0)), 0.0), float(known.max(initial=0)))
    high = high if high > low else low + 1
    begin, end = float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1
    marks = [(value, f"{value:g}") for value in ticks(low, high, 4)]
    left = 14 + round(6.4 * max(len(text) for _, text in marks))
    across = left + (x - begin) / (end - begin) * (WIDTH - left - RIGHT)
    down = HEIGHT - BOTTOM - (np.clip(curves, low, high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
             f"<title>{html.escape(title)}</title><desc>{html.escape(_description(x, curves, names, x_label))}</desc>"]
    for value, text in marks:
        y = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<path class="rule" d="M{left} {y:.1f}H{WIDTH - RIGHT}"/>'
                     f'<text class="y" x="{left - 6}" y="{y + 3.5:.1f}">{text}</text>')
    for value in ticks(begin, end, 5):
        place = left + (value - begin) / (end - begin) * (WIDTH - left - RIGHT)
        parts.append(f'<text class="x" x="{place:.1f}" y="{HEIGHT - BOTTOM + 15}">{value:g}</text>')
    parts.append(f'<path class="axis" d="M{left} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    if x_label:
        middle = (left + WIDTH - RIGHT) / 2
        parts.append(f'<text class="x" x="{middle:.0f}" y="{HEIGHT - 6}">{html.escape(x_label)}</text>')
    for number, (name, curve, finite) in enumerate(zip(names, down, np.isfinite(curves), strict=True)):
        parts.append(f'<g class="c{number % COLORS}"><title>{html.escape(name)}</title>'
                     f"{_path(across, curve, finite)}</g>")
    return "".join(parts) + "</svg>"


def _path(across: np.ndarray, down: np.ndarray, finite: np.ndarray) -> str:
    """A line through the finite points; a dot for one that stands alone."""
    steps, alone = [], []
    for place in np.flatnonzero(finite):
        follows = place > 0 and finite[place - 1]
        steps.append(f"{'L' if follows else 'M'}{across[place]:.1f} {down[place]:.1f}")
        if not follows and (place + 1 == len(finite) or not finite[place + 1]):
            alone.append(f'<circle cx="{across[place]:.1f}" cy="{down[place]:.1f}" r="3"/>')
    return f'<path d="{"".join(steps)}"/>{"".join(alone)}' if steps else ""


def _description(x: np.ndarray, curves: np.ndarray, names: Sequence[str], x_label: str) -> str:
    """Every curve's ends and extremes in words."""
    lines = []
    for name, curve in zip(names, curves, strict=True):
        places = np.flatnonzero(np.isfinite(curve))
        if len(places):
            first, last = places[0], places[-1]
            lines.append(f"{name}: {curve[first]:.4g} at {x[first]:g}, {curve[last]:.4g} at {x[last]:g}, "
                         f"between {curve[places].min():.4g} and {curve[places].max():.4g}.")
    return (f"Over {x_label}. " if x_label else "") + " ".join(lines)
