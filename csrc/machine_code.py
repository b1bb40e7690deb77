"""What the machine code of a kernel must hold, and what it must not: read from cuobjdump's listing, without a device.

- No kernel touches local memory: registers that spilled, or an array that was indexed by a variable.
- A kernel of tensor cores multiplies on them, with factors of its own type, copies to shared memory asynchronously in
  the accesses it was made for, and reads its fragments as matrices.
- A kernel that splits factors makes three products of each tile, and adds them by ordinary additions.
- A kernel of vectors, `name<type, width, ...>`, reads and writes a vector in one access.
- Plain products read four factors from shared memory at once.
- A kernel fits the instruction cache: loops that the compiler copied for every case and every vector element do not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import DISASSEMBLERS, find

TARGET = re.compile(r"^code for (sm_\w+)")
FUNCTION = re.compile(r"^Function : (\S+)")
INSTRUCTION = re.compile(r"^/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
BYTES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2, "unsigned short": 2}
CACHE = 128 * 1024 // 16  # instructions of 16 bytes: the L1.5 cache, as measured on Volta (Jia et al. 2018)
PRODUCTS = {"float": "HMMA.1688.F32.TF32", "float16": "HMMA.16816.F32", "bfloat16": "HMMA.16816.F32.BF16"}
# Kernels of vectors whose other side is not made of them.
READS_ONLY = {"check_switches_kernel"}
WRITES_ONLY = {"pad_channels_kernel"}
# What chains on tensor cores hold besides, with copies of so many bytes: pooling by vectors, unpooling as they copy.
CHAINED: dict[str, Callable[[int], list[str]]] = {
    "convolution_pool_tensor_kernel": lambda _: ["LDS.128", "STG.E.128"],
    "unpool_filter_tensor_kernel": lambda size: [f"LDG.E{access(size)}", f"STS{access(size)}"],
}
# Tensor-core kernels whose last argument says that factors are split; what a loop of eight terms then holds at least:
# three products of eight tiles, the small parts of 16 factors and the additions of 32 sums.
SPLITTING = {"gather_tensor_kernel", "weight_gradient_tensor_kernel", "linear_tensor_kernel",
             "convolution_pool_tensor_kernel", "unpool_filter_tensor_kernel"}
SPLIT = {"HMMA": 3 * 8, "FADD": 16 + 32}
PLAIN_PRODUCTS = {"gather_kernel", "weight_gradient_kernel", "linear_kernel", "linear_piece_kernel",
                  "convolution_pool_kernel", "unpool_filter_kernel"}


@dataclass
class Function:
    """How often each instruction stands in the machine code of one kernel for one target."""

    name: str
    target: str
    instructions: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """All its instructions."""
        return self.instructions.total()

    def count(self, instruction: str) -> int:
        """Occurrences of an instruction with at least these modifiers, in their order."""
        wanted = instruction.split(".")
        return sum(times for found, times in self.instructions.items() if _holds(found.split("."), wanted))


def _holds(found: list[str], wanted: list[str]) -> bool:
    """Whether the opcodes are the same and the wanted modifiers stand among the found in their order."""
    rest = iter(found[1:])
    return found[0] == wanted[0] and all(modifier in rest for modifier in wanted[1:])


def listing(made: Path) -> str:
    """The machine code in an object file or library.

    Raises
    ------
    FileNotFoundError
        A tool is missing; its name is the error's text.
    """
    tools = {tool: find(tool) for tool in DISASSEMBLERS}
    for tool, found in tools.items():
        if found is None:
            raise FileNotFoundError(tool)
    path = os.pathsep.join([*(str(Path(str(found)).parent) for found in tools.values()), os.environ.get("PATH", "")])
    return subprocess.run([str(tools["cuobjdump"]), "-sass", made], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": path}).stdout


def parse(text: str) -> list[Function]:
    """The kernels of a listing, names as the linker has them."""
    functions: list[Function] = []
    target = ""
    for line in map(str.strip, text.splitlines()):
        if match := INSTRUCTION.match(line):
            functions[-1].instructions[match[1]] += 1
        elif match := FUNCTION.match(line):
            functions.append(Function(match[1], target))
        elif match := TARGET.match(line):
            target = match[1]
    return functions


def access(bytes_at_once: int) -> str:
    """The modifier of a load or store of so many bytes; none for a register."""
    return f".{8 * bytes_at_once}" if bytes_at_once in (8, 16) else ""


def wanted(kernel: str) -> list[str]:
    """Instructions that a kernel must hold, by its readable name, as in ``max_pool_kernel<float, 4>``."""
    name, _, inside = kernel.partition("<")
    given = inside.rstrip(">").split(", ")
    types = [BYTES[argument] for argument in given if argument in BYTES]
    width = next((int(argument) for argument in given if argument.isdigit()), 1)
    if name.endswith("_tensor_kernel"):
        # Rows of cells lie as in memory: matrices. Transposed factors of 32 bits are read one by one.
        if name == "unpool_filter_image_tensor_kernel":
            return [PRODUCTS[given[0]], "LDSM.4", "LDS.64", "LDG.E.128", "STS.128"]
        if name == "convolution_pool_image_tensor_kernel":
            return [PRODUCTS[given[0]], "LDSM.4", "LDS.128", "STG.E.128", "STS.128"]
        matrices = ["LDSM.4"] if not name.startswith("weight_gradient") or types[0] == 2 else []
        copies = [f"LDGSTS.E{access(types[0] * width)}"] if types[0] * width >= 4 else []
        return [PRODUCTS[given[0]], *matrices, *copies, *CHAINED.get(name, lambda size: [])(types[0] * width)]
    if name in PLAIN_PRODUCTS:
        return ["LDS.128"]
    if width == 1:
        return []
    first, last = (types[0], types[-1]) if types else (1, 1)  # convert_kernel<To, From, width>
    reads = [] if name in WRITES_ONLY else [f"LDG.E{access(last * width)}"]
    writes = [] if name in READS_ONLY else [f"STG.E{access(first * width)}"]
    return reads + writes


def least(kernel: str) -> dict[str, int]:
    """How many of an instruction a kernel must hold, where it holds any."""
    name, _, inside = kernel.partition("<")
    return SPLIT if name in SPLITTING and inside.endswith("true>") else {}


def faults(function: Function, kernel: str) -> list[str]:
    """What is wrong with one kernel's machine code, each with its name and target."""
    wrong = [f"{instruction} stands there {count} times: local memory"
             for instruction in ("LDL", "STL") if (count := function.count(instruction))]
    wrong += [f"no {instruction}" for instruction in wanted(kernel) if not function.count(instruction)]
    wrong += [f"{count} {instruction}, split factors need {number}" for instruction, number in least(kernel).items()
              if 0 < (count := function.count(instruction)) < number]
    wrong += [f"{other}, a product of other factors" for other in function.instructions
              if other.startswith("HMMA") and other not in wanted(kernel)]
    if function.size > CACHE:
        wrong.append(f"{function.size} instructions: more than the instruction cache holds ({CACHE})")
    return [f"{kernel} for {function.target}: {what}" for what in wrong]


def judge(functions: list[Function], names: dict[tuple[str, str], str]) -> list[str]:
    """What is wrong with the kernels of one file.

    Parameters
    ----------
    functions : of the file's listing
    names : readable name of every kernel that was compiled, by the linker's name and the target
    """
    listed = {(function.name, function.target): function for function in functions if function.instructions}
    wrong = []
    for kernel, name in names.items():
        wrong += faults(listed[kernel], name) if kernel in listed else [f"{name} for {kernel[1]}: not listed"]
    return wrong
