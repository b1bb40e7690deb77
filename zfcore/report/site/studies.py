"""Pages of the experiments: occlusion, evolution, invariance, correspondence, architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data.decode import printable
from ...pictures import card_pictures, classes, grid, in_rgb_order, resize_tiles, signed, symmetric_scale, viridis
from ...pictures.atlas import PERCENTILE, outside_gray
from ...pictures.compared import architecture_picture
from ...pictures.maps import fitted
from ...pictures.studies import placed
from ...pictures.svg import line_plot
from ...study.architecture import Architecture
from ...study.correspondence import PAPER, Correspondence
from ...study.evolution import Evolution
from ...study.invariance import KINDS, Invariance
from ...study.occlusion import Occlusion
from ..describe import LINE, number_text
from .pages import Entry, Site
from .sources import Source, without_folders

SIDE = 448  # longer side of a photograph on an occlusion page
AXES = {"translation": "vertical translation (pixels)", "scale": "scale", "rotation": "rotation (degrees)"}


def occlusion(site: Site, source: Source, found: Occlusion) -> None:
    """The image under a map whose strength a slider sets; the projection; other images."""
    folder = site.slug("occlusion/", source.name)
    base = site.picture(f"{folder}/image", fitted(found.image, SIDE), f"The image {without_folders(found.name)}")
    values = found.in_pixels(found.activity)
    by_place = "by place of the square"
    maps: list[dict[str, Any]] = [{
        "name": f"activity of {found.layer}:{found.map}", "legend": [], "picture": site.picture(
            f"{folder}/activity", fitted(viridis(values), SIDE), f"Activity of {found.layer}:{found.map} {by_place}"),
        "low": number_text(float(np.nanmin(values))), "high": number_text(float(np.nanmax(values))),
        "note": f"on the whole image {number_text(found.whole_activity)}"}]
    if found.probability is not None and found.label is not None and found.whole_probabilities is not None:
        values, name = found.in_pixels(found.probability), printable(found.class_name(found.label))
        maps.append({"name": f"probability of {name}", "picture": site.picture(
            f"{folder}/probability", fitted(viridis(values, 0, 1), SIDE), f"Probability of {name} {by_place}"),
            "low": "0", "high": "1", "note": f"on the whole image {found.whole_probabilities[found.label]:.3f}",
            "legend": []})
        best = found.most_probable
        assert best is not None
        pixels, legend = classes(found.nearest(best))
        numbers, counts = np.unique(best, return_counts=True)
        count = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        maps.append({"name": "most probable class", "picture": site.picture(
            f"{folder}/class", fitted(pixels, SIDE), f"Most probable class {by_place}"), "low": "", "high": "",
            "note": f"{best.size} places",
            "legend": [(printable(found.class_name(number)), f"rgb{color}", count[number])
                       for number, color, _ in legend]})
    canvas = np.zeros(found.image.shape, np.float32)
    placed(canvas, found.projection, found.projection_origin)
    shades = signed(in_rgb_order(canvas, found.channels), symmetric_scale(canvas, PERCENTILE))
    projection = site.picture(f"{folder}/projection", fitted(shades, SIDE), f"Projection of {found.unit}")
    others = []
    if found.top_projections is not None and found.top_patches is not None and len(found.top_patches):
        assert found.top_origins is not None
        left, right, _ = card_pictures(found.top_projections, found.top_patches, found.top_origins,
                                       found.image.shape[:2], found.channels, smallest=96, background=LINE)
        others = [site.picture(f"{folder}/others-projections", left, "Projections from other images"),
                  site.picture(f"{folder}/others-patches", right, "Patches of other images")]
    share = found.multiply_adds / max(found.dense_multiply_adds, 1)
    arrays = _arrays(site, folder, {"activity": found.activity, "probabilities": found.probabilities})
    title = f"Occlusion of {without_folders(found.name)}"
    site.page(f"{folder}/index.html", "occlusion.html", title=title, base_picture=base, maps=maps,
              projection=projection, unit=printable(found.unit), others=others, arrays=arrays,
              square=f"{found.window[0]} x {found.window[1]}", step=f"{found.stride[0]}",
              positions=f"{len(found.rows)} x {len(found.columns)}", share=f"{share:.0%}")
    text = f"{found.layer}:{found.map}, {found.activity.size} places of a square"
    site.entries.append(Entry(title, f"{folder}/index.html", "occlusion", text, maps[0]["picture"]))
    site.records.append((source.title, [
        ("network, SHA-256", found.network_hash), ("square", str(found.window)), ("step", str(found.stride)),
        ("fill", str(found.fill)),
        ("multiply-adds", f"{found.multiply_adds:,} of {found.dense_multiply_adds:,} dense")]))


def evolution(site: Site, source: Source, found: Evolution) -> None:
    """A strip with a row a map and a column an epoch, and a scrubber over the epochs."""
    folder = site.slug("evolution/", source.name)
    layers: list[dict[str, Any]] = []
    for layer in found.layers:
        slug = site.slug(f"{folder}/", layer)
        shades: list[np.ndarray] = []
        patches: list[np.ndarray] = []
        rows: list[dict[str, Any]] = []
        for line, index in enumerate(found.maps[layer].tolist()):
            values = found.projections[layer][line]
            shade = signed(in_rgb_order(values, found.channels), symmetric_scale(values, PERCENTILE))
            patch = outside_gray(found.patches[layer][line], found.origins[layer][line], found.extent)
            shades.append(resize_tiles(shade, 56, 72))
            patches.append(resize_tiles(patch, 56, 72))
            rows.append({"unit": f"{printable(layer)}:{index}",
                         "strength": [number_text(float(value)) for value in found.values[layer][line]]})
        frames = []
        for column, epoch in enumerate(found.epochs):
            tiles = np.stack([strip[column] for pair in zip(shades, patches, strict=True) for strip in pair])
            frames.append({"epoch": epoch, "picture": site.picture(
                f"{slug}/{epoch}", grid(tiles, 2 * max(round(np.sqrt(len(shades))), 1), gap=2, background=LINE),
                f"{len(shades)} maps of {layer} after epoch {epoch}: projections beside patches")})
        strip = site.picture(f"{slug}/strip", grid(np.concatenate(shades), len(found.epochs), gap=2, background=LINE),
                             f"A row a map, a column an epoch: {', '.join(map(str, found.epochs))}")
        plot = line_plot(np.asarray(found.epochs, float), found.values[layer], [row["unit"] for row in rows],
                         title=f"Strongest activation of maps of {printable(layer)}", x_label="epoch")
        layers.append({"name": printable(layer), "frames": frames, "strip": strip, "rows": rows, "plot": plot})
    curves = None
    if found.losses:
        curves = line_plot(np.asarray(found.epochs, float), np.array([found.losses, found.accuracies]),
                           ["loss", "accuracy"], title="Loss and accuracy of the training", x_label="epoch")
    site.page(f"{folder}/index.html", "evolution.html", title=source.title, layers=layers,
              epochs=list(found.epochs), curves=curves, rule=found.rule)
    count = sum(len(found.maps[layer]) for layer in found.layers)
    site.entries.append(Entry(source.title, f"{folder}/index.html", "evolution",
                              f"{count} maps over {len(found.epochs)} epochs", layers[0]["strip"]))
    site.records.append((source.title, [
        ("epochs", str(found.epochs)), ("rule of the projections", found.rule),
        ("seconds", ", ".join(f"{value:.2f}" for value in found.seconds))]))


def invariance(site: Site, source: Source, found: Invariance) -> None:
    """The plots of the paper's Fig. 5 as SVG."""
    folder = site.slug("invariance/", source.name)
    names = [without_folders(name) for name in found.names]
    rows = []
    for kind in KINDS:
        amounts, distances, chances = found.series(kind)
        plots = [(printable(layer), line_plot(
            amounts, distances[number], names, title=f"Distance at {printable(layer)} against {AXES[kind]}",
            x_label=AXES[kind], y_range=(0.0, max(float(found.series(each)[1][number].max()) for each in KINDS))))
            for number, layer in enumerate(found.layers)]
        if chances is not None:
            plots.append(("probability of the class", line_plot(
                amounts, chances, names, title=f"Probability of the class against {AXES[kind]}", x_label=AXES[kind],
                y_range=(0.0, 1.0))))
        rows.append((kind, plots))
    labels = found.labels or ()
    classes_of = [printable(found.class_names[label]) if found.class_names else f"class {label}" for label in labels]
    pictures = [site.picture(f"{folder}/image-{number}", fitted(image, 112), name)
                for number, (image, name) in enumerate(zip(found.images, names, strict=True))]
    site.page(f"{folder}/index.html", "invariance.html", title=source.title, rows=rows,
              images=list(zip(names, pictures, classes_of or [""] * len(names), strict=True)),
              arrays=_arrays(site, folder, {f"{kind}-distances": found.series(kind)[1] for kind in KINDS}))
    site.entries.append(Entry(source.title, f"{folder}/index.html", "invariance",
                              f"{len(names)} images shifted, enlarged and turned", pictures[0]))
    site.records.append((source.title, [("network, SHA-256", found.network_hash),
                                                       ("outside the image", found.border), ("fill", str(found.fill))]))


