"""What may be left out of products: a signal's zeros, where no weight is infinite."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .kept import kept
from .matrix import flat
from .threads import parallel

PRESENT = 0.4  # share of a signal's numbers that are not zero, below which its zeros are skipped
PIECES, PIECE = 256, 1024  # of a signal, whose zeros are counted


@kernel
def _census(begin, end, counts, x, block, step):
    """Items: blocks of numbers, `step` apart; how many of each are not zero, and how many not finite."""
    for item in range(begin, end):
        numbers = x[item * step : item * step + block]
        present, infinite, zero = 0, 0, x.dtype.type(0)
        for i in range(numbers.size):
            present += numbers[i] != zero
            infinite += numbers[i] - numbers[i] != zero
        counts[item, 0], counts[item, 1] = present, infinite


def share_present(x: np.ndarray) -> float:
    """About which share of the numbers is not zero: pieces of them are looked at, evenly spread."""
    pieces = min(PIECES, -(-x.size // PIECE))
    step = x.size // pieces
    piece = min(PIECE, step)
    counts = np.empty((pieces, 2), np.int64)
    _census(0, pieces, counts, flat(x), piece, step)
    return int(counts[:, 0].sum()) / (pieces * piece)


def is_finite(weight: np.ndarray) -> bool:
    """Whether all weights are, without which a product with zero might be NaN."""

    def infinite() -> int:
        counts = np.empty((-(-weight.size // (1 << 16)), 2), np.int64)
        parallel(_census, len(counts), counts, flat(weight), 1 << 16, 1 << 16)
        return int(counts[:, 1].sum())

    return kept(weight, "infinite", infinite) == 0


def mostly_zeros(dy: np.ndarray) -> bool:
    """Whether products with dy's zeros should be left out, which changes no bit where weights are finite.

    So it is on the way down from a unit: unpooling leaves three zeros of four, rectifying half of the rest.
    """
    return share_present(dy) < PRESENT
