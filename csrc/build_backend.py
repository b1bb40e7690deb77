"""How `pip install` builds zfcore: scikit-build-core, with the CUDA kernels where there is a compiler for them.

- With nvcc (toolchain.py says where it is looked for) CMake compiles the module zfcore._cuda.
- Without nvcc, or with ZFCORE_CUDA=0, nothing is compiled: the wheel is pure Python and needs no CMake.
- ZFCORE_CUDA=1 makes a missing nvcc an error. ZFCORE_CUDA_TARGETS=80,90a builds for these alone.
- An editable installation compiles only with ZFCORE_CUDA=1; `make gpu` is the way for a checkout.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as _base
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist
from toolchain import find_nvcc, targets, why_missing

__all__ = ["build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable",
           "get_requires_for_build_sdist", "get_requires_for_build_wheel", "prepare_metadata_for_build_editable",
           "prepare_metadata_for_build_wheel"]

Settings = dict[str, Any]


def _say(message: str) -> None:
    print(f"zfcore: {message}", file=sys.stderr, flush=True)  # noqa: T201 (a build has no other voice)


def _compiler(editable: bool) -> str | None:
    """The nvcc to compile with, or None, with the reason said."""
    wish = os.environ.get("ZFCORE_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"zfcore: ZFCORE_CUDA is {wish!r}; allowed: 0 (no CUDA kernels), 1 (insist on them), or unset")
    if wish == "0":
        _say("ZFCORE_CUDA=0: the CUDA kernels are not compiled")
        return None
    if editable and wish != "1":
        _say("an editable installation: the CUDA kernels are not compiled (ZFCORE_CUDA=1 does)")
        return None
    nvcc = find_nvcc()
    if nvcc is None:
        if wish == "1":
            raise SystemExit(f"zfcore: ZFCORE_CUDA=1, but {why_missing()}")
        _say(f"{why_missing()}: the CUDA kernels are not compiled")
    return nvcc


def _settings(given: Settings | None, editable: bool, announce: bool = True) -> Settings:
    """scikit-build-core's settings for this machine; the caller's own come last."""
    nvcc = _compiler(editable)
    if nvcc is None:
        return {"wheel.cmake": "false", "wheel.platlib": "false", **(given or {})}
    chosen = ";".join(targets(nvcc, os.environ.get("ZFCORE_CUDA_TARGETS")))
    if announce:
        _say(f"the CUDA kernels are compiled with {nvcc} for {chosen}")
    return {"wheel.cmake": "true", "cmake.define.ZF_CUDA": "ON", "cmake.define.CMAKE_CUDA_COMPILER": nvcc,
            "cmake.define.CMAKE_CUDA_ARCHITECTURES": chosen, **(given or {})}


def _requirements(editable: bool) -> list[str]:
    return ["pybind11>=2.13"] if _compiler(editable) else []


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:
    return [*_base.get_requires_for_build_wheel(_settings(config_settings, False, False)), *_requirements(False)]


def get_requires_for_build_editable(config_settings: Settings | None = None) -> list[str]:
    return [*_base.get_requires_for_build_editable(_settings(config_settings, True, False)), *_requirements(True)]


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings | None = None) -> str:
    return _base.prepare_metadata_for_build_wheel(metadata_directory, _settings(config_settings, False, False))


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings | None = None) -> str:
    return _base.prepare_metadata_for_build_editable(metadata_directory, _settings(config_settings, True, False))


def build_wheel(wheel_directory: str, config_settings: Settings | None = None,
                metadata_directory: str | None = None) -> str:
    return _base.build_wheel(wheel_directory, _settings(config_settings, False), metadata_directory)


def build_editable(wheel_directory: str, config_settings: Settings | None = None,
                   metadata_directory: str | None = None) -> str:
    settings = _settings(config_settings, True)
    if settings["wheel.cmake"] == "true":
        return _base.build_editable(wheel_directory, settings, metadata_directory)
    return _plain_editable(wheel_directory, settings)


def _plain_editable(wheel_directory: str, settings: Settings) -> str:
    """A wheel whose one line names this checkout; returns its name.

    scikit-build-core's own puts a finder before all of sys.path, so that PYTHONPATH could name no other checkout.
    """
    with tempfile.TemporaryDirectory() as folder:
        info = _base.prepare_metadata_for_build_editable(folder, settings)
        files = {f"{info}/{path.relative_to(Path(folder) / info).as_posix()}": path.read_bytes()
                 for path in sorted((Path(folder) / info).rglob("*")) if path.is_file() and path.name != "RECORD"}
    files["zfcore.pth"] = f"{Path(__file__).resolve().parents[1]}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: zfcore\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = f"{info}/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    name = f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return name


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