def correspondence(site: Site, source: Source, found: Correspondence) -> None:
    """The masked images and the table, with the paper's numbers beside them."""
    folder = site.slug("correspondence/", source.name)
    summary = found.summary["layers"]
    parts: list[dict[str, Any]] = []
    for number, name in enumerate(found.rows):
        strip = grid(np.stack([fitted(image, 112) for image in found.masked[number]]), len(found.names), gap=3,
                     background=LINE)
        cells = [(printable(layer), rows[name]) for layer, rows in summary.items()]
        parts.append({"name": printable(name), "cells": cells, "paper": PAPER.get(name),
                      "strip": site.picture(f"{folder}/{number}", strip, f"{printable(name)} masked in each image")})
    site.page(f"{folder}/index.html", "correspondence.html", title=source.title, parts=parts,
              layers=[printable(layer) for layer in found.layers], count=len(found.names),
              pairs=found.summary["pairs"],
              arrays=_arrays(site, folder, {"distances": found.distances, "zeros": found.zeros, "boxes": found.boxes}))
    site.entries.append(Entry(source.title, f"{folder}/index.html", "correspondence",
                              f"{len(found.rows)} kinds of masks in {len(found.names)} images", parts[0]["strip"]))
    site.records.append((source.title, [
        ("network, SHA-256", found.network_hash), ("fill", str(found.fill)), ("seed", str(found.seed))]))


