"""The page of a training run: its learning curves, its numbers epoch by epoch, its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...pictures import filter_picture
from ...pictures.svg import line_plot
from ...training.folder import kept_models
from ...training.log import rows
from ..describe import filters_text, pixel_filters
from .explanations import flat
from .pages import Entry, Site
from .sources import Source

COLUMNS = ("epoch", "rate", "loss", "accuracy", "validation_loss", "validation_accuracy", "validation_top5", "seconds")


def run(site: Site, source: Source) -> None:
    """Learning curves as SVG and as a table; the first layer's filters of the trained model."""
    folder = site.slug("run/", source.name)
    epochs = rows(source.path / "log.jsonl", "epoch") if (source.path / "log.jsonl").is_file() else []
    plots = _plots(epochs) if epochs else []
    shown = [name for name in COLUMNS if any(record.get(name) is not None for record in epochs)]
    table = [[_text(record.get(name)) for name in shown] for record in epochs]
    log = site.file(f"{folder}/log.jsonl", (source.path / "log.jsonl").read_bytes()) if epochs else None
    filters = _filters(site, folder, source)
    measured = {name: value for name, value in source.summary.items() if value is not None}
    numbers = [(name.replace("_", " "), value) for name, value in flat(measured)]
    site.page(f"{folder}/index.html", "run.html", title=source.title, plots=plots, columns=shown, table=table, log=log,
              filters=filters, stages=_stages(site, folder, source), facts=numbers)
    best = [record["validation_accuracy"] for record in epochs if record.get("validation_accuracy") is not None]
    text = f"{len(epochs)} epochs" + (f", best validation accuracy {max(best):.2%}" if best else "")
    site.entries.append(Entry(source.title, f"{folder}/index.html", "run", text, filters))
    site.records.append((source.title, flat(json.loads((source.path / "run.json").read_bytes()))))


def _plots(epochs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    x = np.array([record["epoch"] for record in epochs], np.float64)

    def column(name: str) -> np.ndarray:
        return np.array([np.nan if record.get(name) is None else record[name] for record in epochs], np.float64)

    found = []
    for title, names, error in (("loss", ("loss", "validation_loss"), False),
                                ("error, %", ("accuracy", "validation_accuracy", "validation_top5"), True),
                                ("learning rate", ("rate",), False)):
        every = [(name, 100 * (1 - column(name)) if error else column(name)) for name in names]
        curves = [(name, values) for name, values in every if np.isfinite(values).any()]
        if curves:
            texts = [{"accuracy": "training", "loss": "training", "rate": "rate"}.get(name, name.replace("_", " "))
                     for name, _ in curves]
            found.append((f"{title} ({', '.join(texts)})" if len(texts) > 1 else title, line_plot(
                x, np.stack([values for _, values in curves]), texts, title=f"{title} by epoch", x_label="epoch")))
    return found


def _filters(site: Site, folder: str, source: Source) -> dict[str, Any] | None:
    """The first layer's filters of the model that the run left, if they look at pixels."""
    for name in ("best.safetensors", "model.safetensors"):
        if (source.path / name).is_file():
            return _drawn(site, f"{folder}/filters", source.path / name)
    return None


def _stages(site: Site, folder: str, source: Source) -> list[tuple[int, dict[str, Any]]]:
    """The same filters after each epoch whose model was kept, each stage in a scale of its own."""
    found = []
    for epoch, path in kept_models(source.path).items():
        if (picture := _drawn(site, f"{folder}/filters-{epoch}", path)) is not None:
            found.append((epoch, picture))
    return found


def _drawn(site: Site, name: str, model: Path) -> dict[str, Any] | None:
    """The filters of a model that look at pixels, as a picture of the site."""
    from ...formats import safetensors

    network = safetensors.load(model)
    found = pixel_filters(network)
    if found is None:
        return None
    channels = network.preprocessing.channels if network.preprocessing else "RGB"
    return site.picture(name, filter_picture(found[1], channels), filters_text(*found))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
