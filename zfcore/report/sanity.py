"""Does a projection show what was learned, or what any network would do to this picture?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..geometry import Tile
from ..network import Network
from ..pictures import card_pictures
from ..study.atlas import Atlas
from ..study.top import cone_tiles, copy_part

SEED = 0


def random_twin(network: Any) -> Network:
    """The same network with random weights."""
    tensors = {} if network.preprocessing is None else network.preprocessing.tensors()
    return Network.from_config(network.to_config(), tensors).initialize(SEED)


def sanity_pictures(atlas: Atlas, layer: str, alive: np.ndarray, rule: str, background: int
                    ) -> Iterator[tuple[np.ndarray, str]]:
    """Three grids for a layer: a map, the same map with random weights, another map on the same patches.

    Parameters
    ----------
    atlas : with its network
    layer : one of its layers
    alive : its maps that are not dead; the strongest is taken, the other one is drawn with a seed
    rule : as for `Atlas.project`
    background : shade between tiles

    Yields
    ------
    pixels : uint8 grid of projections, each scaled by its own magnitude
    text : what it is
    """
    part, network = atlas[layer], atlas.network
    chosen = int(alive[np.argmax(part.values[alive, 0])])
    others = alive[alive != chosen]
    ranks = np.flatnonzero(part.filled[chosen])
    maps = np.full(len(ranks), chosen)
    cone = network.cone(layer)
    tiles, origins = cone_tiles(part, maps, ranks, cone)
    x = atlas.preprocessing.apply(tiles, Tile(origins, atlas.image_shape[:2]))

    def picture(source: Any, index: int) -> np.ndarray:
        # Every unit gets the signal 1: most of these would not fire on these patches.
        projected, _ = source.project_tiles(x, origins, layer, np.full(len(ranks), index),
                                            part.rows[chosen, ranks], part.columns[chosen, ranks], rule, "one")
        pixels = np.zeros(part.patches.shape[1:], np.float32)
        for rank, tile, origin in zip(ranks, projected, origins, strict=True):
            copy_part(pixels[rank], part.origins[chosen, rank], tile, origin)
        return card_pictures(pixels, part.patches[chosen], part.origins[chosen], atlas.image_shape,
                             atlas.preprocessing.channels, filled=part.filled[chosen], background=background)[0]

    yield picture(network, chosen), f"{layer}:{chosen}, as it was trained, on its own patches"
    yield picture(random_twin(network), chosen), f"{layer}:{chosen} with random weights, on the same patches"
    if len(others):
        other = int(np.random.default_rng(SEED).choice(others))
        yield picture(network, other), f"another map, {layer}:{other}, on the same patches"
