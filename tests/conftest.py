"""Settings for every test: reproducible property tests, GPU tests only where there is a GPU."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "zfcore",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("zfcore")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts its background jobs so, and tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; (exit code, stdout, stderr)."""
    from zfcore.cli import main

    def command(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return command


def _has_gpu() -> bool:
    if os.environ.get("ZFCORE_STAND_IN"):  # the same tests on the stand-in, see stand_in.py
        return True
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    return subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where no CUDA device answers."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of one result of every kind (see `small_site`)."""
    import small_site

    return small_site.save_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def site(saved: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of them."""
    import small_site

    from zfcore.report.site import write_site

    folder = tmp_path_factory.mktemp("site") / "site"
    write_site(folder, saved, networks=[small_site.network()], images=small_site.data_set())
    return folder
