"""The CUDA kernels on the CPU: skipped where the extension is not built (make emulated)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zfcore import backends

from .record import Recorder

try:
    emulated: Any = backends.get("emulated")
    MISSING = None
    if path := os.environ.get("ZFCORE_RECORD"):
        Recorder(emulated._launchers, path)
except ImportError as error:
    MISSING = str(error)


def pytest_ignore_collect() -> bool | None:
    """Nothing here can run without the extension."""
    return True if MISSING else None


@pytest.fixture
def agree() -> Callable[..., Any]:
    """Run an operation on Numba and emulated, under two schedules.

    The values must be equal, NaN included; with `tolerance` (in units of the type's epsilon), nearly so:
    where a library function (exp, log, pow) or another order of a float64 sum is involved.
    """
    numba = backends.get("numba")

    def compare(operation: Callable[..., Any], *arguments: Any, tolerance: float = 0, **options: Any) -> Any:
        expected = operation(*arguments, **options, backend=numba)
        for seed in (1, 2):
            emulated.extension.seed(seed)
            got = operation(*arguments, **options, backend=emulated)
            pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
            for one, other in pairs:
                assert one.dtype == other.dtype
                if tolerance:
                    bound = tolerance * np.finfo(other.dtype).eps
                    np.testing.assert_allclose(one, other, rtol=bound, atol=bound * np.abs(other).max(initial=0))
                else:
                    np.testing.assert_array_equal(one, other)
        return expected

    return compare
