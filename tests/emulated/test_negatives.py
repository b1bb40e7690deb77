"""Faults that the emulation and the sanitizers must catch: a check that cannot fail is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"

# fault, sanitizer, what it must say (exit codes 1 and 2 are the program's own)
CAUGHT = [
    ("barrier", "thread", "data race"),
    ("barrier", "plain", 1),
    ("warp_barrier", "thread", "data race"),
    ("blocks", "thread", "data race"),
    ("divergent", "plain", "divergent barrier: another thread waits in __syncthreads() at negatives.cu:"),
    ("ended", "plain", "divergent barrier: 1 threads have ended, 127 threads wait in __syncthreads()"),
    ("lane", "plain", "the source lane is not in the mask"),
    ("unset", "plain", 1),
    ("overrun", "address", "heap-buffer-overflow"),
    ("shared_overrun", "address", "out of bounds"),
    ("dynamic_overrun", "address", "use-after-poison"),
]


def run(program: str, fault: str, name: str = "negatives") -> subprocess.CompletedProcess[str]:
    path = BUILD / program / name
    if not path.exists():
        pytest.skip(f"{path} is not built (make sanitize)")
    return subprocess.run([path, fault], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("fault", "program", "sign"), CAUGHT)
def test_caught(fault, program, sign):
    result = run(program, fault)
    if isinstance(sign, int):
        assert result.returncode == sign, result.stderr
    else:
        assert result.returncode != 0
        assert sign in result.stderr
    if program == "thread":
        assert "negatives.cu:" in result.stderr  # the line is named


@pytest.mark.parametrize("program", ["plain", "address", "thread"])
def test_the_right_kernel_is_clean(program):
    result = run(program, "none")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("program", ["plain", "address", "thread"])
def test_the_emulation_is_as_cuda_defines_it(program):
    result = run(program, "", "features")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("fault", "sign"), [
    ("unwaited", "asynchronous copies that it never waited for"),
    ("unrounded", "a factor was not rounded to tf32"),
    ("misaligned", "a misaligned row"),
    ("grid", "a grid of 1 x 65536 x 1 blocks"),
    ("block", "a block of 1056 threads"),
    ("warp", "no whole number of warps"),
])
def test_what_a_device_refuses(fault, sign):
    result = run("plain", fault, "features")
    assert result.returncode == 2
    assert sign in result.stderr
