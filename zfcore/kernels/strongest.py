"""The strongest activations so far: a sorted list for each map, into which a batch's are put."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .memory import readable

# ------------------------------------------------------------------------------------------------
# kernels


@kernel(inline=True)
def comes_first(value, image, row, column, other, other_image, other_row, other_column):
    """The total order: the larger value; of equal ones the smaller image, then the smaller row, then the column."""
    if value != other:
        return value > other
    if image != other_image:
        return image < other_image
    return row < other_row or (row == other_row and column < other_column)


@kernel
def keep_strongest_kernel(values, rows, columns, numbers, kept, images, kept_rows, kept_columns, slots, waiting):
    """A few comparisons an activation, far fewer once the lists are full of strong ones: one thread is enough."""
    maps, count = kept.shape
    found = False
    for i in range(values.shape[0]):
        for m in range(maps):
            value, row, column, last = values[i, m], rows[i, m], columns[i, m], count - 1
            if value < kept[m, last]:
                continue
            place = count
            while place > 0 and comes_first(value, numbers[i], row, column, kept[m, place - 1], images[m, place - 1],
                                            kept_rows[m, place - 1], kept_columns[m, place - 1]):
                place -= 1
            if place == count:
                continue
            slot = slots[m, last]
            for rank in range(last, place, -1):
                kept[m, rank], images[m, rank] = kept[m, rank - 1], images[m, rank - 1]
                kept_rows[m, rank], kept_columns[m, rank] = kept_rows[m, rank - 1], kept_columns[m, rank - 1]
                slots[m, rank] = slots[m, rank - 1]
            kept[m, place], images[m, place] = value, numbers[i]
            kept_rows[m, place], kept_columns[m, place] = row, column
            slots[m, place] = slot
            waiting[m, slot] = True
            found = True
    return found


# ------------------------------------------------------------------------------------------------
# launchers


def keep_strongest(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, numbers: np.ndarray,
                   kept: np.ndarray, images: np.ndarray, kept_rows: np.ndarray, kept_columns: np.ndarray,
                   slots: np.ndarray, waiting: np.ndarray) -> bool:
    """Put activations into the lists, in place; whether any was strong enough.

    Parameters
    ----------
    values, rows, columns : (n, maps), finite activations and their places
    numbers : (n,), the images that they come from
    kept, images, kept_rows, kept_columns : float32, int64, int32, int32 (maps, k), sorted; -inf where empty
    slots : int64 (maps, k), what moves along with an entry; a newcomer takes that of the entry that it drives out
    waiting : bool (maps, k), set at newcomers' slots
    """
    return bool(keep_strongest_kernel(
        readable(np.ascontiguousarray(values, np.float32)), readable(np.ascontiguousarray(rows, np.int32)),
        readable(np.ascontiguousarray(columns, np.int32)), readable(np.ascontiguousarray(numbers, np.int64)),
        kept, images, kept_rows, kept_columns, slots, waiting))
