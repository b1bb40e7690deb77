"""A bar on stderr for what takes longer than two seconds."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def bar(total: int | None, what: str, shown: bool, unit: str = "step") -> Any:
    """A tqdm bar that appears after two seconds, or never; without a total it counts."""
    return tqdm(total=total, desc=what, unit=unit, delay=2, disable=not shown)
