"""Operators that move elements: they change a tensor's view, cut it, or put several together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ....layers import Concat, GlobalAveragePool, Slice
from ..convert import Converter, Entry, Unsupported, Value, operator
from ..fold import BATCHES
from ..graph import Operation
from ..views import Part, View, last_first

MOST_PLACES = 1024  # of a Slice in steps: each is a layer


def _resolved(target: Sequence[int], source: Sequence[int], keep_zero: bool) -> list[int] | None:
    """A Reshape's target with its 0 and -1 filled in, for an input of these sizes; None if it does not fit."""
    sizes = [source[place] if size == 0 and not keep_zero and place < len(source) else int(size)
             for place, size in enumerate(target)]
    total = math.prod(source)
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        if rest <= 0 or total % rest:
            return None
        sizes[sizes.index(-1)] = total // rest
    return sizes if all(size > 0 for size in sizes) and math.prod(sizes) == total else None


def item_shape(c: Converter, node: Operation, value: Value) -> tuple[int, ...]:
    """A Reshape's target without the batch, which must stay the first axis."""
    if not c.is_constant(node, 1):
        raise Unsupported("its shape is not constant")
    worlds = [[int(size) for size in array.reshape(-1)] for array in c.constants[node.inputs[1]]]
    if any(len(target) > 32 or any(abs(size) > 2**40 for size in target) for target in worlds):
        raise Unsupported("its shape has more than 32 axes or gigantic ones")
    keep_zero = bool(node.attributes.get("allowzero", 0))
    inner = value.view.shape
    if not c.first:
        sizes = _resolved(worlds[0], inner, keep_zero)
        if sizes is None:
            raise Unsupported(f"its shape is {worlds[0]}, for {inner}")
        return tuple(sizes)
    found = [_resolved(target, (batch, *inner), keep_zero) for target, batch in zip(worlds, BATCHES, strict=True)]
    if all(sizes and sizes[0] == batch for sizes, batch in zip(found, BATCHES, strict=True)):
        assert found[0] is not None and found[1] is not None
        if found[0][1:] == found[1][1:]:
            return tuple(found[0][1:])
    if c.batch is not None:  # exporters write the batch size that they saw as a plain number
        sizes = _resolved(worlds[0], (c.batch, *inner), keep_zero)
        if sizes and sizes[0] == c.batch and worlds[0] == worlds[1]:
            return tuple(sizes[1:])
    raise Unsupported(f"its shape is {worlds[0]} for {('images', *inner)}: it works along the batch axis, "
                      "or does not fit")


def reshaped(c: Converter, node: Operation, value: Value, shape: tuple[int, ...]) -> None:
    """The same elements, in ONNX's order, with other sizes."""
    view, entry = value.view.reshaped(shape), value.entry
    if view is None:
        # No cutting of axes does it: first write the elements out in their order.
        entry = c.arranged(value, range(len(value.view.axes)), (math.prod(shape),))
        part = Part(math.prod(shape))
        view = View((part,), ((part,),)).reshaped(shape)
        if view is None:
            raise Unsupported(f"its shape is {shape}, for {value.view.shape}")
    c.define(node, entry, view)


@operator("Reshape")
def reshape(c: Converter, node: Operation) -> None:
    """Reshape of every image."""
    value = c.value(node, 0)
    reshaped(c, node, value, item_shape(c, node, value))


@operator("Flatten")
def flatten(c: Converter, node: Operation) -> None:
    """Two axes: those before `axis`, and those from it on."""
    value = c.value(node, 0)
    shape = value.view.shape
    rank = len(shape) + c.first
    axis = int(node.attributes.get("axis", 1))
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis <= rank:
        raise Unsupported(f"axis is {axis}, of {rank}")
    if not c.first:
        reshaped(c, node, value, (math.prod(shape[:axis]), math.prod(shape[axis:])))
        return
    if axis != 1:
        raise Unsupported("it works along the batch axis")
    reshaped(c, node, value, (math.prod(shape),))


