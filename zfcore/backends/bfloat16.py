"""bfloat16 for the arrays of NumPy and CuPy, which have no such type: its bits, and a name for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks


@dataclass(frozen=True, eq=False, repr=False)
class Bfloat16:
    """Numbers of bfloat16 by their bits: the upper half of a float32.

    Operations that have kernels of 16 bits take one for an array, and give one back.

    Parameters
    ----------
    bits : uint16 array of NumPy or CuPy, any shape; the memory is shared
    """

    bits: Any

    def __post_init__(self) -> None:
        dtype = getattr(self.bits, "dtype", type(self.bits).__name__)
        if dtype != np.uint16:
            checks.fail("Bfloat16", "bits.dtype", dtype, "uint16, the bits of bfloat16; Bfloat16.rounded takes float32",
                        TypeError)

    @classmethod
    def rounded(cls, array: Any, backend: Any = None) -> Bfloat16:
        """A float32 array, each number rounded to the nearest, ties to even."""
        return cls(_checked("Bfloat16.rounded", array, np.float32, np.uint16, backend))

    def wide(self, backend: Any = None) -> Any:
        """The numbers as float32, exactly."""
        return _checked("Bfloat16.wide", self.bits, np.uint16, np.float32, backend)

    def reshape(self, *shape: Any) -> Bfloat16:
        """The same numbers in another shape; as of the bits' library, without a copy where it can."""
        return Bfloat16(self.bits.reshape(*shape))

    def __repr__(self) -> str:
        return f"Bfloat16{self.shape}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the array."""
        return tuple(self.bits.shape)


def _checked(where: str, array: Any, dtype: Any, wanted: Any, backend: Any) -> Any:
    from . import of

    backend = backend or of(array)
    checks.require(array.dtype == dtype, where, "dtype", array.dtype, np.dtype(dtype).name)
    checks.require("bfloat16" in backend.PRECISIONS, where, "backend", backend.name,
                   "one with kernels of 16 bits: 'cuda'")
    return converted(backend, backend.asarray(array), wanted)


def converted(backend: Any, array: Any, dtype: Any) -> Any:
    """An array of a backend that has kernels of 16 bits, from float32 or to it."""
    made = backend.empty(tuple(array.shape), dtype)
    backend.convert(made, array)
    return made
