"""The groups of rows, in the order in which they are measured, most telling first. No PyTorch here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    Attributes
    ----------
    name : on the command line
    seconds : an estimate, not a measurement: the floors of the rows' work (docs/gpu.md), doubled, times contenders,
        sets of buffers and 63 rounds; and a second for each of cuDNN's searches, four for each compilation
    about : its rows, in words
    why : what to read it for
    place : the function, in a module of this package, and what it gets besides the bench
    """

    name: str
    seconds: int
    about: str
    why: str
    place: tuple[str, ...]

    def __call__(self, bench: Any) -> None:
        """Measure."""
        module, function, *arguments = self.place
        getattr(importlib.import_module(f".{module}", __package__), function)(bench, *arguments)


GROUPS = {group.name: group for group in (
    Group("convolutions", 220, "every layer of ZFNet, AlexNet and VGG-16, three directions, tf32 and 16 bits",
          "which layers of the tensor-core kernels are behind cuDNN", ("convolutions", "convolutions")),
    Group("memory", 180, "pools, their gradients, unpooling, both normalisations, SGD; float32 and bfloat16",
          "the share of the measured copy", ("memory_bound", "memory")),
    Group("projections", 60, "conv5's top 9 of 256 maps, 2,304 units", "the way down as a whole",
          ("projections", "projections")),
    Group("zfnet-step", 200, "ZFNet's training step, batch 128",
          "what launches cost (plain, captured) and float32 between layers (stored in bfloat16)",
          ("steps", "steps", "ZFNet")),
    Group("chains", 280, "convolution, ReLU and pool in one; its weight gradient; unpool, rectify, filter in one",
          "whether fusing pays against one by one", ("chains", "chains")),
    Group("strict", 150, "the convolutions in float32, tf32 off", "plain arithmetic against three products in tf32",
          ("convolutions", "strict")),
    Group("linears", 60, "fully connected layers, batch 1 and 128", "the weights' traffic", ("linears", "linears")),
    Group("alexnet-step", 150, "AlexNet's training step, batch 128", "as above", ("steps", "steps", "AlexNet")),
    Group("vgg16-step", 400, "VGG-16's training step, batch 64", "as above", ("steps", "steps", "VGG-16")),
    Group("compiled", 350, "the convolutions forward in bfloat16 again, torch.compile beside cuDNN",
          "whether a compiler finds better convolutions", ("convolutions", "compiled")),
)}


def chosen(names: str | None) -> list[Group]:
    """The groups named, in the order above; all of them for None.

    Raises
    ------
    ValueError : a name that is none
    """
    if names is None:
        return list(GROUPS.values())
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in GROUPS]
    if unknown or not asked:
        raise ValueError(f"groups are {names!r}; allowed: some of {', '.join(GROUPS)}")
    return [group for name, group in GROUPS.items() if name in asked]
