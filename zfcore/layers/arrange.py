"""Layers that move cells: rearranged axes, a slice of the maps, padding, resizing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .. import checks
from ..geometry import POINTWISE, Window
from ..rules import GRADIENT, Rule
from .base import INFERENCE, Cache, Layer, Run, Shape
from .elementwise import Signals, sizes


@dataclass
class Rearrange(Layer):
    """Cuts an item's axes, permutes the parts and joins them: any reshape, transpose or channel shuffle.

    Parameters
    ----------
    split : sizes of the parts, in the input's (row, column, channel) order
    order : a permutation of the parts
    shape : of the output
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self._split, self._shape = sizes(self, "split", self.split), sizes(self, "shape", self.shape)
        order = tuple(self.order) if isinstance(self.order, (tuple, list)) else ()
        if sorted(order) != list(range(len(self._split))):
            self._fail("order", self.order, f"a permutation of 0 to {len(self._split) - 1}")
        if math.prod(self._split) != math.prod(self._shape):
            self._fail("shape", self.shape, f"sizes with the product {math.prod(self._split)}")
        self._order = order

    def output_shape(self, *shapes: Shape) -> Shape:
        if math.prod(shapes[0]) != math.prod(self._split):
            self._fail("split", self.split, f"sizes with the product {math.prod(shapes[0])}")
        return self._shape

    def geometry(self, shape: Shape) -> Window | None:
        return POINTWISE if self._maps_only(shape) else None

    def _maps_only(self, shape: Shape) -> bool:
        """Whether every place stays: the first parts are rows and columns, unmoved."""
        if len(shape) != 3 or len(self._shape) != 3 or shape[:2] != self._shape[:2]:
            return False
        place = shape[0] * shape[1]
        for count in range(len(self._split) + 1):
            if math.prod(self._split[:count]) == place:
                return self._order[:count] == tuple(range(count))
        return False

    def _crop(self, x: Any) -> tuple[Shape, Shape, Shape]:
        """Split, order and shape for a crop, which has rows and columns of its own."""
        rows, columns, channels = x.shape[1:]
        places = next(count for count in range(len(self._split) + 1)
                      if math.prod(self._split[:count]) == self._shape[0] * self._shape[1])
        order = (0, 1, *(axis - places + 2 for axis in self._order[places:]))
        return (rows, columns, *self._split[places:]), order, (rows, columns, channels)

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        split, order, shape = self._crop(x) if run.tile else (self._split, self._order, self._shape)
        return ops.rearrange(x, split, order, shape), {"shape": x.shape, "split": split, "order": order}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if not inputs:
            return (None,), {}
        order, split = cache["order"], cache["split"]
        inverse = tuple(order.index(axis) for axis in range(len(order)))
        moved = tuple(split[axis] for axis in order)
        return (ops.rearrange(dy, moved, inverse, tuple(cache["shape"][1:])),), {}


