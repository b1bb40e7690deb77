"""Figures of the experiments, from the arrays of their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from .atlas import card_pictures, outside_gray
from .maps import DISTINCT, classes, fitted, legend_picture, titled_panels, viridis
from .plots import plot
from .tiles import grid, in_rgb_order, resize_tiles, signed, symmetric_scale


def plain(text: str, most: int = 60) -> str:
    """A name on one line of a picture: control characters escaped, cut where it is long."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= most else shown[:most - 3] + "..."


def occlusion_picture(result: Any, side: int = 224) -> np.ndarray:
    """The paper's Fig. 7 for one image: uint8 (height, width, 3).

    The image with the square at its first place; the map's activity by the square's position; the
    map's projection, and its strongest activations over other images; the class's probability and
    the most probable class by position.

    Parameters
    ----------
    result : a `study.occlusion.Occlusion`
    side : of each picture, in pixels
    """
    shown = np.array(result.image)
    shown[:result.window[0], :result.window[1]] = result.fill
    values = result.in_pixels(result.activity)
    items = [(f"{plain(result.name, 30)}", shown,
              f"square {result.window[0]} x {result.window[1]}, step {result.stride[0]}"),
             (f"activity of {result.layer}:{result.map}", viridis(values),
              f"{np.nanmin(values):.4g} (dark) to {np.nanmax(values):.4g}\nwhole image: {result.whole_activity:.4g}")]
    canvas = np.zeros(result.image.shape, np.float32)
    placed(canvas, result.projection, result.projection_origin)
    shades = signed(in_rgb_order(canvas, result.channels), symmetric_scale(canvas, 99.8))
    items.append((f"projection of {result.unit}", shades, ""))
    if result.top_values is not None and len(result.top_values):
        left, right, _ = card_pictures(result.top_projections, result.top_patches, result.top_origins,
                                       result.image.shape[:2], result.channels, smallest=side // 3)
        items += [("other images: projections", left, ""), ("other images: patches", right, "")]
    probability, best = result.probability, result.most_probable
    if probability is not None:
        values = result.in_pixels(probability)
        items.append((f"probability of {plain(result.class_name(result.label), 32)}", viridis(values, 0, 1),
                      f"0 (dark) to 1; here {np.nanmin(values):.3f} to {np.nanmax(values):.3f}\nwhole image: "
                      f"{float(result.whole_probabilities[result.label]):.3f}"))
        pixels, legend = classes(result.nearest(best))
        counts = dict(zip(*(each.tolist() for each in np.unique(best, return_counts=True)), strict=True))
        items.append(("most probable class", pixels, f"{best.shape[0]} x {best.shape[1]} positions"))
        names = [(f"{plain(result.class_name(number), 34)}: {counts[number]}", color) for number, color, _ in legend]
        columns = len(items) if len(items) < 6 else 4
        return _beside(titled_panels(items, columns=columns, side=side), legend_picture(names))
    return titled_panels(items, side=side)


def placed(target: np.ndarray, tile: np.ndarray, origin: Any) -> None:
    """Copy what of a tile lies inside the image."""
    row, column = (int(value) for value in origin)
    begin, start = max(row, 0), max(column, 0)
    end, stop = min(row + tile.shape[0], target.shape[0]), min(column + tile.shape[1], target.shape[1])
    if end > begin and stop > start:
        target[begin:end, start:stop] = tile[begin - row:end - row, start - column:stop - column]


def _beside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two RGB pictures side by side on white, the second at the bottom."""
    height = max(first.shape[0], second.shape[0] + 40)
    sheet = np.full((height, first.shape[1] + second.shape[1] + 20, 3), 255, np.uint8)
    sheet[:first.shape[0], :first.shape[1]] = first
    sheet[height - 20 - second.shape[0]:height - 20, first.shape[1]:first.shape[1] + second.shape[1]] = second
    return sheet


def correspondence_picture(result: Any, side: int = 96) -> np.ndarray:
    """The masked images, a row a part, with the distances under each: uint8 (height, width, 3).

    Parameters
    ----------
    result : a `study.correspondence.Correspondence`
    side : of each image, in pixels
    """
    summary = result.summary["layers"]
    rows = list(next(iter(summary.values())))
    items = []
    for row, part in enumerate(rows):
        strip = grid(np.stack([fitted(image, side) for image in result.masked[row]]), len(result.names), gap=3)
        notes = [f"{layer}: {numbers[part]['mean']:.4f} +- {numbers[part]['deviation']:.4f}, "
                 f"{100 * numbers[part]['zeros']:.1f} % unchanged" for layer, numbers in summary.items()]
        items.append((plain(part), strip, "\n".join(notes)))
    return titled_panels(items, columns=1, side=0, title="distances of the signs of changes, mean over pairs of images")


def invariance_picture(result: Any, relative: bool = False) -> np.ndarray:
    """The plots of the paper's Fig. 5: a row a transformation, a column a layer, then the probability.

    Parameters
    ----------
    result : a `study.invariance.Invariance`
    relative : divide distances by the norm of the untransformed features, so that layers compare
    """
    axes = {"translation": "vertical translation (pixels)", "scale": "scale", "rotation": "rotation (degrees)"}
    items = []
    for kind, label in axes.items():
        amounts, distances, chances = result.series(kind)
        shown = result.relative[kind] if relative else distances
        for number, layer in enumerate(result.layers):
            top = max(float((result.relative[each] if relative else result.series(each)[1])[number].max())
                      for each in axes)
            items.append(("", plot(amounts, shown[number], title=f"{plain(layer, 24)}: distance", x_label=label,
                                   y_range=(0, top)), ""))
        if chances is not None:
            items.append(("", plot(amounts, chances, title="probability of the class", x_label=label,
                                   y_range=(0, 1)), ""))
    columns = len(items) // len(axes)
    sheet = titled_panels(items, columns=columns, side=0)
    names = [plain(name.rsplit("/", 1)[-1], 28) for name in result.names]
    if result.labels is not None:
        found = [plain(_class(result, label), 28) for label in result.labels]
        names = [f"{name}: {label}" for name, label in zip(names, found, strict=True)]
    red, green, blue = DISTINCT[np.arange(len(names)) % len(DISTINCT)].T.tolist()
    key = legend_picture(list(zip(names, zip(red, green, blue, strict=True), strict=True)))
    images = grid(np.stack([fitted(image, 96) for image in result.images]), len(result.images), gap=3)
    return _beside(np.concatenate([sheet, _padded(images, sheet.shape[1])]), key)


def _class(result: Any, number: int) -> str:
    return str(result.class_names[number]) if result.class_names else f"class {number}"


def _padded(pixels: np.ndarray, width: int) -> np.ndarray:
    """RGB pixels on white, `width` wide, cut where they are wider; a margin at the left and below."""
    sheet = np.full((pixels.shape[0] + 20, width, 3), 255, np.uint8)
    shown = pixels[:, :width - 26]
    sheet[:shown.shape[0], 26:26 + shown.shape[1]] = shown
    return sheet


def evolution_picture(result: Any, smallest: int = 40, largest: int = 84, patches: bool = True) -> np.ndarray:
    """The paper's Fig. 4: for each layer a row a map, a column an epoch; below each projection its patch.

    Parameters
    ----------
    result : a `study.evolution.Evolution`
    smallest, largest : limits of a tile's longer side in pixels
    patches : show the patches, too

    Returns
    -------
    uint8 (height, width, 3); one scale for all epochs of a map
    """
    items = []
    for layer in result.layers:
        rows = []
        for line in range(len(result.maps[layer])):
            projections = result.projections[layer][line]
            shades = signed(in_rgb_order(projections, result.channels), symmetric_scale(projections, 99.8))
            rows.append(resize_tiles(shades, smallest, largest))
            if patches:
                shown = outside_gray(result.patches[layer][line], result.origins[layer][line], result.extent)
                rows.append(resize_tiles(shown, smallest, largest))
        sheet = grid(np.concatenate(rows), len(result.epochs), gap=2)
        numbers = ", ".join(str(index) for index in result.maps[layer])
        items.append((f"{plain(layer)}: epochs {', '.join(map(str, result.epochs))}", sheet, f"maps {numbers}"))
    return titled_panels(items, side=0)
