"""Names of units: "conv5", "conv5:42", "conv5:42@6,7" (layer, map, row, column)."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRE = ".pre"
_PATTERN = re.compile(r"(?P<layer>[^:@\s]+)(?::(?P<map>\d{1,9})(?:@(?P<row>\d{1,9}),(?P<column>\d{1,9}))?)?")


@dataclass(frozen=True)
class Unit:
    """One unit of a network, or all units of a map or of a layer.

    Attributes
    ----------
    layer : a layer's name; with ".pre" at the end its tensor before the fused ReLU
    map : index of the feature map (of the output, for fully connected layers), or None: all maps
    row, column : position in the map, or None: wherever the map is strongest
    """

    layer: str
    map: int | None = None
    row: int | None = None
    column: int | None = None

    def __post_init__(self) -> None:
        if (self.row is None) != (self.column is None) or (self.map is None and self.row is not None):
            raise ValueError(f"Unit: row, column are {self.row!r}, {self.column!r}; "
                             "allowed: both, with a map, or neither")

    @classmethod
    def parse(cls, text: str | Unit) -> Unit:
        """Read "layer", "layer:map" or "layer:map@row,column"; ValueError for anything else."""
        if isinstance(text, Unit):
            return text
        found = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
        if not found:
            raise ValueError(f"unit is {text!r}; allowed: layer, layer:map or layer:map@row,column, "
                             "as in conv5:42@6,7")
        numbers = (None if found[name] is None else int(found[name]) for name in ("map", "row", "column"))
        return cls(found["layer"], *numbers)

    def __str__(self) -> str:
        text = self.layer
        if self.map is not None:
            text += f":{self.map}"
        if self.row is not None:
            text += f"@{self.row},{self.column}"
        return text


def tensor_node(name: str) -> tuple[str, bool]:
    """Split a tensor's name into its layer and whether it is the one before the fused ReLU."""
    return (name[: -len(PRE)], True) if name.endswith(PRE) else (name, False)
