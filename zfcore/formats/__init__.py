"""Model files in and out: this package's safetensors, others' weights, ONNX.

`load` chooses by the file's ending and what it is told; `save` by the ending alone.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import presets

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["load", "presets", "save"]

# Module with `load` or `save`, by the file's ending; anything else is taken for safetensors.
_READERS = {".onnx": "onnx"}
_WRITERS = {".onnx": "onnx.export"}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def load(path: str | os.PathLike[str], architecture: str | None = None, **options: Any) -> Network:
    """Read a model file.

    Parameters
    ----------
    path : `.safetensors` that zfcore saved, or of weights with PyTorch's keys, or `.onnx`
    architecture : of a file of weights alone: "torchvision/resnet18" and its like
    options : of the format's own `load`: `formats.safetensors`, `formats.state_dict`, `formats.onnx`

    FileNotFoundError if it is not there; ValueError, with the path and the reason, if it is no such
    file or does not fit the architecture.
    """
    if architecture is not None:
        module = "state_dict"
        options["architecture"] = architecture
    else:
        module = _READERS.get(Path(path).suffix.lower(), "safetensors")
    network: Network = importlib.import_module(f"{__name__}.{module}").load(path, **options)
    return network


def save(network: Network, path: str | os.PathLike[str], force: bool = False, **options: Any) -> None:
    """Write a network with its parameters, whole or not at all.

    Parameters
    ----------
    network : with parameters
    path : a name that ends in `.onnx`; anything else becomes safetensors, but for the endings of pickles
    force : replace an existing file
    options : of the format's own `save`: `formats.safetensors`, `formats.onnx.export`
    """
    ending = Path(path).suffix.lower()
    if ending in _PICKLES:
        raise ValueError(f"save: path is {str(path)!r}; allowed: a name that ends in .safetensors or .onnx")
    module = _WRITERS.get(ending, "safetensors")
    importlib.import_module(f"{__name__}.{module}").save(network, path, force=force, **options)
