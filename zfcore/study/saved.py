"""Results that are a dataclass of arrays and JSON values: saved as a folder, loaded as they were."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np

from .. import checks
from ..data import open_images
from . import results


class Saved:
    """`save` and `load` for a dataclass of arrays (or None), dicts of arrays, JSON values and tuples of them.

    A field annotated `dict[str, np.ndarray]` keeps its keys' order; keys may be any text.

    Attributes
    ----------
    kind : what the manifest calls it
    """

    kind: ClassVar[str] = ""

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the result as a folder (see `results`), completely or not at all."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        families = {name: values.pop(name) for name in _families(type(self))}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        rest = {name: value for name, value in values.items() if name not in arrays}
        arrays |= {f"{name}-{place}": array for name, family in families.items()
                   for place, array in enumerate(family.values())}
        description = {"values": rest, "families": {name: list(family) for name, family in families.items()},
                       "versions": results.versions()}
        results.save(path, self.kind, description, arrays, force=force)

    def _repr_html_(self) -> str:
        """What a notebook shows: the figure and the summary's numbers."""
        from ..pictures.fragments import study_fragment

        return study_fragment(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Self:
        """Read a saved result; its arrays are memory-mapped.

        Parameters
        ----------
        path : the folder
        verify : compare every array with its SHA-256

        Raises
        ------
        results.ResultError : no result of this kind, or a damaged one
        """
        description, arrays = results.load(path, cls.kind, verify=verify)
        known = {each.name: str(each.type) for each in fields(cls)}  # type: ignore[arg-type]
        values, keys = description.get("values"), description.get("families", {})
        try:
            families = {name: {str(key): arrays.pop(f"{name}-{place}") for place, key in enumerate(keys[name])}
                        for name in _families(cls)}
        except (KeyError, TypeError) as error:
            raise results.ResultError(f"{path}: not a whole result of kind {cls.kind!r} ({error})") from error
        if not isinstance(values, dict) or {*values, *arrays, *families} != set(known):
            raise results.ResultError(f"{path}: not a whole result of kind {cls.kind!r}")
        given = {name: tuple(value) if known[name].startswith("tuple") and isinstance(value, list) else value
                 for name, value in values.items()}
        try:
            return cls(**given, **arrays, **families)
        except (KeyError, TypeError, ValueError) as error:
            raise results.ResultError(f"{path}: not a whole result of kind {cls.kind!r} ({error})") from error


def _families(kind: Any) -> list[str]:
    """Names of the fields that are dicts of arrays."""
    return [each.name for each in fields(kind) if str(each.type) == "dict[str, np.ndarray]"]


def network_pixels(where: str, network: Any, images: Any) -> tuple[np.ndarray, list[str]]:
    """Images at a network's size.

    Parameters
    ----------
    where : the operation, for errors
    network : its preprocessing says how
    images : what `data.open_images` takes, or uint8 arrays of the network's size

    Returns
    -------
    pixels : uint8 (n, height, width, channels), RGB or gray
    names : one an image
    """
    if network.preprocessing is None:
        checks.fail(where, "network.preprocessing", None, "a Preprocessing: how pixels become the input")
    shape = network.input_shape
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape == shape:
        images = images[None]
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == shape:
        return images, [f"image-{index:05d}" for index in range(len(images))]
    source = open_images(images)
    pixels = [source.load(index, network.preprocessing) for index in range(len(source))]
    for name, each in zip(source.names, pixels, strict=True):
        checks.require(each.shape == shape, where, f"the size of {name!r}", each.shape,
                       f"{shape}, the network's input (set the preprocessing's size and crop)")
    return (np.stack(pixels) if pixels else np.zeros((0, *shape), np.uint8)), list(source.names)


def classes_of(network: Any) -> int:
    """Number of classes of a classifier, 0 for a network whose output is no vector."""
    shape = network.tensor_shape(network.output)
    return int(shape[0]) if len(shape) == 1 and network.nodes else 0


def probabilities(network: Any, output: np.ndarray) -> np.ndarray:
    """Class probabilities (n, classes) of a network's output: through a softmax unless it ends in one."""
    return output if network.logits != network.output else np.asarray(network.ops.softmax(output))


def class_number(where: str, network: Any, label: Any) -> int:
    """A class by its number or its name."""
    count, names = classes_of(network), network.class_names or []
    if isinstance(label, str) and label in names:
        return int(names.index(label))
    if isinstance(label, str) and label.isdecimal():
        label = int(label)
    if isinstance(label, str):
        shown = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        checks.fail(where, "label", label, f"a number below {count}" + (f" or one of {shown}" if names else ""))
    number = checks.integer(where, "label", label, 0)
    checks.require(number < count, where, "label", label, f"0 to {count - 1}")
    return number
