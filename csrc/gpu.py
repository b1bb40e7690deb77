"""`make gpu`: on a machine with a CUDA device, build the kernels for it and run tests, sanitizers, benchmarks.

    python csrc/gpu.py [--part build|tests|sanitize|bench|bench-GROUP,GROUP|all] [--out FOLDER]

Each part builds what is not built yet (`build`: nothing but that), then ends in time for LIMIT. The benchmarks' groups
go on in their order as long as that allows, and the last line names what is left, as in
`make gpu PART=bench-linears,compiled`; `python -m benchmarks.gpu --help` lists them.
Needs nvcc, CMake, and an interpreter that holds CuPy, Numba, pybind11, pytest and hypothesis (PyTorch for the
benchmarks, and Captum for one of their rows); installs nothing and needs no network. Each part writes gpu-PART.json:
device, driver, date, commit, what ran, raw samples.
Exit codes: 0 passed, 1 something failed, 3 nothing could run here, and why is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from toolchain import find_nvcc, why_missing

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "gpu"
PARTS = ("tests", "sanitize", "bench")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LIMIT = 460  # seconds of one part
LAST = 30  # seconds before it from which on no benchmark begins
NOTHING = 3


def stop(reason: str) -> NoReturn:
    """Say why nothing ran."""
    print(f"make gpu: {reason}; nothing was run", file=sys.stderr)
    raise SystemExit(NOTHING)


def device() -> dict[str, str]:
    """Name, compute capability, driver and memory of the first device."""
    program = shutil.which("nvidia-smi")
    if program is None:
        stop("no CUDA device: there is no nvidia-smi")
    asked = ("name", "compute_cap", "driver_version", "memory.total")
    found = subprocess.run([program, f"--query-gpu={','.join(asked)}", "--format=csv,noheader"], capture_output=True,
                           text=True, check=False)
    lines = found.stdout.strip().splitlines()
    if found.returncode or not lines:
        stop(f"no CUDA device answers: {' '.join((found.stdout + found.stderr).split())}")
    return dict(zip(asked, (value.strip() for value in lines[0].split(",")), strict=True))


def environment(found: dict[str, str], nvcc: str) -> dict[str, Any]:
    """What a reader needs to judge the results."""
    git = subprocess.run(["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True,
                         text=True, check=False)
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return {"device": found["name"], "compute_capability": found["compute_cap"], "driver": found["driver_version"],
            "memory": found["memory.total"], "nvcc": version.strip().splitlines()[-1],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": git.stdout.strip() or os.environ.get("ZFCORE_COMMIT", "unknown"),
            "python": sys.version.split()[0]}


def build(capability: str, nvcc: str) -> float:
    """Compile the module _cuda for one compute capability; returns the seconds it took."""
    number = capability.replace(".", "")
    target = f"{number}{'a' if number == '90' else ''}-real"
    begin = time.monotonic()
    for command in (
        ["cmake", "-S", ROOT, "-B", BUILD, "-DZF_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}",
         f"-DCMAKE_CUDA_ARCHITECTURES={target}", f"-DPython_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", BUILD, "--parallel", str(os.cpu_count() or 1)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout[-4000:] + done.stderr[-4000:], file=sys.stderr)
            raise SystemExit(1)
    return time.monotonic() - begin


def run(command: list[Any], seconds: float) -> tuple[int, float]:
    """Run a program in the checkout with the kernels that were built; its exit code and time, 124: too long."""
    settings = {**os.environ, "ZFCORE_CUDA_MODULE": str(BUILD), "PYTHONPATH": str(ROOT)}
    begin = time.monotonic()
    try:
        code = subprocess.run(command, cwd=ROOT, env=settings, check=False, timeout=max(seconds, 1)).returncode
    except subprocess.TimeoutExpired:
        print(f"make gpu: stopped after {seconds:.0f} s", file=sys.stderr)
        code = 124
    return code, time.monotonic() - begin


def tests(out: Path) -> tuple[bool, dict[str, Any]]:
    """The tests marked gpu."""
    report = out / "gpu-tests.xml"
    code, seconds = run([sys.executable, "-m", "pytest", "tests/gpu", "-q", "-m", "gpu", "-W", "default",
                          f"--junitxml={report}"], LIMIT)
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []  # noqa: S314 (pytest wrote it)
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    for case in skipped:
        print(f"skipped: {case.get('name')}")
    passed = len(cases) - len(bad) - len(skipped)
    if code == 0 and not passed:
        print("make gpu: no test ran on the device", file=sys.stderr)
        code = 1
    return code == 0, {"seconds": seconds, "passed": passed, "skipped": [case.get("name") for case in skipped],
                       "failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad], "exit_code": code}


def sanitize(out: Path) -> tuple[bool, dict[str, Any]]:
    """Every operation at a small size under each tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        stop("compute-sanitizer, a part of the CUDA toolkit, is not on PATH")
    results: dict[str, Any] = {}
    left = float(LIMIT)
    for tool in TOOLS:
        log = out / f"gpu-{tool}.log"
        code, seconds = run([program, "--tool", tool, "--error-exitcode", "9", "--log-file", log, sys.executable,
                             "tests/gpu/every_kernel.py"], left)
        left -= seconds
        text = log.read_text(errors="replace") if log.exists() else ""
        results[tool] = {"exit_code": code, "seconds": seconds, "log": text.splitlines()[-40:]}
        print(f"{tool}: {'clean' if code == 0 else f'exit code {code}'}, {seconds:.0f} s")
    return all(each["exit_code"] == 0 for each in results.values()), results


