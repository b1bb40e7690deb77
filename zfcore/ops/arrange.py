"""Operations that move cells without windows: rearranging axes, padding, resizing.

As in `elementwise`, the arrays' own library computes them where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backends, checks
from .pooling import switches_to_flat

__all__ = ["pad", "pad_gradient", "pool_at", "rearrange", "resize", "resize_gradient", "resize_taps"]

PAD_MODES = ("constant", "reflect", "edge")
RESIZE_MODES = ("nearest", "linear")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def rearrange(x: Any, split: Sequence[int], order: Sequence[int], shape: Sequence[int], *,
              backend: Any = None) -> Any:
    """Cut every item's axes into `split`, permute them by `order`, and join them to `shape`.

    Parameters
    ----------
    x : (N, ...)
    split : sizes whose product is an item's size; x is read in C order
    order : a permutation of the axes of `split`
    shape : of the result, without N
    """
    where = "rearrange"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x)
    checks.require(x.ndim >= 1, where, "x.shape", tuple(x.shape), "at least one dimension")
    size = math.prod(x.shape[1:])
    checks.require(math.prod(split) == size, where, "split", tuple(split), f"sizes with the product {size}")
    checks.require(sorted(order) == list(range(len(split))), where, "order", tuple(order),
                   f"a permutation of 0 to {len(split) - 1}")
    checks.require(math.prod(shape) == size, where, "shape", tuple(shape), f"sizes with the product {size}")
    items = x.shape[0]
    if list(order) == sorted(order):
        return backend.asarray(x).reshape(items, *shape)
    parts = backend.asarray(x).reshape(items, *split)
    moved = parts.transpose(0, *(axis + 1 for axis in order))
    return backend.asarray(moved).reshape(items, *shape)


def _pads(where: str, padding: Any, channels: Any, mode: str, shape: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for every axis of (N, H, W, C); negative numbers crop."""
    checks.one_of(where, "mode", mode, PAD_MODES)
    values = [*padding, *channels]
    whole = all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values)
    checks.require(len(values) == 6 and whole, where, "padding, channels", tuple(values),
                   "four integers and two integers")
    pads = [(0, 0), *((int(values[i]), int(values[i + 1])) for i in (0, 2, 4))]
    for (before, after), size in zip(pads[1:], shape[1:], strict=True):
        checks.require(size + before + after >= 1 and size + min(before, 0) + min(after, 0) >= 1, where,
                       "padding", tuple(values), "numbers that leave something of the map")
        if mode == "reflect":
            checks.require(max(before, after) < size, where, "padding", tuple(values),
                           "less than the map's size for 'reflect'")
    checks.fits(where, "the padded shape", [size + sum(pad) for size, pad in zip(shape, pads, strict=True)])
    return pads


def pad(x: Any, padding: Sequence[int], channels: Sequence[int] = (0, 0), *, mode: str = "constant",
        value: float = 0.0, backend: Any = None) -> Any:
    """Pad maps; negative numbers crop.

    Parameters
    ----------
    x : (N, H, W, C)
    padding : (top, bottom, left, right)
    channels : maps to add before and after
    mode : "constant"; "reflect": mirrored without repeating the border; "edge": the border's value
    value : of the added cells for "constant"
    """
    backend = backend or backends.of(x)
    checks.floats("pad", "x", x, 4)
    pads = _pads("pad", padding, channels, mode, x.shape)
    x = backend.asarray(x)
    x = x[tuple(slice(max(-before, 0), size - max(-after, 0))
                for (before, after), size in zip(pads, x.shape, strict=True))]
    grown = [(max(before, 0), max(after, 0)) for before, after in pads]
    if mode == "constant":
        y = np.pad(x, grown, mode="constant", constant_values=x.dtype.type(value))
    else:
        y = np.pad(x, grown, mode="reflect" if mode == "reflect" else "edge")
    return backend.asarray(y)


