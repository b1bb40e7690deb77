"""The lists of strongest activations against a sort of everything."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore.kernels.strongest import keep_strongest
from zfcore.study.patches import NOBODY
from zfcore.study.top import order


@pytest.mark.parametrize("count", [1, 4, 70])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_batches_gives_the_sorted_list(count: int, several: bool, seed: int) -> None:
    """Values come from few numbers, so that ties between images, rows and columns are common."""
    generator = np.random.default_rng(seed)
    size = entries, maps = 60, 5
    values = generator.integers(-2, 2, size).astype(np.float32)
    numbers = np.arange(entries) // (4 if several else 1)
    rows = generator.integers(0, 2, size)
    columns = generator.permuted(np.tile(np.arange(entries), (maps, 1)), axis=1).T  # no two entries are the same
    kept = (np.full((maps, count), -np.inf, np.float32), np.full((maps, count), NOBODY, np.int64),
            *(np.zeros((maps, count), np.int32) for _ in range(2)))
    slots, waiting = np.tile(np.arange(count), (maps, 1)), np.zeros((maps, count), bool)
    where = np.zeros((maps, count), np.int64)  # what lies in the slots: entries' columns
    found = []
    for begin in range(0, entries, 7):
        some = generator.permutation(np.arange(begin, min(begin + 7, entries)))
        found.append(keep_strongest(values[some], rows[some], columns[some], numbers[some], *kept, slots, waiting))
        for m, slot in zip(*np.nonzero(waiting), strict=True):
            where[m, slot] = kept[3][m, np.flatnonzero(slots[m] == slot)[0]]
        assert found[-1] == waiting.any()
        waiting[:] = False
    assert found[0]
    chosen = order(values.T, np.tile(numbers, (maps, 1)), rows.T, columns.T)[:, :count]
    filled = chosen.shape[1]
    for mine, every in zip(kept, (values.T, np.tile(numbers, (maps, 1)), rows.T, columns.T), strict=True):
        assert np.array_equal(mine[:, :filled], np.take_along_axis(every, chosen, axis=1))
    assert (kept[1][:, filled:] == NOBODY).all() and np.isneginf(kept[0][:, filled:]).all()
    assert np.array_equal(np.sort(slots), np.tile(np.arange(count), (maps, 1)))
    assert np.array_equal(np.take_along_axis(where, slots, axis=1)[:, :filled], kept[3][:, :filled])


def test_nothing_changes_where_nothing_is_stronger() -> None:
    kept = (np.array([[3.0, 2.0]], np.float32), np.array([[4, 1]]), *(np.zeros((1, 2), np.int32) for _ in range(2)))
    before = [array.copy() for array in kept]
    slots, waiting = np.array([[1, 0]]), np.zeros((1, 2), bool)
    zeros = np.zeros((2, 1), np.int32)
    assert not keep_strongest(np.array([[1.0], [2.0]]), zeros, zeros, np.array([0, 2]), *kept, slots, waiting)
    assert all(map(np.array_equal, kept, before)) and not waiting.any() and slots.tolist() == [[1, 0]]
    assert keep_strongest(np.array([[2.0]]), zeros[:1], zeros[:1], np.array([0]), *kept, slots, waiting)
    assert kept[1].tolist() == [[4, 0]] and waiting.tolist() == [[True, False]]
