"""Argument checks: every error names the operation, the argument, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

LONGEST = 2**31 - 1  # of windows and steps: products of two of them fit the kernels' integers
FARTHEST = 2**60  # padding: sums of a few of them fit
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
SHORT = {np.dtype(np.float16): "float16", np.dtype(np.uint16): "bfloat16"}  # of 16 bits; bfloat16 as its bits
PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "tf32x3")
STORAGES = ("float32", *SHORT.values())  # of a network's tensors


def fail(where: str, argument: str, value: Any, allowed: str, error: type[Exception] = ValueError) -> NoReturn:
    """Raise `error` with the one message form that the whole package uses."""
    raise error(f"{where}: {argument} is {value!r}; allowed: {allowed}")


def require(condition: bool, where: str, argument: str, value: Any, allowed: str) -> None:
    """Raise ValueError unless `condition` holds."""
    if not condition:
        fail(where, argument, value, allowed)


def integer(where: str, argument: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int of at least `minimum`, at most `maximum`; booleans and fractions are refused."""
    if type(value) is int and minimum <= value and (maximum is None or value <= maximum):
        return value  # nearly always; small operations ask seven times
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        fail(where, argument, value, f"an integer >= {minimum}", TypeError)
    require(int(value) >= minimum, where, argument, value, f"an integer >= {minimum}")
    require(maximum is None or int(value) <= maximum, where, argument, value, f"an integer <= {maximum}")
    return int(value)


def pair(where: str, argument: str, value: Any, minimum: int, maximum: int = LONGEST) -> tuple[int, int]:
    """Return (vertical, horizontal) from one integer or a pair of them."""
    if isinstance(value, (tuple, list)):
        require(len(value) == 2, where, argument, value, "one integer or (vertical, horizontal)")
        vertical, horizontal = (integer(where, argument, side, minimum, maximum) for side in value)
        return vertical, horizontal
    both = integer(where, argument, value, minimum, maximum)
    return both, both


def padding(where: str, value: Any) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) from one integer, (vertical, horizontal) or all four."""
    if isinstance(value, (tuple, list)) and len(value) == 4:
        top, bottom, left, right = (integer(where, "padding", side, 0, FARTHEST) for side in value)
        return top, bottom, left, right
    vertical, horizontal = pair(where, "padding", value, 0, FARTHEST)
    return vertical, vertical, horizontal, horizontal


def floats(where: str, argument: str, array: Any, rank: int | None = None, backend: Any = None) -> None:
    """Require a floating-point array (float32 or float64) of the given rank.

    With a backend: float16, and bfloat16 as its bits, too, where the backend has kernels for them.
    """
    dtype = getattr(array, "dtype", None)
    if dtype is None or dtype not in FLOATS:  # NumPy takes None for float64
        name = SHORT.get(dtype) if backend is not None and isinstance(dtype, np.dtype) else None
        if name is None or name not in backend.PRECISIONS:
            without = "" if name is None else f" (the backend {backend.name!r} has no kernels of 16 bits; 'cuda' has)"
            fail(where, f"{argument}.dtype", name or (dtype if dtype is not None else type(array).__name__),
                 "an array of float32 or float64" + without, TypeError)
    if rank is not None:
        require(array.ndim == rank, where, f"{argument}.shape", tuple(array.shape), f"{rank} dimensions")


def precision(where: str, value: Any, array: Any, backend: Any) -> str:
    """The name of what products are made of; None: what the array's own type says.

    Raises
    ------
    ValueError : no such name, none of this backend, or none for arrays of this type
    """
    own = SHORT.get(array.dtype, "float32")
    if value is None:
        return own
    one_of(where, "precision", value, PRECISIONS)
    require(value in backend.PRECISIONS, where, "precision", value,
            f"{_listed(backend.PRECISIONS)} on the backend {backend.name!r}")
    allowed = PRECISIONS if array.dtype == FLOATS[0] else ("float32", own) if array.dtype in SHORT else ("float32",)
    kind = "bfloat16" if own == "bfloat16" else array.dtype
    require(value in allowed, where, "precision", value, f"{_listed(dict.fromkeys(allowed))} for arrays of {kind}")
    return str(value)


def _listed(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def same_dtype(where: str, **arrays: Any) -> None:
    """Require that all arrays that are not None share one dtype."""
    given = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(given.values())) > 1:
        described = {name: str(dtype) for name, dtype in given.items()}
        fail(where, "dtypes", described, "one dtype for all", TypeError)


def shape(where: str, argument: str, array: Any, expected: Sequence[int]) -> None:
    """Require an exact shape."""
    require(tuple(array.shape) == tuple(expected), where, f"{argument}.shape", tuple(array.shape),
            f"exactly {tuple(expected)}")


def one_of(where: str, argument: str, value: Any, allowed: Iterable[Any]) -> None:
    """Require membership in a short list of names."""
    names = list(allowed)
    require(value in names, where, argument, value, "one of " + ", ".join(map(repr, names)))


def fits(where: str, argument: str, sizes: Sequence[int], itemsize: int = 4) -> None:
    """Refuse an array of 2**31 elements or more before anything is allocated."""
    elements = 1
    for size in sizes:
        elements *= int(size)
    require(elements < 2**31, where, argument, tuple(sizes),
            f"fewer than 2**31 elements (this would need {elements * itemsize} bytes)")
