"""Run the benchmarks: `python -m benchmarks --out benchmarks/results/mine.json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def main(
    out: Annotated[Path | None, typer.Option(help="JSON file; default: results/cpu-<device>.json")] = None,
    only: Annotated[str, typer.Option(help="Run the parts named here.")] = (
        "convolutions,ops,networks,study,explain,training,memory"),
    threads: Annotated[int, typer.Option(help="Threads for everybody.")] = 2,
    seconds: Annotated[float, typer.Option(help="About how long each contender is timed.")] = 2.0,
    compiled: Annotated[bool, typer.Option(help="Time torch.compile too (it compiles for a minute).")] = False,
) -> None:
    """Time zfcore beside PyTorch and Captum, interleaved; ratio = best peer's time / ours."""
    try:
        import captum  # noqa: F401
        import torch
    except ImportError as error:
        raise SystemExit(f"benchmarks need PyTorch and Captum: {error}") from None
    from zfcore.kernels import threads as pool

    from . import explain, measure, memory, networks, operations, study, training

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pool.set_num_threads(threads)
    print(measure.HEADER)
    rows = []
    parts = {"convolutions": lambda: operations.convolutions(seconds), "ops": lambda: operations.rows(seconds),
             "networks": lambda: networks.rows(seconds, compiled), "study": lambda: study.rows(seconds),
             "explain": lambda: explain.rows(seconds), "training": lambda: training.rows(seconds),
             "memory": memory.rows, "occlusion": lambda: study.occlusions(seconds),
             "evolution": lambda: study.evolutions(seconds),
             "invariance": lambda: study.invariances(seconds)}  # those three are the study's, one by one
    for name in only.split(","):
        if name not in parts:
            raise SystemExit(f"--only is {name!r}; allowed: {', '.join(parts)}")
        for row in parts[name]():
            print(measure.describe(row), flush=True)
            rows.append(row)
    slug = re.sub(r"[^a-z0-9]+", "-", measure.processor().lower()).strip("-")
    path = out or Path(__file__).parent / "results" / f"cpu-{slug}.json"
    measure.write(path, rows, threads)
    print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
