"""The columns of an explanation's figure: each method computed and drawn for every row.

A row is a picture and a target. A method gives one column or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import checks, explain
from ..explain.cam import default_layer
from ..explain.steps import amplitude
from ..network import Network
from ..pictures import attribution_shades, enlarge, grid, heat, overlay, signed, symmetric_scale
from ..pictures.atlas import PERCENTILE
from ..pictures.tiles import in_rgb_order


@dataclass
class Job:
    """What is explained, and how.

    Attributes
    ----------
    network : with a preprocessing
    pixels : uint8 (N, height, width, channels), a row each
    x : the same, preprocessed
    originals : the decoded pictures at their own sizes
    targets : N classes, or N units of one layer
    layers : for the methods that look at layers; empty: each method's own
    options : batch_size, seed, samples, shared, steps, window, stride
    settings : of ascent
    starts : of ascent, like x; None: the settings'
    towards : the class that adversarial changes lead to; None: any other
    progress : bars on stderr for what takes long
    """

    network: Network
    pixels: np.ndarray
    x: np.ndarray
    originals: Sequence[np.ndarray]
    targets: list[Any]
    layers: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    settings: explain.Settings = explain.PRESETS["default"]
    starts: np.ndarray | None = None
    towards: int | None = None
    progress: bool = False

    @property
    def channels(self) -> str:
        """The network's order."""
        assert self.network.preprocessing is not None
        return self.network.preprocessing.channels

    def restore(self, images: np.ndarray) -> np.ndarray:
        """The network's numbers as pixels."""
        assert self.network.preprocessing is not None
        return self.network.preprocessing.restore(images)

    def steps(self) -> dict[str, Any]:
        """{"steps": n} if the user asked for a number."""
        return {} if self.options.get("steps") is None else {"steps": self.options["steps"]}


@dataclass
class Column:
    """One column: its heading, a picture and a note for each row, and what is saved of it, by the folder's name."""

    title: str
    pictures: list[np.ndarray]
    notes: list[str]
    results: dict[str, Any] = field(default_factory=dict)


def caption(name: str, classes: Sequence[str] | None) -> str:
    """ "class 281" with the class's name behind it."""
    index = name.removeprefix("class ")
    if classes and index != name and classes[int(index)] != index:
        return f"{name}: {classes[int(index)]}"
    return name


