"""Units projected to pixel space: many units of many images in one batch, on crops where that pays.

Set every activation of a layer to zero but one and walk down (Zeiler & Fergus 2013, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backends, checks, rules
from ..kernels.memory import empty
from ..layers import Run
from ..layers.base import shared
from ..rules import Rule
from ..units import Unit, tensor_node
from . import stages, walk
from .cones import Cone, Crop
from .walk import IMAGE, Frame

if TYPE_CHECKING:
    from .graph import Network

SEEDS = ("activation", "one")


@dataclass
class Projections:
    """Projections of units, in the order in which they were asked for.

    Attributes
    ----------
    pixels : float (n, height, width, channels): signed, unscaled, in the network's channel order;
        tiles of one size, zero outside the image and outside the receptive field
    origins : int32 (n, 2): row and column in the image of each tile's first pixel; may be negative
    values : (n,) the units' activations
    units : the units, with their positions
    images : (n,) the index of each unit's image
    rule : name of the rule
    """

    pixels: np.ndarray
    origins: np.ndarray
    values: np.ndarray
    units: list[Unit]
    images: np.ndarray
    rule: str


def check_unit(network: Network, unit: Unit) -> Unit:
    """Return the unit; ValueError that names layer, map, row or column if it does not exist."""
    shape = network.tensor_shape(unit.layer)
    if tensor_node(unit.layer)[0] == IMAGE:
        checks.fail("unit", "layer", unit.layer, "one of " + ", ".join(network.nodes))
    rows, columns = shape[:2] if len(shape) == 3 else (1, 1)
    limits = (("map", unit.map, shape[-1]), ("row", unit.row, rows), ("column", unit.column, columns))
    for name, value, count in limits:
        if value is not None and not 0 <= value < count:
            checks.fail(f"unit {unit}", name, value, f"0 to {count - 1} in layer {unit.layer}")
    return unit


def _pairs(units: Any, images: Sequence[int] | None, count: int) -> tuple[list[Unit], np.ndarray]:
    """Units and their images' indices, from one unit, a list of them, or a list of (image, unit)."""
    where = "project"
    if isinstance(units, (str, Unit)):
        indices = list(range(count)) if images is None else list(images)
        chosen = [Unit.parse(units)] * len(indices)
    else:
        items = list(units) if isinstance(units, Iterable) else [units]
        checks.require(bool(items), where, "units", items, "one unit or more: the list is empty")
        if images is None and items and all(isinstance(item, tuple) for item in items):
            images, items = [item[0] for item in items], [item[1] for item in items]
        chosen = [Unit.parse(item) for item in items]
        if images is None:
            checks.require(len(chosen) == count or count == 1, where, "images", None,
                           f"an index for each of the {len(chosen)} units, as there are {count} images")
            indices = [0] * len(chosen) if count == 1 else list(range(count))
        else:
            indices = list(images)
        checks.require(len(indices) == len(chosen), where, "len(images)", len(indices),
                       f"{len(chosen)}, one a unit")
    for index in indices:
        checks.integer(where, "image index", index, 0)
        checks.require(index < count, where, "image index", index, f"0 to {count - 1}")
    return chosen, np.asarray(indices, np.intp)


def _positions(network: Network, x: np.ndarray, units: list[Unit], images: np.ndarray,
               batch_size: int) -> list[Unit]:
    """The units with row and column: where none are given, those of the map's maximum in its image."""
    layer = units[0].layer
    if len(network.tensor_shape(layer)) == 1:
        return [Unit(layer, unit.map, 0, 0) for unit in units]
    open_images = sorted({int(image) for unit, image in zip(units, images, strict=True) if unit.row is None})
    places: dict[int, np.ndarray] = {}
    for start in range(0, len(open_images), batch_size):
        chunk = open_images[start:start + batch_size]
        batch = network._enter("project", x[np.asarray(chunk, np.intp)])
        tensor = network.features(batch, (layer,))[layer]
        places.update(zip(chunk, backends.to_numpy(network.ops.map_maximum(tensor)[1]), strict=True))
    width = network.tensor_shape(layer)[1]
    result = []
    for unit, image in zip(units, images, strict=True):
        if unit.row is None:
            row, column = divmod(int(places[int(image)][unit.map]), width)
            unit = Unit(layer, unit.map, row, column)
        result.append(unit)
    return result