def pad_gradient(dy: Any, input_shape: Sequence[int], padding: Sequence[int], channels: Sequence[int] = (0, 0), *,
                 mode: str = "constant", backend: Any = None) -> Any:
    """Adjoint of `pad`: every padded cell's signal goes back to the cell that it copied.

    Parameters
    ----------
    dy : the signal at the padded map
    input_shape : (N, H, W, C) before padding
    padding, channels, mode : as in `pad`
    """
    where = "pad_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 4)
    pads = _pads(where, padding, channels, mode, input_shape)
    checks.shape(where, "dy", dy, [size + sum(each) for size, each in zip(input_shape, pads, strict=True)])
    signal = backend.asarray(dy)
    for axis in (1, 2, 3):
        before, after = pads[axis]
        size = input_shape[axis]
        begin, end = max(-before, 0), size - max(-after, 0)  # the part of the input that was kept
        back = backend.zeros((*signal.shape[:axis], size, *signal.shape[axis + 1:]), signal.dtype)
        to, given = np.moveaxis(back, axis, 0), np.moveaxis(signal, axis, 0)
        first = max(before, 0)
        to[begin:end] = given[first:first + end - begin]
        if mode != "constant":
            for step in range(1, max(before, 0) + 1):
                to[begin + (step if mode == "reflect" else 0)] += given[first - step]
            for step in range(1, max(after, 0) + 1):
                to[end - 1 - (step if mode == "reflect" else 0)] += given[first + end - begin - 1 + step]
        signal = back
    return backend.asarray(signal)


