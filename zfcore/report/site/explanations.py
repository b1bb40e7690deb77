"""Pages of explanations side by side, of embeddings, and of any other result that was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.decode import printable
from ...explain.result import Attribution, Synthesis
from ...formats import results
from ...pictures import attribution_shades, stretched, symmetric_scale
from ...pictures.atlas import PERCENTILE
from ...pictures.maps import fitted
from ..describe import number_text
from .pages import Entry, Site
from .sources import Source, without_folders

SIDE = 224
MOST_ROWS = 24  # of an explanation on one page
GATHERED = ("attribution", "synthesis", "adversarial", "facets", "invariances", "explanation")


def explanation(site: Site, sources: list[Source]) -> None:
    """One command's methods side by side, a row an image, each with its own scale and numbers."""
    folder = site.slug("explanation/", printable(sources[0].output.resolve().name))
    columns: list[dict[str, Any]] = []
    for source in sources:
        if source.kind == "attribution":
            columns.append(_attribution(site, folder, source))
        elif source.kind == "synthesis":
            columns.append(_synthesis(site, folder, source))
        record(site, source)
    figure = _file(site, sources[0].output / "figure.png", f"{folder}/figure", "All methods, a row a picture")
    methods = sources[0].summary.get("methods") or [source.kind for source in sources]
    title = f"Explanations: {printable(sources[0].output.resolve().name)}"
    height = max((len(column["rows"]) for column in columns), default=0)
    site.page(f"{folder}/index.html", "explanation.html", title=title, columns=columns, figure=figure, height=height,
              model=without_folders(str(sources[0].summary.get("model", ""))))
    site.entries.append(Entry(title, f"{folder}/index.html", "explanation", ", ".join(map(str, methods)), figure))


def _attribution(site: Site, folder: str, source: Source) -> dict[str, Any]:
    found = Attribution.load(source.path)
    shown = [attribution_shades(values, found.channels, signed=found.signed) for values in found.values[:MOST_ROWS]]
    notes = [f"score {number_text(float(score))}, scale {number_text(symmetric_scale(values, PERCENTILE))}"
             for score, values in zip(found.scores, found.values[:MOST_ROWS], strict=False)]
    return _column(site, folder, source, shown, found.targets, notes, found.values)


def _synthesis(site: Site, folder: str, source: Source) -> dict[str, Any]:
    found = Synthesis.load(source.path)
    notes = ["dead" if dead else f"{number_text(float(first))} to {number_text(float(last))}"
             for dead, first, last in zip(found.dead, found.scores[0], found.scores[-1], strict=True)]
    return _column(site, folder, source, list(stretched(found.images[:MOST_ROWS], found.channels)), found.targets,
                   notes, found.images)


def _column(site: Site, folder: str, source: Source, shown: Sequence[np.ndarray], targets: Sequence[str],
            notes: Sequence[str], array: np.ndarray) -> dict[str, Any]:
    """A method's pictures, one an image, under the name of its folder: one method may stand for several layers."""
    name, stem = source.path.name, site.slug(f"{folder}/", source.path.name)
    rows = [{"text": printable(str(target)), "note": note, "picture": site.picture(
        f"{stem}-{number}", fitted(pixels, SIDE), f"{name} of {printable(str(target))}")}
        for number, (pixels, target, note) in enumerate(zip(shown, targets, notes, strict=False))]
    return {"name": printable(name), "rows": rows, "array": site.array(f"{stem}.npy", array)}


def embedding(site: Site, source: Source) -> None:
    """Images laid out by a layer's features, and the plane they come from."""
    folder = site.slug("embedding/", source.name)
    stem = source.path.name
    shown = [_file(site, source.output / f"{stem}-{name}.png", f"{folder}/{name}", text) for name, text in (
        ("grid", "Each image in a cell of its own, as near as possible to its point"),
        ("scatter", "The points, coloured by class"), ("neighbours", "Images and their nearest neighbours"))]
    pictures = [picture for picture in shown if picture is not None]
    description, arrays = results.load(source.path, source.kind)
    layer = printable(str(description.get("layer", stem)))
    written = [(name, site.array(f"{folder}/{name}.npy", array)) for name, array in arrays.items()]
    site.page(f"{folder}/index.html", "gallery.html", title=f"Feature space of {layer}", pictures=pictures,
              text="Distances between far clusters of a t-SNE, and their sizes, mean little.",
              arrays=[(name, path) for name, path in written if path is not None], rows=[])
    site.entries.append(Entry(f"Feature space of {layer}", f"{folder}/index.html", "embedding",
                              f"{len(arrays['points']):,} images", pictures[0] if pictures else None))
    record(site, source)


def anything(site: Site, source: Source) -> None:
    """A result that has no page of its own kind: the pictures beside it, its numbers, its arrays."""
    folder = site.slug(f"{source.kind}/", source.name)
    description, arrays = results.load(source.path, source.kind)
    pictures = [picture for picture in (_file(site, path, f"{folder}/{path.stem}", printable(path.stem))
                                        for path in sorted(source.output.glob("*.png"))) if picture is not None]
    written = [(f"{name} {' x '.join(map(str, array.shape))}", site.array(f"{folder}/{name}.npy", array))
               for name, array in arrays.items()]
    rows = flat(source.summary or description.get("values", description))
    site.page(f"{folder}/index.html", "gallery.html", title=source.title,
              pictures=pictures, text="", rows=rows,
              arrays=[(name, path) for name, path in written if path is not None])
    site.entries.append(Entry(source.title, f"{folder}/index.html", source.kind,
                              "", pictures[0] if pictures else None))
    record(site, source)


def record(site: Site, source: Source) -> None:
    """List a result's settings on the page about the report."""
    description = source.manifest["description"]
    site.records.append((source.title, flat(description)))


def flat(values: Any, most: int = 200) -> list[tuple[str, str]]:
    """Nested settings as rows of a path and a value; long lists are cut."""
    rows: list[tuple[str, str]] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                walk(f"{name} {key}".strip(), each)
        else:
            each_one = value if isinstance(value, list) else [value]
            text = ", ".join(without_folders(str(each)) for each in each_one)
            rows.append((printable(name), text if len(text) <= 300 else text[:297] + "..."))

    walk("", values)
    return rows[:most]


def _file(site: Site, path: Path, stem: str, text: str) -> dict[str, Any] | None:
    """A picture that a command wrote, copied smaller; None where there is none."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return site.picture(stem, np.asarray(picture.convert("RGB")), text)
