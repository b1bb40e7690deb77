"""Targets: the one number a row that is explained or climbed, and the signal that starts a walk from it.

=================  ==================================================================
target             score of a row
=================  ==================================================================
None               the top class's score before the softmax
an integer         that class's score before the softmax
"conv5:42@6,7"     that unit's activation
"conv5:42"         the mean of the map
"conv5"            the mean of the squares of all the layer's activations
=================  ==================================================================

A list gives every row its own; its units must be of one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..network import Network
from ..rules import Rule
from ..units import Unit

ALL = -1  # no map, or no position: all of them


@dataclass(frozen=True)
class Targets:
    """Scores of a batch, one a row.

    Attributes
    ----------
    tensor : where they are: a layer's name, "conv5.pre", or the tensor before the softmax
    maps, rows, columns : int (N,); -1 for all
    classes : whether they are the network's class scores
    """

    tensor: str
    maps: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    classes: bool = False

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, part: Any) -> Targets:
        return Targets(self.tensor, self.maps[part], self.rows[part], self.columns[part], self.classes)

    def names(self) -> list[str]:
        """A name for each row: "class 281", or the unit's."""
        if self.classes:
            return [f"class {index}" for index in self.maps]
        return [str(Unit(self.tensor, *(None if value == ALL else int(value) for value in row)))
                for row in zip(self.maps, self.rows, self.columns, strict=True)]

    @property
    def single(self) -> bool:
        """Whether every row is one unit at one place of a map."""
        return bool((self.rows != ALL).all())

    def scores(self, activations: np.ndarray) -> np.ndarray:
        """The rows' scores (N,), given the tensor (N, height, width, maps) or (N, units)."""
        found = np.empty(len(self), activations.dtype)
        for row, place in enumerate(self._places(activations)):
            values = activations[row][place]
            found[row] = (values * values).mean() if self.maps[row] == ALL else values.mean()
        return found

    def signal(self, activations: np.ndarray) -> np.ndarray:
        """d score / d tensor of every row, of the tensor's shape."""
        signal = np.zeros(activations.shape, activations.dtype)
        for row, place in enumerate(self._places(activations)):
            if self.maps[row] == ALL:
                signal[row] = activations[row] * activations.dtype.type(2 / activations[row].size)
            else:
                signal[row][place] = 1 / activations[row][place].size
        return signal

    def _places(self, activations: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """Each row's part of its item of the tensor."""
        for unit, row, column in zip(self.maps, self.rows, self.columns, strict=True):
            if unit == ALL:
                yield (...,)
            elif activations.ndim == 2:
                yield (slice(unit, unit + 1),)
            elif row == ALL:
                yield (slice(None), slice(None), unit)
            else:
                yield (slice(row, row + 1), slice(column, column + 1), unit)


def _class_count(network: Network, target: Any) -> int:
    """Number of classes; ValueError for networks that have none."""
    shape = network.tensor_shape(network.logits)
    if len(shape) != 1:
        checks.fail("target", "target", target, f"a unit such as {network.logits}:0, since the network ends in "
                    f"maps of shape {shape} and has no classes")
    return shape[0]


def resolve(network: Network, target: Any, x: np.ndarray, batch_size: int = 32) -> Targets:
    """Read a target and check that it exists.

    Parameters
    ----------
    network : with parameters
    target : None, a class, a unit, or one of these for each row (see the module)
    x : images (N, height, width, channels), preprocessed: None needs their top classes
    batch_size : images in one forward pass

    Returns
    -------
    Targets, N rows

    Raises
    ------
    ValueError : a class, layer, map or position that does not exist, units of several layers, or
        another number of targets than of images
    """
    network._check_input(x)
    count = len(x)
    if isinstance(target, np.ndarray):
        target = target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, (str, Unit)):
        items = list(target)
        checks.require(len(items) == count, "target", "len(target)", len(items), f"{count}, one a row")
    else:
        items = [target] * count
    if not items:
        return Targets(network.logits, *(np.zeros(0, np.intp),) * 3, classes=True)
    named = [isinstance(item, (str, Unit)) for item in items]
    checks.require(all(named) or not any(named), "target", "target", items, "classes only, or units only")
    if all(named):
        return of_units(network, items)
    classes = _class_count(network, items[0])
    maps = np.full(count, ALL, np.intp)
    for row, item in enumerate(items):
        if item is not None:
            maps[row] = checks.integer("target", "class", item, 0)
            checks.require(maps[row] < classes, "target", "class", item, f"0 to {classes - 1}")
    missing = np.flatnonzero(maps == ALL)
    for start in range(0, len(missing), batch_size):
        part = missing[start:start + batch_size]
        maps[part] = np.argmax(network.forward(x[part], to=network.logits).output, axis=1)
    everywhere = np.full(count, ALL, np.intp)
    return Targets(network.logits, maps, everywhere, everywhere, classes=True)


def of_units(network: Network, units: Sequence[Any]) -> Targets:
    """Targets from units of one layer, one a row; no images are needed."""
    for item in units:
        if not isinstance(item, (str, Unit)):
            checks.fail("target", "target", item, "a unit's name, as the other rows'", TypeError)
    chosen = [network.unit(item) for item in units]
    layers = {unit.layer for unit in chosen}
    checks.require(len(layers) == 1, "target", "units' layers", sorted(layers), "one layer in one call")
    maps, rows, columns = (np.array([ALL if getattr(unit, name) is None else getattr(unit, name)
                                     for unit in chosen], np.intp) for name in ("map", "row", "column"))
    layer = chosen[0].layer
    if len(network.tensor_shape(layer)) == 1:  # a fully connected layer's "maps" are units already
        rows, columns = np.full_like(rows, ALL), np.full_like(columns, ALL)
    return Targets(layer, maps, rows, columns)


def pull(network: Network, x: np.ndarray, targets: Targets, rule: str | Rule = "gradient"
         ) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one batch and the signal at its pixels under a rule.

    Where every target is one unit of a map, the walk is taken on its receptive field only: the rest
    of the signal is zero.

    Parameters
    ----------
    network : with parameters
    x : images (N, height, width, channels)
    targets : N rows
    rule : "gradient", "deconvnet", "guided" or a Rule

    Returns
    -------
    scores : (N,)
    signal : of x's shape; with the gradient rule, d score / d x
    """
    if targets.single and len(targets) and len(network.tensor_shape(targets.tensor)) == 3:
        cone = network.cone(targets.tensor)
        if not cone.whole:
            return _pull_crops(network, cone, x, targets, rule)
    forward = network.forward(x, to=targets.tensor, cache=True, parameters=False)
    scores = targets.scores(forward.output)
    backward = network.backward(forward, targets.signal(forward.output), rule, parameters=False)
    return scores, backward.input


def _pull_crops(network: Network, cone: Any, x: np.ndarray, targets: Targets, rule: str | Rule
                ) -> tuple[np.ndarray, np.ndarray]:
    origins = cone.origins(targets.rows, targets.columns)
    tiles = cone.extract(x, range(len(x)), origins)
    pixels, scores = network.project_tiles(tiles, origins, targets.tensor, targets.maps, targets.rows,
                                           targets.columns, rule, "one", batch_size=max(len(x), 1))
    signal = np.zeros_like(x)
    for whole, tile, (row, column) in zip(signal, pixels, origins.tolist(), strict=True):
        top, left = max(row, 0), max(column, 0)
        bottom, right = min(row + tile.shape[0], x.shape[1]), min(column + tile.shape[1], x.shape[2])
        whole[top:bottom, left:right] = tile[top - row:bottom - row, left - column:right - column]
    return scores, signal
