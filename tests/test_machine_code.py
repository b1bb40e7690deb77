"""The check of machine code against made-up listings: what it reports, and by which name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
HEAD = """
Fatbin elf code:
================
arch = {target}
	code for {target}
		Function : {name}
	.headerflags	@"EF_CUDA_SM80 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM80)"
        /*0000*/                   MOV R1, c[0x0][0x28] ;                /* 0x00000a0000017a02 */
                                                                         /* 0x000fe40000000f00 */
"""
TENSOR = "gather_tensor_kernel<float, false, 4, false>"
SPLIT = "linear_tensor_kernel<float, false, 4, true>"
GOOD = {
    TENSOR: ["LDGSTS.E.BYPASS.128 [R10], [R2.64], P0", "LDSM.16.M88.4 R4, [R8]", "HMMA.1688.F32.TF32 R4, R4, R9, R4"],
    "gather_tensor_kernel<bfloat16, true, 4, false>": [
        "@!P1 LDGSTS.E.64 [R10], [R2.64]", "LDSM.16.MT88.4 R4, [R8]", "HMMA.16816.F32.BF16 R4, R4, R9, R4"],
    "linear_tensor_kernel<float, true, 4, false>": [
        "LDGSTS.E.BYPASS.128 [R10], [R2.64], P0", "LDSM.16.M88.4 R4, [R8]", "HMMA.1688.F32.TF32 R4, R4, R9, R4"],
    "weight_gradient_tensor_kernel<float16, 1, false>": ["LDSM.16.MT88.4 R4, [R8]", "HMMA.16816.F32 R4, R4, R9, R4"],
    "convolution_pool_tensor_kernel<float16, 4, false>": [
        "LDGSTS.E.64 [R10], [R2.64]", "LDSM.16.M88.4 R4, [R8]", "HMMA.16816.F32 R4, R4, R9, R4", "LDS.128 R4, [R2]",
        "STG.E.128 [R2.64], R4"],
    "unpool_filter_tensor_kernel<bfloat16, true, 4, false>": [
        "LDGSTS.E.64 [R10], [R2.64]", "LDSM.16.M88.4 R4, [R8]", "HMMA.16816.F32.BF16 R4, R4, R9, R4",
        "LDG.E.64 R4, [R2.64]", "STS.64 [R2], R4"],
    "unpool_filter_image_tensor_kernel<float, true, 2>": [
        "HMMA.1688.F32.TF32 R4, R4, R9, R4", "LDSM.16.M88.4 R4, [R8]", "LDS.64 R4, [R8]", "LDG.E.128 R4, [R2.64]",
        "STS.128 [R2], R4"],
    "max_pool_kernel<float16, 8>": ["LDG.E.128.CONSTANT R4, [R2.64]", "STG.E.128 [R2.64], R4"],
    "check_switches_kernel<16>": ["LDG.E.128.CONSTANT R4, [R2.64]"],
    "convert_kernel<float, bfloat16, 4>": ["LDG.E.64.CONSTANT R4, [R2.64]", "@P0 STG.E.128 [R2.64], R4"],
    "gather_kernel<float, false>": ["LDS.128 R4, [R2]", "FFMA R4, R4, R4, R4"],
    "max_pool_kernel<float, 1>": ["LDG.E.CONSTANT R4, [R2.64]"],
}


@pytest.fixture
def machine_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """csrc/machine_code.py."""
    monkeypatch.syspath_prepend(str(ROOT / "csrc"))
    yield importlib.import_module("machine_code")
    for name in ("check_registers", "machine_code", "toolchain"):
        sys.modules.pop(name, None)


def judged(machine_code: ModuleType, kernel: str, lines: list[str], target: str = "sm_80") -> list[str]:
    """The faults of one kernel whose machine code is these lines."""
    code = "".join(f"        /*{16 * i:04x}*/      {line} ;   /* 0x0 */\n" for i, line in enumerate(lines, 1))
    functions = machine_code.parse(HEAD.format(name="_Z6kernel", target=target) + code)
    return machine_code.judge(functions, {("_Z6kernel", target): kernel})


@pytest.mark.parametrize("kernel", GOOD)
def test_what_is_meant_passes_and_nothing_less(machine_code: ModuleType, kernel: str) -> None:
    assert judged(machine_code, kernel, GOOD[kernel]) == []
    needed = len(machine_code.wanted(kernel))
    for i in range(needed):
        found = judged(machine_code, kernel, GOOD[kernel][:i] + GOOD[kernel][i + 1:])
        assert [kernel in fault and "sm_80: no " in fault for fault in found] == [True], found


def test_too_few_products_or_sums_of_split_factors_are_reported(machine_code: ModuleType) -> None:
    product, addition = GOOD[TENSOR][-1], "FADD R4, R4, R4"
    copies = GOOD[TENSOR][:-1]
    assert judged(machine_code, SPLIT, [*copies, *[product] * 24, *[addition] * 48]) == []
    assert judged(machine_code, SPLIT, [*copies, *[product] * 8, *[addition] * 48]) == [
        f"{SPLIT} for sm_80: 8 HMMA, split factors need 24"]
    assert judged(machine_code, SPLIT, [*copies, *[product] * 24, *[addition] * 16]) == [
        f"{SPLIT} for sm_80: 16 FADD, split factors need 48"]
    assert judged(machine_code, SPLIT, copies) == [f"{SPLIT} for sm_80: no HMMA.1688.F32.TF32"]


@pytest.mark.parametrize("instruction", ["STL [R1], R4", "@P0 LDL.64 R4, [R1+0x8]", "@!UP0 STL.128 [R1], R4"])
def test_local_memory_is_reported(machine_code: ModuleType, instruction: str) -> None:
    kernel = "relu_kernel<float, 1>"
    found = judged(machine_code, kernel, ["LDG.E R4, [R2.64]", instruction, instruction], "sm_90a")
    opcode = next(word for word in instruction.split() if word[0] not in "@")[:3]
    assert found == [f"{kernel} for sm_90a: {opcode} stands there 2 times: local memory"]


def test_products_of_other_factors_are_reported(machine_code: ModuleType) -> None:
    found = judged(machine_code, TENSOR, [*GOOD[TENSOR], "HMMA.16816.F32 R4, R4, R9, R4"])
    assert found == [f"{TENSOR} for sm_80: HMMA.16816.F32, a product of other factors"]


def test_a_kernel_larger_than_the_instruction_cache_is_reported(machine_code: ModuleType) -> None:
    assert judged(machine_code, "relu_kernel<float, 1>", ["FADD R4, R4, R4"] * 8191) == []  # and the MOV of the head
    found = judged(machine_code, "relu_kernel<float, 1>", ["FADD R4, R4, R4"] * 8192)
    assert found == ["relu_kernel<float, 1> for sm_80: 8193 instructions: more than the instruction cache holds (8192)"]


def test_a_kernel_that_is_not_listed_is_reported(machine_code: ModuleType) -> None:
    found = machine_code.judge([], {("_Z6kernel", "sm_90a"): TENSOR})
    assert found == [f"{TENSOR} for sm_90a: not listed"]


def test_every_target_of_a_listing_is_read(machine_code: ModuleType) -> None:
    text = "".join(HEAD.format(name=name, target=target) for target in ("sm_80", "sm_90a") for name in ("_Z1a", "_Z1b"))
    assert [(found.name, found.target, found.count("MOV")) for found in machine_code.parse(text)] == [
        ("_Z1a", "sm_80", 1), ("_Z1b", "sm_80", 1), ("_Z1a", "sm_90a", 1), ("_Z1b", "sm_90a", 1)]


def test_without_a_disassembler_the_check_fails(machine_code: ModuleType, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a silent pass: the tool that is missing is named."""
    monkeypatch.setattr(machine_code, "find", lambda tool: None if tool == "nvdisasm" else "/bin/true")
    with pytest.raises(FileNotFoundError, match="nvdisasm"):
        machine_code.listing(tmp_path / "kernels.o")
    check = importlib.import_module("check_registers")
    monkeypatch.setattr(check, "find_nvcc", lambda: "/bin/true")
    monkeypatch.setattr(check, "find", lambda tool: None)
    monkeypatch.setattr(sys, "argv", ["check_registers.py", "--objects", str(tmp_path)])
    with pytest.raises(SystemExit, match="cuobjdump was found neither on PATH.*pip install nvidia-cuda-cuobjdump"):
        check.main()


