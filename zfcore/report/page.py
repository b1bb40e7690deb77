"""The page of an atlas: `index.html`, its pictures, and the arrays beside them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, checks
from ..data.decode import printable
from ..files import atomic_write
from ..kernels.threads import get_num_threads
from ..pictures import card_pictures, encode_small, filter_picture, png
from ..study import results
from ..study.atlas import Atlas
from ..study.tables import csv_text
from ..study.top import LayerTop
from .describe import (
    LINE,
    RULES,
    class_of,
    environment,
    facts,
    filters_text,
    layer_text,
    number_text,
    pixel_filters,
    provenance,
)
from .sanity import Check, Sanity, random_twin
from .sheets import Sheet, Strongest

PROJECTION_LIMIT = 512 * 2**20  # bytes of projections that are kept as arrays beside the page
PNG_LIMIT = 12_000  # bytes; a card's larger pictures become JPEG


def write(folder: str | os.PathLike[str], atlas: Atlas, *, rule: str = "deconvnet", network: Any = None,
          title: str | None = None, accuracy: float | None = None, facts: Mapping[str, Any] | None = None,
          sanity: bool = True, save_arrays: bool = True, projection_limit: int = PROJECTION_LIMIT,
          progress: bool = False, force: bool = False, maps: Sequence[int] | None = None,
          seed: str = "activation") -> Path:
    """Write an atlas's page, its pictures and its arrays into a folder.

    Parameters
    ----------
    folder : where; made if it does not exist
    atlas : with its network, or give that
    rule : "deconvnet", "gradient" or "guided"
    network : the network that was scanned, where the atlas was loaded from disk
    title : of the page
    accuracy : of the network on the images, 0..1, if it is known
    facts : further names and values for the page's head
    sanity : add a sanity check to every map
    save_arrays : keep the atlas in `atlas/` and the projections in `projections/`
    projection_limit : projections of more bytes are not kept as arrays (`Atlas.project` makes them)
    progress : show a bar on stderr
    force : write over an earlier page
    maps : the maps of every layer that are shown; None: all of them
    seed : "activation" or "one", the signal at the units that are projected

    Returns
    -------
    Path of index.html
    """
    root = Path(folder)
    if (root / "index.html").exists() and not force:
        raise FileExistsError(f"{root / 'index.html'} exists already; force=True (--force) replaces it")
    checks.one_of("report", "rule", rule, RULES)
    checks.one_of("report", "seed", seed, ("activation", "one"))
    for name, part in atlas.layers.items():
        for index in maps if maps is not None else ():
            checks.require(0 <= index < part.maps, "report", "maps", index, f"0 to {part.maps - 1} in layer {name}")
    if network is not None:
        atlas.with_network(network)
    if atlas.network is None:
        checks.fail("report", "network", None, "the network that was scanned")
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    page = _Page(root, atlas, rule, seed, maps, sanity, save_arrays, projection_limit)
    arrays = page.layers(progress)
    if save_arrays:
        atlas.save(root / "atlas", force=force)
    if sanity:
        atomic_write(root / "sanity.csv", csv_text(page.checks).encode())
    names = {"title": title or f"What {printable(atlas.network_name) or 'the network'} responds to",
             "facts": page.facts(accuracy, facts or {}), "arrays": arrays}
    text = environment().get_template("atlas.html").render(**names, **page.values())
    atomic_write(root / "index.html", text.encode())  # last: a page that is there is whole
    return root / "index.html"


class _Page:
    """What the template needs, layer by layer; pictures are written on the way."""

    def __init__(self, root: Path, atlas: Atlas, rule: str, seed: str, maps: Sequence[int] | None, sanity: bool,
                 save_arrays: bool, limit: int) -> None:
        self.root, self.atlas, self.rule, self.seed = root, atlas, rule, seed
        self.twin = random_twin(atlas.network) if sanity else None
        self.checks = [("layer", "map", "other", "likeness_to_random_weights", "likeness_to_other")]
        self.channels = atlas.preprocessing.channels
        self.maps = {name: np.arange(part.maps) if maps is None else np.unique(np.asarray(maps, np.intp))
                     for name, part in atlas.layers.items()}
        needed = sum(4 * part.held.nbytes // part.maps * len(self.maps[name]) for name, part in atlas.layers.items())
        self.keep, self.save_arrays = save_arrays and needed <= limit, save_arrays
        self.shown: list[dict[str, Any]] = []

    def layers(self, progress: bool) -> str:
        """Project, draw and describe all layers; returns what was kept as arrays."""
        from tqdm import tqdm

        kept: dict[str, np.ndarray] = {}
        total = sum(len(maps) for maps in self.maps.values())
        with tqdm(total=total, desc="report", unit="map", disable=not progress) as bar, \
                ThreadPoolExecutor(get_num_threads(), thread_name_prefix="zfcore-report") as pool:
            for number, (name, part) in enumerate(self.atlas.layers.items()):
                shape = len(self.maps[name]), *part.held.shape[1:]
                pixels = np.zeros(shape, np.float32) if self.keep else None
                self.shown.append(self._layer(number, name, part, pixels, pool, bar))
                if pixels is not None:
                    kept[f"layer{number}"] = pixels
        if not self.save_arrays:
            return "none were kept."
        if not self.keep:
            return "folder atlas (Atlas.load); projections were not kept, Atlas.project makes them."
        description = {"layers": list(self.atlas.layers), "rule": self.rule, "seed": self.seed,
                       "channels": self.channels, "hashes": self.atlas.hashes,
                       "maps": {name: maps.tolist() for name, maps in self.maps.items()}}
        results.save(self.root / "projections", "projections", description, kept, force=True)
        return "folders atlas and projections (Atlas.load, numpy.load)."

    def _layer(self, number: int, name: str, part: LayerTop, pixels: np.ndarray | None,
               pool: ThreadPoolExecutor, bar: Any) -> dict[str, Any]:
        folder = f"pictures/{number}-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}"
        (self.root / folder).mkdir(exist_ok=True)
        chosen = self.maps[name]
        alive = chosen[part.filled[chosen, 0] & ~part.dead[chosen]]
        sanity = None if self.twin is None else Sanity(self.atlas, self.twin, name, self.rule, LINE)
        cards, sheet = [], Sheet(alive, part.patch_shape[2])
        strongest, alike = Strongest(part.values.shape[1], LINE), []
        for maps, projected in self.atlas.projections(name, maps=alive, rule=self.rule, seed=self.seed):
            if pixels is not None:
                pixels[np.searchsorted(chosen, maps)] = projected
            found = [None] * len(maps) if sanity is None else sanity.checks(maps, projected)

            def draw(line: int, maps: np.ndarray = maps, projected: np.ndarray = projected, found: Any = found) -> Any:
                return self._card(folder, name, part, int(maps[line]), projected[line], found[line])

            for line, (card, pictures) in enumerate(pool.map(draw, range(len(maps)))):
                cards.append(card)
                sheet.offer(int(maps[line]), pictures, card)
                strongest.offer(pictures)
            for index, check in zip(maps.tolist(), found, strict=True):
                if check is not None:
                    alike.append(check.likeness)
                    self.checks.append((name, index, *("" if each is None else each for each in (
                        check.other, *(None if each is None else f"{each:.3f}" for each in check.likeness)))))
            bar.update(len(maps))
        bar.update(len(chosen) - len(alive))
        return {"name": name, "text": layer_text(self.atlas, name), "cards": cards,
                "dead": [(f"{name}:{index}", int(index)) for index in chosen[part.dead[chosen]]],
                "sheet": sheet.write(self.root, folder, name),
                "strongest": strongest.write(self.root, f"{folder}-strongest"), "sanity": _likeness(alike)}

    def _card(self, folder: str, name: str, part: LayerTop, index: int, projected: np.ndarray, check: Check | None
              ) -> Any:
        """A card's pictures, written, and its text."""
        left, right, scale = card_pictures(
            projected, part.cut(index), part.origins[index], self.atlas.image_shape, self.channels,
            filled=part.filled[index], background=LINE)
        entries, labels = [], []
        for rank in np.flatnonzero(part.filled[index]):
            image = int(part.images[index, rank])
            label = class_of(self.atlas, image)
            labels.append(label)
            entries.append({"value": number_text(float(part.values[index, rank])), "label": label or "",
                            "place": f"{part.rows[index, rank]},{part.columns[index, rank]}",
                            "image": printable(self.atlas.names.get(image, str(image)))})
        card = {"unit": f"{name}:{index}", "strongest": number_text(float(part.values[index, 0])),
                "projections": self._picture(f"{folder}/{index}-projections", left),
                "patches": self._picture(f"{folder}/{index}-patches", right), "scale": number_text(scale),
                "entries": entries, "classes": _histogram(labels),
                "sanity": None if check is None else self._sanity(folder, name, index, check)}
        return card, (left, right)

    def _picture(self, stem: str, pixels: np.ndarray) -> dict[str, Any]:
        content, suffix = encode_small(pixels, PNG_LIMIT)
        (self.root / (stem + suffix)).write_bytes(content)
        return {"path": stem + suffix, "width": pixels.shape[1], "height": pixels.shape[0]}

    def _sanity(self, folder: str, name: str, index: int, check: Check) -> dict[str, Any]:
        """A map's sanity check, written, and what the page says of it."""
        return {**self._picture(f"{folder}/{index}-sanity", check.picture),
                "other": None if check.other is None else f"{name}:{check.other}",
                "likeness": ["-" if each is None else f"{each:.2f}" for each in check.likeness]}

    def _filters(self) -> dict[str, Any] | None:
        """The filters that look at pixels, if there are any and they can be shown."""
        found = pixel_filters(self.atlas.network)
        if found is None:
            return None
        name, weight = found
        pixels = filter_picture(weight, self.channels, background=LINE)
        png(self.root / "pictures" / "filters.png", pixels)
        return {"name": name, "count": weight.shape[0], "path": "pictures/filters.png",
                "text": filters_text(name, weight), "width": pixels.shape[1], "height": pixels.shape[0]}

    def facts(self, accuracy: float | None, more: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The page's head in numbers."""
        found = [] if accuracy is None else [("accuracy", f"{100 * accuracy:.2f} %")]
        return [*found, *facts(self.atlas), *((str(name), str(value)) for name, value in more.items())]

    def values(self) -> dict[str, Any]:
        """Everything else that the template names."""
        atlas = self.atlas
        first = next((card["unit"] for layer in self.shown for card in layer["cards"]), "conv1:0")
        text, caveat = RULES[self.rule]
        signal = "the activation" if self.seed == "activation" else "1 at every unit"
        columns = max(int(np.ceil(np.sqrt(atlas.top))), 1)
        return {"top": atlas.top, "columns": columns, "rows": -(-atlas.top // columns), "layers": self.shown,
                "filters": self._filters(), "example": first,
                "rule": {"text": text, "caveat": caveat}, "labelled": bool(atlas.labels),
                "one_per_image": atlas.one_per_image, "version": __version__,
                "skipped": [printable(reason) for reason in atlas.skipped.values()],
                "provenance": [*provenance(atlas, self.rule), ("signal", signal)]}


def _likeness(found: list[tuple[float | None, float | None]]) -> list[str] | None:
    """Medians of a layer's likeness to random weights and to other maps, for people."""
    columns = [[each for each in column if each is not None] for column in zip(*found, strict=True)]
    return [f"{np.median(column):.2f}" if column else "-" for column in columns] or None


def _histogram(labels: list[str | None], most: int = 4) -> list[tuple[str, int]]:
    """The commonest classes among a card's images; nothing where no class comes twice."""
    counts = Counter(label for label in labels if label is not None)
    if not counts or max(counts.values()) == 1:
        return []
    return counts.most_common(most)
