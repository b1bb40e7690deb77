"""How much work one piece holds: by size only, so that no result depends on the number of threads."""

from __future__ import annotations

from typing import Any

CACHE = 1 << 25  # bytes of a last-level cache, roughly
LINE = 64  # bytes
PIECE = 1 << 18  # elements; 20 microseconds and more, against 5 of the pool's own


def grain(elements_per_item: int) -> int:
    """Items in one piece when each item touches `elements_per_item` elements."""
    return max(1, PIECE // max(elements_per_item, 1))


def streams(target: Any, *others: Any) -> bool:
    """Whether a kernel should store `target` past the caches: together with what it reads it would not stay there.

    A line stored in the usual way is read first. Vectors must start at lines, cells be whole vectors.
    """
    size = target.nbytes + sum(other.nbytes for other in others)
    if size <= CACHE or target.shape[-1] * target.itemsize % LINE:
        return False
    return bool(target.ctypes.data % LINE == 0)
