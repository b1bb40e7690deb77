"""Does a projection show what was learned, or what any network would do to this picture?

Beside every map stand, for its strongest entries, the same unit with random weights and a random
other unit of the layer on the same patches (Adebayo et al., Sanity Checks for Saliency Maps, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import Tile
from ..network import Network
from ..pictures import GRAY, grid, resize_tiles, signed, symmetric_scale
from ..pictures.atlas import PERCENTILE, outside_gray
from ..pictures.tiles import in_rgb_order
from ..study.atlas import Atlas
from ..study.forecast import CHECKED
from ..study.top import cone_tiles, copy_part

SEED = 0


@dataclass
class Check:
    """One map's sanity check.

    Attributes
    ----------
    picture : uint8 (height, width, 1 or 3): a row of patches, one of this map, of random weights, of the other map
    other : the other map, or None in a layer of one
    likeness : of this map's projections to those with random weights and to the other map's: the mean
        correlation of the pixels' magnitudes, 1 for the same places
    """

    picture: np.ndarray
    other: int | None
    likeness: tuple[float | None, float | None]


def random_twin(network: Any) -> Network:
    """The same network with random weights."""
    tensors = {} if network.preprocessing is None else network.preprocessing.tensors()
    return Network.from_config(network.to_config(), tensors).initialize(SEED)


def likeness(first: np.ndarray, second: np.ndarray) -> float | None:
    """Mean over entries of the correlation of magnitudes; None where one of them is the same everywhere."""
    found = []
    for one, two in zip(np.abs(first), np.abs(second), strict=True):
        centred = [each.ravel().astype(np.float64) - each.mean(dtype=np.float64) for each in (one, two)]
        norm = np.linalg.norm(centred[0]) * np.linalg.norm(centred[1])
        if norm > 0:
            found.append(float(centred[0] @ centred[1] / norm))
    return float(np.mean(found)) if found else None


class Sanity:
    """Checks of a layer's maps.

    Parameters
    ----------
    atlas : with its network
    twin : the network with random weights
    layer : one of its layers
    rule : as for `Atlas.project`
    background : shade between tiles
    side : limit of a tile's longer side, pixels
    """

    def __init__(self, atlas: Atlas, twin: Network, layer: str, rule: str, background: int, side: int = 96) -> None:
        self.atlas, self.twin, self.layer, self.rule, self.background = atlas, twin, layer, rule, background
        self.side = side
        self.part = atlas[layer]
        self.alive = np.flatnonzero(self.part.filled[:, 0] & ~self.part.dead)

    def other(self, index: int) -> int | None:
        """The map that stands beside a map: drawn by the map's number, so that it does not depend on the others."""
        others = self.alive[self.alive != index]
        return int(np.random.default_rng([SEED, index]).choice(others)) if len(others) else None

    def checks(self, maps: np.ndarray, projections: np.ndarray) -> list[Check]:
        """Check some maps.

        Parameters
        ----------
        maps : int (n,), none of them dead
        projections : (n, top, height, width, channels), as the atlas has them
        """
        part, atlas, cone = self.part, self.atlas, self.atlas.network.cone(self.layer)
        count = min(CHECKED, part.values.shape[1])
        others = [self.other(int(index)) for index in maps]
        lines, ranks = np.nonzero(part.filled[maps, :count])
        owners = maps[lines]
        tiles, origins = cone_tiles(part, owners, ranks, cone)
        x = atlas.preprocessing.apply(tiles, Tile(origins, atlas.image_shape[:2]))
        substitutes = np.array([-1 if each is None else each for each in others])[lines]
        shown = np.zeros((3, len(maps), count, *part.patch_shape), np.float32)
        shown[0] = projections[:, :count]
        for row, network, units in ((1, self.twin, owners), (2, atlas.network, substitutes)):
            chosen = np.flatnonzero(units >= 0)
            if not len(chosen):
                continue
            # The signal is 1: most of these units would not fire on these patches.
            projected, _ = network.project_tiles(
                x[chosen], origins[chosen], self.layer, units[chosen], part.rows[owners, ranks][chosen],
                part.columns[owners, ranks][chosen], self.rule, "one", batch_size=len(chosen))
            for place, tile, origin in zip(chosen, projected, origins[chosen], strict=True):
                index, rank = owners[place], ranks[place]
                copy_part(shown[row, lines[place], rank], part.origins[index, rank], tile, origin)
        return [self._check(int(index), each, shown[:, line]) for line, (index, each) in
                enumerate(zip(maps, others, strict=True))]

    def _check(self, index: int, other: int | None, shown: np.ndarray) -> Check:
        part, extent = self.part, self.atlas.image_shape[:2]
        filled = part.filled[index, :shown.shape[1]]
        alike = [likeness(shown[0, filled], shown[row, filled]) for row in (1, 2)]
        rows = [signed(in_rgb_order(each, self.atlas.preprocessing.channels), symmetric_scale(each, PERCENTILE))
                for each in shown[:2 if other is None else 3]]
        patches = outside_gray(part.cut(index)[:shown.shape[1]], part.origins[index, :shown.shape[1]], extent)
        patches[~filled] = GRAY
        tiles = np.concatenate([resize_tiles(each, 64, self.side) for each in (patches, *rows)])
        return Check(grid(tiles, shown.shape[1], background=self.background), other,
                     (alike[0], None if other is None else alike[1]))
