"""On a CUDA device: the kernels against Numba's. ZFCORE_STAND_IN=1 runs the same tests on the stand-in instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zfcore import backends


@pytest.fixture(scope="session")
def cuda() -> Iterator[Any]:
    """The CUDA backend; where there is a device it must load."""
    if os.environ.get("ZFCORE_STAND_IN"):
        import stand_in

        with stand_in.installed() as backend:
            yield backend
    else:
        yield backends.get("cuda")


@pytest.fixture
def agree(cuda: Any) -> Callable[..., Any]:
    """Run an operation on Numba and on the device, twice.

    The values must be equal, NaN included, both times; with `tolerance` (in units of the type's epsilon), nearly
    so: where a library function (exp, log, pow) or another order of a float64 sum is involved.
    """
    numba = backends.get("numba")

    def compare(operation: Callable[..., Any], *arguments: Any, tolerance: float = 0, **options: Any) -> Any:
        expected = operation(*arguments, **options, backend=numba)
        runs = []
        for _ in range(2):
            got = operation(*arguments, **options, backend=cuda)
            pairs = list(zip(got, expected, strict=True)) if isinstance(expected, tuple) else [(got, expected)]
            runs.append([np.asarray(one).tobytes() for one, _ in pairs])
            for one, other in pairs:
                assert one.dtype == other.dtype
                if tolerance:
                    bound = tolerance * np.finfo(other.dtype).eps
                    np.testing.assert_allclose(one, other, rtol=bound, atol=bound * np.abs(other).max(initial=0))
                else:
                    np.testing.assert_array_equal(one, other)
        assert runs[0] == runs[1]
        return expected

    return compare
