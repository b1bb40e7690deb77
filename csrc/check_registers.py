"""Compile every kernel with nvcc, print its registers, shared memory and size, read its machine code, fail on a spill.

    python csrc/check_registers.py [--targets 80,90a] [--objects FOLDER] [FILE.cu ...]

Needs nvcc, cuobjdump and nvdisasm (toolchain.py says where they are looked for), no device. machine_code.py says what
is asked of the machine code.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import machine_code
from toolchain import DISASSEMBLERS, find, find_nvcc, why_missing

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


@dataclass
class Examined:
    """One source file: a line for each kernel and each fault, how many there are, bytes of the object."""

    lines: list[str]
    kernels: int
    faults: int
    size: int


def examine(nvcc: str, source: Path, made: Path, targets: list[str]) -> Examined:
    """Compile one file and judge its kernels."""
    flags = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in targets]
    result = subprocess.run([nvcc, *FLAGS, *flags, "-c", source, "-o", made], capture_output=True, text=True,
                            check=False)
    if result.returncode:
        sys.exit(result.stderr)
    faults = [line for line in result.stderr.splitlines() if "warning" in line]
    kernels = parse(result.stderr)
    names = dict(zip(((kernel.name, kernel.target) for kernel in kernels),
                     readable([kernel.name for kernel in kernels]), strict=True))
    functions = machine_code.parse(machine_code.listing(made))
    sizes = {(function.name, function.target): function.size for function in functions}
    lines = [f"{source.name:18} {kernel.target:7} {kernel.registers:4} registers {kernel.shared:6} shared "
             f"{sizes.get((kernel.name, kernel.target), 0):5} instructions  {names[kernel.name, kernel.target]}"
             for kernel in kernels]
    faults += [f"{source.name}: {names[kernel.name, kernel.target]} for {kernel.target}: spills {kernel.spills} bytes, "
               f"stack {kernel.stack}" for kernel in kernels if kernel.stack or kernel.spills]
    faults += [f"{source.name}: {fault}" for fault in machine_code.judge(functions, names)]
    return Examined([*lines, *faults], len(kernels), len(faults), made.stat().st_size)


def main() -> int:
    """Compile, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="80,90a")
    parser.add_argument("--objects", type=Path, default=Path("build/cuda"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files compiled at a time")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    folder, nvcc = Path(__file__).parent, find_nvcc()
    if nvcc is None:
        sys.exit(why_missing())
    for tool in DISASSEMBLERS:
        if find(tool) is None:
            sys.exit(f"{why_missing(tool)}: machine code cannot be read (pip install nvidia-cuda-{tool})")
    options.objects.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    done = []
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(examine, nvcc, source, options.objects / f"{source.stem}.o", options.targets.split(","))
                   for source in options.files or sorted(folder.glob("*.cu"))]
        for file in waiting:
            done.append(file.result())
            print(*done[-1].lines, sep="\n", flush=True)
    faults = sum(file.faults for file in done)
    print(f"{sum(file.kernels for file in done)} kernels for {options.targets}: "
          f"{sum(file.size for file in done) / 1e6:.1f} MB, {time.monotonic() - begin:.0f} s; "
          f"{faults} spills, warnings or faults of machine code")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
