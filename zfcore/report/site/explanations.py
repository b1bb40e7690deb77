"""Pages of explanations side by side, of embeddings, and of any other result that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.decode import printable
from ...explain.result import Attribution, Synthesis
from ...formats import results
from ...pictures import heat, signed, symmetric_scale
from ...pictures.atlas import PERCENTILE
from ...pictures.maps import fitted
from ..page import number_text
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
            columns.append(_attribution(site, folder, Attribution.load(source.path)))
        elif source.kind == "synthesis":
            columns.append(_synthesis(site, folder, Synthesis.load(source.path)))
        record(site, source)
    figure = _file(site, sources[0].output / "figure.png", f"{folder}/figure", "All methods, a row a picture")
    methods = sources[0].summary.get("methods") or [source.kind for source in sources]
    title = f"Explanations: {printable(sources[0].output.resolve().name)}"
    height = max((len(column["rows"]) for column in columns), default=0)
    site.page(f"{folder}/index.html", "explanation.html", title=title, columns=columns, figure=figure, height=height,
              model=without_folders(str(sources[0].summary.get("model", ""))))
    site.entries.append(Entry(title, f"{folder}/index.html", "explanation", ", ".join(map(str, methods)), figure))


def _attribution(site: Site, folder: str, found: Attribution) -> dict[str, Any]:
    rows = []
    for number, values in enumerate(found.values[:MOST_ROWS]):
        scale = symmetric_scale(values, PERCENTILE)
        shown = signed(values, scale) if values.ndim == 3 and values.shape[2] in (1, 3) else heat(
            values if values.ndim == 2 else np.abs(values).max(axis=2), scale, signed=found.signed)
        picture = site.picture(f"{folder}/{found.method}-{number}", fitted(shown, SIDE),
                               f"{found.method} of {printable(found.targets[number])}")
        rows.append({"picture": picture, "text": printable(found.targets[number]),
                     "note": f"score {number_text(float(found.scores[number]))}, "
                             f"scale {number_text(float(np.max(scale)))}"})
    return {"name": found.method, "rows": rows, "array": site.array(f"{folder}/{found.method}.npy", found.values)}


def _synthesis(site: Site, folder: str, found: Synthesis) -> dict[str, Any]:
    rows = []
    for number, image in enumerate(found.images[:MOST_ROWS]):
        low, high = float(image.min()), float(image.max())
        shown = ((image - low) / ((high - low) or 1) * 255).round().astype(np.uint8)
        picture = site.picture(f"{folder}/{found.method}-{number}", fitted(shown, SIDE),
                               f"{found.method} of {printable(str(found.targets[number]))}")
        note = "dead" if found.dead[number] else (f"{number_text(float(found.scores[0, number]))} to "
                                                  f"{number_text(float(found.scores[-1, number]))}")
        rows.append({"picture": picture, "text": printable(str(found.targets[number])), "note": note})
    return {"name": found.method, "rows": rows, "array": site.array(f"{folder}/{found.method}.npy", found.images)}


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
