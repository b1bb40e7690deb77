"""The pictures of an atlas's units: projections beside patches, thumbnails, sanity checks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...formats import results
from ...kernels.threads import get_num_threads
from ...network import Network
from ...pictures import card_pictures, in_rgb_order, resize_tiles, signed, symmetric_scale
from ...pictures.atlas import PERCENTILE, outside_gray
from ...study.atlas import Atlas
from ..describe import LINE
from ..sanity import Check, Sanity
from .pages import Site

THUMB = 56  # longer side of a thumbnail, pixels
SANITY = 68  # and of a tile in a sanity check, where there are twelve
AT_A_TIME = 7  # maps


@dataclass
class UnitPictures:
    """What was drawn of one map.

    Attributes
    ----------
    patches, projections : a written picture; no projections where there is no network to make them
    scale : magnitude shown as black or white
    check, sanity : the sanity check and its written picture, where there is a network
    """

    patches: dict[str, Any]
    projections: dict[str, Any] | None = None
    scale: float = 0.0
    check: Check | None = None
    sanity: dict[str, Any] | None = None


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
    twin : the network with random weights, for sanity checks; None: draw none

    Attributes
    ----------
    units : UnitPictures by map
    patches, projections : uint8 thumbnails by map, of the strongest entries
    """

    def __init__(self, site: Site, folder: str, atlas: Atlas, layer: str, *, saved: np.ndarray | None, rule: str,
                 twin: Network | None) -> None:
        self.site, self.folder, self.atlas, self.layer, self.rule = site, folder, atlas, layer, rule
        self.part, self.saved = atlas[layer], saved
        self.alive = np.flatnonzero(self.part.filled[:, 0] & ~self.part.dead)
        self.units: dict[int, UnitPictures] = {}
        self.patches: dict[int, np.ndarray] = {}
        self.projections: dict[int, np.ndarray] = {}
        self._sanity: Sanity | None = None
        if twin is not None and (saved is not None or atlas.network is not None):
            self._sanity = Sanity(atlas, twin, layer, rule, LINE, SANITY)

    def draw(self, bar: Any) -> None:
        """Project and draw every unit that is not dead."""
        with ThreadPoolExecutor(get_num_threads(), thread_name_prefix="zfcore-report") as pool:
            for maps, projected in self._projected():
                found = [None] * len(maps) if self._sanity is None else self._sanity.checks(maps, projected)
                for _ in pool.map(self._unit, maps.tolist(), projected, found):
                    bar.update()
        bar.update(self.part.maps - len(self.alive))

    def _projected(self) -> Iterator[tuple[np.ndarray, Any]]:
        if self.saved is None and self.atlas.network is not None:
            yield from self.atlas.projections(self.layer, maps=self.alive, rule=self.rule)
            return
        for begin in range(0, len(self.alive), AT_A_TIME):
            maps = self.alive[begin:begin + AT_A_TIME]
            yield maps, [None] * len(maps) if self.saved is None else self.saved[maps]

    def _unit(self, index: int, projected: np.ndarray | None, check: Check | None) -> None:
        part, atlas, stem = self.part, self.atlas, f"{self.folder}/{index}"
        extent, channels = atlas.image_shape[:2], atlas.preprocessing.channels
        patches = part.cut(index)
        blank = np.zeros(patches.shape, np.float32) if projected is None else projected
        left, right, scale = card_pictures(blank, patches, part.origins[index], extent, channels,
                                           filled=part.filled[index], background=LINE)
        name = f"{self.layer}:{index}"
        drawn = UnitPictures(self.site.picture(f"{stem}-patches", right, f"Patches that excite {name} most"))
        first = outside_gray(patches[:1], part.origins[index, :1], extent)
        self.patches[index] = resize_tiles(first, THUMB, THUMB)[0]
        if projected is not None:
            drawn.projections = self.site.picture(f"{stem}-projections", left, f"Projections of {name}")
            drawn.scale = scale
            one = signed(in_rgb_order(projected[:1], channels), symmetric_scale(projected[:1], PERCENTILE))
            self.projections[index] = resize_tiles(one, THUMB, THUMB)[0]
        if check is not None:
            drawn.check = check
            drawn.sanity = self.site.picture(f"{stem}-sanity", check.picture, f"Sanity check of {name}")
        self.units[index] = drawn


def saved_projections(output: Path, atlas: Atlas, rule: str | None) -> tuple[dict[str, np.ndarray], str | None]:
    """Projections that a command kept beside an atlas: by layer, and their rule; nothing where they do not fit."""
    try:
        stored, arrays = results.load(output / "projections", "projections", verify=False)
    except (OSError, ValueError):
        return {}, None
    of_activations = stored.get("seed", "activation") == "activation"  # pages say so
    if not of_activations or stored.get("hashes") != atlas.hashes or rule not in (None, stored.get("rule")):
        return {}, None
    found = {str(name): arrays.get(f"layer{number}") for number, name in enumerate(stored.get("layers", []))}
    fitting = {name: array for name, array in found.items()
               if array is not None and name in atlas.layers and array.shape == atlas[name].held.shape}
    return fitting, str(stored.get("rule"))