@dataclass
class Slice(Layer):
    """The maps `start` to `stop` - 1 of its input."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        checks.integer("Slice", "start", self.start, 0)
        checks.integer("Slice", "stop", self.stop, self.start + 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.stop > shapes[0][-1]:
            self._fail("stop", self.stop, f"at most the {shapes[0][-1]} maps of the input")
        return (*shapes[0][:-1], self.stop - self.start)

    def _sizes(self, channels: int) -> tuple[int, int, int]:
        return self.start, self.stop - self.start, channels - self.stop

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        return ops.split(x, self._sizes(x.shape[-1]))[1], {"shape": x.shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if not inputs:
            return (None,), {}
        before, _, after = self._sizes(cache["shape"][-1])
        zeros = [ops.backend.zeros((*dy.shape[:-1], size), dy.dtype) for size in (before, after)]
        return (ops.concat(zeros[0], dy, zeros[1]),), {}


@dataclass
class Pad(Layer):
    """Padding by zeros or another value, by mirrored cells ("reflect") or by the border's ("edge").

    Parameters
    ----------
    padding : (top, bottom, left, right); negative numbers crop
    channels : maps to add before and after
    mode : "constant", "reflect" or "edge"
    value : for "constant"
    """

    padding: tuple[int, ...] = (0, 0, 0, 0)
    channels: tuple[int, ...] = (0, 0)
    mode: str = "constant"
    value: float = 0.0
    _options: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        checks.one_of("Pad", "mode", self.mode, ("constant", "reflect", "edge"))
        for name, count in (("padding", 4), ("channels", 2)):
            values = getattr(self, name)
            whole = isinstance(values, (tuple, list)) and len(values) == count and all(
                isinstance(value, int) and not isinstance(value, bool) for value in values)
            checks.require(whole, "Pad", name, values, f"{count} integers")
        number = isinstance(self.value, (int, float)) and math.isfinite(self.value)
        checks.require(number, "Pad", "value", self.value, "a finite number")
        self._options = {"padding": tuple(self.padding), "channels": tuple(self.channels), "mode": self.mode}

    def output_shape(self, *shapes: Shape) -> Shape:
        shape = self._map_shape(shapes[0])
        pads = [*self.padding, *self.channels]
        grown = tuple(size + pads[2 * axis] + pads[2 * axis + 1] for axis, size in enumerate(shape))
        kept = [size + min(pads[2 * axis], 0) + min(pads[2 * axis + 1], 0) for axis, size in enumerate(shape)]
        if min(grown) < 1 or min(kept) < 1:
            self._fail("padding", self.padding, f"numbers that leave something of {shape}")
        if self.mode == "reflect" and any(max(pads[2 * axis:2 * axis + 2]) >= size
                                          for axis, size in enumerate(shape)):
            self._fail("padding", self.padding, f"less than the map's size {shape} for 'reflect'")
        return grown

    def geometry(self, shape: Shape) -> Window | None:
        # Crops are surrounded by zeros, and cleared outside their map: only that padding is the same there.
        plain = self.mode == "constant" and self.value == 0 and min(self.padding) >= 0
        return Window((1, 1), (self.padding[0], self.padding[2]), (1, 1)) if plain else None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        x = inputs[0]
        options = {**self._options, "padding": (0, 0, 0, 0)} if run.tile else self._options
        return ops.pad(x, **options, value=float(self.value)), {"shape": x.shape, "options": options}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        if not inputs:
            return (None,), {}
        return (ops.pad_gradient(dy, tuple(cache["shape"]), **cache["options"]),), {}


@dataclass
class Resize(Layer):
    """Maps resized to a fixed size by their nearest or by linear interpolation; its adjoint on the way down.

    Parameters
    ----------
    size : (rows, columns) of the output
    mode : "nearest" or "linear"
    coordinates, nearest : conventions, named as in ONNX; see `ops.resize_taps`
    scales : (vertical, horizontal) where they are not exactly the quotient of the sizes
    """

    size: tuple[int, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        checks.pair("Resize", "size", self.size, 1)
        checks.one_of("Resize", "mode", self.mode, ("nearest", "linear"))
        checks.one_of("Resize", "coordinates", self.coordinates,
                      ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"))
        checks.one_of("Resize", "nearest", self.nearest,
                      ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
        valid = self.scales is None or (isinstance(self.scales, (tuple, list)) and len(self.scales) == 2 and all(
            isinstance(value, float) and math.isfinite(value) and value > 0 for value in self.scales))
        checks.require(valid, "Resize", "scales", self.scales, "two numbers above 0, or None")
        self._options = {"mode": self.mode, "coordinates": self.coordinates, "nearest": self.nearest,
                         "scales": self.scales}

    def output_shape(self, *shapes: Shape) -> Shape:
        return *checks.pair("Resize", "size", self.size, 1), self._map_shape(shapes[0])[2]

    def geometry(self, shape: Shape) -> Window | None:
        return None

    def forward(self, ops: Any, *inputs: Any, run: Run = INFERENCE) -> tuple[Any, Cache]:
        return ops.resize(inputs[0], tuple(self.size), **self._options), {"shape": inputs[0].shape}

    def backward(self, ops: Any, dy: Any, cache: Cache, rule: Rule = GRADIENT, parameters: bool = True,
                 inputs: bool = True, pre: Any = None) -> Signals:
        return (ops.resize_gradient(dy, tuple(cache["shape"]), **self._options) if inputs else None,), {}

