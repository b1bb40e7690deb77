"""Reshapes and transposes, kept symbolic until somebody must see their result.

A tensor of the ONNX graph is a layer's tensor and a view of it. The layer's axes are cut into parts;
the view says which parts, in which order, make up each axis of the ONNX tensor. Reshape, Transpose,
Flatten, Squeeze and Unsqueeze change only the view. So the exporters' detours cost nothing (flatten before a
fully connected layer permutes its weights once; ShuffleNet's reshape-transpose-reshape is one
permutation of maps), and where the order of NCHW matters it is known exactly.

Axes here are an item's: the batch is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


class Part:
    """A piece of an axis. Identity matters: two parts of one size are different."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"Part({self.size})"


@dataclass(frozen=True)
class View:
    """How an ONNX tensor lies in a layer's tensor.

    Attributes
    ----------
    parts : the layer's item in C order, cut
    axes : for every axis of the ONNX tensor, its parts, the slowest first
    """

    parts: tuple[Part, ...]
    axes: tuple[tuple[Part, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The ONNX tensor's sizes without the batch."""
        return tuple(math.prod(part.size for part in axis) for axis in self.axes)

    def transposed(self, order: Sequence[int]) -> View:
        """The axes in another order."""
        return View(self.parts, tuple(self.axes[axis] for axis in order))

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements as axes of other sizes; None if no cutting of parts does it."""
        waiting = [part for axis in self.axes for part in axis if part.size != 1][::-1]
        cuts: dict[Part, list[Part]] = {}
        axes: list[list[Part]] = []
        for size in shape:
            axis: list[Part] = []
            while size > 1:
                if not waiting:
                    return None
                part = waiting.pop()
                if size % part.size == 0:
                    axis.append(part)
                    size //= part.size
                elif part.size % size == 0:
                    first, rest = Part(size), Part(part.size // size)
                    cuts[part] = [first, rest]
                    axis.append(first)
                    waiting.append(rest)
                    size = 1
                else:
                    return None
            axes.append(axis)
        if waiting:
            return None

        def pieces(part: Part) -> list[Part]:
            return [piece for each in cuts[part] for piece in pieces(each)] if part in cuts else [part]

        return View(tuple(piece for part in self.parts for piece in pieces(part)),
                    tuple(tuple(axis) for axis in axes))

    def arrangement(self, axes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(split, order, shape) that give the ONNX axes in this order from the layer's tensor.

        Parts that stay neighbours are joined, parts of size 1 are left out.
        """
        wanted = [part for axis in axes for part in self.axes[axis] if part.size != 1]
        place = {part: index for index, part in enumerate(part for part in self.parts if part.size != 1)}
        runs: list[list[int]] = []
        for part in wanted:
            index = place[part]
            if runs and runs[-1][-1] == index - 1:
                runs[-1].append(index)
            else:
                runs.append([index])
        stored = sorted(runs)
        sizes = [part.size for part in self.parts if part.size != 1]
        split = tuple(math.prod(sizes[index] for index in run) for run in stored) or (1,)
        order = tuple(stored.index(run) for run in runs) or (0,)
        shape = self.shape
        return split, order, tuple(shape[axis] for axis in axes)


def last_first(rank: int) -> tuple[int, ...]:
    """The order in which a layer holds an ONNX tensor of this rank: its first axis, the maps, last."""
    return (*range(1, rank), 0) if rank > 1 else tuple(range(rank))


def canonical(shape: Sequence[int]) -> View:
    """The view of a layer's tensor, given with its maps last, as the ONNX tensor with the maps first."""
    parts = tuple(Part(size) for size in shape)
    if len(parts) < 2:
        return View(parts, tuple((part,) for part in parts))
    return View(parts, ((parts[-1],), *((part,) for part in parts[:-1])))
