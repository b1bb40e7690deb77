"""The atlas: for every feature map the strongest activations over a data set.

What is kept of an activation (value, image, position, the pixels of its receptive field) is all
that a projection needs: switches, masks and normalisations are computed again on its cone. So one
pass over the data set (`scan`) serves every rule. Zeiler & Fergus 2014, section 4 and Fig. 2.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..geometry import Tile
from ..preprocessing import Preprocessing
from . import results
from .top import LayerTop, cone_tiles, copy_part, merge, patch_size

KIND = "atlas"


class AtlasError(ValueError):
    """Atlases that do not belong together, or an atlas and a network that do not."""


@dataclass
class Atlas:
    """The strongest activations of a network's feature maps over a data set.

    Attributes
    ----------
    layers : LayerTop by layer name; `atlas["conv5"]` gives one
    top : entries a map
    image_shape : (height, width, channels) of the network-sized images
    count : images in the data set
    covered : the parts of it that were scanned, [begin, end) each, disjoint and sorted
    names, labels : of the images that appear in an entry, by index; -1: no class
    class_names : the classes' names, or None
    skipped : bad pictures that were left out, by index, with the reason
    hashes : SHA-256 of the network ("network"), of the data set's manifest ("images"), and the sum
        of the hashes of the decoded pixels ("pixels")
    preprocessing : what made the network's input of the pixels
    network_name : for titles
    versions : what computed it
    one_per_image : whether an image has at most one entry a map
    network : the network, where it is at hand; never saved
    """

    layers: dict[str, LayerTop]
    top: int
    image_shape: tuple[int, int, int]
    count: int
    covered: list[tuple[int, int]]
    names: dict[int, str]
    labels: dict[int, int]
    class_names: list[str] | None
    skipped: dict[int, str]
    hashes: dict[str, str]
    preprocessing: Preprocessing
    network_name: str = ""
    versions: dict[str, str] = field(default_factory=results.versions)
    one_per_image: bool = True
    network: Any = field(default=None, repr=False)

    def __getitem__(self, layer: str) -> LayerTop:
        if layer not in self.layers:
            checks.fail("Atlas", "layer", layer, "one of " + ", ".join(self.layers))
        return self.layers[layer]

    @property
    def scanned(self) -> int:
        """Number of images that were seen, skipped ones included."""
        return sum(end - begin for begin, end in self.covered)

    @property
    def missing(self) -> list[tuple[int, int]]:
        """The parts of the data set that were not scanned, [begin, end) each."""
        return self.without(self.covered)

    def without(self, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The parts of the data set beside those covered, which are disjoint and sorted."""
        edges = [0, *(edge for part in covered for edge in part), self.count]
        return [(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if end > begin]

    @property
    def summary(self) -> dict[str, Any]:
        """Counts for people and for JSON."""
        layers = {name: {"maps": part.maps, "dead": int(part.dead.sum()),
                         "patch": list(part.patch_shape[:2]),
                         "strongest": float(part.values.max()) if part.filled.any() else None}
                  for name, part in self.layers.items()}
        return {"network": self.network_name, "images": self.count, "scanned": self.scanned,
                "skipped": len(self.skipped), "top": self.top, "layers": layers, "hashes": self.hashes}

    def _repr_html_(self) -> str:
        """What a notebook shows: counts, and some maps' strongest patches."""
        from ..pictures.fragments import atlas_fragment

        return atlas_fragment(self)

    def with_network(self, network: Any) -> Atlas:
        """Attach the network that the atlas was made with; AtlasError if it is another one."""
        given = results.network_hash(network)
        if given != self.hashes["network"]:
            raise AtlasError(f"Atlas: the network's hash is {given[:16]}...; allowed: the network that was "
                             f"scanned ({self.hashes['network'][:16]}...)")
        self.network = network
        return self

    @property
    def patch_bytes(self) -> int:
        """Bytes of all patches, those included that are cut only when they are read."""
        return sum(part.held.nbytes for part in self.layers.values())

    def together(self, *others: Atlas) -> list[tuple[int, int]]:
        """The images that shards of one scan cover together, [begin, end) each; AtlasError unless they may merge."""
        everyone = (self, *others)
        for other in others:
            mine, theirs = self.identity(), other.identity()
            different = [key for key in mine if mine[key] != theirs[key]]
            if different:
                raise AtlasError("Atlas.merge: " + "; ".join(
                    f"{key} differ ({_short(mine[key])}, {_short(theirs[key])})" for key in different))
        return _joined([part for atlas in everyone for part in atlas.covered])

    def merge(self, *others: Atlas, memory_limit: int | None = None,
              scratch: str | os.PathLike[str] | None = None) -> Atlas:
        """One atlas of disjoint shards of one data set, equal to that of a single pass over them.

        Parameters
        ----------
        others : the other shards
        memory_limit : bytes that the patches may take in memory; beyond it they are gathered in a temporary
            file in `scratch`, and without that folder it is an error, before any work. None: no limit
        scratch : a folder for that file, which is removed with the result

        Raises
        ------
        AtlasError : other weights, data, settings or layers, or an image in two shards
        ValueError : too little memory
        """
        everyone, covered = (self, *others), self.together(*others)
        total = sum(int(atlas.hashes["pixels"], 16) for atlas in everyone) % 2**256
        folder = None
        if memory_limit is not None and self.patch_bytes > checks.integer("Atlas.merge", "memory_limit",
                                                                          memory_limit, 1):
            if scratch is None:
                checks.fail("Atlas.merge", "memory_limit", memory_limit, f"at least {self.patch_bytes} for the "
                            "patches; or give a folder for them (scratch)")
            folder = tempfile.TemporaryDirectory(prefix="zfcore-atlas-", dir=scratch)
        try:
            layers = {name: merge([atlas.layers[name] for atlas in everyone],
                                  None if folder is None else Path(folder.name) / f"{place}.npy")
                      for place, name in enumerate(self.layers)}
        except BaseException:
            if folder is not None:
                folder.cleanup()
            raise
        kept = images_of(layers)
        names = {index: name for atlas in everyone for index, name in atlas.names.items()}
        labels = {index: label for atlas in everyone for index, label in atlas.labels.items()}
        skipped = {index: reason for atlas in everyone for index, reason in atlas.skipped.items()}
        merged = replace(
            self, layers=layers, covered=covered, names={index: names[index] for index in kept},
            labels={index: labels[index] for index in kept if index in labels},
            skipped=dict(sorted(skipped.items())), hashes={**self.hashes, "pixels": f"{total:064x}"},
            network=next((atlas.network for atlas in everyone if atlas.network is not None), None))
        if folder is not None:
            weakref.finalize(merged, folder.cleanup)
        return merged

    def identity(self) -> dict[str, Any]:
        """What parts of one scan have in common."""
        return {"the networks": self.hashes["network"], "the data sets": self.hashes["images"],
                "the layers": {name: part.values.shape for name, part in self.layers.items()},
                "top": self.top, "the sizes of the images": self.image_shape,
                "numbers of images": self.count, "the rules for images": self.one_per_image}

    def projections(self, layer: str, *, maps: Any = None, rule: str = "deconvnet",
                    seed: str = "activation", network: Any = None, batch_size: int = 64
                    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Project a layer's entries, some maps at a time, from their patches alone.

        Parameters
        ----------
        layer : one of the atlas's layers
        maps : which of its maps, a sequence of int; None: all of them
        rule, seed : see `Network.project`
        network : the network that was scanned, where the atlas was loaded from disk
        batch_size : entries at a time; the result does not depend on it

        Yields
        ------
        maps : int (n,)
        pixels : float32 (n, top, height, width, channels) in the network's order of channels,
            beside `patches`; zero where an entry is not filled or not above zero
        """
        part = self[layer]
        if network is not None:
            self.with_network(network)
        if self.network is None:
            raise AtlasError("Atlas.projections: network is None; allowed: the network that was scanned")
        checks.integer("Atlas.projections", "batch_size", batch_size, 1)
        chosen = np.arange(part.maps) if maps is None else np.asarray(maps, np.intp).reshape(-1)
        if len(chosen) and not (0 <= chosen.min() and chosen.max() < part.maps):
            checks.fail("Atlas.projections", "maps", chosen.tolist(), f"0..{part.maps - 1}", IndexError)
        step = max(batch_size // self.top, 1)
        for begin in range(0, len(chosen), step):
            group = chosen[begin:begin + step]
            yield group, self._project(layer, group, rule, seed)

    def project(self, rule: str = "deconvnet", seed: str = "activation", *,
                layers: Sequence[str] | None = None, maps: Any = None, network: Any = None,
                batch_size: int = 64) -> dict[str, np.ndarray]:
        """Project entries of several layers; see `projections`, which needs less memory at a time.

        Returns
        -------
        dict : float32 (maps, top, height, width, channels) by layer
        """
        found = {}
        for layer in self.layers if layers is None else layers:
            part = self[layer]
            number = part.maps if maps is None else len(maps)
            pixels = np.empty((number, *part.held.shape[1:]), np.float32)
            begin = 0
            for group, projected in self.projections(layer, maps=maps, rule=rule, seed=seed, network=network,
                                                     batch_size=batch_size):
                pixels[begin:begin + len(group)] = projected
                begin += len(group)
            found[layer] = pixels
        return found

    def _project(self, layer: str, group: np.ndarray, rule: str, seed: str) -> np.ndarray:
        part, cone = self[layer], self.network.cone(layer)
        if part.patch_shape[:2] != patch_size(cone):
            raise AtlasError(f"Atlas: patches of {layer} are {part.patch_shape[:2]}; "
                             f"allowed: {patch_size(cone)}, as the network's receptive field has it")
        pixels = np.zeros((len(group), *part.held.shape[1:]), np.float32)
        lines, ranks = np.nonzero(part.filled[group] & (part.values[group] > 0))
        if not len(lines):
            return pixels
        maps = group[lines]
        tiles, origins = cone_tiles(part, maps, ranks, cone)
        x = self.preprocessing.apply(tiles, Tile(origins, self.image_shape[:2]))
        projected, values = self.network.project_tiles(
            x, origins, layer, maps, part.rows[maps, ranks], part.columns[maps, ranks], rule, seed,
            batch_size=len(maps))
        expected = part.values[maps, ranks]
        if np.abs(values - expected).max() > 1e-3 * np.abs(expected).max():
            raise AtlasError(f"Atlas: activations of {layer} computed from the patches are not the atlas's "
                             "values: the network computes something else than when it was scanned")
        for line, rank, picture, origin in zip(lines, ranks, projected, origins, strict=True):
            copy_part(pixels[line, rank], part.origins[group[line], rank], picture, origin)
        return pixels

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the atlas as a folder (see `results`), completely or not at all."""
        arrays: dict[str, Any] = {}
        for number, part in enumerate(self.layers.values()):
            arrays |= {f"layer{number}-{key}": array for key, array in part.arrays(cut=False).items()}
        arrays |= {f"preprocessing-{key}": array for key, array in self.preprocessing.tensors().items()}
        description = {
            "network": self.network_name, "layers": list(self.layers), "top": self.top, "images": self.count,
            "image_shape": self.image_shape, "covered": self.covered, "class_names": self.class_names,
            "names": self.names, "labels": self.labels, "skipped": self.skipped, "hashes": self.hashes,
            "preprocessing": self.preprocessing.to_config(), "versions": self.versions,
            "one_per_image": self.one_per_image}
        results.save(path, KIND, description, arrays, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str], network: Any = None, *, verify: bool = True) -> Atlas:
        """Read a saved atlas; its arrays are memory-mapped.

        Parameters
        ----------
        path : the folder
        network : the network that was scanned, to project with; checked by its hash
        verify : compare every array with its SHA-256

        Raises
        ------
        results.ResultError : no atlas, or a damaged one
        """
        stored, arrays = results.load(path, KIND, verify=verify)
        try:
            layers = {}
            for number, name in enumerate(stored["layers"]):
                parts = {key: arrays[f"layer{number}-{key}"] for key in LayerTop.__dataclass_fields__}
                layers[str(name)] = LayerTop(**parts)
            tensors = {"mean": arrays["preprocessing-mean"]} if "preprocessing-mean" in arrays else None
            height, width, channels = stored["image_shape"]

            def by_index(key: str) -> dict[int, Any]:
                return {int(index): value for index, value in stored[key].items()}

            atlas = cls(layers, stored["top"], (height, width, channels), stored["images"],
                        [(begin, end) for begin, end in stored["covered"]], by_index("names"),
                        by_index("labels"), stored["class_names"], by_index("skipped"), stored["hashes"],
                        Preprocessing.from_config(stored["preprocessing"], tensors), stored["network"],
                        stored["versions"], stored.get("one_per_image", True))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise results.ResultError(f"{path}: not a whole atlas ({reason})") from error
        return atlas if network is None else atlas.with_network(network)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:16] + "..."


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges with neighbours joined; AtlasError where two overlap."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(each for each in ranges if each[1] > each[0]):
        if joined and begin < joined[-1][1]:
            twice = min(end, joined[-1][1])
            raise AtlasError(f"Atlas.merge: images {begin}..{twice - 1} are in two of the atlases; "
                             "allowed: disjoint shards")
        if joined and begin == joined[-1][1]:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((begin, end))
    return joined


def images_of(layers: dict[str, LayerTop]) -> list[int]:
    """Images that appear in some entry, sorted."""
    found = [part.images[part.filled] for part in layers.values()]
    return np.unique(np.concatenate(found)).tolist() if found else []
