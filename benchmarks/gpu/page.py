"""What docs/gpu.md holds between its markers: floors by arithmetic, and what was measured. No PyTorch here.

`python -m benchmarks.tables` writes it, and draws the roofline where there are results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..tables import shown
from .groups import GROUPS
from .plan import Plan
from .rows import OURS, Row, merged
from .targets import verdicts

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
RESULTS = Path(__file__).parents[1] / "results"
PLACE = re.compile(r"(<!-- (?P<what>groups|floors|measured) -->\n).*?(<!-- end -->)", re.DOTALL)
PICTURE = "pictures/gpu-roofline.png"
NOTHING = """\
Nothing yet: no kernel of zfcore has run on a device, so no figure of one stands here. When results lie in
`benchmarks/results/gpu-bench*.json`, `python -m benchmarks.tables` puts the targets, a table for each group and the
roofline picture here.
"""
# NVIDIA's data sheet of the H200 SXM (dense, without sparsity): what it promises, which nothing reaches.
BYTES = 4.8e12  # a second
# Columns: operations a second, and bytes of a number. tf32x3: three products in tf32 for one of float32's accuracy.
RATES = {"16 bits": (989e12, 2), "tf32": (494e12, 4), "tf32x3": (494e12 / 3, 4), "float32": (67e12, 4)}


def order() -> str:
    """The groups as they run."""
    return markdown(["group", "rows", "estimated s", "what to read it for"], (
        [f"`{group.name}`", group.about, str(group.seconds), group.why] for group in GROUPS.values()))


def floor(gflop: float, moved: float, rate: float) -> str:
    """Microseconds that no kernel can undercut; M where memory decides."""
    computing, moving = gflop * 1e9 / rate, moved / BYTES
    return f"{shown(1e6 * max(computing, moving))}{' M' if moving > computing else ''}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def floors(plan: Plan | None = None) -> str:
    """Tables of the benchmark's own shapes."""
    plan = plan or Plan()
    batch, names = plan.batch, list(RATES)

    def cells(layer: Any) -> list[str]:
        return [floor(layer.gflop(batch), layer.bytes(batch, size), rate) for rate, size in RATES.values()]

    layers = [[name, f"{layer.channels}->{layer.filters}, {'x'.join(map(str, layer.window))}, stride {layer.stride[0]}"
               + (f", {layer.groups} groups" if layer.groups > 1 else ""), shown(layer.gflop(batch)), *cells(layer)]
              for name, layer in plan.convolutions().items()]
    layers += [[f"{plan.first[0]} {name}", f"{layer.inputs}->{layer.outputs}", shown(layer.gflop(batch)), *cells(layer)]
               for name, layer in plan.dense().items()]
    memory: list[list[str]] = []
    for name, pool in plan.pools().items():
        memory.append([f"{name} {pool.height}x{pool.width}x{pool.channels}: forward, gradient or unpooling",
                       *(shown(1e6 * pool.bytes(batch, size) / BYTES) for size in (2, 4))])
    for name, (height, width, channels) in plan.norms().items():
        numbers = batch * height * width * channels
        memory += [[f"{name} {height}x{width}x{channels}: {way}",
                    *(shown(1e6 * passes * numbers * size / BYTES) for size in (2, 4))]
                   for way, passes in (("forward", 2), ("gradient", 3))]
    title, net = plan.first
    parameters = sum(int(size) for size in map(_product, net.parameter_shapes().values()))
    memory.append([f"SGD over {title}'s {parameters / 1e6:.1f} million parameters (bfloat16: their copy, too)",
                   *(shown(1e6 * each * parameters / BYTES) for each in (22, 20))])
    stages = []
    for name, (conv, pool) in plan.stages().items():
        numbers, places = batch * (conv.inputs + pool.pooled) + conv.weights, batch * pool.pooled
        stages.append([f"{title} {name} + ReLU + pool", shown(conv.gflop(batch)),
                       *(floor(conv.gflop(batch), size * numbers + places, rate) for rate, size in RATES.values())])
    return "\n".join([
        f"A direction of a layer (forward, input gradient or weight gradient), {batch} images:\n",
        markdown(["layer", "", "GFLOP", *(f"{name} µs" for name in names)], layers),
        f"A stage in one kernel, up or down, {batch} images; its large maps never reach memory:\n",
        markdown(["stage", "GFLOP", *(f"{name} µs" for name in names)], stages),
        f"What memory bounds, {batch} images:\n",
        markdown(["work", "16 bits µs", "float32 µs"], memory)])


def _product(shape: Iterable[int]) -> int:
    result = 1
    for extent in shape:
        result *= extent
    return result


