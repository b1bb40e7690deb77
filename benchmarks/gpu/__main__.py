"""`python -m benchmarks.gpu --out rows.json`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __doc__ as method
from .groups import GROUPS, chosen
from .run import File, measure


def main() -> int:
    """Measure the groups asked for; 0, 1 where one broke, 2 for wrong arguments, 3 without a device."""
    listed = "\n".join(f"  {group.name:<13} about {group.seconds:>4} s (an estimate)  {group.about}"
                       for group in GROUPS.values())
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=method, epilog=f"groups, in the order in which they run:\n{listed}")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, whole after each row")
    parser.add_argument("--only", metavar="GROUP[,GROUP]", help="these groups; default: all, as far as time allows")
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help="no row begins after so many seconds (default: no limit)")
    options = parser.parse_args()
    try:
        groups = chosen(options.only)
    except ValueError as problem:
        parser.error(str(problem))
    import torch

    if not torch.cuda.is_available():
        print("benchmarks.gpu: this PyTorch sees no CUDA device; nothing was measured", file=sys.stderr)
        return 3
    from zfcore import backends

    from .bench import Bench, TimeIsUp
    from .device import Clocks, Device
    from .plan import Plan

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    file = File(options.out)
    bench = Bench(backends.get("cuda").extension, Device(), Plan(), file.keep, options.seconds)
    with Clocks() as clocks:
        bench.ceilings()
        file.note(torch=torch.__version__, cudnn=torch.backends.cudnn.version(), batch=bench.plan.batch,
                  copy_bytes_per_second=bench.copy, product_operations_per_second=bench.products)
        code = measure(bench, groups, file, TimeIsUp)
    file.note(clocks={"asked": Clocks.ASKED, "each second": clocks.samples})
    return code


if __name__ == "__main__":
    sys.exit(main())
