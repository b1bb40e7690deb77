"""What a study will take, said before it begins: memory from shapes, time from multiply-adds.

Times are rough: every layer is taken to compute as fast as the network as a whole did on one image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import patches as cutting
from .top import patch_size

ENTRY_SECONDS = 1e-3  # about what cutting, drawing and encoding one entry of a report takes ...
PIXEL_SECONDS = 1.5e-7  # ... and each pixel of its patch
CHECKED = 3  # of a map's entries: as many stand in a report's sanity check, projected two more times


@dataclass
class Forecast:
    """What a study will need; `str()` is a line for people.

    Attributes
    ----------
    images, maps : how many
    patch_bytes : what the kept patches take, in memory or on disk
    batch_bytes : about what the parameters and a batch's activations take at their worst
    projection_bytes : what the projections of all entries take as arrays
    seconds : about how long the scan will take; None before it was measured
    report_seconds : about how long projecting and drawing all entries will take; None likewise
    on_disk : whether the patches are in a temporary file
    image_bytes : what the images take that are kept instead, where patches are cut only when they are read; else 0
    """

    images: int
    maps: int
    patch_bytes: int
    batch_bytes: int
    seconds: float | None = None
    on_disk: bool = False
    projection_bytes: int = 0
    report_seconds: float | None = None
    image_bytes: int = 0

    def __str__(self) -> str:
        place = "on disk" if self.on_disk else "in memory"
        if self.image_bytes and not self.on_disk:
            place += f" ({size_text(self.image_bytes)} until they are read)"
        text = (f"{self.images:,} images, {self.maps:,} feature maps: {size_text(self.patch_bytes)} of patches "
                f"{place}, about {size_text(self.batch_bytes)} for a batch, {size_text(self.projection_bytes)} of "
                "projections")
        return text + ("" if self.times is None else f"; {self.times}")

    @property
    def times(self) -> str | None:
        """The times for people, None before something was measured."""
        parts = [] if self.seconds is None else [f"about {duration_text(self.seconds)} for the scan"]
        if self.report_seconds is not None:
            parts.append(f"about {duration_text(self.report_seconds)} to project and draw all of it")
        return ", ".join(parts) or None


def forecast(network: Any, layers: Sequence[str], images: int, *, top: int = 9, batch_size: int = 32
             ) -> Forecast:
    """What a scan of `images` images and its report will need, but for the times, which must be measured."""
    patches = maps = 0
    for layer in layers:
        height, width = patch_size(network.cone(layer))
        count = network.tensor_shape(layer)[-1]
        maps += count
        patches += count * top * height * width * network.input_shape[2]
    batch = network.memory(min(batch_size, max(images, 1))).forward
    kept = images * math.prod(network.input_shape)
    return Forecast(images, maps, patches, batch, projection_bytes=4 * patches,
                    image_bytes=kept if kept <= cutting.RECENT and kept < patches else 0)


def scan_work(network: Any, layers: Sequence[str]) -> int:
    """Multiply-adds for one image up to these layers."""
    adds = network.multiply_adds()
    return sum(adds[node.name] for node in network.below(layers))


def projection_work(network: Any, layer: str) -> float:
    """Multiply-adds for one entry: up its cone and down again."""
    cone, adds, total = network.cone(layer), network.multiply_adds(), 0.0
    for node in network.below([layer]):
        share, field = 1.0, cone.fields.get(node.name)
        if field is not None and len(node.shape) == 3:
            share = min(1.0, field.size[0] * field.size[1] / (node.shape[0] * node.shape[1]))
        total += 2 * share * adds[node.name]
    return total


def report_seconds(network: Any, layers: Mapping[str, int], top: int, seconds_of_image: float) -> float:
    """About how long projecting and drawing takes.

    Parameters
    ----------
    network : the network
    layers : numbers of maps by layer
    top : entries a map
    seconds_of_image : what one image took up to the highest of these layers, measured
    """
    each = seconds_of_image / max(scan_work(network, list(layers)), 1)
    seconds = 0.0
    for layer, maps in layers.items():
        height, width = patch_size(network.cone(layer))
        drawing = ENTRY_SECONDS + PIXEL_SECONDS * height * width
        projected = top + 2 * min(CHECKED, top)
        seconds += maps * (projected * each * projection_work(network, layer) + top * drawing)
    return seconds


def measure(network: Any, layers: Sequence[str], images: int = 1) -> float:
    """Seconds that one image takes up to these layers, on empty images; kernels are compiled first."""
    x = np.zeros((images, *network.input_shape), np.float32)
    network.features(x[:1], list(layers))
    begun = time.perf_counter()
    network.features(x, list(layers))
    return (time.perf_counter() - begun) / images


def size_text(count: float) -> str:
    """Bytes for people: "183 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    """Seconds for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