def measured(rows: Sequence[Row], runs: Sequence[dict[str, Any]]) -> str:
    """The targets, then every group's rows; or that there is nothing."""
    if not rows:
        return NOTHING
    parts = [f"![Roofline of the measured rows]({PICTURE})\n", "".join(f"- {line}\n" for line in map(_run, runs)),
             markdown(["target", "asked", "measured", ""], (each.cells() for each in verdicts(rows)))]
    for group, members in groupby(sorted(rows, key=lambda row: row.group), key=lambda row: row.group):
        own = list(members)
        columns = list(dict.fromkeys(row.precision for row in own))
        works: dict[str, dict[str, Row]] = {}
        for row in own:
            works.setdefault(row.work.removesuffix(f", {row.precision}"), {})[row.precision] = row
        parts += [f"### {group}\n", markdown(["work", *columns], (
            [work, *(_cell(each[name]) if name in each else "" for name in columns)] for work, each in works.items()))]
        losses = [f"{row.work} ({row.ratio:.2f})" for row in own if row.ratio is not None and row.ratio < 1]
        parts += [f"Slower than the best peer: {', '.join(losses)}.\n"] if losses else []
        parts += ["Left out:\n\n" + "".join(f"- {line}\n" for line in _missing(own))] if any(
            row.left_out for row in own) else []
    return "\n".join(parts)


def _run(run: dict[str, Any]) -> str:
    about = run["environment"]
    products = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in run["product_operations_per_second"].items())
    return (f"{about['device']}, driver {about['driver']}, {about['date'][:10]}, commit {about['commit']}, PyTorch "
            f"{run['torch']}, cuDNN {run['cudnn']}; ceilings: copy {run['copy_bytes_per_second'] / 1e9:.0f} GB/s, "
            f"matrix products in TFLOP/s {products}")


def _cell(row: Row) -> str:
    """A row in one cell: time, rate, share of the ceiling, ratio and peer, errors of ours and of the peer."""
    if row.ours is None:
        return "no result of ours"
    rate = row.rate.partition(" (")[0]
    share = f"{row.share:.0%}" if row.share else ""
    against = f"**{shown(row.ratio)}**x {row.peer}" if row.ratio else ""
    errors = "errors " + ", ".join(f"{row.errors[name]:.0e}" for name in (row.ours, row.peer) if name in row.errors)
    variant = "" if row.ours == OURS else f"by {row.ours}"
    return ", ".join(part for part in (f"{shown(1e6 * row.medians[row.ours])} µs", rate, share, against, variant,
                                       errors if row.errors else "") if part)


def _missing(rows: Iterable[Row]) -> Iterator[str]:
    """Contenders without a time, those of one reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.left_out.items():
            found.setdefault((name, reason), []).append(row.work)
    return (f"{name}, {len(works)} rows ({works[0]}{', ...' if len(works) > 1 else ''}): {reason}"
            for (name, reason), works in found.items())


def roofline(rows: Sequence[Row], runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw operations a second against operations a byte: ours, the best peer, and the newest run's ceilings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    ceilings = runs[-1]
    copy, products = ceilings["copy_bytes_per_second"], ceilings["product_operations_per_second"]
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    points = [row for row in rows if row.gflop and row.bytes and row.ours and row.precision in products]
    reach = [row.gflop * 1e9 / row.bytes for row in points] or [1.0]
    left, right = min(reach) / 2, max([*reach, max(products.values()) / copy]) * 2
    for number, (precision, top) in enumerate(products.items()):
        color = f"C{number}"
        own = [row for row in points if row.precision == precision]
        axes.plot([left, top / copy, right], [left * copy / 1e12, top / 1e12, top / 1e12], color=color, linewidth=1)
        axes.annotate(f"{precision} {top / 1e12:.0f}", (right, top / 1e12), (0, 3), textcoords="offset points",
                      ha="right", fontsize=8, color=color)
        for name, filled in (("ours", True), ("best peer", False)):
            chosen = [(row, row.ours if filled else row.peer) for row in own]
            places = [(row.gflop * 1e9 / row.bytes, row.gflop / row.medians[who] / 1e3) for row, who in chosen if who]
            if places:
                axes.scatter(*zip(*places, strict=True), s=18, edgecolors=color,
                             facecolors=color if filled else "none", label=f"{precision}, {name}")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte that must move", ylabel="10¹² operations a second",
             title="Convolutions, fully connected layers and chains under the ceilings of the run")
    axes.annotate(f"copy {copy / 1e12:.2f} TB/s", (left, left * copy / 1e12), (4, -4), textcoords="offset points",
                  fontsize=8, va="top")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(which="both", alpha=0.2)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def results(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """What files of the benchmarks there are, `make gpu PART=bench`'s."""
    files = [file for file in sorted(folder.glob("gpu-bench*.json")) if json.loads(file.read_text("utf-8"))["rows"]]
    return merged(files)


def draw(folder: Path = RESULTS, path: Path = PAGE.parent / PICTURE) -> None:
    """The picture, where there are results."""
    rows, runs = results(folder)
    if rows:
        roofline(rows, runs, path)


def updated(text: str, folder: Path = RESULTS) -> str:
    """The page with both parts made anew."""
    parts = {"groups": order(), "floors": floors(), "measured": measured(*results(folder))}
    return PLACE.sub(lambda place: place[1] + parts[place["what"]] + place[3], text)