def _coordinate(position: np.ndarray, size: int, out: int, scale: float, coordinates: str) -> np.ndarray:
    """Where in the input each output position lies (ONNX's formulas)."""
    if coordinates == "asymmetric":
        return position / scale
    if coordinates == "align_corners":
        length = out if abs(scale * size - out) < 1e-6 * out else scale * size  # ONNX: before it is cut off
        return position * (size - 1) / (length - 1) if out > 1 else np.zeros_like(position)
    if coordinates == "pytorch_half_pixel" and out <= 1:
        return np.zeros_like(position)
    place = (position + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        adjusted = size * (1 - out / (scale * size)) / 2  # the cut-off part, half on either side
        place = place + adjusted
    return place


def resize_taps(size: int, out: int, scale: float, mode: str, coordinates: str,
                nearest: str) -> tuple[np.ndarray, np.ndarray]:
    """The input cells that each output position reads along one axis, and their weights.

    Parameters
    ----------
    size, out : input's and output's length
    scale : out / size as the caller states it; it may differ a little from that quotient
    mode : "nearest" or "linear"
    coordinates : one of "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric",
        "align_corners"
    nearest : "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil"

    Returns
    -------
    indices : (out, taps)
    weights : float64 (out, taps)
    """
    where = "resize"
    checks.one_of(where, "mode", mode, RESIZE_MODES)
    checks.one_of(where, "coordinates", coordinates, COORDINATES)
    checks.one_of(where, "nearest", nearest, NEAREST)
    checks.require(math.isfinite(scale) and scale > 0, where, "scale", scale, "a number above 0")
    place = _coordinate(np.arange(out, dtype=np.float64), size, out, scale, coordinates)
    if mode == "nearest":
        rounded = {"round_prefer_floor": np.ceil(place - 0.5), "round_prefer_ceil": np.floor(place + 0.5),
                   "floor": np.floor(place), "ceil": np.ceil(place)}[nearest]
        return np.clip(rounded, 0, size - 1).astype(np.intp)[:, None], np.ones((out, 1))
    low = np.floor(place)
    share = place - low
    indices = np.clip(np.stack([low, low + 1], axis=1), 0, size - 1).astype(np.intp)
    return indices, np.stack([1 - share, share], axis=1)


def _axes(where: str, shape: Sequence[int], size: Any, scales: Any, mode: str, coordinates: str,
          nearest: str) -> list[tuple[np.ndarray, np.ndarray]]:
    out = checks.pair(where, "size", size, 1)
    checks.fits(where, "the resized shape", (shape[0], *out, shape[3]))
    given = scales if scales is not None else (out[0] / shape[1], out[1] / shape[2])
    return [resize_taps(shape[axis + 1], out[axis], float(given[axis]), mode, coordinates, nearest)
            for axis in range(2)]


def resize(x: Any, size: Any, *, scales: Any = None, mode: str = "nearest", coordinates: str = "half_pixel",
           nearest: str = "round_prefer_floor", backend: Any = None) -> Any:
    """Resize maps, rows and columns one after the other.

    Parameters
    ----------
    x : (N, H, W, C), H and W at least 1
    size : (rows, columns) of the result
    scales : (vertical, horizontal) factors if they are not exactly size / (H, W); None: those
    mode, coordinates, nearest : as in `resize_taps`

    Returns
    -------
    y : (N, rows, columns, C)
    """
    backend = backend or backends.of(x)
    checks.floats("resize", "x", x, 4)
    checks.require(min(x.shape[1:3]) >= 1, "resize", "x.shape", tuple(x.shape), "maps of at least one cell")
    y = backend.asarray(x)
    for axis, (indices, weights) in enumerate(_axes("resize", x.shape, size, scales, mode, coordinates, nearest), 1):
        if indices.shape[1] == 1:
            y = np.take(y, backend.asarray(indices[:, 0]), axis=axis)
            continue
        form = [1, 1, 1, 1]
        form[axis] = len(weights)
        parts = [np.take(y, backend.asarray(indices[:, tap]), axis=axis)
                 * backend.asarray(weights[:, tap].astype(y.dtype).reshape(form)) for tap in range(2)]
        y = parts[0] + parts[1]
    return backend.asarray(y)


def resize_gradient(dy: Any, input_shape: Sequence[int], *, scales: Any = None, mode: str = "nearest",
                    coordinates: str = "half_pixel", nearest: str = "round_prefer_floor",
                    backend: Any = None) -> Any:
    """Adjoint of `resize`; sums run over the output positions in order.

    Parameters
    ----------
    dy : (N, rows, columns, C)
    input_shape : (N, H, W, C) before resizing
    scales, mode, coordinates, nearest : as in `resize`
    """
    where = "resize_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 4)
    checks.require(len(input_shape) == 4 and (dy.shape[0], dy.shape[3]) == (input_shape[0], input_shape[3]),
                   where, "input_shape", tuple(input_shape), f"({dy.shape[0]}, H, W, {dy.shape[3]})")
    taps = _axes(where, input_shape, dy.shape[1:3], scales, mode, coordinates, nearest)
    signal = backend.asarray(dy)
    for axis in (2, 1):
        indices, weights = taps[axis - 1]
        back = backend.zeros((*signal.shape[:axis], input_shape[axis], *signal.shape[axis + 1:]), signal.dtype)
        to, given = np.moveaxis(back, axis, 0), np.moveaxis(signal, axis, 0)
        for position in range(len(indices)):
            for index, weight in zip(indices[position], weights[position].astype(signal.dtype), strict=True):
                to[index] += given[position] * weight
        signal = back
    return backend.asarray(signal)


def pool_at(x: Any, switches: Any, *, window: Any, stride: Any = None, padding: Any = 0,
            backend: Any = None) -> Any:
    """Pool by taking the cells at given switches: the adjoint of `max_unpool` where no windows overlap.

    Parameters
    ----------
    x : (N, H, W, C)
    switches : uint8 (N, P, Q, C), from `max_pool`
    window, stride, padding : that pool's

    Returns
    -------
    y : (N, P, Q, C)
    """
    backend = backend or backends.of(x)
    checks.floats("pool_at", "x", x, 4, backend)
    flat = switches_to_flat(switches, tuple(x.shape), window=window, stride=stride, padding=padding,
                            backend=backend)
    cells, places = (each.reshape(each.shape[0], each.shape[1] * each.shape[2], each.shape[3])
                     for each in (backend.asarray(x), flat))
    return backend.asarray(np.take_along_axis(cells, places, axis=1).reshape(switches.shape))
