"""Compile every kernel with nvcc, print its registers and shared memory, fail on a spill.

    python csrc/check_registers.py [--targets 80,90a] [--objects FOLDER] [FILE.cu ...]

Needs nvcc (toolchain.py says where it is looked for), no device.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from toolchain import find_nvcc, why_missing

FLAGS = ["-std=c++17", "-fmad=false", "-Xptxas", "-v", "-Xcompiler", "-Wall,-Wextra,-Wno-unknown-pragmas"]
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass
class Kernel:
    """What ptxas says of one kernel on one target."""

    name: str
    target: str
    stack: int = 0
    spills: int = 0
    registers: int = 0
    shared: int = 0


def parse(log: str) -> list[Kernel]:
    """The kernels of one compilation's log, names as ptxas has them."""
    kernels: list[Kernel] = []
    for line in log.splitlines():
        if match := ENTRY.search(line):
            kernels.append(Kernel(match[1], match[2]))
        elif kernels and (match := STACK.search(line)):
            kernels[-1].stack, kernels[-1].spills = int(match[1]), int(match[2]) + int(match[3])
        elif kernels and (match := USED.search(line)):
            kernels[-1].registers = int(match[1])
            if found := SHARED.search(line):
                kernels[-1].shared = int(found[1])
    return kernels


def readable(names: list[str]) -> list[str]:
    """Demangled, without namespaces, return types and parameters."""
    output = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [re.sub(r"^void |zf::|\(anonymous namespace\)::|\(.*$", "", re.sub(r"\((int|bool|\w+::\w+)\)", "", line))
            for line in output.splitlines()]


def without_tensor_cores(made: Path) -> list[str] | None:
    """Kernels called *_tensor_* whose machine code has no HMMA or touches local memory; None: no cuobjdump."""
    if not shutil.which("cuobjdump") or not shutil.which("nvdisasm"):
        return None
    code = subprocess.run(["cuobjdump", "-sass", made], capture_output=True, text=True, check=True).stdout
    wrong = []
    for function in re.split(r"\bFunction : ", code)[1:]:
        name = function.split(maxsplit=1)[0]
        if "_tensor_" in name and (" HMMA." not in function or re.search(r" (LDL|STL)\b", function)):
            wrong.append(name)
    return wrong


def main() -> int:
    """Compile, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="80,90a")
    parser.add_argument("--objects", type=Path, default=Path("build/cuda"))
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    folder, nvcc = Path(__file__).parent, find_nvcc()
    if nvcc is None:
        sys.exit(why_missing())
    options.objects.mkdir(parents=True, exist_ok=True)
    targets = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in options.targets.split(",")]
    bad = size = count = 0
    begin = time.monotonic()
    for source in options.files or sorted(folder.glob("*.cu")):
        made = options.objects / (source.stem + ".o")
        result = subprocess.run([nvcc, *FLAGS, *targets, "-c", source, "-o", made], capture_output=True,
                                text=True, check=False)
        if result.returncode:
            sys.exit(result.stderr)
        for line in result.stderr.splitlines():
            if "warning" in line:
                print(line)
                bad += 1
        wrong = without_tensor_cores(made)
        if "_tensor_" in result.stderr:
            found = "not looked for: no cuobjdump" if wrong is None else f"missing in {wrong}" if wrong else "in all"
            print(f"{source.name}: tensor-core instructions {found}")
            bad += len(wrong or [])
        kernels = parse(result.stderr)
        size += made.stat().st_size
        count += len(kernels)
        for kernel, name in zip(kernels, readable([kernel.name for kernel in kernels]), strict=True):
            bad += kernel.stack > 0 or kernel.spills > 0
            note = f"  SPILLS {kernel.spills} bytes, stack {kernel.stack}" if kernel.stack or kernel.spills else ""
            print(f"{source.name:18} {kernel.target:7} {kernel.registers:4} registers {kernel.shared:6} shared  "
                  f"{name}{note}")
    seconds = time.monotonic() - begin
    print(f"{count} kernels for {options.targets}: {size / 1e6:.1f} MB, {seconds:.0f} s, {bad} spills or warnings")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