@operator("Transpose")
def transpose(c: Converter, node: Operation) -> None:
    """The axes in another order; the batch stays the first."""
    value = c.value(node, 0)
    rank = len(value.view.axes) + c.first
    order = [int(axis) for axis in node.attributes.get("perm", range(rank - 1, -1, -1))]
    if sorted(order) != list(range(rank)):
        raise Unsupported(f"perm is {order[:8]}, of {rank} axes")
    if c.first and order[0] != 0:
        raise Unsupported("it works along the batch axis")
    c.define(node, value.entry, value.view.transposed([axis - c.first for axis in order[c.first:]]))


@operator("Squeeze")
def squeeze(c: Converter, node: Operation) -> None:
    """Axes of size 1 removed."""
    value = c.value(node, 0)
    axes, shape = c.numbers(node, 1, "axes"), value.view.shape
    if axes is None:
        if c.first and c.batch == 1:
            raise Unsupported("it works along the batch axis (no axes given)")
        gone = {axis for axis, size in enumerate(shape) if size == 1}
    else:
        gone = {c.axis(node, axis, len(shape)) for axis in axes}
    if any(shape[axis] != 1 for axis in gone):
        raise Unsupported(f"it squeezes axes {sorted(gone)} of {shape}")
    c.define(node, value.entry, View(value.view.parts, tuple(
        parts for axis, parts in enumerate(value.view.axes) if axis not in gone)))


@operator("Unsqueeze")
def unsqueeze(c: Converter, node: Operation) -> None:
    """Axes of size 1 inserted."""
    value = c.value(node, 0)
    axes = c.numbers(node, 1, "axes")
    if axes is None:
        raise Unsupported("axes are missing")
    new = {c.axis(node, axis, len(value.view.axes) + len(axes)) for axis in axes}
    if len(new) != len(axes):
        raise Unsupported(f"axes are {axes[:8]}")
    old = iter(value.view.axes)
    c.define(node, value.entry, View(value.view.parts, tuple(
        () if axis in new else next(old) for axis in range(len(value.view.axes) + len(axes)))))


def _along(c: Converter, value: Value, axis: int) -> tuple[Entry, list[int], list[int]]:
    """The tensor with an axis last, the order of its axes, and their sizes; a vector if there is no other."""
    shape = value.view.shape
    order = [each for each in (*range(1, len(shape)), 0) if each != axis] + [axis]
    sizes = [shape[each] for each in order]
    if math.prod(sizes[:-1]) == 1:
        return c.arranged(value, order, (sizes[-1],)), order, sizes
    return c.arranged(value, order), order, sizes


def _view(order: list[int], sizes: list[int]) -> View:
    """The view of a tensor that holds the ONNX axes in this order."""
    parts = [Part(size) for size in sizes]
    return View(tuple(parts), tuple((parts[order.index(axis)],) for axis in range(len(order))))


@operator("Concat")
def concat(c: Converter, node: Operation) -> None:
    """Tensors side by side along one axis."""
    values = [c.value(node, index) for index in range(len(node.inputs))]
    ranks = {len(value.view.axes) for value in values}
    if len(ranks) != 1:
        raise Unsupported("its inputs have different ranks")
    axis = c.axis(node, node.attributes.get("axis", 1), ranks.pop())
    if len(values) == 1:
        c.define(node, values[0].entry, values[0].view)
        return
    moved = [_along(c, value, axis) for value in values]
    _, order, sizes = moved[0]
    made = c.emit(Concat(), [entry for entry, _, _ in moved], node.outputs[0], op="Concat")
    c.define(node, made, _view(order, [*sizes[:-1], made.shape[-1]]))


