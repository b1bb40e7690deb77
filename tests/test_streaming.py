"""Results stored past the caches: the same bits, and only where every vector starts a line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tolerance import same_bits

from zfcore import ops
from zfcore.kernels import memory, work


def aligned(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """Normal numbers, some of them NaN, infinite or -0, from the start of a line on."""
    rng = np.random.default_rng(seed)
    array = memory.empty(shape, dtype)
    array[...] = rng.standard_normal(shape)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        array.reshape(-1)[rng.integers(0, array.size, 3)] = value
    return array


def everything(x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """The results of all operations that may stream."""
    scale, shift = np.ones(x.shape[-1], x.dtype), np.zeros(x.shape[-1], x.dtype)
    results = [ops.relu(x), ops.batch_norm(x, scale, shift, shift + 0.5, scale)]
    results += [ops.relu_backward(dy, x, rule=rule) for rule in ("gradient", "guided")]
    for window, stride in ((3, 2), (2, 2), (4, 1)):
        y, switches = ops.max_pool(x, window=window, stride=stride, ceil_mode=True)
        results += [y, switches]
        results += [ops.max_unpool(y, switches, x.shape, window=window, stride=stride, overlap=overlap)
                    for overlap in ("sum", "last")]
    return results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 9, 7, 32), (1, 6, 5, 48), (3, 5, 5, 16), (1, 7, 7, 19), (1, 4, 4, 3)])
def test_streamed_results_have_the_same_bits(shape: tuple[int, ...], dtype: type,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    x, dy = aligned(shape, dtype), aligned(shape, dtype, 1)
    expected = everything(x, dy)
    monkeypatch.setattr(work, "CACHE", 0)
    for streamed, usual in zip(everything(x, dy), expected, strict=True):
        same_bits(streamed, usual)


@pytest.mark.parametrize(("change", "allowed"), [
    (lambda x: x, True), (lambda x: x.reshape(-1)[16:], True), (lambda x: x.reshape(-1)[1:], False),
    (lambda x: x.reshape(-1)[:-1], False), (lambda x: x.reshape(2, -1, 8), False)],
    ids=["whole", "from a line on", "between lines", "part of a line", "half lines"])
def test_only_whole_lines_are_streamed(change: Callable[[np.ndarray], np.ndarray], allowed: bool,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "CACHE", 0)
    assert work.streams(change(aligned((2, 2, 17, 16), np.float32))) is allowed


def test_small_arrays_are_not_streamed() -> None:
    """What stays in the caches is read from there again."""
    x = np.zeros((1, 64, 64, 64), np.float32)
    assert not work.streams(x, x)
    large = np.broadcast_to(x, (40, 64, 64, 64))
    assert work.streams(memory.empty((1, 64, 64, 64), np.float32), large)