def attribution_pictures(found: explain.Attribution, pixels: np.ndarray, channels: str, *, shared: bool = False
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
    pictures = []
    for picture, row in zip(pixels, values, strict=True):
        every = values if shared else row
        if values.ndim == 4 or (row.shape == picture.shape[:2] and not found.signed):
            pictures.append(attribution_shades(row, channels, signed=found.signed,
                                               scale=symmetric_scale(every, PERCENTILE)))
        else:
            pictures.append(overlay(picture, row, symmetric_scale(every), signed=found.signed))
    return pictures


def outlined(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A photograph in which everything outside the mask is faded."""
    picture = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    faded = picture * 0.25 + 190
    return np.where(mask[..., None], picture, np.rint(faded).clip(0, 255)).astype(np.uint8)


def _attribution(method: Callable[..., explain.Attribution], job: Job, title: str, **options: Any) -> Column:
    found = method(job.network, job.x, job.targets, batch_size=job.options["batch_size"], **options)
    pictures = attribution_pictures(found, job.pixels, job.channels, shared=job.options.get("shared", False))
    notes = [caption(name, job.network.class_names) + ("" if row.any() else ": zero everywhere")
             for name, row in zip(found.targets, found.values, strict=True)]
    return Column(title, pictures, notes, {_folder(title): found})


def _folder(title: str) -> str:
    """A folder's name from a column's heading."""
    return title.replace("/", "_").replace(" ", "-")


def _plain(method: Callable[..., explain.Attribution], title: str) -> Callable[[Job], list[Column]]:
    return lambda job: [_attribution(method, job, title)]


def _smoothgrad(job: Job) -> list[Column]:
    return [_attribution(explain.smoothgrad, job, "smoothgrad", samples=job.options["samples"],
                         seed=job.options["seed"], progress=job.progress)]


def _occlusion(job: Job) -> list[Column]:
    return [_attribution(explain.occlusion, job, "occlusion", window=job.options["window"],
                         stride=job.options["stride"], progress=job.progress)]


def _on_layers(method: Callable[..., explain.Attribution], title: str) -> Callable[[Job], list[Column]]:
    def columns(job: Job) -> list[Column]:
        if not job.layers:
            return [_attribution(method, job, title)]
        return [_attribution(method, job, f"{title} {layer}", layer=layer) for layer in job.layers]
    return columns


def _segment(job: Job) -> list[Column]:
    found = explain.saliency(job.network, job.x, job.targets, batch_size=job.options["batch_size"])
    masks = explain.grabcut(job.pixels, found.values, seed=job.options["seed"])
    kept = explain.Attribution("segment", masks.astype(np.float32), found.scores, found.targets, False)
    return [Column("segment", [outlined(*pair) for pair in zip(job.pixels, masks, strict=True)],
                   [f"{mask.mean():.0%} of the picture" for mask in masks], {"segment": kept})]


def _activations(job: Job) -> list[Column]:
    columns = []
    for layer in job.layers or [default_layer(job.network)]:
        sheets = []
        found = explain.Activations(layer, np.stack([explain.maps_of(job.network, row[None], layer) for row in job.x]))
        for maps in found.maps:
            tiles = heat(maps, symmetric_scale(maps, PERCENTILE), signed=bool((maps < 0).any()))
            sheets.append(grid(enlarge(tiles, 24), background=90))
        columns.append(Column(f"activations {layer}", sheets, [f"{found.maps.shape[1]} maps, one scale"] * len(sheets),
                              {_folder(f"activations-{layer}"): found}))
    return columns


def _ascent(job: Job) -> list[Column]:
    found = explain.ascent(job.network, job.targets, job.settings, start=job.starts, seed=job.options["seed"],
                           batch_size=job.options["batch_size"], progress=job.progress)
    notes = [f"{caption(name, job.network.class_names)}: " + (
        "dead" if dead else f"{float(first):.3g} to {float(last):.3g}")
        for name, dead, first, last in zip(found.targets, found.dead, found.scores[0], found.scores[-1], strict=True)]
    return [Column("ascent", list(job.restore(found.images)), notes, {"ascent": found})]


def _inversion(job: Job) -> list[Column]:
    columns = []
    for layer in job.layers or [default_layer(job.network)]:
        found = explain.inversion(job.network, job.x, layer, seed=job.options["seed"],
                                  batch_size=job.options["batch_size"], progress=job.progress, **job.steps())
        columns.append(Column(f"inverted {layer}", list(job.restore(found.images)),
                              [f"error {float(value):.2g}" for value in found.scores[-1]],
                              {_folder(f"inversion-{layer}"): found}))
    return columns


def _dream(job: Job) -> list[Column]:
    columns = []
    for layer in job.layers or [default_layer(job.network)]:
        shape = job.network.tensor_shape(layer)
        pictures: list[np.ndarray] = []
        results: dict[str, Any] = {}
        checks.require(len(shape) == 3, "dream", "layer", layer, f"a layer of maps; {layer} has the shape {shape}")
        for original in job.originals:
            net = job.network.at_size(original.shape[0], original.shape[1], layer)
            assert net.preprocessing is not None
            x = net.preprocessing.apply(original[None])
            sides = min(original.shape[:2]) / min(job.network.input_shape[:2])
            octaves = max(min(4, 1 + int(np.log(max(sides * 2.5, 1)) / np.log(1.4))), 1)
            found = explain.dream(job.network, x, layer, octaves=octaves, seed=job.options["seed"],
                                  progress=job.progress, **job.steps())
            results[_folder(f"dream-{layer}-{len(pictures) + 1}")] = found
            pictures.append(net.preprocessing.restore(found.images)[0])
        columns.append(Column(f"dream {layer}", pictures, [f"{picture.shape[1]} x {picture.shape[0]}"
                                                           for picture in pictures], results))
    return columns


def _adversarial(job: Job) -> list[Column]:
    found = explain.adversarial(job.network, job.x, job.towards, batch_size=job.options["batch_size"],
                                progress=job.progress)
    names = job.network.class_names
    answers = [f"{_answer(before, sure, names)}, now " + (_answer(after, now, names) if worked else "the same")
               for before, sure, after, now, worked in zip(found.before, found.certainty_before, found.after,
                                                           found.certainty_after, found.found, strict=True)]
    gray_levels = found.changes / amplitude(job.network) * 64
    scales = [symmetric_scale(row, PERCENTILE) for row in gray_levels]
    changes = [signed(in_rgb_order(row, job.channels), scale)
               for row, scale in zip(gray_levels, scales, strict=True)]
    sizes = [f"magnified; at most {np.abs(row).max():.2g} of 255" for row in gray_levels]
    return [Column("change", changes, sizes),
            Column("adversarial", list(job.restore(found.images)), answers, {"adversarial": found})]


def _answer(index: int, share: float, names: Sequence[str] | None) -> str:
    return f"{names[index] if names else f'class {index}'} {share:.0%}"


COLUMNS: dict[str, Callable[[Job], list[Column]]] = {
    "saliency": _plain(explain.saliency, "saliency"),
    "gradient": _plain(explain.gradient, "gradient"),
    "gradient-input": _plain(explain.gradient_times_input, "gradient-input"),
    "smoothgrad": _smoothgrad,
    "guided": _plain(explain.guided, "guided"),
    "deconvnet": _plain(explain.deconvnet, "deconvnet"),
    "cam": _plain(explain.cam, "cam"),
    "gradcam": _on_layers(explain.gradcam, "gradcam"),
    "guided-gradcam": _on_layers(explain.guided_gradcam, "guided-gradcam"),
    "occlusion": _occlusion,
    "segment": _segment,
    "activations": _activations,
    "ascent": _ascent,
    "inversion": _inversion,
    "dream": _dream,
    "adversarial": _adversarial,
}