def architecture(site: Site, source: Source, found: Architecture) -> None:
    """Networks' first layers side by side, with their numbers."""
    folder = site.slug("architecture/", source.name)
    picture = site.picture(f"{folder}/comparison", architecture_picture(found), "First layers side by side")
    rows: list[tuple[str, Sequence[str]]] = []
    networks = found.summary["networks"]
    for key in ("filters", "stride", "dead", "weak", "silent"):
        rows.append((key, [str(each[key]) for each in networks.values()]))
    rows += [(f"{band} frequencies", [f"{each['bands'][band]:.3f}" for each in networks.values()])
             for band in ("low", "mid", "high")]
    rows += [(key, [f"{each[key]:.3f}" for each in networks.values()]) for key in ("folded", "aliased", "comb")]
    site.page(f"{folder}/index.html", "architecture.html", title=source.title, picture=picture,
              names=[printable(label) for label in found.labels], rows=rows)
    site.entries.append(Entry(source.title, f"{folder}/index.html", "architecture",
                              " and ".join(printable(label) for label in found.labels), picture))
    site.records.append((source.title, [
        (f"{printable(label)}, SHA-256", digest) for label, digest in zip(found.labels, found.hashes, strict=True)]))


def _arrays(site: Site, folder: str, arrays: dict[str, Any]) -> list[tuple[str, str]]:
    """Links to the arrays of a page, as far as they are of a size for a site."""
    written = [(name, site.array(f"{folder}/{name}.npy", array)) for name, array in arrays.items() if array is not None]
    return [(name, path) for name, path in written if path is not None]
