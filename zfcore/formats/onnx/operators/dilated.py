"""Pools whose windows have holes: the cells of each phase are maps of their own, and pooled densely.

With dilation d a window sees every d-th row. So rows with the same remainder become separate maps (a
Rearrange), an ordinary pool runs over them at stride 1, and the result is put together again; strides
are taken at the end. Exact, and every rule goes through it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....layers import AveragePool, Layer, MaxPool, Pad, Rearrange, Scale
from ..convert import Converter, Entry, Unsupported

Pair = tuple[int, int]


def _counts(size: Sequence[int], window: Pair, stride: Pair, dilation: Pair, padding: Sequence[int],
            ceil_mode: bool) -> list[int]:
    """Rows and columns of the result; in ceil mode no window begins in the padding at the end."""
    result = []
    for axis in range(2):
        room = size[axis] + padding[2 * axis] + padding[2 * axis + 1] - dilation[axis] * (window[axis] - 1) - 1
        if room < 0:
            raise Unsupported(f"its window of {window} with dilations {dilation} is larger than its input")
        count = (-(-room // stride[axis]) if ceil_mode else room // stride[axis]) + 1
        if ceil_mode and (count - 1) * stride[axis] >= size[axis] + padding[2 * axis]:
            count -= 1
        result.append(count)
    return result


def pool(c: Converter, entry: Entry, layer: type[MaxPool] | type[AveragePool], fill: float, window: Pair,
         stride: Pair, dilation: Pair, padding: Sequence[int], ceil_mode: bool, counted: bool, name: str) -> Entry:
    """Emit a dilated pool.

    Parameters
    ----------
    c : the walk
    entry : what it reads, (height, width, maps)
    layer, fill : the kind of pool, and what its padding holds
    window, stride, dilation : (vertical, horizontal)
    padding : (top, bottom, left, right)
    ceil_mode : whether a last window may reach over the end
    counted : whether an average counts padding
    name : of the tensor that it makes

    Returns
    -------
    the entry of its result
    """
    height, width, maps = entry.shape
    count = _counts((height, width), window, stride, dilation, padding, ceil_mode)
    dense = [(count[axis] - 1) * stride[axis] + 1 for axis in range(2)]
    rows, columns = (-(-(dense[axis] + dilation[axis] * (window[axis] - 1)) // dilation[axis]) for axis in range(2))
    down, across = dilation

    def then(made: Layer, below: Entry, what: str) -> Entry:
        return c.emit(made, [below], f"{name}_{what}")

    sides = (padding[0], rows * down - height - padding[0], padding[2], columns * across - width - padding[2])
    x = then(Pad(sides, value=fill), entry, "padded") if any(sides) else entry
    x = then(Rearrange((rows, down, columns, across, maps), (0, 2, 1, 3, 4), (rows, columns, down * across * maps)),
             x, "phases")
    x = then(layer(window, 1), x, "dense")
    rows, columns = x.shape[:2]
    x = then(Rearrange((rows, columns, down, across, maps), (0, 2, 1, 3, 4), (rows * down, columns * across, maps)),
             x, "joined")
    sides = (0, dense[0] - rows * down, 0, dense[1] - columns * across)
    x = then(Pad(sides), x, "cut") if any(sides) else x
    x = then(MaxPool(1, stride), x, "strided") if stride != (1, 1) else x
    if layer is AveragePool:
        factors = [_share((height, width)[axis], padding[2 * axis:2 * axis + 2], window[axis], stride[axis],
                          dilation[axis], count[axis], counted) for axis in range(2)]
        c.budget.take(f"the divisors of {name[:200]!r}", 16 * (count[0] * count[1] + sum(count)))
        share = factors[0][:, None] * factors[1]
        if (share != 1).any():
            x = c.emit(Scale((*count, 1), bias=False), [x], f"{name}_mean", {"scale": share[:, :, None]})
    x.tensor = name
    return x


def _share(size: int, pads: Sequence[int], window: int, stride: int, dilation: int, count: int,
           counted: bool) -> np.ndarray:
    """Along one axis, a window's cells for each one that an average counts."""
    places = np.arange(count)[:, None] * stride - pads[0] + np.arange(window) * dilation
    low, high = (-pads[0], size + pads[1]) if counted else (0, size)
    inside = ((places >= low) & (places < high)).sum(1)
    if (inside < 1).any():
        raise Unsupported("a window lies wholly in the padding, which is not counted")
    return window / inside