def project(network: Network, x: np.ndarray, units: Any, rule: str | Rule = "deconvnet",
            seed: str = "activation", *, images: Sequence[int] | None = None, crop: bool = True,
            batch_size: int = 32, allow_negative: bool = False) -> Projections:
    """Project units of one layer to pixel space.

    Parameters
    ----------
    network : with parameters
    x : images (N, height, width, channels), preprocessed
    units : one unit ("conv5:42@6,7" or a Unit), which is taken in every image; or a list of units, or
        of (image index, unit). Without row and column it is where the map is strongest
    rule : "deconvnet", "gradient" (saliency), "guided" or a Rule
    seed : "activation": the walk starts with the unit's value; "one": with 1
    images : index of each unit's image, for a list of units of several images
    crop : walk on the receptive fields only, and return these; False: on whole images. The pixels
        are the same, bit for bit
    batch_size : units in one walk
    allow_negative : accept units whose value is negative, which a deconvnet cannot show

    Returns
    -------
    Projections, in the units' order; an item does not depend on the others
    """
    checks.integer("project", "batch_size", batch_size, 1)
    network._check_input(x)
    x = backends.to_numpy(x)  # crops are cut there
    chosen, indices = _pairs(units, images, len(x))
    for unit in chosen:
        check_unit(network, unit)
        checks.require(unit.map is not None, "project", "unit", str(unit),
                       "a unit with a map, as in conv5:42")
    layer = chosen[0].layer
    checks.require(all(unit.layer == layer for unit in chosen), "project", "units' layers",
                   sorted({unit.layer for unit in chosen}), "one layer in one call")
    chosen = _positions(network, x, chosen, indices, batch_size)
    cone = network.cone(layer)
    if not crop:
        cone = Cone(cone.layer, True, cone.extent, {})
    maps, rows, columns = (np.array([getattr(unit, name) for unit in chosen], np.intp)
                           for name in ("map", "row", "column"))
    origins = cone.origins(rows, columns)
    checks.fits("project", "the projections' shape", (len(chosen), *cone.size, x.shape[3]))
    pixels = empty((len(chosen), *cone.size, x.shape[3]), x.dtype)
    values = np.empty(len(chosen), x.dtype)
    # Units at one place of one image see the same pixels: they go up once, side by side in a batch.
    seen, which = np.unique(np.stack([indices, rows, columns]), axis=1, return_index=True, return_inverse=True)[1:]
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    with network.while_frozen(len(order) > batch_size):
        for start in range(0, len(order), batch_size):
            part = order[start:start + batch_size]
            own, tile_of = np.unique(which[part], return_inverse=True)
            tiles = cone.extract(x, indices[seen[own]], origins[seen[own]])
            pixels[part], values[part] = _walk(network, cone, tiles, layer, maps[part], rows[part], columns[part],
                                               rules.get(rule), seed, allow_negative, tile_of)
    return Projections(pixels, origins, values, chosen, indices, rules.get(rule).name)


