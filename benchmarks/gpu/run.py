"""A run: groups one after the other, rows written as they come, what is left said at the end. No PyTorch here."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .groups import Group
from .rows import Row, written
from .targets import summary


class File:
    """Where the rows go: the file is whole after each of them, whatever happens next."""

    def __init__(self, path: Path) -> None:
        self.path, self.rest = path, dict[str, Any]()
        self.rows: list[Row] = []

    def keep(self, rows: Sequence[Row]) -> None:
        """Write all rows."""
        self.rows = list(rows)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps({**self.rest, "rows": written(self.rows)}) + "\n")
        beside.replace(self.path)

    def note(self, **values: Any) -> None:
        """Something else that the file is to say."""
        self.rest.update(values)
        self.keep(self.rows)


def measure(bench: Any, groups: Sequence[Group], file: File, stop: type[Exception]) -> int:
    """Run groups until all are done or `stop` is raised; 0, or 1 where one broke.

    A group that breaks costs its own further rows only.
    """
    begun, broken, left = time.monotonic(), dict[str, str](), [group.name for group in groups]
    for group in groups:
        bench.group = group.name
        print(f"-- {group.name}: {group.about}", flush=True)
        try:
            group(bench)
        except stop as reason:
            print(f"stopped in {group.name}: {reason}")
            break
        except Exception as problem:
            traceback.print_exc()
            broken[group.name] = f"{type(problem).__name__}: {problem}"
        left.remove(group.name)
    file.note(broken=broken, not_finished=left)
    print(f"\n{len(bench.rows)} rows in {time.monotonic() - begun:.0f} s\n\n{summary(bench.rows)}")
    for name, reason in broken.items():
        print(f"broken: {name}: {reason}")
    if left:
        print(f"not finished: go on with `make gpu PART=bench-{','.join(left)}`")
    return int(bool(broken))
