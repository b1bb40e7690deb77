"""Arrays of 16 bits: what products are made of, and how float32 gets there and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checks
from ..backends.bfloat16 import converted

DTYPES = {name: dtype for dtype, name in checks.SHORT.items()}


def rounded(backend: Any, precision: str, array: Any) -> Any:
    """A float32 array in the 16 bits of a precision that has them, rounded to the nearest; others as they are."""
    array = backend.asarray(array)
    wanted = DTYPES.get(precision)
    return array if wanted is None or array.dtype == wanted else converted(backend, array, wanted)


def widened(backend: Any, array: Any) -> Any:
    """An array of 16 bits as float32, others as they are."""
    array = backend.asarray(array)
    return converted(backend, array, np.float32) if array.dtype in checks.SHORT else array


def in_type_of(backend: Any, result: Any, like: Any) -> Any:
    """What a kernel of 16 bits gave, as float32 if the caller's arrays were."""
    return result if like.dtype in checks.SHORT else widened(backend, result)


def named(precision: str) -> tuple[str, ...]:
    """A launcher's last argument: none for plain arithmetic, the only one that every backend has."""
    return () if precision == "float32" else (precision,)


def bias_of(where: str, bias: Any, x: Any, count: int, backend: Any) -> Any:
    """A checked bias as the kernels take it: in the arrays' type, or float32 for 16 bits."""
    if bias is None:
        return None
    checks.floats(where, "bias", bias, 1, backend)
    if x.dtype not in checks.SHORT or bias.dtype in checks.SHORT:
        checks.same_dtype(where, x=x, bias=bias)
    else:
        checks.require(bias.dtype == np.float32, where, "bias.dtype", bias.dtype, "float32, or the arrays' own type")
    checks.shape(where, "bias", bias, (count,))
    return bias
