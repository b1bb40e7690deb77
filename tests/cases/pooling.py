"""Shapes of poolings: the layers that speed is measured on, and the corners of the kernels."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One pooling; padding is (top, bottom, left, right)."""

    name: str
    input: tuple[int, int, int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False

    @property
    def geometry(self) -> dict:
        return {"window": self.window, "stride": self.stride, "padding": self.padding}

    @property
    def settings(self) -> dict:
        return {**self.geometry, "ceil_mode": self.ceil_mode}


ZFNET = [
    Case("pool1", (16, 110, 110, 96), (3, 3), (2, 2), ceil_mode=True),
    Case("pool2", (16, 26, 26, 256), (3, 3), (2, 2), ceil_mode=True),
    Case("pool5", (16, 13, 13, 256), (3, 3), (2, 2)),
]

# Small enough for loops in Python; together they reach every branch of the kernels.
CORNERS = [
    Case("one cell", (1, 1, 1, 1), (1, 1), (1, 1)),
    Case("2x2 s2", (2, 6, 8, 5), (2, 2), (2, 2)),
    Case("3x3 s2, vector and tail", (2, 7, 9, 37), (3, 3), (2, 2)),
    Case("3x3 s2 ceil", (1, 8, 6, 17), (3, 3), (2, 2), ceil_mode=True),
    Case("3x3 s2 padded", (1, 7, 8, 3), (3, 3), (2, 2), (1, 1, 1, 1)),
    Case("3x3 s2 padded, ceil", (1, 6, 7, 3), (3, 3), (2, 2), (1, 1, 1, 1), True),
    Case("3x3 s1: nine windows on a cell", (1, 5, 6, 4), (3, 3), (1, 1), (1, 1, 1, 1)),
    Case("3x3 s3: no overlap", (1, 9, 7, 4), (3, 3), (3, 3)),
    Case("stride above the window", (1, 9, 10, 3), (2, 2), (3, 4)),
    Case("'same' on an odd size: one side", (1, 7, 7, 3), (2, 2), (2, 2), (0, 1, 0, 1)),
    Case("four different sides", (1, 8, 9, 2), (4, 4), (3, 2), (2, 1, 0, 2)),
    Case("narrow window", (1, 6, 7, 3), (1, 5), (1, 2), (0, 0, 2, 2)),
    Case("tall window, ceil", (1, 9, 5, 3), (5, 2), (4, 2), (2, 2, 0, 1), True),
    Case("window as large as the map", (2, 5, 4, 3), (5, 4), (1, 1)),
    Case("area of 256", (1, 17, 18, 2), (16, 16), (1, 2)),
    Case("padding reaches where windows would start", (1, 4, 4, 2), (2, 2), (2, 2), (1, 1, 1, 1), True),
    Case("no channels", (1, 4, 4, 0), (2, 2), (2, 2)),
    Case("empty batch", (0, 6, 6, 3), (3, 3), (2, 2)),
]
