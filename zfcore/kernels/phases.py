"""The phases of a stride: which taps of a filter touch which cells of a convolution's input, for one axis."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple


class Phase(NamedTuple):
    """One axis of the input cells whose padded position is `phase` modulo the stride.

    Taps `tap`, `tap + tap_step`, ... of the filter hit them: `taps` of them. Cell i of `cells` is input
    cell i * stride + start; it meets cells i - before, i - before + spread, ... of the output.
    """

    start: int
    cells: int
    tap: int
    tap_step: int
    taps: int
    before: int
    spread: int


def phases_of(size: int, window: int, stride: int, pad: int, dilation: int) -> list[Phase]:
    """The phases of one axis: padded position = stride * output + dilation * tap."""
    common = gcd(stride, dilation)
    phases = []
    for phase in range(stride):
        first = -(-max(pad - phase, 0) // stride)  # the first output-like position inside the input
        start = first * stride + phase - pad
        cells = max(-(-(size - start) // stride), 0)
        taps = [tap for tap in range(window) if (phase - tap * dilation) % stride == 0]
        if not cells:
            continue
        if not taps:
            phases.append(Phase(start, cells, 0, 1, 0, 0, 1))
            continue
        spread = dilation // common
        last = (phase - taps[-1] * dilation) // stride  # the last tap meets the first output cell
        phases.append(Phase(start, cells, taps[0], stride // common, len(taps), -(first + last), spread))
    return phases
