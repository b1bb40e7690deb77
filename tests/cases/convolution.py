"""Shapes of convolutions: the layers that speed is measured on, and the corners of the kernels."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One convolution; padding is (top, bottom, left, right)."""

    name: str
    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def settings(self) -> dict:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation,
                "groups": self.groups}


ZFNET = [
    Case("conv1", (16, 224, 224, 3), (96, 7, 7, 3), (2, 2), (1, 1, 1, 1)),
    Case("conv2", (16, 55, 55, 96), (256, 5, 5, 96), (2, 2)),
    Case("conv3", (16, 13, 13, 256), (384, 3, 3, 256), padding=(1, 1, 1, 1)),
    Case("conv4", (16, 13, 13, 384), (384, 3, 3, 384), padding=(1, 1, 1, 1)),
    Case("conv5", (16, 13, 13, 384), (256, 3, 3, 384), padding=(1, 1, 1, 1)),
]

# Small enough for loops in Python; together they reach every branch of the kernels.
CORNERS = [
    Case("one pixel, one channel", (1, 1, 1, 1), (1, 1, 1, 1)),
    Case("plain 3x3", (2, 6, 7, 5), (4, 3, 3, 5)),
    Case("1x1 as a matrix product", (3, 5, 4, 40), (37, 1, 1, 40)),
    Case("7x7 s2 of an image: by whole patches", (2, 21, 18, 3), (20, 7, 7, 3), (2, 2), (1, 1, 1, 1)),
    Case("11x11 s4 of an image", (1, 27, 30, 3), (9, 11, 11, 3), (4, 4), (2, 2, 2, 2)),
    Case("5x5 s2, sums in several chunks", (2, 11, 11, 60), (33, 5, 5, 60), (2, 2)),
    Case("same padding at stride 2: (0, 1)", (2, 8, 8, 6), (5, 3, 3, 6), (2, 2), (0, 1, 0, 1)),
    Case("four different pads", (1, 5, 6, 3), (4, 4, 3, 3), (1, 1), (3, 0, 1, 2)),
    Case("padding beyond the window", (1, 3, 3, 2), (3, 2, 2, 2), (1, 2), (4, 3, 5, 2)),
    Case("stride over the window: untouched cells", (2, 9, 10, 4), (3, 2, 1, 4), (3, 4)),
    Case("dilation", (1, 9, 10, 4), (6, 3, 2, 4), (1, 1), (1, 1, 0, 2), (2, 3)),
    Case("dilation and stride with a common factor", (2, 12, 13, 3), (5, 3, 3, 3), (2, 4), (2, 2, 2, 2), (4, 2)),
    Case("dilation and stride without one", (2, 12, 13, 3), (5, 3, 3, 3), (2, 3), (2, 1, 2, 3), (3, 2)),
    Case("two groups", (2, 7, 7, 20), (34, 3, 3, 10), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    Case("groups, stride, dilation, pads", (2, 9, 8, 9), (6, 3, 2, 3), (2, 1), (1, 0, 2, 1), (1, 2), 3),
    Case("depthwise", (2, 8, 9, 19), (19, 3, 3, 1), (2, 1), (1, 1, 0, 2), (1, 1), 19),
    Case("depthwise with dilation", (1, 9, 9, 4), (4, 2, 3, 1), (1, 2), (2, 2, 2, 2), (3, 2), 4),
    Case("two filters a channel", (1, 6, 6, 3), (6, 3, 3, 1), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    Case("more filters than an item takes", (1, 3, 4, 3), (530, 2, 2, 3)),
    Case("more channels than an item takes", (1, 4, 4, 520), (3, 2, 2, 520)),
    Case("more cells than an item takes", (2, 20, 17, 2), (3, 3, 2, 2)),
    Case("bands of rows", (2, 150, 5, 2), (6, 5, 3, 2), (2, 1), (1, 2, 1, 0), (3, 1)),
    Case("phases with a common factor", (1, 12, 13, 17), (5, 3, 3, 17), (2, 4), (2, 2, 2, 2), (4, 2)),
    Case("phases without one", (1, 12, 13, 17), (5, 3, 3, 17), (2, 3), (2, 1, 2, 3), (3, 2)),
    Case("phases no tap hits", (1, 9, 10, 32), (3, 2, 1, 32), (3, 4), (2, 0, 1, 3)),
    Case("phases of groups", (1, 9, 8, 36), (10, 3, 2, 18), (2, 1), (1, 0, 2, 1), (1, 2), 2),
    Case("tall and thin", (2, 40, 1, 3), (4, 5, 1, 3), (2, 1), (2, 2, 0, 0)),
]
