"""find_package(zfcore) and #include <zfcore/ops.h>: the C++ example, built against an installed library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_the_example_finds_links_and_runs(tmp_path):
    library = ROOT / "build/emulated"
    if not (library / "libzfcore.a").exists():
        pytest.skip("the library is not built (make emulated)")
    commands = [
        ["cmake", "--install", library, "--prefix", tmp_path / "prefix"],
        ["cmake", "-S", ROOT / "examples/cpp", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"],
        ["cmake", "--build", tmp_path / "build"],
        [tmp_path / "build/pool_and_project"],
    ]
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "strongest activation: 3 in map 0"
    rows = [[float(number) for number in line.split()] for line in lines[1:]]
    # The seed's 3x3 patch: the filter itself times the activation, where the edge is.
    assert {tuple(row) for row in rows} == {(0,) * 8, (0, 0, -3, 0, 3, 0, 0, 0)}
    assert sum(any(row) for row in rows) == 3
