"""Max pooling with switches, unpooling, average pooling, whole-map pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends, checks
from ..geometry import Tile, output_size
from .crop import bounds_of

__all__ = ["average_pool", "average_pool_gradient", "global_average_pool", "global_average_pool_gradient",
           "global_max_pool", "global_max_pool_gradient", "map_maximum", "max_pool", "max_unpool",
           "switches_from_flat", "switches_to_flat"]

DIVISORS = ("valid", "padded", "window")


@dataclass(frozen=True)
class _Windows:
    """Checked geometry of a pooling layer."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def before(self) -> tuple[int, int]:
        return self.padding[0], self.padding[2]

    def outputs(self, size: tuple[int, int], ceil_mode: bool) -> tuple[int, int]:
        """(P, Q) for a map of `size`."""
        top, bottom, left, right = self.padding
        return (output_size(size[0], self.window[0], self.stride[0], top, bottom, ceil_mode=ceil_mode),
                output_size(size[1], self.window[1], self.stride[1], left, right, ceil_mode=ceil_mode))


def _windows(where: str, shape: tuple[int, ...], window: Any, stride: Any, padding: Any, tile: Tile | None = None,
             ceil_mode: bool = False) -> _Windows:
    """Check window, stride and padding against the map's shape (N, H, W, C)."""
    sides = checks.pair(where, "window", window, 1)
    steps = sides if stride is None else checks.pair(where, "stride", stride, 1)
    pads = checks.padding(where, padding)
    if tile is not None:
        checks.require(not any(pads), where, "padding", padding, "0 with a tile, which holds its own padding")
        checks.require(not ceil_mode, where, "ceil_mode", ceil_mode, "False with a tile, which holds whole windows")
    for axis, (side, size) in enumerate(zip(sides, shape[1:3], strict=True)):
        first, last = pads[2 * axis:2 * axis + 2]
        checks.require(2 * max(first, last) <= side, where, "padding", padding, f"at most half the window {sides}")
        checks.require(side <= size + first + last, where, "window", window,
                       f"at most the padded input {(shape[1] + pads[0] + pads[1], shape[2] + pads[2] + pads[3])}")
    return _Windows(sides, steps, pads)


def _switch_area(where: str, window: tuple[int, int]) -> None:
    checks.require(window[0] * window[1] <= 256, where, "window", window, "an area of at most 256 (uint8 switches)")


