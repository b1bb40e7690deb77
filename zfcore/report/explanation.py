"""The folder of an explanation: one figure of all methods, the arrays, `index.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..explain import Attribution, Synthesis
from ..files import atomic_write
from ..pictures import heat, in_rgb_order, overlay, panels, png, signed, symmetric_scale
from ..pictures.atlas import PERCENTILE
from .page import _environment, number_text

TEXTS = {
    "saliency": "The largest magnitude over the colours of the score's derivative (Simonyan et al. 2013).",
    "gradient": "The score's derivative, signed: gray is zero.",
    "gradient-input": "The derivative times the input: to first order what each pixel adds to the score.",
    "smoothgrad": "The mean derivative over noisy copies of the picture (Smilkov et al. 2017).",
    "guided": "Guided backpropagation. It sharpens edges of the picture whether or not the network uses them.",
    "deconvnet": "The deconvnet of Zeiler and Fergus, from a signal of 1 at the score.",
    "cam": "Class activation map: red speaks for the class, blue against it (Zhou et al. 2016).",
    "gradcam": "Grad-CAM: which places of a layer's maps speak for the score (Selvaraju et al. 2017).",
    "guided-gradcam": "Guided backpropagation times Grad-CAM's map.",
    "segment": "GrabCut, seeded by the saliency map: no one taught it outlines.",
    "ascent": "A picture made to raise the score, from no picture at all.",
    "inversion": "A picture made to have the same features.",
    "dream": "The picture, changed to excite a layer over several scales.",
    "adversarial": "The smallest change that was found to another answer, magnified.",
    "facets": "The same score climbed from several starts.",
    "invariances": "Directions in which the unit's optimal picture may change most and least.",
}


def attribution_pictures(found: Attribution, pixels: np.ndarray, channels: str, *, shared: bool = False
                         ) -> list[np.ndarray]:
    """One picture for each row: signed pixels as shades about gray, maps as heat or over the photograph.

    Parameters
    ----------
    found : N rows
    pixels : uint8 (N, height, width, 1 or 3), the photographs
    channels : the network's order: "RGB", "BGR" or "L"
    shared : one scale for all rows; else one for each
    """
    values = found.values
    scales = [symmetric_scale(values if shared else row, PERCENTILE) for row in values]
    if values.ndim == 4:
        return [signed(in_rgb_order(row, channels), scale) for row, scale in zip(values, scales, strict=True)]
    if values.shape[1:] == pixels.shape[1:3] and not found.signed:
        return [heat(row, scale) for row, scale in zip(values, scales, strict=True)]
    return [overlay(picture, row, symmetric_scale(values if shared else row), signed=found.signed)
            for picture, row in zip(pixels, values, strict=True)]


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A photograph in which everything outside the mask is faded."""
    picture = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    faded = picture * 0.25 + 190
    return np.where(mask[..., None], picture, np.rint(faded).clip(0, 255)).astype(np.uint8)


def caption(name: str, classes: Sequence[str] | None) -> str:
    """ "class 281" with the class's name behind it."""
    if classes and name.startswith("class "):
        return f"{name}: {classes[int(name.removeprefix('class '))]}"
    return name


def write(folder: Path, title: str, rows: Sequence[Sequence[tuple[np.ndarray, str]]], titles: Sequence[str],
          methods: Sequence[str], results: dict[str, Attribution | Synthesis], facts: dict[str, Any], *,
          side: int = 224) -> Path:
    """Write `figure.png`, every method's arrays and `index.html` into an existing folder.

    Parameters
    ----------
    folder : where
    title : of the page
    rows : pictures with notes: a row for each photograph, a column for each of `titles`
    titles : headings of the columns
    methods : names, for what the page says about them
    results : what is saved, by the folder's name
    facts : names and values for the page's head
    side : the longer side of a picture in the figure

    Returns
    -------
    Path of index.html
    """
    png(folder / "figure.png", panels(rows, titles=titles, side=side))
    for name, found in results.items():
        found.save(folder / name)
    shown = [(name, TEXTS[name]) for name in methods]
    entries = [(name, [(target, number_text(float(value))) for target, value in
                       zip(found.targets, np.atleast_2d(found.scores)[-1], strict=True)])
               for name, found in results.items()]
    text = _environment().get_template("explanation.html").render(
        title=title, facts=list(facts.items()), methods=shown, entries=entries)
    atomic_write(folder / "index.html", text.encode("utf-8", "backslashreplace"))
    return folder / "index.html"
