"""Where nvcc is looked for, what it is asked to compile for, and what `pip install` does with and without it."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from zfcore import backends
from zfcore.backends import compiled

ROOT = Path(__file__).parents[1]


@pytest.fixture
def toolchain(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """csrc/toolchain.py, on a machine with nothing."""
    monkeypatch.syspath_prepend(str(ROOT / "csrc"))
    module = importlib.import_module("toolchain")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("CUDA_HOME", "CUDA_PATH", "ZFCORE_CUDA", "ZFCORE_CUDA_TARGETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: "/nowhere")
    yield module
    sys.modules.pop("toolchain", None)


def compiler(folder: Path, knows: str = "80 86 90 120") -> Path:
    """A program called nvcc that lists what it knows."""
    folder.mkdir(parents=True)
    file = folder / "nvcc"
    file.write_text("#!/bin/sh\n" + "".join(f"echo compute_{name}\n" for name in knows.split()))
    file.chmod(0o755)
    return file


def test_where_nvcc_is_looked_for(toolchain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH before CUDA_HOME before the pip package, which lies in the environment's site-packages."""
    if Path("/usr/bin/nvcc").exists():
        pytest.skip("this machine has nvcc where every program is")
    assert toolchain.find_nvcc() is None
    assert "neither on PATH" in toolchain.why_missing()
    pip = compiler(tmp_path / "site/nvidia/cu13/bin")
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path / "site"))
    assert toolchain.find_nvcc() == str(pip)
    home = compiler(tmp_path / "home/bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert toolchain.find_nvcc() == str(home)
    path = compiler(tmp_path / "path")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    assert toolchain.find_nvcc() == str(path)


def test_targets_are_those_that_nvcc_knows(toolchain: ModuleType, tmp_path: Path) -> None:
    old = compiler(tmp_path / "old", "75 80 86")
    assert toolchain.targets(str(old)) == ["80-real", "86-real"]
    new = compiler(tmp_path / "new", "75 80 86 87 89 90 100 103 120 121")
    assert toolchain.targets(str(new)) == ["80-real", "86-real", "89-real", "90a-real", "100-real", "120-real",
                                           "90-virtual"]
    assert toolchain.targets(str(new), "80, 90a") == ["80-real", "90a-real"]


@pytest.fixture
def build(toolchain: ModuleType) -> Iterator[ModuleType]:
    """csrc/build_backend.py."""
    pytest.importorskip("scikit_build_core")
    yield importlib.import_module("build_backend")
    sys.modules.pop("build_backend", None)


def test_without_nvcc_nothing_is_compiled(build: ModuleType, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build._settings(None, False)["wheel.cmake"] == "false"
    assert "the CUDA kernels are not compiled" in capsys.readouterr().err
    assert build._requirements(False) == []
    monkeypatch.setenv("ZFCORE_CUDA", "1")
    with pytest.raises(SystemExit, match="ZFCORE_CUDA=1, but nvcc was found neither"):
        build._settings(None, False)


def test_with_nvcc(build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                   monkeypatch: pytest.MonkeyPatch) -> None:
    found = str(compiler(tmp_path / "bin", "80 90"))
    monkeypatch.setattr(build, "find_nvcc", lambda: found)
    settings = build._settings({"build.verbose": "true"}, False)
    assert settings["cmake.define.CMAKE_CUDA_ARCHITECTURES"] == "80-real;90a-real;90-virtual"
    assert settings["cmake.define.CMAKE_CUDA_COMPILER"] == found
    assert settings["build.verbose"] == "true"
    assert build._requirements(False) == ["pybind11>=2.13"]
    assert "80-real;90a-real;90-virtual" in capsys.readouterr().err
    assert build._settings(None, True)["wheel.cmake"] == "false"  # editable: only if asked for
    monkeypatch.setenv("ZFCORE_CUDA", "1")
    assert build._settings(None, True)["wheel.cmake"] == "true"
    monkeypatch.setenv("ZFCORE_CUDA", "0")
    assert build._settings(None, False)["wheel.cmake"] == "false"
    assert "ZFCORE_CUDA=0" in capsys.readouterr().err
    monkeypatch.setenv("ZFCORE_CUDA", "yes")
    with pytest.raises(SystemExit, match="ZFCORE_CUDA is 'yes'; allowed: 0"):
        build._settings(None, False)


def test_what_was_built_and_why_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZFCORE_CUDA_MODULE", str(tmp_path))
    assert "the CUDA kernels are not compiled" in backends.built()
    monkeypatch.delitem(sys.modules, "zfcore.backends.cuda", raising=False)
    assert "the CUDA kernels are not compiled" in str(backends.why_not("cuda"))
    made = ModuleType("_cuda")
    made.targets = "80-real 90a-real 90-virtual"  # type: ignore[attr-defined]
    monkeypatch.setattr(compiled, "load", lambda: made)
    assert backends.built() == "sm_80, sm_90a, PTX of 90"
    monkeypatch.setitem(sys.modules, "cupy", None)  # what an import of it finds then
    assert "CuPy is missing or does not load" in str(backends.why_not("cuda"))
    monkeypatch.delitem(sys.modules, "zfcore.backends.cuda", raising=False)

    def no_driver() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    import stand_in

    cupy = stand_in.module()
    cupy.cuda.runtime.getDeviceCount = no_driver
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert backends.why_not("cuda") == "no CUDA device: cudaErrorInsufficientDriver"
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert backends.why_not("cuda") == "no CUDA device"
    cupy.cuda.runtime.getDeviceCount = lambda: 1
    cupy.cuda.Device = lambda: type("Device", (), {"compute_capability": "75"})()
    assert "compute capability 75; the kernels need 80 or more" in str(backends.why_not("cuda"))


def test_an_editable_installation_is_one_line(build: ModuleType, tmp_path: Path) -> None:
    """A .pth file that names this checkout; what PYTHONPATH names comes before it."""
    with zipfile.ZipFile(tmp_path / build.build_editable(str(tmp_path))) as wheel:
        assert wheel.testzip() is None
        assert wheel.read("zfcore.pth").decode() == f"{ROOT}\n"
        info = next(name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
        assert "zfcore=zfcore.cli:main" in wheel.read(f"{info}/entry_points.txt").decode().replace(" ", "")
        listed = {line.partition(",")[0] for line in wheel.read(f"{info}/RECORD").decode().splitlines()}
        assert listed == set(wheel.namelist())
        assert not any(name.startswith("zfcore/") for name in wheel.namelist())
