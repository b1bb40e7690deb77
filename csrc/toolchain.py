"""Where NVIDIA's tools are, and which targets nvcc knows. Standard library only: packaging and checks use it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

# Compute capabilities with machine code of their own, and the one whose PTX every later device compiles for itself.
REAL = ("80", "86", "89", "90a", "100", "120")
VIRTUAL = "90"


# The machine code's readers: the first finds the kernels in a file and calls the second.
DISASSEMBLERS = ("cuobjdump", "nvdisasm")


def _of_pip() -> list[Path]:
    """bin/ of NVIDIA's pip packages, in the environment that this interpreter belongs to."""
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    return [folder for place in sorted(places) for folder in sorted(Path(place).glob("nvidia/*/bin"), reverse=True)]


def find(tool: str) -> str | None:
    """A program on PATH, in CUDA_HOME or CUDA_PATH, or in the pip package nvidia-cuda-`tool`; None: nowhere."""
    if found := shutil.which(tool):
        return found
    homes = [Path(home) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    for folder in (*homes, *_of_pip()):
        if found := shutil.which(tool, path=str(folder)):
            return found
    return None


def find_nvcc() -> str | None:
    """The compiler; None: nowhere."""
    return find("nvcc")


def why_missing(tool: str = "nvcc") -> str:
    """What to say where `find` found nothing."""
    return f"{tool} was found neither on PATH, nor in CUDA_HOME, nor in the pip package nvidia-cuda-{tool}"


def known(nvcc: str) -> set[str]:
    """Compute capabilities that a compiler knows, as in {"80", "90"}."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"compute_(\d+)", listed))


def targets(nvcc: str, wanted: str | None = None) -> list[str]:
    """CMake's CUDA_ARCHITECTURES for a compiler.

    Parameters
    ----------
    nvcc : the compiler
    wanted : as in "80,90a", for those alone; None: all of REAL that it knows, and PTX
    """
    if wanted:
        return [f"{name.strip()}-real" for name in wanted.split(",") if name.strip()]
    names = known(nvcc)
    chosen = [f"{name}-real" for name in REAL if name.rstrip("a") in names]
    return [*chosen, *([f"{VIRTUAL}-virtual"] if VIRTUAL in names else [])]
