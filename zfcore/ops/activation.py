"""ReLU and its three rules for the way down, add, dropout, concat and split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backends, checks

__all__ = ["add", "concat", "dropout", "relu", "relu_backward", "split"]

RULES = ("gradient", "deconvnet", "guided")


def relu(x: Any, *, backend: Any = None) -> Any:
    """max(x, 0) of an array of any shape; NaN stays NaN.

    Parameters
    ----------
    x : any shape
    """
    backend = backend or backends.of(x)
    checks.floats("relu", "x", x, None, backend)
    x = backend.asarray(x)
    y = backend.empty(x.shape, x.dtype)
    backend.relu(y, x)
    return y


def relu_backward(dy: Any, y: Any | None, *, rule: str = "gradient", backend: Any = None) -> Any:
    """What a ReLU does to a signal on the way down.

    Parameters
    ----------
    dy : the signal
    y : the ReLU's output on the way up, same shape (its input gives the same mask); the deconvnet rule
        does not read it, so it may be None there
    rule : "gradient" passes dy where y > 0, "deconvnet" max(dy, 0), "guided" max(dy, 0) where y > 0
    """
    where = "relu_backward"
    backend = backend or backends.of(dy)
    checks.one_of(where, "rule", rule, RULES)
    checks.floats(where, "dy", dy, None, backend)
    dy = backend.asarray(dy)
    if rule != "deconvnet" or y is not None:
        checks.floats(where, "y", y, None, backend)
        checks.shape(where, "y", y, dy.shape)
        checks.same_dtype(where, dy=dy, y=y)
    dx = backend.empty(dy.shape, dy.dtype)
    if rule == "deconvnet":
        backend.relu(dx, dy)
    elif rule == "gradient":
        backend.relu_gradient(dx, dy, backend.asarray(y))
    else:
        backend.relu_guided(dx, dy, backend.asarray(y))
    return dx


def add(*arrays: Any, backend: Any = None) -> Any:
    """Sum of one or more arrays of one shape, added from left to right.

    Parameters
    ----------
    *arrays : one or more of one shape and dtype
    """
    _given("add", arrays)
    backend = backend or backends.of(arrays[0])
    for i, array in enumerate(arrays):
        checks.floats("add", f"arrays[{i}]", array, None, backend)
        checks.shape("add", f"arrays[{i}]", array, arrays[0].shape)
    _one_dtype("add", arrays)
    total = backend.empty(arrays[0].shape, arrays[0].dtype)
    given = [backend.asarray(array) for array in arrays]
    if len(given) == 1:
        total[...] = given[0]
        return total
    backend.add(total, given[0], given[1])
    for array in given[2:]:
        backend.add(total, total, array)
    return total


def dropout(x: Any, rate: float, *, seed: int, step: Any, first: int = 0, backend: Any = None) -> Any:
    """Inverted dropout with a counter-based generator; its gradient is the same call on dy.

    Element i (flat, in C order) of image n is kept, and scaled by 1 / (1 - rate), where word i % 4 of
    Philox4x32-10 is at least round(rate * 2**32). The generator's counter is
    (i // 4, first + n, step's low and high 32 bits), its key the low and high 32 bits of the seed. So the
    mask depends on nothing but these: not on the batch's size, the backend or the threads.

    Parameters
    ----------
    x : (N, ...)
    rate : share of elements set to 0, 0 <= rate < 1
    seed : 0 <= seed < 2**64, one for each layer
    step : 0 <= step < 2**64, the number of the training step; where the backend can (cuda), also a uint64 array
        (1,) of it that the kernel reads when it runs, for captured steps
    first : number of x's first image in the whole batch, where a batch is worked on in parts
    """
    where = "dropout"
    backend = backend or backends.of(x)
    checks.floats(where, "x", x, None, backend)
    checks.require(x.ndim >= 1, where, "x.shape", tuple(x.shape), "at least one dimension")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        checks.fail(where, "rate", rate, "a number with 0 <= rate < 1", TypeError)
    checks.require(0 <= rate < 1, where, "rate", rate, "a number with 0 <= rate < 1")
    in_memory = backends.is_array(step)
    if in_memory:
        fits = step.dtype == np.uint64 and tuple(step.shape) == (1,)
        checks.require(fits and hasattr(backend, "guard_settings"), where, "step",
                       f"an array of {step.dtype} {tuple(step.shape)} on the backend {backend.name}",
                       "an integer, or, on 'cuda', an array of uint64 (1,)")
    for name, value in (("seed", seed), ("step", 0 if in_memory else step)):
        checks.integer(where, name, value, 0)
        checks.require(value < 2**64, where, name, value, "an integer below 2**64")
    checks.integer(where, "first", first, 0)
    x = backend.asarray(x)
    y = backend.empty(x.shape, x.dtype)
    backend.dropout(y, x, float(rate), int(seed), step if in_memory else int(step), int(first))
    return y


def concat(*arrays: Any, axis: int = -1, backend: Any = None) -> Any:
    """Arrays side by side on one axis (default: channels); all other sizes must agree.

    Parameters
    ----------
    *arrays : one or more
    axis : the axis along which they are joined
    """
    where = "concat"
    _given(where, arrays)
    backend = backend or backends.of(arrays[0])
    for i, array in enumerate(arrays):
        checks.floats(where, f"arrays[{i}]", array, arrays[0].ndim, backend)
    axis = _axis(where, arrays[0].ndim, axis)
    for i, array in enumerate(arrays):
        expected = (*arrays[0].shape[:axis], array.shape[axis], *arrays[0].shape[axis + 1:])
        checks.shape(where, f"arrays[{i}]", array, expected)
    _one_dtype(where, arrays)
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    checks.fits(where, "the joined shape", shape)
    joined = backend.empty(tuple(shape), arrays[0].dtype)
    column = 0
    for array in arrays:
        rows = _rows(backend.asarray(array), axis)
        backend.copy_columns(_rows(joined, axis), rows, column, 0, rows.shape[1])
        column += rows.shape[1]
    return joined


def split(dy: Any, sizes: Sequence[int], *, axis: int = -1, backend: Any = None) -> tuple[Any, ...]:
    """The adjoint of `concat`: cut one axis (default: channels) into parts of the given sizes.

    Parameters
    ----------
    dy : what `concat` gave, or a signal of its shape
    sizes : of the parts along the axis, in order
    axis : the axis that is cut
    """
    where = "split"
    backend = backend or backends.of(dy)
    checks.floats(where, "dy", dy, None, backend)
    axis = _axis(where, dy.ndim, axis)
    parts = [checks.integer(where, "sizes", size, 0) for size in sizes]
    checks.require(sum(parts) == dy.shape[axis], where, "sizes", tuple(sizes), f"a sum of {dy.shape[axis]}")
    rows = _rows(backend.asarray(dy), axis)
    results, column = [], 0
    for size in parts:
        part = backend.empty((*dy.shape[:axis], size, *dy.shape[axis + 1:]), dy.dtype)
        if part.size:
            target = _rows(part, axis)
            backend.copy_columns(target, rows, 0, column, target.shape[1])
            column += target.shape[1]
        results.append(part)
    return tuple(results)


def _given(where: str, arrays: tuple[Any, ...]) -> None:
    checks.require(len(arrays) > 0, where, "arrays", arrays, "at least one array")


def _one_dtype(where: str, arrays: tuple[Any, ...]) -> None:
    checks.same_dtype(where, **{f"arrays[{i}]": array for i, array in enumerate(arrays)})


def _axis(where: str, rank: int, axis: int) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int):
        checks.fail(where, "axis", axis, "an integer", TypeError)
    checks.require(-rank <= axis < rank, where, "axis", axis, f"from {-rank} to {rank - 1}")
    return axis % rank


def _rows(array: Any, axis: int) -> Any:
    """A contiguous array as (product of the axes before `axis`, the rest)."""
    rows = 1
    for size in array.shape[:axis]:
        rows *= size
    return array.reshape(rows, array.size // rows if rows else 0)
