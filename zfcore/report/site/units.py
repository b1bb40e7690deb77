"""The pictures of an atlas's units: projections beside patches, thumbnails, the sanity panel."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...formats import results
from ...geometry import Tile
from ...kernels.threads import get_num_threads
from ...pictures import card_pictures, grid, in_rgb_order, resize_tiles, signed, symmetric_scale
from ...pictures.atlas import PERCENTILE, outside_gray
from ...study.atlas import Atlas
from ...study.top import cone_tiles, copy_part
from ..page import LINE
from ..sanity import SEED, random_twin
from .pages import Site

THUMB = 56  # longer side of a thumbnail, pixels
PANEL = 3  # strongest activations of a unit in its sanity panel
AT_A_TIME = 7  # maps


@dataclass
class UnitPictures:
    """What was drawn of one map.

    Attributes
    ----------
    patches, projections : a written picture; no projections where there is no network to make them
    scale : magnitude shown as black or white
    panel : the sanity panel: written pictures with their texts
    """

    patches: dict[str, Any]
    projections: dict[str, Any] | None = None
    scale: float = 0.0
    panel: list[dict[str, Any]] = field(default_factory=list)


class LayerPictures:
    """Draws a layer's units into a site.

    Parameters
    ----------
    site : being written
    folder : of the layer's pages
    atlas : with or without its network
    layer : one of its layers
    saved : float (maps, k, height, width, channels) projections that are at hand, or None
    rule : for projections that are not
    sanity : draw the sanity panels, which need the network

    Attributes
    ----------
    units : UnitPictures by map
    patches, projections : uint8 thumbnails by map, of the strongest entries
    """

    def __init__(self, site: Site, folder: str, atlas: Atlas, layer: str, *, saved: np.ndarray | None, rule: str,
                 sanity: bool) -> None:
        self.site, self.folder, self.atlas, self.layer, self.rule = site, folder, atlas, layer, rule
        self.part, self.saved = atlas[layer], saved
        self.alive = np.flatnonzero(self.part.filled[:, 0] & ~self.part.dead)
        self.units: dict[int, UnitPictures] = {}
        self.patches: dict[int, np.ndarray] = {}
        self.projections: dict[int, np.ndarray] = {}
        self._panel = _Panel(atlas, layer, self.alive, rule) if sanity and atlas.network is not None else None

    def draw(self, bar: Any) -> None:
        """Project and draw every unit that is not dead."""
        with ThreadPoolExecutor(get_num_threads(), thread_name_prefix="zfcore-report") as pool:
            for maps, projected in self._projected():
                panels = self._panel.of(maps) if self._panel is not None else [[] for _ in maps]
                for _ in pool.map(self._unit, maps.tolist(), projected, panels):
                    bar.update()
        bar.update(self.part.maps - len(self.alive))

    def _projected(self) -> Iterator[tuple[np.ndarray, Any]]:
        if self.saved is None and self.atlas.network is not None:
            yield from self.atlas.projections(self.layer, maps=self.alive, rule=self.rule)
            return
        for begin in range(0, len(self.alive), AT_A_TIME):
            maps = self.alive[begin:begin + AT_A_TIME]
            yield maps, [None] * len(maps) if self.saved is None else self.saved[maps]

    def _unit(self, index: int, projected: np.ndarray | None, panel: list[tuple[np.ndarray, str]]) -> None:
        part, atlas, stem = self.part, self.atlas, f"{self.folder}/{index}"
        extent, channels = atlas.image_shape[:2], atlas.preprocessing.channels
        blank = np.zeros(part.patches.shape[1:], np.float32) if projected is None else projected
        left, right, scale = card_pictures(blank, part.patches[index], part.origins[index], extent, channels,
                                           filled=part.filled[index], background=LINE)
        name = f"{self.layer}:{index}"
        drawn = UnitPictures(self.site.picture(f"{stem}-patches", right, f"Patches that excite {name} most"))
        first = outside_gray(part.patches[index, :1], part.origins[index, :1], extent)
        self.patches[index] = resize_tiles(first, THUMB, THUMB)[0]
        if projected is not None:
            drawn.projections = self.site.picture(f"{stem}-projections", left, f"Projections of {name}")
            drawn.scale = scale
            one = signed(in_rgb_order(projected[:1], channels), symmetric_scale(projected[:1], PERCENTILE))
            self.projections[index] = resize_tiles(one, THUMB, THUMB)[0]
        for number, (pixels, text) in enumerate(panel):
            drawn.panel.append(self.site.picture(f"{stem}-sanity{number}", pixels, text))
        self.units[index] = drawn


class _Panel:
    """Does a projection show what was learned, or what any network would do to these patches?"""

    def __init__(self, atlas: Atlas, layer: str, alive: np.ndarray, rule: str) -> None:
        self.atlas, self.layer, self.rule = atlas, layer, rule
        self.twin = random_twin(atlas.network)
        turned = np.random.default_rng(SEED).permutation(alive)  # in a circle, so that nobody is its own other
        self.other = dict(zip(turned.tolist(), np.roll(turned, 1).tolist(), strict=True))

    def of(self, maps: np.ndarray) -> list[list[tuple[np.ndarray, str]]]:
        """For each map the pictures and what they are."""
        atlas, part, network = self.atlas, self.atlas[self.layer], self.atlas.network
        lines, ranks = np.nonzero(part.filled[maps][:, :PANEL])
        which = maps[lines]
        tiles, origins = cone_tiles(part, which, ranks, network.cone(self.layer))
        x = atlas.preprocessing.apply(tiles, Tile(origins, atlas.image_shape[:2]))
        rows, columns = part.rows[which, ranks], part.columns[which, ranks]
        others = np.array([self.other[index] for index in which.tolist()])
        shown: list[list[tuple[np.ndarray, str]]] = [[] for _ in maps]
        for source, chosen, text in ((network, which, "this unit"), (self.twin, which, "with random weights"),
                                     (network, others, "another unit, {}")):
            # Every unit gets the signal 1: most of these would not fire on these patches.
            projected, _ = source.project_tiles(x, origins, self.layer, chosen, rows, columns, self.rule, "one",
                                                batch_size=len(x))
            for line, index in enumerate(maps.tolist()):
                if text.startswith("another") and self.other[index] == index:
                    continue
                mine = np.flatnonzero(lines == line)
                pixels = np.zeros((len(mine), *part.patches.shape[2:]), np.float32)
                for place, entry in enumerate(mine):
                    copy_part(pixels[place], part.origins[index, ranks[entry]], projected[entry], origins[entry])
                shades = signed(in_rgb_order(pixels, atlas.preprocessing.channels), symmetric_scale(pixels, PERCENTILE))
                strip = grid(resize_tiles(shades, 64, 64), len(mine), background=LINE)
                shown[line].append((strip, text.format(f"{self.layer}:{self.other[index]}")))
        return shown


def saved_projections(output: Path, atlas: Atlas, rule: str | None) -> tuple[dict[str, np.ndarray], str | None]:
    """Projections that a command kept beside an atlas: by layer, and their rule; nothing where they do not fit."""
    try:
        stored, arrays = results.load(output / "projections", "projections", verify=False)
    except (OSError, ValueError):
        return {}, None
    if stored.get("hashes") != atlas.hashes or (rule is not None and stored.get("rule") != rule):
        return {}, None
    found = {str(name): arrays.get(f"layer{number}") for number, name in enumerate(stored.get("layers", []))}
    fitting = {name: array for name, array in found.items()
               if array is not None and name in atlas.layers and array.shape == atlas[name].patches.shape}
    return fitting, str(stored.get("rule"))