def test_spilled_registers_of_a_real_kernel_are_found(machine_code: ModuleType, tmp_path: Path) -> None:
    """The whole way, where nvcc and the disassemblers are at hand: an array that a variable indexes."""
    nvcc = machine_code.find("nvcc")
    if nvcc is None or any(machine_code.find(tool) is None for tool in machine_code.DISASSEMBLERS):
        pytest.skip("no nvcc, cuobjdump or nvdisasm")
    source, made = tmp_path / "local.cu", tmp_path / "local.cubin"
    source.write_text("extern \"C\" __global__ void local(int* y, const int* x) {\n  int kept[64];\n"
                      "  for (int i = 0; i < 64; ++i) kept[x[i] & 63] = x[i + 64];\n  *y = kept[*x & 63];\n}\n")
    subprocess.run([nvcc, "-cubin", "-arch=sm_80", source, "-o", made], check=True, capture_output=True)
    found = machine_code.judge(machine_code.parse(machine_code.listing(made)), {("local", "sm_80"): "local"})
    assert any("STL" in fault for fault in found) and any("LDL" in fault for fault in found), found


def test_the_mutants_that_are_told_of() -> None:
    """As many as the page says, and none with a verdict that it has not."""
    folder = ROOT / "tests" / "emulated"
    spec = importlib.util.spec_from_file_location("mutants", folder / "mutants.py")
    assert spec is not None and spec.loader is not None
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    for page in (ROOT / "csrc" / "README.md", ROOT / "CHANGELOG.md"):
        assert f" {len(mutants.MUTANTS)} mutants" in " ".join(page.read_text().split()), page
    verdicts = {line[:9].strip() for line in (folder / "mutants.txt").read_text().splitlines() if len(line) > 10}
    total = next(each for each in verdicts if each[0].isdigit())
    assert verdicts - {total} <= {"plain", "thread", "address", "undefined", "NOT RUN"}
