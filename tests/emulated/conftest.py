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
    """Run an operation on Numba and emulated, under two schedules; the bits must be equal."""
    numba = backends.get("numba")

    def compare(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        expected = operation(*arguments, **options, backend=numba)
        for seed in (1, 2):
            emulated.extension.seed(seed)
            got = operation(*arguments, **options, backend=emulated)
            pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
            for one, other in pairs:
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
        return expected

    return compare
