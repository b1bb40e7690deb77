"""The pages of an atlas: the overview, a page a layer, a page a unit at an address that stays."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ... import data
from ...data.decode import printable
from ...pictures import filter_picture, grid, resize_tiles
from ...pictures.svg import line_plot
from ...study.atlas import Atlas
from ...study.tables import entries_csv, units_csv
from ..describe import (
    LINE,
    RULES,
    class_of,
    facts,
    filters_text,
    layer_text,
    number_text,
    pixel_filters,
    provenance,
)
from ..sanity import random_twin
from .graph import graph
from .pages import Entry, Site
from .sources import Source, without_folders
from .units import THUMB, LayerPictures, saved_projections
from .wiring import Wiring, alike, wiring

OVERVIEW, OVERVIEW_COLUMNS = 48, 24  # thumbnails of a layer on the first page
OVERVIEW_SIDE, GAP = 44, 2  # their longer side, and the line between them
RELATED = 8  # incoming maps, outgoing maps and neighbours of a unit that are shown


class AtlasPages:
    """Writes one atlas into a site.

    Parameters
    ----------
    site, source : where to, where from
    atlas : with its network where projections, wiring and sanity panels are wanted
    prefix : folder of its pages: "" for a site's first network
    rule : of the projections; None: that of the saved ones, else the deconvnet
    sanity : draw sanity checks
    images : the data set that was scanned, for pictures of whole images; or None
    """

    def __init__(self, site: Site, source: Source, atlas: Atlas, *, prefix: str = "", rule: str | None = None,
                 sanity: bool = True, images: data.Images | None = None) -> None:
        self.site, self.source, self.atlas, self.prefix, self.images = site, source, atlas, prefix, images
        self.saved, kept = saved_projections(source.output, atlas, rule)
        self.rule = rule or kept or "deconvnet"
        self.twin = random_twin(atlas.network) if sanity and atlas.network is not None else None
        self.folders = {name: site.slug(f"{prefix}layer/", name) for name in atlas.layers}
        self.drawn: dict[str, LayerPictures] = {}
        self.sprites: dict[str, dict[str, Any]] = {}
        self.wires: dict[str, Wiring] = {}
        self.readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
        self.cosines: dict[str, np.ndarray] = {}
        self.whole: dict[int, dict[str, Any]] = {}
        self.filters = None if atlas.network is None else pixel_filters(atlas.network)

    @property
    def maps(self) -> int:
        """Units of the whole atlas."""
        return sum(part.maps for part in self.atlas.layers.values())

    def write(self, bar: Any) -> None:
        """Draw everything, then write the pages."""
        for name in self.atlas.layers:
            drawn = LayerPictures(self.site, self.folders[name], self.atlas, name, saved=self.saved.get(name),
                                  rule=self.rule, twin=self.twin)
            drawn.draw(bar)
            self.drawn[name] = drawn
            sprite = self.sprites[name] = self._sprite(name, drawn)
            sheet = sprite["projections"] or sprite["patches"]
            if sheet is not None:  # said once, in the style sheet, and not for each of thousands of thumbnails
                sprite["class"] = f"s{len(self.site.sprites)}"
                self.site.sprites.append((sprite["class"], sheet["path"], sprite["width"], sprite["height"]))
            network = self.atlas.network
            if network is not None:
                found, cosines = wiring(network, name), alike(network, name)
                if found is not None:
                    self.wires[name] = found
                    for channel, origin in enumerate(found.names):
                        self.readers.setdefault(origin, []).append((name, channel))
                if cosines is not None:
                    self.cosines[name] = cosines
        self._whole_images()
        downloads = self._downloads()
        overview = [self._layer(name) for name in self.atlas.layers]
        self._overview(overview, downloads)
        self._record()

    def _sprite(self, name: str, drawn: LayerPictures) -> dict[str, Any]:
        """All thumbnails of a layer in one picture (two with projections), and each one's place in it."""
        order = sorted(drawn.patches)
        if not order:
            return {"class": None, "places": {}, "patches": None, "projections": None, "width": THUMB, "height": THUMB}
        height, width = drawn.patches[order[0]].shape[:2]
        columns = max(min(len(order), 16), 1)
        places = {index: (place % columns * width, place // columns * height) for place, index in enumerate(order)}
        sheets: dict[str, Any] = {"patches": None, "projections": None}
        for kind in sheets:
            tiles = getattr(drawn, kind)
            if tiles:
                sheets[kind] = self.site.picture(f"{self.folders[name]}/{kind}",
                                                 grid(np.stack([tiles[index] for index in order]), columns, gap=0))
        return {"class": None, "places": places, "width": width, "height": height, **sheets}

    def _whole_images(self) -> None:
        """Small pictures of the images that appear anywhere, where the data set is at hand."""
        if self.images is None:
            return
        kept = sorted({int(index) for part in self.atlas.layers.values() for index in part.images[part.filled]})
        for index in kept:
            pixels = resize_tiles(self.images.load(index, self.atlas.preprocessing)[None], 96, 112)[0]
            self.whole[index] = self.site.picture(f"{self.prefix}images/{index}", pixels)

    def _downloads(self) -> list[tuple[str, str]]:
        """The tables and the arrays behind the pages, as far as they are of a size for a site."""
        folder = f"{self.prefix}data"
        found = [("units.csv", self.site.file(f"{folder}/units.csv", units_csv(self.atlas).encode())),
                 ("entries.csv", self.site.file(f"{folder}/entries.csv", entries_csv(self.atlas).encode()))]
        for name, part in self.atlas.layers.items():
            slug = self.folders[name].rpartition("/")[2]
            for key, array in part.arrays().items():
                path = self.site.array(f"{folder}/{slug}-{key}.npy", array)
                if path is not None:
                    found.append((f"{name} {key} {' x '.join(map(str, array.shape))}", path))
            if name in self.saved:
                path = self.site.array(f"{folder}/{slug}-projections.npy", self.saved[name])
                if path is not None:
                    found.append((f"{name} projections", path))
        return found

    def _layer(self, name: str) -> dict[str, Any]:
        """Write a layer's page and its units' pages; what the overview shows of it."""
        part, folder = self.atlas[name], self.folders[name]
        drawn, sprite = self.drawn[name], self.sprites[name]
        alive = drawn.alive.tolist()
        strongest = {index: float(part.values[index, 0]) for index in alive}
        classes = {index: self._classes(name, index) for index in alive}
        thumbs = [{"map": index, "x": sprite["places"][index][0], "y": sprite["places"][index][1],
                   "strength": number_text(strongest[index]), "value": f"{strongest[index]:.6g}",
                   "class": classes[index][0][0] if classes[index] else ""} for index in alive]
        ranked = np.sort(np.array(list(strongest.values()), np.float64))[::-1]
        plot = None if len(ranked) < 2 else line_plot(
            np.arange(1, len(ranked) + 1), ranked[None], ["strongest activation"],
            title=f"Strongest activation of each map of {printable(name)}, sorted", x_label="maps, the strongest first")
        dead = np.flatnonzero(part.dead).tolist()
        text = layer_text(self.atlas, name)
        filters = self._filters(*self.filters) if self.filters is not None and self.filters[0] == name else None
        self.site.page(f"{folder}/index.html", "layer.html", title=printable(name), layer=printable(name), text=text,
                       thumbs=thumbs, sprite=sprite, dead=dead, plot=plot, overview=f"{self.prefix}index.html",
                       filters=filters, layers=self._neighbouring_layers(name))
        for place, index in enumerate(alive):
            around = alive[place - 1] if place else None, alive[place + 1] if place + 1 < len(alive) else None
            self._unit(name, index, around, classes[index], text)
        self.site.search["layers"].append([printable(name), folder, part.maps, dead])
        for index in alive:
            for label, count in classes[index]:
                if count >= 2:
                    self.site.search["classes"].setdefault(label, []).append(
                        [len(self.site.search["layers"]) - 1, index, count])
        lines = max(-(-min(len(alive), OVERVIEW) // OVERVIEW_COLUMNS), 1)
        columns = min(len(alive), OVERVIEW) // lines
        count = lines * columns  # whole rows
        chosen = [alive[place] for place in np.linspace(0, len(alive) - 1, count).round().astype(int).tolist()]
        tiles = drawn.projections or drawn.patches
        sheet = None
        if chosen:
            small = resize_tiles(np.stack([tiles[index] for index in chosen]), OVERVIEW_SIDE, OVERVIEW_SIDE)
            sheet = self.site.picture(f"{folder}/overview", grid(small, columns, gap=GAP, background=LINE))
            height, width = small.shape[1:3]
            sheet |= {"side": (width, height), "places": [
                (index, place % columns * (width + GAP), place // columns * (height + GAP))
                for place, index in enumerate(chosen)]}
        return {"name": printable(name), "folder": folder, "text": text, "maps": part.maps, "dead": len(dead),
                "sheet": sheet}

    def _neighbouring_layers(self, name: str) -> list[tuple[str, str, bool]]:
        return [(printable(each), self.folders[each], each == name) for each in self.atlas.layers]

    def _filters(self, name: str, weight: np.ndarray) -> dict[str, Any]:
        """A first layer's filters as one picture, gray is zero."""
        pixels = filter_picture(weight, self.atlas.preprocessing.channels, background=LINE)
        return self.site.picture(f"{self.folders[name]}/filters", pixels, filters_text(name, weight))

    def _own_filter(self, name: str, index: int) -> dict[str, Any] | None:
        """A unit's filter, where it looks at pixels."""
        if self.filters is None or self.filters[0] != name:
            return None
        pixels = filter_picture(self.filters[1][index:index + 1], self.atlas.preprocessing.channels, smallest=96)
        return self.site.picture(f"{self.folders[name]}/{index}-filter", pixels, f"The filter of {name}:{index}")

    def _classes(self, name: str, index: int) -> list[tuple[str, int]]:
        """The classes among a unit's images, the commonest first."""
        part = self.atlas[name]
        labels = [class_of(self.atlas, int(image)) for image in part.images[index][part.filled[index]]]
        return Counter(label for label in labels if label is not None).most_common()

    def _unit(self, name: str, index: int, around: tuple[int | None, int | None], classes: list[tuple[str, int]],
              text: str) -> None:
        part, folder, drawn = self.atlas[name], self.folders[name], self.drawn[name].units[index]
        height, width = self.atlas.image_shape[:2]
        entries = []
        for rank in np.flatnonzero(part.filled[index]).tolist():
            image, (top, left) = int(part.images[index, rank]), part.origins[index, rank].tolist()
            bottom, right = min(top + part.patch_shape[0], height), min(left + part.patch_shape[1], width)
            top, left = max(top, 0), max(left, 0)
            entries.append({
                "rank": rank + 1, "value": number_text(float(part.values[index, rank])),
                "place": f"{part.rows[index, rank]}, {part.columns[index, rank]}",
                "box": (left, top, right - left, bottom - top), "whole": self.whole.get(image),
                "image": without_folders(self.atlas.names.get(image, str(image))),
                "class": class_of(self.atlas, image) or ""})
        self.site.page(
            f"{folder}/{index}.html", "unit.html", title=f"{printable(name)}:{index}", layer=printable(name),
            folder=folder, text=text, drawn=drawn, entries=entries, classes=classes,
            total=len(entries), extent=(width, height), scale=number_text(drawn.scale), rule=RULES[self.rule][0],
            likeness=self._likeness(name, index), own=self._own_filter(name, index),
            incoming=self._incoming(name, index), outgoing=self._outgoing(name, index),
            together=self._together(name, index), alike=self._alike(name, index), before=around[0], after=around[1],
            overview=f"{self.prefix}index.html", data=f"{self.prefix}data")

    def _likeness(self, name: str, index: int) -> list[tuple[str, str]]:
        """What stands beside a unit in its sanity check, and how alike the projections are."""
        check = self.drawn[name].units[index].check
        if check is None:
            return []
        texts = [(f"{printable(name)}:{index} with random weights", check.likeness[0])]
        if check.other is not None:
            texts.append((f"{printable(name)}:{check.other} on these patches", check.likeness[1]))
        return [(text, "-" if value is None else f"{value:.2f}") for text, value in texts]

    def _thumb(self, name: str, index: int, text: str) -> dict[str, Any]:
        """What a template needs to show another unit small, with a link."""
        sprite = self.sprites.get(name)
        place = None if sprite is None else sprite["places"].get(index)
        return {"unit": f"{printable(name)}:{index}", "text": text, "x": place[0] if place else 0,
                "y": place[1] if place else 0, "class": sprite["class"] if place and sprite else None,
                "link": f"{self.folders[name]}/{index}.html" if place else None}

    def _incoming(self, name: str, index: int) -> list[dict[str, Any]]:
        wires = self.wires.get(name)
        if wires is None:
            return []
        strength = wires.strength[index]
        best = [place for place in np.argsort(-strength, kind="stable")[:RELATED].tolist() if strength[place] > 0]
        found = []
        for place in best:
            below, number = wires.names[place]
            found.append(self._thumb(below, number, _pull(strength[place], wires.direction[index, place])))
        return found

    def _outgoing(self, name: str, index: int) -> list[dict[str, Any]]:
        found = []
        for above, channel in self.readers.get((name, index), ()):
            wires = self.wires[above]
            found += [(float(wires.strength[unit, channel]), float(wires.direction[unit, channel]), above, unit)
                      for unit in np.argsort(-wires.strength[:, channel], kind="stable")[:RELATED].tolist()]
        best = sorted(found, key=lambda each: -each[0])[:RELATED]
        return [self._thumb(above, unit, _pull(strength, way)) for strength, way, above, unit in best if strength > 0]

    def _together(self, name: str, index: int) -> list[dict[str, Any]]:
        """Units of the layer whose strongest activations lie in the same images."""
        part = self.atlas[name]
        mine = part.images[index][part.filled[index]]
        shared = (np.isin(part.images, mine) & part.filled).sum(axis=1)
        shared[index] = 0
        best = [place for place in np.argsort(-shared, kind="stable")[:RELATED].tolist()
                if shared[place] >= 2 and place in self.sprites[name]["places"]]
        return [self._thumb(name, place, f"{shared[place]} of {len(mine)} images") for place in best]

    def _alike(self, name: str, index: int) -> list[dict[str, Any]]:
        """Units of the layer with the most similar filters."""
        cosines = self.cosines.get(name)
        if cosines is None:
            return []
        mine = cosines[index].copy()
        mine[index] = -np.inf
        best = [place for place in np.argsort(-mine, kind="stable")[:RELATED].tolist()
                if mine[place] > 0.1 and place in self.sprites[name]["places"]]
        return [self._thumb(name, place, f"cosine {mine[place]:.2f}") for place in best]

    def _overview(self, layers: list[dict[str, Any]], downloads: list[tuple[str, str]]) -> None:
        atlas, network = self.atlas, self.atlas.network
        links = {name: f"{folder}/index.html" for name, folder in self.folders.items()}
        name = printable(atlas.network_name) or "The network"
        values = {"network": name, "facts": facts(atlas), "layers": layers,
                  "graph": None if network is None else graph(network.layers(), {
                      name: ("" if not self.prefix else "../") + link for name, link in links.items()},
                      network.input_shape),
                  "caveat": RULES[self.rule][1], "rule": RULES[self.rule][0], "downloads": downloads,
                  "projected": any(drawn.projections for drawn in self.drawn.values()), "top": atlas.top,
                  "source": self.source.name}
        if self.prefix:
            self.site.page(f"{self.prefix}index.html", "network.html", title=name, atlas=values)
            self.site.entries.append(Entry(name, f"{self.prefix}index.html", "network",
                                           f"{self.maps:,} feature maps in {len(layers)} layers"))
        else:
            self.site.front = values

    def _record(self) -> None:
        rows = provenance(self.atlas, self.rule)
        rows += [(f"left out: image {index}", printable(reason)) for index, reason in self.atlas.skipped.items()]
        self.site.records.append((self.source.title, rows))


def _pull(strength: float, direction: float) -> str:
    """The norm of some weights, and whether they excite or inhibit on the whole."""
    return f"{number_text(float(strength))} {'+' if direction >= 0 else '−'}"