def _cut(c: Converter, value: Value, axis: int, start: int, stop: int, tensor: str) -> Value:
    """The places `start` to `stop` - 1 of one axis."""
    if (start, stop) == (0, value.view.shape[axis]):
        return value
    entry, order, sizes = _along(c, value, axis)
    try:
        layer = Slice(start, stop)
    except (ValueError, TypeError) as error:
        raise Unsupported(str(error)) from None
    made = c.emit(layer, [entry], tensor, op="Slice")
    return Value(made, _view(order, [*sizes[:-1], stop - start]), tensor)


def _picked(c: Converter, value: Value, axis: int, places: range, tensor: str) -> Value:
    """Single places of one axis, in this order."""
    if len(places) > MOST_PLACES:
        raise Unsupported(f"it takes {len(places)} places in steps of {places.step}; allowed: {MOST_PLACES}")
    cuts = [_along(c, _cut(c, value, axis, place, place + 1, f"{tensor}_{place}"), axis) for place in places]
    _, order, sizes = cuts[0]
    made = c.emit(Concat(), [entry for entry, _, _ in cuts], tensor, op="Slice")
    return Value(made, _view(order, [*sizes[:-1], len(places)]), tensor)


@operator("Split")
def split(c: Converter, node: Operation) -> None:
    """A tensor cut into parts along one axis."""
    value = c.value(node, 0)
    axis = c.axis(node, node.attributes.get("axis", 0), len(value.view.axes))
    size = value.view.shape[axis]
    parts = c.numbers(node, 1, "split")
    if parts is None:
        count = len(node.outputs)
        most = -(-size // count)
        parts = [min(most, size - most * place) for place in range(count)]
    if len(parts) != len(node.outputs) or sum(parts) != size or min(parts) < 1:
        raise Unsupported(f"its parts are {parts[:8]}, of {size}")
    start = 0
    for index, part in enumerate(parts):
        if node.outputs[index]:
            cut = _cut(c, value, axis, start, start + part, node.outputs[index])
            c.define(node, cut.entry, cut.view, index)
        start += part


@operator("Slice")
def cut(c: Converter, node: Operation) -> None:
    """A part of a tensor; in other steps than 1, its places one by one side by side."""
    value = c.value(node, 0)
    starts, ends = (c.numbers(node, index, name) for index, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise Unsupported("starts or ends are missing")
    axes = c.numbers(node, 3, "axes") or list(range(len(starts)))
    steps = c.numbers(node, 4, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Unsupported(f"its steps are {steps[:8]} for {len(starts)} starts")
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = c.axis(node, given, len(value.view.axes))
        places = range(*slice(start, end, step).indices(value.view.shape[axis]))
        if not places:
            raise Unsupported(f"it leaves nothing of axis {given}")
        if step != 1 and len(places) > 1:
            value = _picked(c, value, axis, places, node.outputs[0])
            continue
        begin, stop = places[0], places[-1] + 1
        value = _cut(c, value, axis, begin, stop, node.outputs[0])
    c.define(node, value.entry, value.view)


@operator("ReduceMean")
def reduce_mean(c: Converter, node: Operation) -> None:
    """Mean over axes of the items."""
    value = c.value(node, 0)
    shape = value.view.shape
    axes = c.numbers(node, 1, "axes")
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            c.define(node, value.entry, value.view)
            return
        axes = list(range(len(shape) + c.first))
    gone = sorted({c.axis(node, axis, len(shape)) for axis in axes})
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    order = list(last_first(len(shape))) if kept == [0] else gone + kept
    sizes = (math.prod(shape[axis] for axis in gone), 1, math.prod(shape[axis] for axis in kept))
    if kept == [0] and len(shape) == 3:
        sizes = (shape[1], shape[2], shape[0])
    made = c.emit(GlobalAveragePool(), [c.arranged(value, order, sizes)], node.outputs[0], op="ReduceMean")
    parts = {axis: Part(shape[axis]) for axis in kept}
    keep = bool(node.attributes.get("keepdims", 1))
    c.define(node, made, View(tuple(parts.values()), tuple(
        (parts[axis],) if axis in parts else () for axis in range(len(shape)) if keep or axis in parts)))