def bench(out: Path, groups: str = "") -> tuple[bool, dict[str, Any]]:
    """The benchmarks beside cuDNN, PyTorch and Captum: all groups, or some."""
    if importlib.util.find_spec("torch") is None:
        stop("PyTorch, the peer of the benchmarks, is not installed")
    rows = out / "gpu-rows.json"
    rows.unlink(missing_ok=True)
    some = ["--only", groups] if groups else []
    code, seconds = run([sys.executable, "-m", "benchmarks.gpu", "--out", rows, "--seconds", str(LIMIT - LAST), *some],
                        LIMIT)
    return code == 0, {"seconds": seconds, "exit_code": code,
                       **(json.loads(rows.read_text()) if rows.exists() else {"rows": []})}


def part(name: str) -> tuple[str, str]:
    """A part and, of the benchmarks, its groups, which the benchmarks themselves check."""
    kind, _, groups = name.partition("-")
    if kind not in ("build", *PARTS, "all") or (groups and kind != "bench") or name.endswith("-"):
        raise argparse.ArgumentTypeError(f"{name!r}; allowed: build, {', '.join(PARTS)}, bench-GROUP,GROUP or all")
    return kind, groups


def main() -> int:
    """Build, run the parts, write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=part, default=("all", ""),
                        metavar="|".join(("build", *PARTS, "bench-GROUP,GROUP", "all")))
    parser.add_argument("--out", type=Path, default=BUILD)
    options = parser.parse_args()
    found, nvcc = device(), find_nvcc()
    if nvcc is None:
        stop(why_missing())
    for needed in ("cupy", "numba", "pybind11", "pytest", "hypothesis"):
        if importlib.util.find_spec(needed) is None:
            stop(f"{needed} is not installed for {sys.executable}")
    if shutil.which("cmake") is None:
        stop("cmake is not on PATH")
    options.out.mkdir(parents=True, exist_ok=True)
    seconds = build(found["compute_cap"], nvcc)
    print(f"built for {found['name']}, compute capability {found['compute_cap']}, in {seconds:.0f} s")
    good, (kind, groups) = True, options.part
    parts = {"tests": tests, "sanitize": sanitize, "bench": partial(bench, groups=groups)}
    for name in {"all": PARTS, "build": ()}.get(kind, (kind,)):
        passed, results = parts[name](options.out)
        file = options.out / f"gpu-{'-'.join([name, *groups.split(',')] if groups else [name])}.json"
        file.write_text(json.dumps({"environment": environment(found, nvcc), "build_seconds": seconds, **results},
                                   indent=1) + "\n")
        print(f"{name}: {'passed' if passed else 'FAILED'}, {file}")
        good &= passed
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
