"""Change the kernels in one place at a time: the recorded calls or a sanitizer must notice.

    make mutants        (python tests/emulated/mutants.py [--only TEXT] [--part I/N] [--missing] [--jobs N])

Each mutant is compiled into the replay program: plain first, then for ThreadSanitizer, then for
AddressSanitizer, until one of them fails in a call of an operation that the changed file holds (the others' calls could
only notice more). Prints a table and the share caught; fails under 95 %. The report beside this file keeps the last
verdict on every mutant of the list, so the list may be run in pieces.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = Path(__file__).with_suffix(".txt")
BUILD = ROOT / "build"
BASE = ["g++", "-std=c++20", "-ffp-contract=off", "-w"]
KINDS = {"plain": ["-O1"], "thread": ["-O1", "-fsanitize=thread", "-DZF_THREAD_SANITIZER"],
         "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]}

SYNC = "__syncthreads();"
# Of multiply() in tensor_tiles.cuh: where sums of products begin at zero.
ROWS = """for (int i = 0; i < 2; ++i) {
                FragmentA a, a_small;
                load_rows<T, rows_apart>(a, rows, down + 16 * i, k, lane);
                split_factors(a, a_small);
                FragmentC sums[4] = {};"""
# Headers, and the kernels that show their mutants.
SHOWN_BY = {"device": "update", "gather": "convolution", "storage": "activation", "windows": "pooling",
            "tensor_tiles": "convolution_tensor", "gather_tensor": "convolution_tensor",
            "gather.cuh": "convolution_tensor", "chains.cuh": "chains"}
# file, text, replacement, which occurrence of the text (from 0)
MUTANTS = [
    ("pooling", SYNC, "", 0),
    ("windows", "!(value <= best)", "!(value < best)", 0),
    ("windows", " && !is_nan(best)", "", 0),
    ("windows", "max(first, begin)", "first", 0),
    ("windows", "min(first + size, end)", "first + size", 0),
    ("windows", "(i + before) / stride + 1", "(i + before) / stride", 0),
    ("windows", "above <= 0 ? 0 : above / stride", "above / stride", 0),
    ("windows", "s + window.left -", "s -", 0),
    ("windows", "last_wins ? value[i] : total[i] + value[i]", "value[i]", 0),
    ("pooling", "p * window.stride_vertical - window.top", "p * window.stride_vertical - window.left", 0),
    ("pooling", "(r - row) * window.width", "(r - row) * window.height", 0),
    ("pooling", "counts.left, counts.right).size()", "inside.left, inside.right).size()", 0),
    ("pooling", "item / channels % cells", "item / channels", 0),
    ("pooling", "for (int s = 1; s < segments", "for (int s = 2; s < segments", 0),
    ("switches", "|| r >= rows.end ", "", 0),
    ("switches", "column + which % window.width;", "column + which % window.height;", 0),
    ("switches", "r * window.width + s", "r * window.height + s", 0),
    ("switches", "flat[i] >= 0 && r", "r", 0),
    ("switches", "s < window.width;", "s <= window.width;", 0),
    ("pooling", "i < end; ++i, cell", "i <= end; ++i, cell", 0),
    ("gather", SYNC, "", 0),
    ("gather", "within(r, g.in_rows)", "within(r, g.in_rows + 1)", 0),
    ("gather", "at.middle += step.middle + over", "at.middle += step.middle", 0),
    ("gather", "at.high += step.high + above", "at.high += step.high", 0),
    ("gather", "put(half ^ 1);", "put(half);", 0),
    ("gather", "relu && value <= 0", "relu", 0),
    ("gather", "channel = group * g.depth + signal.low", "channel = signal.low", 0),
    ("gather", "signal.high * g.down.tap_step", "signal.high * g.across.tap_step", 0),
    ("gather", "filter < g.width)\n", "filter <= g.width)\n", 0),
    ("gather", "image.quotient < g.batch ? int(image.quotient) : -1", "int(image.quotient)", 0),
    ("convolution", "int((axis.first + before -", "int((axis.first -", 0),
    ("convolution", "if (r < 0 || r >= g.in_rows) continue;", "if (r < 0) continue;", 0),
    ("convolution", "group = channel / g.width,", "group = channel % g.width,", 0),
    ("linear", "totals[i][j] += results[i][j]", "totals[i][j] = results[i][j]", 0),
    ("linear", "i < pieces; ++i", "i < pieces - 1; ++i", 0),
    ("linear", "min(begin + piece, terms_of(g))", "begin + piece", 0),
    ("linear_tensor", "term < end && own_row + 32 * i < rows", "own_row + 32 * i < rows", 0),
    ("linear_tensor", "own_row + 32 * i < rows;", "true;", 0),
    ("linear_tensor", "term < end && column < columns", "column < columns", 0),
    ("linear_tensor", "column = own_column + 32 * i", "column = own_column", 0),
    ("linear_tensor", "line = t / wide + terms_apart * i", "line = t / wide", 0),
    ("linear_tensor", "first_column + column < columns", "column < columns", 0),
    ("linear_tensor", "int(blockIdx.z) * piece", "0", 0),
    ("linear_tensor", "min(begin + piece, terms)", "terms", 0),
    ("linear_tensor", "total += result;", "total = result;", 0),
    ("linear_tensor", "result = 0;\n        }", "}", 0),
    ("linear_tensor", "piece_end += steps;", "piece_end += 1;", 0),
    ("linear_tensor", "piece_end > steps ? *place", "piece_end > 2 * steps ? *place", 0),
    ("linear_tensor", "if (kept && piece_end < all)", "if (kept && piece_end < steps)", 0),
    ("linear_tensor", "const bool kept = own < rows && column", "const bool kept = column", 0),
    ("linear_tensor", "int term = last - piece; term", "int term = begin; term", 0),
    ("linear_tensor", "min(last, terms); ++term", "terms; ++term", 0),
    ("linear_tensor", "first_row + warp / 2 * 32 < rows", "first_row + warp / 2 * 32 < rows - 1", 0),
    ("linear_tensor", "std::int64_t(blockIdx.z) * rows + down", "down", 0),
    ("linear_tensor", "columns % 2 == 0 && (sums", "(sums", 0),
    ("linear_tensor", "relu && value <= 0", "relu", 0),
    ("weight_gradient", "at.middle * shape.stride_vertical", "at.low * shape.stride_vertical", 0),
    ("weight_gradient", "filter / filters * channels + weight % channels", "weight % channels", 0),
    ("weight_gradient", "int part = 0; part < parts", "int part = 1; part < parts", 0),
    ("weight_gradient", "window_width * shape.dilation_vertical", "window_width * shape.dilation_horizontal", 0),
    ("weight_gradient", "if (cell >= end) continue;", "", 0),
    ("chains", SYNC, "", 0),
    ("chains", SYNC, "", 1),
    ("chains.cuh", "(r - block.top) * patch.width", "(r - block.top) * patch.height", 0),
    ("chains.cuh", "(r - row) * window.width", "(r - row) * window.height", 0),
    ("chains.cuh", "number % patch.patches_across * patch.columns", "number % patch.patches_across", 0),
    ("chains.cuh", "rectify && total[i] <= 0", "total[i] <= 0", 0),
    ("chains.cuh", "rounded<T>(total[i])", "total[i]", 0),
    ("chains.cuh", "|| s >= inside.right", "", 0),
    ("chains.cuh", "divide_up(maps.rows, rows)", "maps.rows / rows", 0),
    ("chains_tensor", SYNC, "", 0),
    ("chains_tensor", SYNC, "", 1),
    ("chains_tensor", "lane / 4 + 8 * half", "lane / 4 * 2 + half", 0),
    ("chains_tensor", "g, group, column + 1, relu", "g, group, column, relu", 0),
    ("chains_tensor", "if (has_term && place", "if (place", 0),
    ("chains_tensor", "at.high * g.down.tap_step", "at.high * g.across.tap_step", 0),
    ("chains_tensor", "t % parts * part<T> + offset), value", "t % parts * part<T>), value", 0),
    ("chains_tensor", "group * g.depth + at.low", "at.low", 0),
    ("chains_tensor", "g.width % 2 == 0 && g.out_channels", "g.out_channels", 0),
    ("chains_image_up", SYNC, "", 0),
    ("chains_image_up", SYNC, "", 1),
    ("chains_image_up", SYNC, "", 2),
    ("chains_image_up", SYNC, "", 3),
    ("chains_image_up", "number += gridDim.x", "number += footprint.patches", 0),
    ("chains_image_up", "term < terms ? offset : -1", "offset", 0),
    ("chains_image_up", "at.high * g.down.tap_step * footprint.width", "at.high * footprint.width", 0),
    ("chains_image_up", "at >= begin && at < end", "at >= begin", 0),
    ("chains_image_up", "at >= begin && at < end", "at < end", 0),
    ("chains_image_up", "first_column + at.high < g.width && at.low < terms", "first_column + at.high < g.width", 0),
    ("chains_image_up", "cell % patch.width * g.across.stride", "cell % patch.width", 0),
    ("chains_image_up", "if (2 * k * part<T> >= left_terms) break;", "if (2 * k * part<T> > left_terms) break;", 0),
    ("chains_image_up", "warp % 2 * 16 * pairs + 16 * pair", "warp % 2 * 32 + 16 * pair", 0),
    ("chains_image_up", "footprint.pitch + first +", "footprint.pitch +", 0),
    ("chains_image_down", SYNC, "", 0),
    ("chains_image_down", "if (a + b) __syncthreads();", "", 0),
    ("chains_image_down", SYNC, "", 2),
    ("chains_image_down", "word % 4 * 2 + word % product_words / 4", "word % product_words", 0),
    ("chains_image_down", "weight[filter].bits", "weight[1].bits", 0),
    ("chains_image_down", "at.high * packed<T> * filter", "at.high * filter", 0),
    ("chains_image_down", "at.middle - i * across.taps", "at.middle", 0),
    ("chains_image_down", "outside ? Range{}", "false ? Range{}", 0),
    ("chains_image_down", "q >= across.outputs", "q > across.outputs", 0),
    ("chains_image_down", "l * image.columns * pitch", "l * image.rows * pitch", 0),
    ("chains_image_down", "first = any ? min(first, low) : low;", "first = low;", 0),
    ("chains_image_down", "size = tile + last - first;", "size = tile + last - first - 1;", 0),
    ("chains_image_down", "at.low * part<T>) =", "0) =", 0),
    ("tensor_tiles", SYNC, "", 0),
    ("tensor_tiles", "copies_wait<stages - 2>", "copies_wait<stages - 1>", 0),
    ("tensor_tiles", "row + 8 * (matrix & 1) + line, (2 * k + (matrix >> 1))",
     "row + 8 * (matrix >> 1) + line, (2 * k + (matrix & 1))", 0),
    ("tensor_tiles", "16 * k + 8 * (matrix >> 1) + line", "16 * k + 8 * (matrix & 1) + line", 0),
    ("tensor_tiles", "load_matrices<true>(b", "load_matrices<false>(b", 0),
    ("tensor_tiles", "2 * (j % 2) + 1]", "2 * (j % 2)]", 0),
    ("convolution_tensor", "lane / 4 + 8 * half", "lane / 4 * 2 + half", 0),
    ("tensor_tiles", "multiply_row<T>(sums, a_small, b);", "", 0),
    ("tensor_tiles", "multiply_row<T>(sums, a, b_small);", "", 0),
    ("tensor_tiles", "multiply_row<T>(sums, a_small, b);\n                multiply_row<T>(sums, a, b_small);\n"
     "                multiply_row<T>(sums, a, b);", "multiply_row<T>(sums, a, b);\n"
     "                multiply_row<T>(sums, a, b_small);\n                multiply_row<T>(sums, a_small, b);", 0),
    ("tensor_tiles", "multiply_row<T>(sums, a, b);", "multiply_row<T>(results[i], a, b);", 0),
    ("tensor_tiles", ROWS, "FragmentC sums[4] = {};\n" + ROWS.replace("FragmentC sums[4] = {};", ""), 0),
    ("tensor_tiles", "results[i][j / 4][j % 4] += sums", "results[i][j / 4][j % 4] = sums", 0),
    ("tensor_tiles", "(big[v] + 0x1000u) & ~0x1fffu", "big[v] & ~0x1fffu", 0),
    ("tensor_tiles", "!is_finite(results[i / 16][i / 4 % 4][i % 4])", "is_nan(results[i / 16][i / 4 % 4][i % 4])", 0),
    ("tensor_tiles", "if (i == n) results", "if (i >= n) results", 0),
    ("tensor_tiles", "n / 2 % 2 * 8 + lane / 4", "lane / 4", 0),
    ("gather.cuh", "inside ? source(image, r, s, group * g.depth + k)", "inside ? source(image, r, s, k)", 0),
    ("gather.cuh", "cell.image < 0 || column >= g.width", "cell.image < 0", 0),
    ("gather.cuh", "g.across.first_tap + j * g.across.tap_spacing;\n#pragma", "j;\n#pragma", 0),
    ("convolution_tensor", "if (filter >= filters || weight >= weights) return sum;", "", 0),
    ("convolution_tensor", "sum = fma(dy", "sum += fma(dy", 0),
    ("gather_tensor", "__syncwarp();", "", 0),
    ("gather_tensor", "32 * (t % parts)", "8 * (t % parts)", 0),
    ("tensor_tiles", "*free = memory + (stages - 1) * size", "*free = memory + (stages - 2) * size", 0),
    ("gather_tensor", "at.high * g.down.tap_step", "at.high * g.across.tap_step", 0),
    ("convolution_tensor", "tap.high * shape.dilation_vertical", "tap.high * shape.dilation_horizontal", 0),
    ("gather_tensor", "own_filter + 32 * i < g.width", "own_filter < g.width", 0),
    ("gather_tensor", "has_term && within(place", "within(place", 0),
    ("convolution_tensor", "g.width % 2 == 0 && g.out_channels", "g.out_channels", 0),
    ("storage", "(bits >> 16 & 1)) >> 16)", "1) >> 16)", 0),
    ("storage", "(bits >> 13 & 1)) >> 13)", "1) >> 13)", 0),
    ("normalization", SYNC, "", 0),
    ("normalization", SYNC, "", 1),
    ("normalization", "before = size / 2,", "before = (size - 1) / 2,", 0),
    ("normalization", "first = channel - size / 2", "first = channel - (size - 1) / 2", 0),
    ("normalization", "first + size + width - 1", "first + size", 0),
    ("normalization", "1 - size + size / 2", "-(size / 2)", 0),
    ("normalization", "if (!mean_is_constant) value", "value", 0),
    ("normalization", "max(row, inside.top); r < last_row", "row; r < last_row", 0),
    ("normalization", "subtractive ? h[at] : direct[at] + h[at]", "direct[at] + h[at]", 0),
    ("reduce", SYNC, "", 0),
    ("reduce", "strand > 1 ||", "strand > 0 ||", 0),
    ("reduce", "min(begin + part, rows)", "begin + part", 0),
    ("loss", SYNC, "", 0),
    ("loss", SYNC, "", 1),
    ("loss", "int i = 0; i < row_warps", "int i = 1; i < row_warps", 0),
    ("update", SYNC, "", 0),
    ("update", "size > radius ?", "size < radius ?", 0),
    ("update", "- rate * step :", "+ rate * step :", 0),
    ("update", "(keeps ? kept[i] : weight[first + i]) * scale", "(keeps ? kept[i] : weight[first + i])", 0),
    ("update", "if (!keeps && !copy && scale == T(1)) return;", "if (scale == T(1)) return;", 0),
    ("update", SYNC, "", 1),
    ("update", "losses[i] - losses[i] == 0", "losses[i] == losses[i]", 0),
    ("update", "i < size; i += 256)\n        if", "i < size - 1; i += 256)\n        if", 0),
    ("update", "wrong += __shfl_xor_sync", "wrong = __shfl_xor_sync", 0),
    ("update", "i < 8; ++i) wrong", "i < 7; ++i) wrong", 0),
    ("update", "wrong > 0 ? no_step", "wrong > 1 ? no_step", 0),
    ("update", "|| is_nan(given(rate))", "", 0),
    ("update", "|| is_nan(given(rate))", "", 1),
    ("update", "if (is_nan(given(rate))) return;", "", 0),
    ("device", "setting.address ? *setting.address : setting.value", "setting.value", 0),
    ("activation", "round < 10", "round < 9", 0),
    ("activation", "y > 0 && !(dy <= 0)", "y > 0 && dy > 0", 0),
    ("activation", "target_column + column,", "source_column + column,", 0),
    ("activation", "column + i < channels)", "column + i < width)", 0),
    ("activation", "|| r >= inside.bottom", "", 0),
]


def run(program: Path, calls: Path, unit: str, limit: int = 600) -> int | None:
    """The exit status of a replay of the unit's calls; None: stopped after `limit` seconds."""
    try:
        return subprocess.run([program, calls, "1"], capture_output=True, check=False, timeout=limit,
                              env={**os.environ, "ZFCORE_REPLAY": "first",
                                   "ZFCORE_OPERATIONS": "".join(f"{name}," for name in operations(unit))}).returncode
    except subprocess.TimeoutExpired:
        return None


@cache
def operations(unit: str) -> list[str]:
    """The operations whose launchers a file holds; tensor-core files: those that may call it."""
    every = re.findall(r'define\("(\w+)"', (ROOT / "bindings/operations.h").read_text())
    source = (ROOT / f"csrc/{unit}.cu").read_text()
    family = unit.removesuffix("tensor") if unit.endswith("_tensor") else None
    if family or unit.startswith("chains_"):  # the launchers that decide
        source += (ROOT / f"csrc/{unit.partition('_')[0]}.cu").read_text()
    found = [name for name in every
             if re.search(rf"^void {name}\(", source, re.M) or (family and name.startswith(family))]
    if not found:
        sys.exit(f"{unit}.cu holds no operation: which ones show its mutants?")
    return found


def objects(kind: str) -> dict[str, Path]:
    """The unchanged objects of one kind of program, made where a source or header is newer."""
    folder = BUILD / "mutants" / kind
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    headers = [*(ROOT / "csrc").glob("*.*h"), *(ROOT / "csrc/emulation").glob("*.h"), *(ROOT / "bindings").glob("*.h")]
    changed = max(path.stat().st_mtime for path in headers)
    sources = [*sorted((ROOT / "csrc").glob("*.cu")), ROOT / "csrc/emulation/runtime.cpp",
               ROOT / "tests/emulated/replay.cpp"]
    for source in sources:
        made[source.stem] = folder / f"{source.stem}.o"
        if made[source.stem].exists() and made[source.stem].stat().st_mtime > max(changed, source.stat().st_mtime):
            continue
        flags = [flag for flag in KINDS[kind] if source.stem != "runtime" or flag != "-fsanitize=thread"]
        subprocess.run([*BASE, *flags, "-x", "c++", "-c", source, "-o", made[source.stem]], check=True)
    return made


@cache
def sound(kind: str, unit: str, calls: Path) -> bool:
    """Whether the unchanged program of a kind finds nothing in the unit's calls; else no verdict of its counts."""
    program = BUILD / f"mutants/{kind}-{unit}"
    subprocess.run([*BASE, *KINDS[kind], *objects(kind).values(), "-o", program], check=True)
    return run(program, calls, unit) == 0


def verdict(mutant: tuple[str, str, str, int], kinds: dict[str, dict[str, Path]], calls: Path) -> str:
    """Which program noticed, "HANGS" or "SURVIVED"."""
    name, text, replacement, which = mutant
    unit = SHOWN_BY.get(name, name)
    with tempfile.TemporaryDirectory(dir=BUILD / "mutants") as scratch:
        folder = Path(scratch) / "csrc"
        shutil.copytree(ROOT / "csrc", folder)
        file = folder / (f"{name.removesuffix('.cuh')}.cuh" if name in SHOWN_BY else f"{name}.cu")
        pieces = file.read_text().split(text)
        if len(pieces) < which + 2:
            sys.exit(f"{file.name} no longer holds {text!r}: bring the list up to date")
        file.write_text(text.join(pieces[:which + 1]) + replacement + text.join(pieces[which + 1:]))
        for kind, made in kinds.items():
            changed, program = Path(scratch) / "changed.o", Path(scratch) / "replay"
            subprocess.run([*BASE, *KINDS[kind], "-x", "c++", "-c", folder / f"{unit}.cu", "-o", changed], check=True)
            others = [path for stem, path in made.items() if stem != unit]
            subprocess.run([*BASE, *KINDS[kind], changed, *others, "-o", program], check=True)
            status = run(program, calls, unit)
            if status != 0 and not sound(kind, unit, calls):
                sys.exit(f"{kind}: the unchanged kernels of {unit}.cu fail, too")
            if status:
                return kind
            if status is None:
                return "HANGS"
    return "SURVIVED"


def line_of(mutant: tuple[str, str, str, int]) -> str:
    """A mutant as the report has it."""
    return f"{mutant[0]:19} {mutant[1]!r} -> {mutant[2]!r} (occurrence {mutant[3]})"


def known() -> dict[str, str]:
    """The verdicts that the report keeps."""
    lines = REPORT.read_text().splitlines() if REPORT.exists() else []
    return {line[10:]: line[:9].strip() for line in lines if len(line) > 10 and not line.startswith("NOT RUN")}


def keep(verdicts: dict[str, str]) -> str:
    """Write new verdicts into the report; returns its last line, the share of all mutants."""
    kept = known() | verdicts
    every = [(kept.get(line_of(mutant), "NOT RUN"), line_of(mutant)) for mutant in MUTANTS]
    caught = sum(result not in ("NOT RUN", "SURVIVED") for result, _ in every)
    missing = sum(result == "NOT RUN" for result, _ in every)
    total = f"{caught} of {len(every)} mutants caught ({caught / len(every):.1%}), {missing} not run"
    REPORT.write_text("".join(f"{result:9} {line}\n" for result, line in every) + f"\n{total}\n")
    return total


def main() -> int:
    """Run all mutants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose file name holds this")
    parser.add_argument("--part", default="1/1", help="I/N: every N-th mutant from the I-th on")
    parser.add_argument("--missing", action="store_true", help="mutants that the report has no verdict on")
    parser.add_argument("--jobs", type=int, default=1, help="mutants compiled and run at a time")
    options = parser.parse_args()
    calls = BUILD / "calls.bin"
    begin = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        kinds = dict(zip(KINDS, pool.map(objects, KINDS), strict=True))
    part, parts = map(int, options.part.split("/"))
    done = known() if options.missing else {}
    chosen = [mutant for mutant in MUTANTS if options.only in mutant[0] and line_of(mutant) not in done]
    chosen = chosen[part - 1::parts]
    caught = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, result in zip(chosen, pool.map(lambda each: verdict(each, kinds, calls), chosen), strict=True):
            caught += result != "SURVIVED"
            keep({line_of(mutant): result})
            print(f"{result:9} {line_of(mutant)}", flush=True)
    print(f"{caught} of {len(chosen)} mutants caught, {time.monotonic() - begin:.0f} s")
    print(f"{REPORT.relative_to(ROOT)}: {keep({})}")
    return int(caught < 0.95 * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