def project_tiles(network: Network, tiles: np.ndarray, origins: np.ndarray, layer: str, maps: Any, rows: Any,
                  columns: Any, rule: str | Rule = "deconvnet", seed: str = "activation", *,
                  batch_size: int = 32, allow_negative: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Project units from the tiles of pixels that `Network.cone(layer)` describes.

    Parameters
    ----------
    network : with parameters
    tiles : (n, *cone.size, channels), preprocessed, 0 outside the image
    origins : int (n, 2), `cone.origins(rows, columns)`
    layer : the units' layer, or its tensor before the fused ReLU ("conv5.pre")
    maps, rows, columns : (n,) the units
    rule, seed, batch_size, allow_negative : as for `project`

    Returns
    -------
    pixels : of the tiles' shape
    values : (n,) the units' activations, recomputed on the tiles
    """
    where = "project_tiles"
    checks.integer(where, "batch_size", batch_size, 1)
    cone = network.cone(layer)
    checks.floats(where, "tiles", tiles, 4)
    tiles = backends.to_numpy(tiles)
    checks.shape(where, "tiles", tiles, (len(tiles), *cone.size, network.input_shape[2]))
    maps, rows, columns = (np.asarray(values, np.intp) for values in (maps, rows, columns))
    shape = network.tensor_shape(layer)
    limits = (shape[2], shape[0], shape[1]) if len(shape) == 3 else (shape[0], 1, 1)
    for name, values, count in zip(("maps", "rows", "columns"), (maps, rows, columns), limits, strict=True):
        checks.shape(where, name, values, (len(tiles),))
        wrong = values[(values < 0) | (values >= count)]
        checks.require(not wrong.size, where, name, wrong[:1].tolist(), f"0 to {count - 1} in layer {layer}")
    if not np.array_equal(np.asarray(origins), cone.origins(rows, columns)):
        checks.fail(where, "origins", "another array", "cone(layer).origins(rows, columns)")
    pixels = empty(tiles.shape, tiles.dtype)
    values = np.empty(len(tiles), tiles.dtype)
    with network.while_frozen(len(tiles) > batch_size):
        for start in range(0, len(tiles), batch_size):
            part = slice(start, start + batch_size)
            pixels[part], values[part] = _walk(network, cone, tiles[part], layer, maps[part], rows[part],
                                               columns[part], rules.get(rule), seed, allow_negative)
    return pixels, values


def _walk(network: Network, cone: Cone, tiles: np.ndarray, layer: str, maps: np.ndarray, rows: np.ndarray,
          columns: np.ndarray, rule: Rule, seed: str, allow_negative: bool,
          tile_of: np.ndarray | None = None) -> tuple[Any, Any]:
    """Up to the units and down again, for one batch of tiles or of whole images, from the host and back.

    `tile_of` is the tile of each unit, every one at least once; None: each unit has its own, in order.
    """
    checks.one_of("project", "seed", seed, SEEDS)
    nodes = network.below([layer])
    network._check_parameters(nodes)
    ops = network.ops
    nodes = stages.fused(ops, nodes, [layer])
    top = nodes[-1]
    if tile_of is None or len(tiles) == len(maps) or not all(node.layer.shares for node in nodes):
        items = first = np.arange(len(maps))
        tiles = tiles if tile_of is None else tiles[tile_of]
    else:
        items, first = tile_of, np.unique(tile_of, return_index=True)[1]
    frame = Frame() if cone.whole else Crop(cone, network.shapes, rows[first], columns[first])
    run = Run(parameters=False, algorithm="direct")  # on crops as on whole images: the same bits
    forward = walk.up(ops, network._enter("project", tiles), nodes, keep={layer}, cache=True, run=run, frame=frame)
    tensor = forward.kept[layer]
    # In a crop the top tile is the unit itself.
    inner = [] if len(top.shape) == 1 else [rows, columns] if cone.whole else [np.zeros_like(rows)] * 2
    place = tuple(ops.backend.asarray(np.stack([items, *inner, maps])))
    found = tensor[place]
    values = ops.backend.to_numpy(found)
    caches = forward.caches
    if len(tiles) < len(maps):
        frame = Frame() if cone.whole else Crop(cone, network.shapes, rows, columns)
        owners = ops.backend.asarray(items)
        caches = {name: shared(cache, items, owners, rule) for name, cache in caches.items()}
        place = tuple(ops.backend.asarray(np.stack([np.arange(len(maps)), *inner, maps])))
    if seed == "activation" and not allow_negative and (values < 0).any():
        worst = int(np.argmax(values < 0))
        unit = Unit(layer, int(maps[worst]), int(rows[worst]), int(columns[worst]))
        checks.fail("project", f"the value of {unit}", float(values[worst]),
                    "a value >= 0, or allow_negative=True, or seed='one'")
    signal = ops.backend.zeros((len(maps), *tensor.shape[1:]), tensor.dtype)
    signal[place] = found if seed == "activation" else 1
    seeds = {layer: signal}
    if not cone.whole:
        short = _unit_step(network, top, caches[top.name], layer, signal, place, maps, rule, frame)
        if short is not None:
            nodes, seeds = nodes[:-1], {top.inputs[0]: short}
    backward = walk.down(ops, nodes, caches, seeds, rule, frame=frame)
    return ops.backend.to_numpy(backward.input), values


def _unit_step(network: Network, top: walk.Node, cache: Any, layer: str, signal: Any,
               place: tuple[Any, ...], maps: np.ndarray, rule: Rule, frame: Frame) -> Any:
    """The signal below the unit's own layer, without multiplying the zeros of all other maps."""
    ops = network.ops
    if tensor_node(layer)[1]:
        below = signal
    else:
        below = top.layer.rectified(ops, signal, cache, rule, None)
    shape = cache.get("shape")
    step = None if shape is None else top.layer.unit_gradient(ops, maps, below[place], shape)
    return None if step is None else frame.back(ops, top, 0, step)
