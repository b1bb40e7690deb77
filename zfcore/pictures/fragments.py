"""Results that show themselves in a notebook: one small piece of HTML with its picture inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from .atlas import outside_gray
from .compared import architecture_picture
from .maps import titled_panels
from .overlay import attribution_shades
from .studies import correspondence_picture, evolution_picture, invariance_picture, occlusion_picture
from .tiles import _image, grid, resize_tiles, stretched

MOST_PIXELS = 1100  # longer side of a fragment's picture
MOST_ROWS = 12  # of its table


def fragment(title: str, facts: Mapping[str, Any], pixels: np.ndarray | None = None, note: str = "") -> str:
    """HTML that needs nothing beside it.

    Parameters
    ----------
    title : a heading
    facts : names and values, shown in a row
    pixels : uint8 (height, width, 1 or 3), reduced where it is large; or None
    note : a line below
    """
    rows = [f"<span style='margin-right:1.6em;white-space:nowrap'><span style='opacity:.65'>"
            f"{html.escape(str(name))}</span> {html.escape(_short(value))}</span>"
            for name, value in list(facts.items())[:MOST_ROWS]]
    parts = [f"<div class='zfcore' style='max-width:100%'><div style='font-weight:600'>{html.escape(title)}</div>",
             f"<div style='line-height:1.7'>{' '.join(rows)}</div>"]
    if pixels is not None:
        content, width, height = _webp(pixels)
        address = base64.b64encode(content).decode("ascii")
        parts.append(f"<img alt='{html.escape(title, quote=True)}' width='{width}' height='{height}' "
                     f"style='max-width:100%;height:auto' src='data:image/webp;base64,{address}'>")
    if note:
        parts.append(f"<div style='opacity:.75'>{html.escape(note)}</div>")
    return "".join(parts) + "</div>"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _webp(pixels: np.ndarray) -> tuple[bytes, int, int]:
    """A picture's file, of at most MOST_PIXELS a side, and its size."""
    picture = _image(pixels)
    factor = MOST_PIXELS / max(picture.size)
    if factor < 1:
        size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=78, method=3)
    return stream.getvalue(), picture.width, picture.height


def study_fragment(result: Any) -> str:
    """A study's result, by its `kind`: its figure, where there is one, and the plain values of its summary."""
    figures: dict[str, Callable[[Any], np.ndarray]] = {
        "occlusion": occlusion_picture, "correspondence": correspondence_picture, "evolution": evolution_picture,
        "invariance": invariance_picture, "architecture": architecture_picture}
    figure = figures.get(result.kind)
    summary = getattr(result, "summary", {})
    facts = {name: value for name, value in summary.items() if isinstance(value, (str, int, float))}
    return fragment(result.kind.capitalize(), facts, None if figure is None else figure(result))


def attribution_fragment(result: Any, most: int = 12) -> str:
    """An attribution's rows, each on its own scale."""
    tiles = [attribution_shades(values, result.channels, signed=result.signed) for values in result.values[:most]]
    facts = {name: f"{float(score):.4g}" for name, score in zip(result.targets, result.scores[:most], strict=False)}
    pixels = grid(resize_tiles(np.stack(tiles), 160, 224), min(len(tiles), 6), gap=3) if tiles else None
    return fragment(f"{result.method}, {len(result.values)} rows", facts, pixels,
                    "Each on its own scale, zero in the middle.")


def synthesis_fragment(result: Any, most: int = 12) -> str:
    """Images that were made, each brought to the range of a screen."""
    images = np.asarray(result.images[:most])
    facts = {str(name): f"{float(first):.4g} to {float(last):.4g}" for name, first, last in
             zip(result.targets, result.scores[0][:most], result.scores[-1][:most], strict=False)}
    pixels = None
    if len(images) and images.shape[3] in (1, 3):
        pixels = grid(resize_tiles(stretched(images, result.channels), 160, 224), min(len(images), 6), gap=3)
    return fragment(f"{result.method}, {len(result.images)} images", facts, pixels, "Each stretched to its own range.")


def atlas_fragment(atlas: Any, most: int = 16) -> str:
    """An atlas: for some maps of each layer the patch that excites them most."""
    items = []
    for name, part in atlas.layers.items():
        alive = np.flatnonzero(part.filled[:, 0] & ~part.dead)
        if not len(alive):
            continue
        chosen = alive[np.linspace(0, len(alive) - 1, min(most, len(alive))).round().astype(int)]
        patches = np.stack([part.cut(index)[0] for index in chosen])
        tiles = outside_gray(patches, part.origins[chosen, 0], atlas.image_shape[:2])
        strip = grid(resize_tiles(tiles, 56, 64), len(chosen), gap=2)
        items.append((name, strip, "maps " + ", ".join(map(str, chosen.tolist()))))
    facts = {"images": atlas.scanned - len(atlas.skipped), "top": atlas.top} | {
        name: f"{part.maps} maps, {int(part.dead.sum())} dead" for name, part in atlas.layers.items()}
    pixels = titled_panels(items, columns=1, side=0) if items else None
    return fragment(f"Atlas of {atlas.network_name or 'a network'}", facts, pixels,
                    "The patch that excites each map most; `zfcore report` makes a site of it.")
