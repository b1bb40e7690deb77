"""The examples in Python run as they stand, and say what they should."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lines(name: str, *needed: str) -> list[str]:
    for library in needed:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run([sys.executable, ROOT / "examples/python" / name], capture_output=True, text=True,
                            check=False, timeout=300, env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


def test_torch_modules() -> None:
    assert lines("torch_modules.py", "torch") == [
        "modules replaced: 2",
        "the same outputs: True",
        "gradient of the filters: (16, 3, 11, 11)",
        "switches: torch.uint8 (2, 16, 7, 7) of windows that overlap",
        "all values are back: True",
    ]


def test_jax_operators() -> None:
    assert lines("jax_operators.py", "jax") == [
        "pooled: (2, 7, 7, 8) switches: uint8",
        "a step down the gradient lowers the sum: True",
        "all values are back: True",
    ]


def test_any_array() -> None:
    found = lines("any_array.py")
    assert found[0] == "numpy: ndarray (2, 6, 6, 8) and uint8, equal: True"
    for line in found[1:]:
        assert line.endswith("equal: True"), line
    for name in ("torch", "jax"):
        assert (importlib.util.find_spec(name) is not None) == any(line.startswith(name) for line in found)