def _shape4(where: str, argument: str, shape: Any) -> tuple[int, int, int, int]:
    """The exact shape (N, H, W, C) of a map; never guessed, since pooling's input size is ambiguous."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 4:
        checks.fail(where, argument, shape, "the exact (N, H, W, C) of the pooling layer's input")
    n, height, width, channels = (checks.integer(where, argument, size, 0) for size in shape)
    checks.fits(where, argument, shape)
    return n, height, width, channels


def _pooled_shape(where: str, argument: str, array: Any, shape: tuple[int, ...], windows: _Windows,
                  ceil_modes: tuple[bool, ...]) -> None:
    """Require that `array` has the shape of the pooled map, in one of the given modes."""
    allowed = list(dict.fromkeys((shape[0], *windows.outputs((shape[1], shape[2]), mode), shape[3])
                                 for mode in ceil_modes))
    checks.require(tuple(array.shape) in allowed, where, f"{argument}.shape", tuple(array.shape),
                   " or ".join(map(str, allowed)))


def max_pool(x: Any, *, window: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
             tile: Tile | None = None, backend: Any = None) -> tuple[Any, Any]:
    """Max pooling that records its switches.

    Parameters
    ----------
    x : (N, H, W, C)
    window, stride : one integer or (vertical, horizontal); stride defaults to the window
    padding : one integer, (vertical, horizontal) or (top, bottom, left, right); at most half the window.
        Padding never wins.
    ceil_mode : let a last window hang over the border, unless it would start in the padding
    tile : x is a batch of crops; see `geometry.Tile`

    Returns
    -------
    y : (N, P, Q, C)
    switches : uint8 (N, P, Q, C), r * window_width + c inside the unclipped window. The first of equal
        values in row-major order wins, and the first NaN wins over all. A window wholly outside the map
        of a tile gives 0 and switch 0.

    Raises
    ------
    ValueError
        for windows larger than the padded input or of an area above 256, and for impossible settings
    TypeError
        for other types of arrays
    """
    where = "max_pool"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x, 4, backend)
    windows = _windows(where, x.shape, window, stride, padding, tile, ceil_mode)
    _switch_area(where, windows.window)
    bounds = bounds_of(where, x.shape, tile)
    shape = (x.shape[0], *windows.outputs(x.shape[1:3], ceil_mode), x.shape[3])
    x = backend.asarray(x)
    y, switches = backend.empty(shape, x.dtype), backend.empty(shape, np.uint8)
    backend.max_pool(y, switches, x, bounds, windows.window, windows.stride, windows.before)
    return y, switches


def max_unpool(y: Any, switches: Any, output_shape: Any, *, window: Any, stride: Any = None, padding: Any = 0,
               overlap: str = "sum", trusted: bool = False, tile: Tile | None = None, backend: Any = None) -> Any:
    """Place each value at its switch; with `overlap="sum"` also max pooling's gradient.

    Parameters
    ----------
    y : (N, P, Q, C) values, or the gradient by the pooled map
    switches : uint8, same shape, from `max_pool`
    output_shape : exact (N, H, W, C) of the pooling layer's input (several sizes pool to one)
    window, stride, padding, tile : the pooling layer's
    overlap : where windows share a cell, "sum" adds their values in raster order (the adjoint of
        pooling at fixed switches), "last" keeps the last window's in raster order, zeros included
    trusted : the switches are `max_pool`'s own, unchanged: they are not looked at first, so that nothing
        waits for a device. A bad switch then writes nothing, and is no error

    Returns
    -------
    x : (N, H, W, C), 0 where no switch points

    Raises
    ------
    IndexError
        if a switch lies outside its window or points outside the map; nothing is allocated then
    ValueError, TypeError
        for shapes and types that do not fit
    """
    where = "max_unpool"
    backend = backend or backends.of(y)
    checks.floats(where, "y", y, 4, backend)
    checks.one_of(where, "overlap", overlap, ("sum", "last"))
    shape = _shape4(where, "output_shape", output_shape)
    windows = _windows(where, shape, window, stride, padding, tile)
    _switch_area(where, windows.window)
    _pooled_shape(where, "y", y, shape, windows, (False,) if tile is not None else (False, True))
    _uint8(where, switches, y.shape)
    bounds = bounds_of(where, shape, tile)
    y, switches = backend.asarray(y), backend.asarray(switches)
    if not trusted and not backend.check_switches(switches, bounds, windows.window, windows.stride, windows.before):
        checks.fail(where, "switches", f"an array with entries up to {int(switches.max())}",
                    f"positions inside the window {windows.window} and inside the map {shape[1:3]}", IndexError)
    x = backend.empty(shape, y.dtype)
    backend.max_unpool(x, y, switches, bounds, windows.window, windows.stride, windows.before, overlap == "last")
    return x


def _uint8(where: str, switches: Any, shape: tuple[int, ...]) -> None:
    dtype = getattr(switches, "dtype", type(switches).__name__)
    if dtype != np.uint8:
        checks.fail(where, "switches.dtype", dtype, "uint8", TypeError)
    checks.shape(where, "switches", switches, shape)


def switches_to_flat(switches: Any, input_shape: Any, *, window: Any, stride: Any = None, padding: Any = 0,
                     backend: Any = None) -> Any:
    """Convert switches to the flat indices of PyTorch and ONNX.

    Parameters
    ----------
    switches : uint8 (N, P, Q, C)
    input_shape : exact (N, H, W, C) of the pooling layer's input
    window, stride, padding : as in `max_pool`

    Returns
    -------
    int64 (N, P, Q, C): row * W + column in the plane of the same map. (PyTorch's own array is NCHW:
    transpose it. ONNX adds the plane's offset.)

    Raises
    ------
    IndexError
        if a switch lies outside its window or the map
    """
    where = "switches_to_flat"
    backend = backend or backends.of(switches)
    shape = _shape4(where, "input_shape", input_shape)
    windows = _windows(where, shape, window, stride, padding)
    _switch_area(where, windows.window)
    _uint8(where, switches, switches.shape)
    _pooled_shape(where, "switches", switches, shape, windows, (False, True))
    switches = backend.asarray(switches)
    if not backend.check_switches(switches, bounds_of(where, shape, None), windows.window, windows.stride,
                                  windows.before):
        checks.fail(where, "switches", f"an array with entries up to {int(switches.max())}",
                    f"positions inside the window {windows.window} and inside the map {shape[1:3]}", IndexError)
    flat = backend.empty(switches.shape, np.int64)
    backend.switches_to_flat(flat, switches, shape[2], windows.window, windows.stride, windows.before)
    return flat


def switches_from_flat(flat: Any, input_shape: Any, *, window: Any, stride: Any = None, padding: Any = 0,
                       backend: Any = None) -> Any:
    """Convert flat indices of PyTorch or ONNX (per plane, int64, transposed to NHWC) to switches.

    Parameters
    ----------
    flat : int64 (N, P, Q, C)
    input_shape : exact (N, H, W, C) of the pooling layer's input
    window, stride, padding : as in `max_pool`

    Raises
    ------
    TypeError
        unless `flat` is int64
    IndexError
        if an index lies outside the plane or outside its own window
    """
    where = "switches_from_flat"
    backend = backend or backends.of(flat)
    shape = _shape4(where, "input_shape", input_shape)
    windows = _windows(where, shape, window, stride, padding)
    _switch_area(where, windows.window)
    if flat.dtype != np.int64:
        checks.fail(where, "flat.dtype", flat.dtype, "int64", TypeError)
    checks.require(flat.ndim == 4, where, "flat.shape", tuple(flat.shape), "4 dimensions")
    _pooled_shape(where, "flat", flat, shape, windows, (False, True))
    flat = backend.asarray(flat)
    plane = shape[1] * shape[2]
    if flat.size and (flat.min() < 0 or flat.max() >= plane):
        worst = flat.min() if flat.min() < 0 else flat.max()
        checks.fail(where, "flat", int(worst), f"an index from 0 to {plane - 1}", IndexError)
    switches = backend.empty(flat.shape, np.uint8)
    if not backend.switches_from_flat(switches, flat, shape[2], windows.window, windows.stride, windows.before):
        checks.fail(where, "flat", "an array with an index outside its window", "indices inside their windows",
                    IndexError)
    return switches


def _average(where: str, shape: tuple[int, ...], window: Any, stride: Any, padding: Any, ceil_mode: bool,
             divisor: str, tile: Tile | None) -> tuple[_Windows, np.ndarray, np.ndarray]:
    """Windows, bounds of the map and bounds of the cells that the divisor counts."""
    checks.one_of(where, "divisor", divisor, DIVISORS)
    pads = checks.padding(where, padding)
    if tile is not None and divisor == "padded":
        windows = _windows(where, shape, window, stride, 0, tile, ceil_mode)
    else:
        windows = _windows(where, shape, window, stride, padding, tile, ceil_mode)
    bounds = bounds_of(where, shape, tile)
    counted = bounds.copy()
    if divisor == "window":
        counted[:] = -(2**40), 2**40, -(2**40), 2**40
    elif divisor == "padded":
        origins = np.zeros((shape[0], 2), np.int64) if tile is None else np.asarray(tile.origins, np.int64)
        extent = shape[1:3] if tile is None else tile.extent
        for axis in range(2):
            counted[:, 2 * axis] = -origins[:, axis] - pads[2 * axis]
            counted[:, 2 * axis + 1] = extent[axis] - origins[:, axis] + pads[2 * axis + 1]
    return windows, bounds, counted


def average_pool(x: Any, *, window: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 divisor: str = "valid", tile: Tile | None = None, backend: Any = None) -> Any:
    """Average pooling with an explicit divisor.

    Parameters
    ----------
    x : (N, H, W, C)
    window, stride, padding, ceil_mode, tile : as in `max_pool`
    divisor : "valid" counts the window's cells inside the map (PyTorch's count_include_pad=False),
        "padded" those inside the padded map (count_include_pad=True and Caffe: a ceil-mode window that
        hangs over the padding counts only its part inside), "window" the whole window always.
        With a tile and "padded", `padding` is that of the whole map and serves the divisor only.

    Returns
    -------
    y : (N, P, Q, C); 0 where a tile's window lies wholly outside the map
    """
    where = "average_pool"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x, 4, backend)
    windows, bounds, counted = _average(where, x.shape, window, stride, padding, ceil_mode, divisor, tile)
    shape = (x.shape[0], *windows.outputs(x.shape[1:3], ceil_mode), x.shape[3])
    x = backend.asarray(x)
    y = backend.empty(shape, x.dtype)
    backend.average_pool(y, x, bounds, counted, windows.window, windows.stride, windows.before)
    return y


def average_pool_gradient(dy: Any, input_shape: Any, *, window: Any, stride: Any = None, padding: Any = 0,
                          ceil_mode: bool = False, divisor: str = "valid", tile: Tile | None = None,
                          backend: Any = None) -> Any:
    """Adjoint of `average_pool`: dx (N, H, W, C) from dy (N, P, Q, C) and the exact input shape.

    Parameters
    ----------
    dy : (N, P, Q, C), the signal
    input_shape : (N, H, W, C)
    window, stride, padding, ceil_mode, divisor, tile : as in `average_pool`
    """
    where = "average_pool_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 4, backend)
    shape = _shape4(where, "input_shape", input_shape)
    windows, bounds, counted = _average(where, shape, window, stride, padding, ceil_mode, divisor, tile)
    _pooled_shape(where, "dy", dy, shape, windows, (ceil_mode,))
    dy = backend.asarray(dy)
    dx = backend.empty(shape, dy.dtype)
    backend.average_pool_gradient(dx, dy, bounds, counted, windows.window, windows.stride, windows.before)
    return dx


def _whole_maps(where: str, x: Any, backend: Any) -> None:
    checks.floats(where, "x", x, 4, backend)
    checks.require(x.shape[1] * x.shape[2] > 0, where, "x.shape", tuple(x.shape), "maps of at least one cell")


def global_average_pool(x: Any, *, backend: Any = None) -> Any:
    """Mean of every map of x (N, H, W, C), summed in raster order: (N, C).

    Parameters
    ----------
    x : (N, H, W, C)
    """
    backend = backend or backends.of(x)
    _whole_maps("global_average_pool", x, backend)
    x = backend.asarray(x)
    y = backend.empty((x.shape[0], x.shape[3]), x.dtype)
    backend.global_average_pool(y, x)
    return y


def global_average_pool_gradient(dy: Any, input_shape: Any, *, backend: Any = None) -> Any:
    """Gradient of `global_average_pool`: dy (N, C) spread over the cells of (N, H, W, C).

    Parameters
    ----------
    dy : (N, C), the signal
    input_shape : (N, H, W, C)
    """
    where = "global_average_pool_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 2, backend)
    shape = _shape4(where, "input_shape", input_shape)
    checks.shape(where, "dy", dy, (shape[0], shape[3]))
    dy = backend.asarray(dy)
    dx = backend.empty(shape, dy.dtype)
    backend.global_average_pool_gradient(dx, dy)
    return dx


def map_maximum(x: Any, *, backend: Any = None) -> tuple[Any, Any]:
    """Greatest value of every map of x (N, H, W, C), and where.

    Parameters
    ----------
    x : (N, H, W, C)

    Returns
    -------
    values : (N, C)
    positions : int32 (N, C), row * W + column; the first of equals in row-major order, the first NaN
    """
    return _maximum("map_maximum", x, backend or backends.of(x))


def _maximum(where: str, x: Any, backend: Any) -> tuple[Any, Any]:
    _whole_maps(where, x, backend)
    checks.fits(where, "x.shape", x.shape[1:3])
    x = backend.asarray(x)
    values = backend.empty((x.shape[0], x.shape[3]), x.dtype)
    positions = backend.empty(values.shape, np.int32)
    backend.map_maximum(values, positions, x)
    return values, positions


def global_max_pool(x: Any, *, backend: Any = None) -> tuple[Any, Any]:
    """Global max pooling: `map_maximum` under its layer's name.

    Parameters
    ----------
    x : (N, H, W, C)
    """
    return _maximum("global_max_pool", x, backend or backends.of(x))


def global_max_pool_gradient(dy: Any, positions: Any, input_shape: Any, *, backend: Any = None) -> Any:
    """Gradient of `global_max_pool`: (N, H, W, C), dy (N, C) at the recorded positions, else 0.

    Parameters
    ----------
    dy : (N, C), the signal
    positions : int32 (N, C), what `global_max_pool` gave
    input_shape : (N, H, W, C)

    Raises
    ------
    IndexError
        if a position lies outside the map
    """
    where = "global_max_pool_gradient"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, 2, backend)
    shape = _shape4(where, "input_shape", input_shape)
    checks.shape(where, "dy", dy, (shape[0], shape[3]))
    if getattr(positions, "dtype", None) != np.int32:
        checks.fail(where, "positions.dtype", getattr(positions, "dtype", type(positions).__name__), "int32", TypeError)
    checks.shape(where, "positions", positions, dy.shape)
    cells = shape[1] * shape[2]
    if positions.size and (positions.min() < 0 or positions.max() >= cells):
        worst = positions.min() if positions.min() < 0 else positions.max()
        checks.fail(where, "positions", int(worst), f"a position from 0 to {cells - 1}", IndexError)
    dy, positions = backend.asarray(dy), backend.asarray(positions)
    dx = backend.empty(shape, dy.dtype)
    backend.global_max_pool_gradient(dx, dy, positions)
    return dx
