"""What every page says in the same words: numbers, layers, classes, rules, where a result comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import backends
from ..data.decode import printable
from ..network import Network
from ..study.atlas import Atlas

LINE = 80  # shade of the hairlines between tiles, for light pages and dark ones

RULES = {
    "deconvnet": (" by a deconvnet: unpooling through the recorded switches, rectifying, and the transposed filters",
                  "Apart from normalisation, a deconvnet differs from the plain gradient only in what it does at "
                  "the ReLUs (Mahendran and Vedaldi, 2016)."),
    "gradient": (" as the gradient of the activation", "A gradient shows what a small change of each pixel would do."),
    "guided": (" by guided backpropagation: the gradient, rectified at every ReLU",
               "Guided backpropagation sharpens edges of the image whether or not the network uses them."),
}


def environment() -> Any:
    """Where templates come from: everything in them is escaped, and every name must exist."""
    import jinja2

    return jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def number_text(value: float) -> str:
    """About three significant digits, for people."""
    size = abs(value)
    digits = ",.0f" if size >= 1000 else ".1f" if size >= 100 else ".2f" if size >= 1 else ".3g"
    return format(value, digits)


def class_of(atlas: Atlas, image: int) -> str | None:
    """The class of one of an atlas's images, by its name or its number; None where it has none."""
    label, names = atlas.labels.get(image, -1), atlas.class_names
    if label < 0:
        return None
    return printable(names[label]) if names and label < len(names) else f"class {label}"


def layer_text(atlas: Atlas, name: str) -> str:
    """How many maps of what size a layer has, and what its units see; less without the network."""
    part = atlas[name]
    if atlas.network is None:
        height, width = part.patch_shape[:2]
        return f"{part.maps} feature maps; patches of {height} x {width} pixels."
    shape = atlas.network.tensor_shape(name)
    row = next((row for row in atlas.network.layers() if row.name == name.removesuffix(".pre")), None)
    size = f" of {shape[0]} x {shape[1]}" if len(shape) == 3 else ""
    field = row.receptive_field if row else None
    sees = "each unit sees the whole image" if field is None else (
        f"each unit sees {field.size[0]} x {field.size[1]} pixels, neighbours are {field.stride[0]} apart")
    return f"{part.maps} feature maps{size}; {sees}."


def facts(atlas: Atlas) -> list[tuple[str, str]]:
    """An atlas in numbers, for the head of a page."""
    found = [("images", f"{atlas.scanned - len(atlas.skipped):,}")]
    if atlas.class_names:
        found.append(("classes", f"{len(atlas.class_names):,}"))
    found += [("layers", f"{len(atlas.layers)}"),
              ("feature maps", f"{sum(part.maps for part in atlas.layers.values()):,}"),
              ("dead", f"{sum(int(part.dead.sum()) for part in atlas.layers.values()):,}")]
    if atlas.network is not None:
        found.append(("parameters", f"{atlas.network.parameter_count:,}"))
    return found


def provenance(atlas: Atlas, rule: str) -> list[tuple[str, str]]:
    """Where an atlas comes from: hashes, settings and versions."""
    parts = ", ".join(f"{begin}..{end - 1}" for begin, end in atlas.covered)
    return [("network, SHA-256", atlas.hashes["network"]), ("data set, SHA-256", atlas.hashes["images"]),
            ("decoded pixels", atlas.hashes["pixels"]), ("images scanned", f"{parts or 'none'} of {atlas.count}"),
            ("entries a map", str(atlas.top)),
            ("entries of an image", "at most one" if atlas.one_per_image else "any number"),
            ("rule", rule), ("preprocessing", repr(atlas.preprocessing)), *atlas.versions.items()]


def pixel_filters(network: Network) -> tuple[str, np.ndarray] | None:
    """The convolution that looks at pixels and can be shown: its name and float (filters, height, width, 1 or 3)."""
    for node in network.nodes.values():
        if type(node.layer).__name__ == "Convolution" and node.inputs == ("input",):
            weight = backends.to_numpy(node.layer.parameters["weight"])
            return (node.name, weight) if weight.shape[3] in (1, 3) else None
    return None


def filters_text(name: str, weight: np.ndarray) -> str:
    """What a picture of filters shows, and its scale."""
    largest = number_text(float(np.abs(weight).max()))
    return (f"{printable(name)}: {weight.shape[0]} filters of {weight.shape[1]} x {weight.shape[2]}. Gray is zero, "
            f"black and white are -{largest} and +{largest}, one scale for all.")
