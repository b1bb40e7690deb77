"""Pooling: every bad argument is refused by name, before anything is allocated."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import ops
from zfcore.backends import numba as backend
from zfcore.geometry import Tile

X = np.zeros((1, 6, 7, 3), np.float32)
Y, SWITCHES = np.zeros((1, 3, 3, 3), np.float32), np.zeros((1, 3, 3, 3), np.uint8)


@pytest.mark.parametrize(("settings", "argument", "error"), [
    ({"window": 0}, "window", ValueError), ({"window": -1}, "window", ValueError),
    ({"window": 2.0}, "window", TypeError), ({"window": True}, "window", TypeError),
    ({"window": (2, 2, 2)}, "window", ValueError), ({"window": (7, 2)}, "window", ValueError),
    ({"window": 8, "padding": 0}, "window", ValueError), ({"window": 2, "stride": 0}, "stride", ValueError),
    ({"window": 2, "stride": (1, -1)}, "stride", ValueError), ({"window": 2, "padding": 2}, "padding", ValueError),
    ({"window": 3, "padding": (0, 2)}, "padding", ValueError), ({"window": 2, "padding": -1}, "padding", ValueError),
    ({"window": 3, "padding": (1, 1, 2, 1)}, "padding", ValueError),
    ({"window": 2, "stride": 2**80}, "stride", ValueError), ({"window": 2**32, "padding": 2**31}, "window", ValueError),
])
def test_bad_windows(settings, argument, error):
    for call in (lambda: ops.max_pool(X, **settings), lambda: ops.average_pool(X, **settings),
                 lambda: ops.max_unpool(Y, SWITCHES, X.shape, **settings),
                 lambda: ops.average_pool_gradient(Y, X.shape, **settings),
                 lambda: ops.switches_to_flat(SWITCHES, X.shape, **settings)):
        with pytest.raises(error, match=f"{argument} is .*allowed"):
            call()


def test_window_area_above_256():
    x = np.zeros((1, 17, 17, 1), np.float32)
    for call in (lambda: ops.max_pool(x, window=(16, 17)),
                 lambda: ops.max_unpool(x[:, :1, :1], SWITCHES[:, :1, :1, :1], x.shape, window=17)):
        with pytest.raises(ValueError, match="window is .*256"):
            call()
    assert ops.average_pool(x, window=17).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(("x", "argument", "error"), [
    (X.astype(np.int32), "x.dtype", TypeError), (X.astype(np.float16), "x.dtype", TypeError),
    (X[0], "x.shape", ValueError), (X[:, :0], "window", ValueError),
])
def test_bad_maps(x, argument, error):
    for call in (ops.max_pool, ops.average_pool):
        with pytest.raises(error, match=f"{argument} is .*allowed"):
            call(x, window=2)
    with pytest.raises(TypeError, match="numpy.ndarray"):
        ops.max_pool([[1.0]], window=2)
    with pytest.raises(ValueError, match=r"x.shape is .*at least one cell"):
        ops.map_maximum(X[:, :0])
    with pytest.raises(ValueError, match=r"x.shape is .*at least one cell"):
        ops.global_average_pool(X[:, :, :0])


@pytest.mark.parametrize(("y", "switches", "shape", "argument", "error"), [
    (Y, SWITCHES.astype(np.int64), X.shape, "switches.dtype", TypeError),
    (Y, SWITCHES.astype(np.int8), X.shape, "switches.dtype", TypeError),
    (Y, SWITCHES[:, :2], X.shape, "switches.shape", ValueError),
    (Y[:, :2], SWITCHES[:, :2], X.shape, "y.shape", ValueError),
    (Y, SWITCHES, (1, 7, 9, 3), "y.shape", ValueError),
    (Y, SWITCHES, (2, 6, 7, 3), "y.shape", ValueError),
    (Y, SWITCHES, (1, 6, 7, 4), "y.shape", ValueError),
    (Y, SWITCHES, None, "output_shape", ValueError),
    (Y, SWITCHES, (6, 7), "output_shape", ValueError),
    (Y, SWITCHES, (1, -6, 7, 3), "output_shape", ValueError),
    (Y, SWITCHES, (1, 6.0, 7, 3), "output_shape", TypeError),
    (Y, SWITCHES, (1, 2**20, 2**20, 3), "output_shape", ValueError),
    (Y.astype(np.int32), SWITCHES, X.shape, "y.dtype", TypeError),
])
def test_bad_unpooling(y, switches, shape, argument, error):
    with pytest.raises(error, match=f"max_unpool: {argument} is .*allowed"):
        ops.max_unpool(y, switches, shape, window=2)


def test_unpool_needs_its_size_and_its_overlap():
    with pytest.raises(TypeError, match="output_shape"):
        ops.max_unpool(Y, SWITCHES, window=2)
    with pytest.raises(ValueError, match="overlap is 'mean'"):
        ops.max_unpool(Y, SWITCHES, X.shape, window=2, overlap="mean")


@pytest.mark.parametrize(("place", "value"), [
    ((0, 1, 1, 5), 9), ((0, 1, 1, 36), 255), ((0, 0, 0, 0), 0), ((0, 0, 1, 3), 2), ((1, 3, 1, 2), 6), ((1, 1, 3, 2), 2),
])
@pytest.mark.parametrize("overlap", ["sum", "last"])
def test_switches_outside(monkeypatch, place, value, overlap):
    """Beyond the window, or in the padding above, left, below, right: nothing is allocated."""
    geometry = {"window": 3, "stride": 2, "padding": 1}
    y, switches = ops.max_pool(np.zeros((2, 6, 6, 37), np.float32), ceil_mode=True, **geometry)
    assert y.shape == (2, 4, 4, 37)
    switches[place] = value
    monkeypatch.setattr(backend, "empty", lambda *_: pytest.fail("allocated"))
    with pytest.raises(IndexError, match="switches is .*allowed: positions inside"):
        ops.max_unpool(y, switches, (2, 6, 6, 37), overlap=overlap, **geometry)
    with pytest.raises(IndexError, match="switches is .*allowed: positions inside"):
        ops.switches_to_flat(switches, (2, 6, 6, 37), **geometry)


@pytest.mark.parametrize("value", [-1, 42, 2**32 + 3, -(2**40), 3])
def test_flat_indices_outside(value):
    """Out of the plane of 6 x 7, or a cell of another window."""
    flat = ops.switches_to_flat(SWITCHES, X.shape, window=2)
    flat[0, 2, 2, 1] = value
    with pytest.raises(IndexError, match="flat is "):
        ops.switches_from_flat(flat, X.shape, window=2)


def test_flat_indices_of_the_wrong_kind():
    flat = ops.switches_to_flat(SWITCHES, X.shape, window=2)
    for dtype in (np.int32, np.float32, np.uint64):
        with pytest.raises(TypeError, match=r"flat.dtype is .*int64"):
            ops.switches_from_flat(flat.astype(dtype), X.shape, window=2)
    with pytest.raises(ValueError, match=r"flat.shape is"):
        ops.switches_from_flat(flat[0], X.shape, window=2)


def test_bad_gradients():
    with pytest.raises(ValueError, match="dy.shape is"):
        ops.average_pool_gradient(Y[:, :2], X.shape, window=2)
    with pytest.raises(ValueError, match="divisor is 'all'"):
        ops.average_pool(X, window=2, divisor="all")
    with pytest.raises(ValueError, match="dy.shape is"):
        ops.global_average_pool_gradient(Y[0, 0], X.shape)
    values, positions = ops.map_maximum(X)
    for value in (-1, 42):
        with pytest.raises(IndexError, match=f"positions is {value}"):
            ops.global_max_pool_gradient(values, np.full_like(positions, value), X.shape)
    with pytest.raises(TypeError, match="positions.dtype is"):
        ops.global_max_pool_gradient(values, positions.astype(np.int64), X.shape)


def test_bad_tiles():
    tile = Tile(np.zeros((1, 2), np.int32), (6, 7))
    for settings, argument in (({"padding": 1}, "padding"), ({"ceil_mode": True}, "ceil_mode")):
        with pytest.raises(ValueError, match=f"{argument} is .*tile"):
            ops.max_pool(X, window=2, tile=tile, **settings)
    with pytest.raises(ValueError, match="tile.origins.shape is"):
        ops.max_pool(X, window=2, tile=Tile(np.zeros((2, 2), np.int32), (6, 7)))
    with pytest.raises(TypeError, match="tile.origins.dtype is"):
        ops.max_pool(X, window=2, tile=Tile(np.zeros((1, 2)), (6, 7)))
