"""The strongest activations of one layer's maps, and the pixels that caused them.

Activations are in a total order: the larger value first; of equal ones the image with the smaller
index; within an image (which counts once a map, unless asked otherwise) the first position in row-major order. So the
strongest k of a set are defined, the strongest of a union are the strongest of the parts' strongest
(a commutative monoid), and no result depends on how the images were cut into batches or shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..network.cones import Cone
from ..units import Unit
from .patches import NOBODY, Shelf, Uncut


class _Patches:
    """The field `LayerTop.patches`: they are cut when they are read for the first time."""

    def __get__(self, part: LayerTop | None, kind: type | None = None) -> np.ndarray:
        if part is None:
            raise AttributeError("patches")  # to `dataclass`: the field has no default
        held = part.held
        if isinstance(held, Uncut):
            held = part.__dict__["patches"] = held.of(np.arange(part.maps))
        return held

    def __set__(self, part: LayerTop, value: np.ndarray | Uncut) -> None:
        part.__dict__["patches"] = value


@dataclass(repr=False)
class LayerTop:
    """The strongest `k` activations of each map of a layer, one an image, the strongest first.

    Attributes
    ----------
    values : float32 (maps, k); -inf where fewer than k images were seen
    images : int64 (maps, k), index in the data set; -1 where fewer than k images were seen
    rows, columns : int32 (maps, k), position in the feature map
    origins : int32 (maps, k, 2), the patch's first row and column in the image; may be negative
    patches : uint8 (maps, k, height, width, channels), the pixels of the receptive field; 0 outside
        the image. Where the receptive field is larger than the image, the patch is the image.
        After a scan that has kept the images instead, they are cut when this is first read;
        `cut` gives those of some maps, and takes no memory for the others
    """

    values: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    origins: np.ndarray
    patches: _Patches = _Patches()  # noqa: RUF009 (a descriptor: it holds no array itself)

    def __repr__(self) -> str:
        height, width, _ = self.patch_shape
        return f"LayerTop({self.maps} maps, {self.values.shape[1]} entries each, patches of {height} x {width} pixels)"

    @property
    def maps(self) -> int:
        """Number of feature maps."""
        return int(self.values.shape[0])

    @property
    def filled(self) -> np.ndarray:
        """bool (maps, k): which entries hold an activation."""
        return self.images != NOBODY

    @property
    def dead(self) -> np.ndarray:
        """bool (maps,): maps that were zero everywhere in every image."""
        return self.filled[:, 0] & (self.values[:, 0] == 0)

    def unit(self, layer: str, index: int, rank: int = 0) -> Unit:
        """The unit behind an entry."""
        return Unit(layer, index, int(self.rows[index, rank]), int(self.columns[index, rank]))

    @property
    def held(self) -> np.ndarray | Uncut:
        """The patches as they are: an array, or still to be cut."""
        held: np.ndarray | Uncut = self.__dict__["patches"]
        return held

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a patch."""
        height, width, channels = self.held.shape[2:]
        return height, width, channels

    def cut(self, maps: Any) -> np.ndarray:
        """The patches of one map (k, height, width, channels), or those of several, one after the other."""
        held = self.held
        if isinstance(held, Uncut):
            found = held.of(np.atleast_1d(maps))
            return found[0] if np.ndim(maps) == 0 else found
        return held[maps]

    def arrays(self, cut: bool = True) -> dict[str, Any]:
        """All arrays by name; with `cut` False, patches that nobody has read yet stay uncut."""
        return {each.name: getattr(self, each.name) if cut else self.__dict__[each.name] for each in fields(self)}


