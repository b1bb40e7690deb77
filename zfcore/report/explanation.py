"""The folder of an explanation: one figure of all methods, the arrays, `index.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import explain
from ..explain.result import Result
from ..files import atomic_write
from ..pictures import panels, png, signed
from ..pictures.tiles import in_rgb_order
from .columns import COLUMNS, Column, Job, caption
from .describe import environment, number_text

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
    "occlusion": "How much the score falls with each pixel behind a gray square: red where it falls, blue where it "
                 "rises (Zeiler and Fergus 2014).",
    "segment": "GrabCut, seeded by the saliency map: no one taught it outlines.",
    "activations": "Every map of a layer for this picture, on one scale.",
    "ascent": "A picture made to raise the score, starting from none; the score before and after.",
    "inversion": "A picture made to have the same features at a layer; the relative squared error that is left.",
    "dream": "The picture, changed to excite a layer more, over several sizes.",
    "adversarial": "The smallest change that was found to another answer, magnified, and what it leads to.",
    "facets": "One score climbed from several starts: the mean images of clusters of the pictures given.",
    "invariances": "A picture that the unit likes best, turned towards directions that it minds least and most.",
}


def columns(methods: Sequence[str], job: Job, names: Sequence[str]) -> list[Column]:
    """The photographs and every method's columns."""
    first = Column("", list(job.pixels), list(names))
    return [first, *(column for method in methods for column in COLUMNS[method](job))]


def ascent_rows(job: Job, across: int = 6) -> tuple[list[list[tuple[np.ndarray, str]]], dict[str, Result]]:
    """What several targets of one picture climbed to, which need not stand beside it."""
    column = COLUMNS["ascent"](job)[0]
    cells = list(zip(column.pictures, column.notes, strict=True))
    return [cells[start:start + across] for start in range(0, len(cells), across)], column.results


def facet_rows(job: Job, count: int) -> tuple[list[list[tuple[np.ndarray, str]]], explain.Facets]:
    """Starts above, what they became below."""
    found = explain.facets(job.network, job.x, job.targets[0], job.settings, count=min(count, len(job.x)),
                           seed=job.options["seed"], batch_size=job.options["batch_size"], progress=job.progress)
    sizes = np.bincount(found.clusters)
    return [[(picture, f"{size} pictures") for picture, size in
             zip(job.restore(found.starts), sizes, strict=True)],
            [(picture, f"{caption(name, job.network.class_names)}: {float(score):.3g}") for picture, name, score in
             zip(job.restore(found.images), found.targets, found.scores[-1], strict=True)]], found


def invariance_rows(job: Job) -> tuple[list[list[tuple[np.ndarray, str]]], explain.Invariances]:
    """A row for each direction: the direction, and the stimulus turned towards it."""
    climbed = explain.ascent(job.network, job.targets[:1], job.settings, start=job.starts, seed=job.options["seed"],
                             progress=job.progress)
    if climbed.dead[0]:
        raise ValueError(f"invariances: target is {climbed.targets[0]}, which nothing excites; allowed: a live unit")
    found = explain.invariances(job.network, climbed.images, job.targets[0], seed=job.options["seed"],
                                progress=job.progress)
    radius, rows = float(np.linalg.norm(found.stimulus)), []
    part = _field(job)
    middle = len(found.angles) // 2
    for direction, curvature, curve in zip(found.directions, found.curvatures, found.curves, strict=True):
        row = [(signed(in_rgb_order(direction, job.channels))[part], f"curvature {number_text(float(curvature))}")]
        for index in (0, middle // 2, middle, middle + middle // 2, len(curve) - 1):
            angle = float(found.angles[index])
            point = np.cos(angle) * found.stimulus + np.sin(angle) * radius * direction
            row.append((job.restore(point[None].astype(np.float32))[0][part], f"{angle:+.2f} rad: {curve[index]:.3g}"))
        rows.append(row)
    return rows, found


def _field(job: Job) -> tuple[slice, slice]:
    """The pixels that the first target can see."""
    unit = job.network.unit(job.targets[0]) if isinstance(job.targets[0], str) else None
    if unit is None or unit.row is None:
        return slice(None), slice(None)
    cone = job.network.cone(unit.layer)
    top, left = cone.origins(unit.row, unit.column)[0].tolist()
    return slice(max(top, 0), top + cone.size[0]), slice(max(left, 0), left + cone.size[1])


def write(folder: Path, title: str, rows: Sequence[Sequence[tuple[np.ndarray, str]]], titles: Sequence[str],
          methods: Sequence[str], results: dict[str, Result], facts: dict[str, Any], *, side: int = 224) -> Path:
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
    entries = [(name, [(target, number_text(float(value))) for target, value in
                       zip(found.targets, np.atleast_2d(found.scores)[-1], strict=True)])
               for name, found in results.items() if isinstance(found, (explain.Attribution, explain.Synthesis))]
    text = environment().get_template("explanation.html").render(
        title=title, facts=list(facts.items()), methods=[(name, TEXTS[name]) for name in methods], entries=entries)
    atomic_write(folder / "index.html", text.encode("utf-8", "backslashreplace"))
    return folder / "index.html"
