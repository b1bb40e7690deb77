"""The confusion of a classifier as a picture: what each class was taken for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .. import checks
from .atlas import FAINT, INK, PAPER, _font
from .maps import viridis
from .studies import plain

NAMED = 40  # classes up to which their names are written


def confusion_picture(table: np.ndarray, names: Sequence[str], font: int = 12) -> np.ndarray:
    """A row a class, a column what it was taken for, coloured by the share of the row's class.

    Parameters
    ----------
    table : integers (classes, classes)
    names : of the classes; written beside up to 40 of them
    font : size of the text

    Returns
    -------
    uint8 (height, width, 3)
    """
    table = np.asarray(table)
    count = len(table)
    checks.require(table.shape == (count, count) and count > 0 and len(names) == count, "confusion_picture",
                   "table.shape", table.shape, f"({len(names)}, {len(names)}), as there are names")
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    named = count <= NAMED
    cell = min(max(480 // count, 3 * font if count <= 15 else font + 5 if named else 2), 120)
    text, shown = _font(font), [plain(name, 18) for name in names]
    beside = round(max(text.getlength(name) for name in shown)) + font if named else font
    top, left, side = beside + 2 * font, beside + 2 * font, cell * count
    sheet = Image.new("RGB", (left + max(side, 260) + font, top + side + 3 * font), PAPER)
    pen = ImageDraw.Draw(sheet)
    colors = np.kron(viridis(shares, 0, 1), np.ones((cell, cell, 1), np.uint8))
    sheet.paste(Image.fromarray(colors), (left, top))
    pen.text((left, font * 0.3), "taken for", FAINT, text)
    pen.text((font * 0.5, top - 1.4 * font), "is", FAINT, text)
    pen.text((left, top + side + font), "share of the class: 0 (dark) to 1" + ("; in %" if count <= 15 else ""), FAINT,
             text)
    for number, name in enumerate(shown if named else ()):
        middle = number * cell + cell // 2
        pen.text((left - font // 2, top + middle), name, INK, text, anchor="rm")
        upright = Image.new("L", (beside, 2 * font), 0)
        ImageDraw.Draw(upright).text((0, font), name, 255, text, anchor="lm")
        upright = upright.rotate(90, expand=True)
        sheet.paste(INK, (left + middle - font, top - beside - font // 2), upright)
    for row, column in zip(*table.nonzero(), strict=True) if count <= 15 else ():
        share = shares[row, column]
        pen.text((left + column * cell + cell // 2, top + row * cell + cell // 2), f"{100 * share:.0f}",
                 (20, 20, 20) if share > 0.6 else (235, 235, 235), text, anchor="mm")
    return np.asarray(sheet)
