"""Starting is light: heavy libraries are loaded when they are used, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numba", "matplotlib", "scipy", "sklearn", "torch", "safetensors", "PIL", "jinja2")

IMPORT = "import zfcore"
NAMES = "import zfcore; dir(zfcore)"
HELP = """
import sys
from zfcore.cli import main
sys.argv = ["zfcore", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
COMMAND_HELP = HELP.replace('"--help"]', '"atlas", "--help"]')


def loaded_by(program: str) -> set[str]:
    """Heavy modules that are loaded after `program` has run in an interpreter of its own."""
    report = f"\nimport sys\nprint('\\n' + ' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("program", [IMPORT, NAMES, HELP, COMMAND_HELP])
def test_nothing_heavy_is_loaded(program: str) -> None:
    assert loaded_by(program) == set()


def test_the_check_sees_a_heavy_module() -> None:
    assert loaded_by("import zfcore, jinja2, PIL") == {"jinja2", "PIL"}


def test_python_dash_m() -> None:
    result = subprocess.run([sys.executable, "-m", "zfcore", "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and "zfcore" in result.stdout


def test_every_public_name_resolves() -> None:
    import zfcore

    for name in zfcore.__all__:
        assert getattr(zfcore, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = zfcore.does_not_exist
