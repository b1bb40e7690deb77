"""SIGKILL at any instant of a training: the run that goes on comes to the same end, bit for bit.

ZFCORE_KILLS=200 kills more often than CI does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("ZFCORE_KILLS", "60"))


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killed(work: Path, *words: object) -> tuple[dict[str, Any], str]:
    """What kill_runs.py found, and what it said."""
    script = Path(__file__).with_name("kill_runs.py")
    paths = [str(script.parent), str(script.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run([sys.executable, script, work, "0", *map(str, words)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_killed_runs_come_to_the_same_end(tmp_path: Path) -> None:
    found, said = killed(tmp_path, KILLS, KILLS // 3)
    assert found["points"]["wrong"] == [] and found["instants"]["wrong"] == [], (found, said)
    assert found["points"]["points"] > 500  # around every write, fsync and rename, and the steps between
    assert found["points"]["kills"] >= 0.75 * KILLS  # the others' points lay beyond the end of what was left
    assert found["instants"]["kills"] == KILLS // 3
    assert found["points"]["kills"] + found["instants"]["kills"] >= min(KILLS, 50)


@pytest.mark.parametrize("how", ["the log is not cut back", "momentum is not saved",
                                 "generations are written in place"])
def test_a_missing_safeguard_is_found(tmp_path: Path, how: str) -> None:
    assert killed(tmp_path, 12, 0, how)[0]["points"]["wrong"]
