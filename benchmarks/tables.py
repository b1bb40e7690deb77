"""The tables of docs/performance.md and docs/gpu.md, made from benchmarks/results: `python -m benchmarks.tables`.

In docs/performance.md a table stands between `<!-- RESULTS.json: REGULAR EXPRESSION -->` and `<!-- end -->`; its rows
are those of the file whose work matches. What docs/gpu.md holds, and its picture, `gpu.page` makes. `--check` changes
nothing and fails where a table is not what the file says.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
COMPILED = "torch.compile"
PLACE = re.compile(r"(<!-- (?P<file>[\w.-]+\.json): (?P<works>.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def shown(value: float) -> str:
    """About three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of a results file as a Markdown table; convolutions with their rates, errors and a summary.

    Where torch.compile was timed, the ratios to it and to the better of PyTorch's layouts stand apart, too.
    """
    if not any(row["best_peer"] for row in rows):
        return "\n".join(["| work | ms |", "|---|---|", *(f"| {row['work']} | {shown(1e3 * row['medians']['zfcore'])} |"
                                                         for row in rows)]) + "\n"
    compiled = any(COMPILED in row["medians"] for row in rows)
    convolutions = all(row["note"].startswith("errors ") for row in rows)
    ending = "GFLOP/s | root mean square errors: ours, theirs" if convolutions else "peer"
    ending += f" | to eager, to {COMPILED}" if compiled else ""
    lines = [f"| work | ours ms | best peer ms | ratio | {ending} |", "|" + "---|" * (5 + ending.count("|"))]
    for row in rows:
        ours = row["medians"]["zfcore"]
        peer, ratio = row["best_peer"], row["ratio"]
        cells = [row["work"], shown(1e3 * ours)]
        cells += [shown(1e3 * row["medians"][peer]), shown(ratio)] if peer else ["", ""]
        cells += [f"{row['gflop'] / ours:.0f}", row["note"].removeprefix("errors ")] if convolutions else [peer or ""]
        if compiled:
            fused = row["medians"].get(COMPILED)
            eager = [value for name, value in row["medians"].items() if not name.startswith(("zfcore", COMPILED))]
            cells.append(f"{shown(min(eager) / ours)}, {shown(fused / ours)}" if fused else "")
        lines.append(f"| {' | '.join(cells)} |")
    if convolutions:
        ratios = {row["work"]: row["ratio"] for row in rows}
        lowest = min(ratios, key=ratios.__getitem__)
        lines += ["", f"Geometric mean of these {len(rows)} ratios: {statistics.geometric_mean(ratios.values()):.2f}; "
                      f"lowest: {ratios[lowest]:.2f} ({lowest}); below 0.9: "
                      f"{sum(ratio < 0.9 for ratio in ratios.values())}."]
    return "\n".join(lines) + "\n"


def updated(text: str, folder: Path = HERE / "results") -> str:
    """The page with every table made anew."""
    def made(place: re.Match[str]) -> str:
        measured = json.loads((folder / place["file"]).read_text())["rows"]
        rows = [row for row in measured if re.search(place["works"], row["work"])]
        if not rows:
            raise SystemExit(f"{place['file']} has no row that matches {place['works']!r}")
        return place[1] + table(rows) + place[4]

    return PLACE.sub(made, text)


def main(check: Annotated[bool, typer.Option("--check", help="Fail where a table is not what was measured.")] = False
         ) -> None:
    """Make the tables of docs/performance.md and docs/gpu.md from benchmarks/results."""
    from .gpu import page

    for file, made in ((PAGE, updated), (page.PAGE, page.updated)):
        text = file.read_text("utf-8")
        if check and made(text) != text:
            raise SystemExit(f"{file.name}: a table is not that of benchmarks/results; run "
                             "`python -m benchmarks.tables`")
        file.write_text(made(text), "utf-8")
    if not check:
        page.draw()


if __name__ == "__main__":
    typer.run(main)