def order(values: np.ndarray, images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Indices that sort the entries of each map, the strongest first; all arrays are (maps, n)."""
    late = np.where(images == NOBODY, np.iinfo(np.int64).max, images)
    return np.lexsort((columns, rows, late, -values), axis=-1)


def patch_size(cone: Cone) -> tuple[int, int]:
    """Size of a layer's patches: its receptive field, or the image along an axis where that is smaller."""
    return min(cone.size[0], cone.extent[0]), min(cone.size[1], cone.extent[1])


def patch_origins(cone: Cone, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """First cell, int32 (..., 2), of the patches of units at these positions."""
    origins = cone.origins(rows.ravel(), columns.ravel()).reshape(*rows.shape, 2)
    for axis in range(2):
        if cone.size[axis] > cone.extent[axis]:
            origins[..., axis] = 0
    return origins


def copy_part(target: np.ndarray, target_origin: Any, source: np.ndarray, source_origin: Any) -> None:
    """Copy what `target` and `source`, both (height, width, channels) at an origin, share of an image."""
    spans = []
    for axis in range(2):
        offset = int(target_origin[axis]) - int(source_origin[axis])
        start, end = max(offset, 0), min(offset + target.shape[axis], source.shape[axis])
        if end <= start:
            return
        spans.append((slice(start - offset, end - offset), slice(start, end)))
    (target_rows, source_rows), (target_columns, source_columns) = spans
    target[target_rows, target_columns] = source[source_rows, source_columns]


class Collector:
    """Gathers a layer's strongest activations over batches; its memory does not grow with them.

    A patch stays in the slot where it was put while its rank changes; `finish` sorts them once.
    """

    def __init__(self, layer: str, maps: int, top: int, cone: Cone, channels: int,
                 file: Path | None = None, start: LayerTop | None = None) -> None:
        self.layer, self.cone = layer, cone
        size = (maps, top)
        images, origins = np.full(size, NOBODY, np.int64), np.zeros((*size, 2), np.int32)
        patches: np.ndarray | Uncut = Uncut(images, origins, (*patch_size(cone), channels), Shelf())
        if file is not None:
            patches = np.lib.format.open_memmap(file, "w+", np.uint8, patches.shape)
        elif start is not None:
            patches = np.empty(patches.shape, np.uint8)
        self.top = LayerTop(np.full(size, -np.inf, np.float32), images, np.zeros(size, np.int32),
                            np.zeros(size, np.int32), origins, patches)
        self.slots = np.tile(np.arange(top), (maps, 1))
        self.waiting = np.zeros(size, bool)  # slots whose patch is still to be cut
        if start is not None:  # go on from an earlier part
            for name, array in start.arrays().items():
                checks.shape("atlas", name, array, getattr(self.top, name).shape)
                getattr(self.top, name)[...] = array

    def update(self, values: np.ndarray, rows: np.ndarray, columns: np.ndarray, indices: np.ndarray,
               names: Sequence[str]) -> bool:
        """Take in the strongest activations of a batch; whether any is among a map's strongest so far.

        Parameters
        ----------
        values, rows, columns : (n * k, maps), each map's k strongest activations in each image, the
            images one after the other, and where they are
        indices : int64 (n * k,), the images' numbers in the data set
        names : the images' names, n, for errors
        """
        from ..kernels.strongest import keep_strongest

        if not np.isfinite(values).all():
            item, index = np.argwhere(~np.isfinite(values))[0]
            name = names[item // (len(values) // len(names))]
            checks.fail("atlas", f"activation of {self.layer}:{index} on {name!r}", float(values[item, index]),
                        "finite values (look at the model and its preprocessing)")
        top = self.top
        return keep_strongest(values, rows, columns, indices, top.values, top.images, top.rows, top.columns,
                              self.slots, self.waiting)

    def cut(self, shelf: Shelf) -> None:
        """Cut the patches that are waited for."""
        top, count = self.top, self.slots.shape[1]
        if isinstance(top.held, Uncut):
            top.patches = np.zeros(top.held.shape, np.uint8)
        fresh = np.flatnonzero(self.waiting.all(axis=1))  # nothing in their slots yet: ranks in their order
        self.slots[fresh] = np.arange(count)
        maps, ranks = np.nonzero(np.take_along_axis(self.waiting, self.slots, axis=1))
        shelf.cut(np.asarray(top.patches).reshape(-1, *top.patch_shape), maps * count + self.slots[maps, ranks],
                  top.images[maps, ranks], patch_origins(self.cone, top.rows[maps, ranks], top.columns[maps, ranks]))
        self.waiting[:] = False

    def finish(self, shelf: Shelf, later: bool = False) -> LayerTop:
        """The result, patches in the order of their ranks.

        Parameters
        ----------
        shelf : the images of the patches that are waited for
        later : leave the patches to be cut when they are read, from this shelf; none may have been cut yet
        """
        top = self.top
        top.origins[:] = patch_origins(self.cone, top.rows, top.columns)
        top.origins[~top.filled] = 0
        if later:
            return replace(top, patches=Uncut(top.images, top.origins, top.patch_shape, shelf))
        self.cut(shelf)
        for index in np.flatnonzero((self.slots != np.arange(self.slots.shape[1])).any(axis=1)):
            top.patches[index] = top.patches[index][self.slots[index]]
        self.slots[:] = np.arange(self.slots.shape[1])
        return top


def strongest_of(tensor: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each map's `count` strongest positions in every image, fewer where maps are smaller.

    Parameters
    ----------
    tensor : (n, height, width, maps)
    count : at least 1

    Returns
    -------
    values, positions : (n * k, maps), an image's after one another, the strongest first; of equal
        ones the first in row-major order
    """
    images, height, width, maps = tensor.shape
    flat = tensor.reshape(images, height * width, maps)
    # NaN goes first, so that it is found.
    order = np.argsort(np.where(np.isnan(flat), -np.inf, -flat), axis=1, kind="stable")[:, :count]
    return np.take_along_axis(flat, order, axis=1).reshape(-1, maps), order.reshape(-1, maps)


def merge(parts: Sequence[LayerTop], file: Path | None = None) -> LayerTop:
    """The strongest of all parts' entries; the parts must come from different images.

    Parameters
    ----------
    parts : of one layer, with the same number of maps and entries
    file : where the patches are gathered, as a memory-mapped .npy; None: in memory
    """
    count = parts[0].values.shape[1]
    joined = {name: np.concatenate([getattr(part, name) for part in parts], axis=1)
              for name in ("values", "images", "rows", "columns", "origins")}
    chosen = order(joined["values"], joined["images"], joined["rows"], joined["columns"])[:, :count]
    taken = {name: np.take_along_axis(array, chosen if array.ndim == 2 else chosen[:, :, None], axis=1)
             for name, array in joined.items()}
    shape = parts[0].held.shape
    patches = (np.empty(shape, np.uint8) if file is None
               else np.lib.format.open_memmap(file, "w+", np.uint8, shape))
    for index, line in enumerate(chosen):  # a map at a time: a copy of all would be as large again
        for number, part in enumerate(parts):
            ranks = np.flatnonzero(line // count == number)
            if len(ranks):
                patches[index, ranks] = part.cut(index)[line[ranks] % count]
    return LayerTop(**taken, patches=patches)


def cone_tiles(top: LayerTop, maps: np.ndarray, ranks: np.ndarray, cone: Cone
               ) -> tuple[np.ndarray, np.ndarray]:
    """The tiles of pixels that projections of some entries need, from the entries' patches.

    Parameters
    ----------
    top : the layer's entries
    maps, ranks : which entries, int (n,) each
    cone : the layer's cone

    Returns
    -------
    tiles : uint8 (n, *cone.size, channels), 0 outside the image
    origins : int32 (n, 2), their first cells in the image
    """
    origins = cone.origins(top.rows[maps, ranks], top.columns[maps, ranks])
    tiles = np.zeros((len(maps), *cone.size, top.patch_shape[2]), np.uint8)
    for index in np.unique(maps):
        patches = top.cut(index)
        for place in np.flatnonzero(maps == index):
            rank = ranks[place]
            copy_part(tiles[place], origins[place], patches[rank], top.origins[index, rank])
    return tiles, origins
