"""What explanations have in common: raw arrays with their settings, saved and loaded as one folder."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from ..formats import results


@dataclass
class Result:
    """A dataclass of arrays and of what JSON holds; `save` and `load` take every field."""

    kind: ClassVar[str] = "explanation"

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write a folder: `manifest.json` with settings and hashes, one `.npy` an array.

        Parameters
        ----------
        path : the folder; it must not exist, or be an earlier result and `force` be set
        force : replace an earlier result
        """
        arrays, description = {}, {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                arrays[item.name] = value
            else:
                description[item.name] = value
        results.save(path, self.kind, {"fields": description, "versions": results.versions()}, arrays, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; `zfcore.formats.results.ResultError` if it is damaged or another kind."""
        description, arrays = results.load(path, cls.kind)
        return cls(**description["fields"], **arrays)


def channels_of(network: Any) -> str:
    """The order of a network's channels: "RGB", "BGR" or "L"; "RGB" where it does not say."""
    return "RGB" if network.preprocessing is None else str(network.preprocessing.channels)


@dataclass
class Attribution(Result):
    """Which pixels, or cells of a layer, a score depends on; one row an image.

    Attributes
    ----------
    method : its name, as on the command line
    values : float (N, height, width) maps, or (N, height, width, channels) signed pixels in the
        order `channels`; raw, unscaled
    scores : (N,) what was explained: class scores before the softmax, or activations
    targets : a name for each row's score: "class 281", "conv5:42", "conv5:42@6,7"
    signed : whether values below zero mean something
    settings : of the method
    channels : the network's order, "RGB", "BGR" or "L"
    """

    kind: ClassVar[str] = "attribution"

    method: str
    values: np.ndarray
    scores: np.ndarray
    targets: list[str]
    signed: bool
    settings: dict[str, Any] = field(default_factory=dict)
    channels: str = "RGB"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows."""
        from ..pictures.fragments import attribution_fragment

        return attribution_fragment(self)


@dataclass
class Synthesis(Result):
    """Images that were made; one row a target.

    Attributes
    ----------
    method : its name, as on the command line
    images : float32 (N, height, width, channels), in the network's numbers (`Preprocessing.restore`
        turns them to pixels)
    scores : (steps + 1, N) the score before each step and after the last
    targets : a name for each row's score
    dead : bool (N,): rows whose score has no gradient anywhere that was tried; they were skipped
    settings : of the method
    channels : the order of the images' channels, "RGB", "BGR" or "L"
    """

    kind: ClassVar[str] = "synthesis"

    method: str
    images: np.ndarray
    scores: np.ndarray
    targets: list[str]
    dead: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    channels: str = "RGB"

    def _repr_html_(self) -> str:
        """What a notebook shows: the first images."""
        from ..pictures.fragments import synthesis_fragment

        return synthesis_fragment(self)

@dataclass
class Activations(Result):
    """All maps of one layer: an activation grid's tiles, one row an image.

    Attributes
    ----------
    layer : its name
    maps : (N, maps, rows, columns)
    """

    kind: ClassVar[str] = "activations"

    layer: str
    maps: np.ndarray
