"""Feature generalisation: the layer-by-layer table and the curves over images a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .atlas import FAINT, INK, PAPER, _font
from .maps import DISTINCT, legend_picture, titled_panels
from .plots import plot
from .studies import plain

RULE = (206, 210, 216)


def table_picture(head: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Sequence[bool] = (), font: int = 13
                  ) -> np.ndarray:
    """A table as a picture; the first two columns are texts, the others are set to the right.

    Parameters
    ----------
    head : of the columns
    rows : as many texts each
    strong : rows before which a line is drawn
    font : size of the text

    Returns
    -------
    uint8 (height, width, 3)
    """
    text = _font(font)
    line, gap = round(font * 1.7), 2 * font
    widths = [max(int(np.ceil(text.getlength(row[column]))) for row in (head, *rows)) for column in range(len(head))]
    sheet = Image.new("RGB", (sum(widths) + gap * len(widths), line * (len(rows) + 1) + 4), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate((head, *rows)):
        left = 0
        for column, cell in enumerate(row):
            place = left + (widths[column] - text.getlength(cell) if column > 1 else 0)
            pen.text((place, number * line + 3), cell, FAINT if number == 0 else INK, text)
            left += widths[column] + gap
        if number == 0 or (number < len(rows) and number < len(strong) and strong[number]):
            pen.line([(0, (number + 1) * line), (sum(widths) + gap * (len(widths) - 1), (number + 1) * line)], RULE, 1)
    return np.asarray(sheet)


def percent(mean: float, deviation: float) -> str:
    """A share and its deviation in per cent, as text; a deviation that is NaN is left out.

    Parameters
    ----------
    mean, deviation : 0 to 1
    """
    return f"{100 * mean:.1f}" + ("" if np.isnan(deviation) else f" ± {100 * deviation:.1f}")


def transfer_picture(result: Any, size: tuple[int, int] = (330, 460)) -> np.ndarray:
    """Curves of accuracy over training images a class, and the table of layers.

    Parameters
    ----------
    result : a `study.transfer.Transfer`
    size : (height, width) of the plot

    Returns
    -------
    uint8 (height, width, 3)
    """
    rows = result.table()
    head = ["network", "layer", *(f"{amount} a class" for amount in result.per_class)]
    cells = [[plain(name, 30), plain(layer, 24), *map(percent, means, deviations)]
             for name, layer, means, deviations in rows]
    breaks = [place > 0 and rows[place][0] != rows[place - 1][0] for place in range(len(rows))]
    folds, classes = result.classes.shape[3:]
    over = f" ± deviation over {folds} folds" if folds > 1 else ", one fold"
    note = f"{result.classifier} on fixed features, mean over {classes} classes{over}, %; chance {100 / classes:.1f}"
    items = [("accuracy, layer by layer", table_picture(head, cells, strong=breaks), note)]
    if len(result.per_class) > 1:
        curves = np.stack([100 * means for _, _, means, _ in rows])
        drawn = plot(np.array(result.per_class, float), curves, x_label="training images a class",
                     title="accuracy, %", size=size)
        colors = DISTINCT[np.arange(len(rows)) % len(DISTINCT)].tolist()
        key = legend_picture([(plain(f"{name}: {layer}", 44), (color[0], color[1], color[2]))
                              for (name, layer, _, _), color in zip(rows, colors, strict=True)])
        items += [("accuracy against images a class", drawn, ""), ("", key, "")]
    return titled_panels(items, columns=3, side=0)


def pascal_picture(result: Any) -> np.ndarray:
    """Average precisions as a table: a row a class, a column a network and layer, the mean at the end.

    Parameters
    ----------
    result : a `study.pascal.Pascal`
    """
    columns = [(name, layer) for name in result.networks for layer in result.layers]
    values = np.asarray(result.precisions).reshape(len(columns), -1)
    head = ["class", "", *(plain(f"{name}: {layer}", 30) for name, layer in columns)]
    rows = [[plain(each, 24), "", *("-" if np.isnan(value) else f"{100 * value:.1f}" for value in values[:, place])]
            for place, each in enumerate(result.class_names)]
    rows.append(["mean", "", *(f"{100 * np.nanmean(value):.1f}" for value in values)])
    strong = [place == len(rows) - 1 for place in range(len(rows))]
    known, judged = np.asarray(result.pictures).tolist()
    note = (f"{result.classifier}, {result.loss}; {known} training and {judged} test pictures; average precision, %")
    return titled_panels([("PASCAL VOC", table_picture(head, rows, strong=strong), note)], side=0)
