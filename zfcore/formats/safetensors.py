"""Models as self-describing safetensors files: the parameters, and everything else as JSON.

The metadata holds the architecture, the preprocessing, the class names and the version that wrote
it; any safetensors reader can read the arrays. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, backends
from ..files import Sink, atomic_write, refuse_existing
from ..network import Network
from .tensors import MAX_BYTES, TensorFile

FORMAT = "zfcore"
PREPROCESSING = "preprocessing."
_DTYPES = {"float32": "F32", "float64": "F64"}


def save(network: Network, path: str | os.PathLike[str], force: bool = False,
         metadata: Mapping[str, str] | None = None) -> None:
    """Write a network with its parameters; the file appears whole or not at all.

    Parameters
    ----------
    network : with parameters
    path : the file; an existing one is refused unless `force`
    force : replace an existing file
    metadata : further texts to keep, such as the accuracy; read back as `network.metadata`
    """
    target = refuse_existing(path, force)
    tensors = {name: backends.to_numpy(array) for name, array in network.parameters().items()}
    if network.preprocessing is not None:
        tensors |= {PREPROCESSING + key: value for key, value in network.preprocessing.tensors().items()}
    config = json.dumps(network.to_config(), allow_nan=False)
    texts = {"format": FORMAT, "version": __version__, "network": config}
    extra = {str(key): str(value) for key, value in (metadata or {}).items()}
    if extra:
        texts["metadata"] = json.dumps(extra)
    write(target, tensors, texts)


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Write any safetensors file, whole or not at all; what was there is replaced.

    Parameters
    ----------
    path : the file
    tensors : float32 or float64 arrays by name
    texts : its metadata
    """
    header: dict[str, Any] = {"__metadata__": dict(texts)}
    offset = 0
    for key, array in tensors.items():
        header[key] = {"dtype": _DTYPES[str(array.dtype)], "shape": list(array.shape),
                       "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the arrays are aligned

    def writer(file: Sink) -> None:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)

    atomic_write(path, writer)


def _fail(path: Path, what: str) -> ValueError:
    return ValueError(f"{path}: {what}")


def read(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> tuple[dict[str, np.ndarray],
                                                                         dict[str, str]]:
    """Read any safetensors file: (arrays by name, its metadata's texts).

    FileNotFoundError if it is not there, ValueError if it is hostile, truncated, needs more than
    `max_bytes` or is no such file.
    """
    with TensorFile(path, max_bytes) as file:
        return {name: file.array(name) for name in file}, file.texts


def load(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Network:
    """Read a network that `save` wrote, with its parameters, preprocessing and class names.

    FileNotFoundError if it is not there; ValueError, with the path and the reason, for anything that is
    not such a file.
    """
    target = Path(path)
    tensors, metadata = read(target, max_bytes)
    if metadata.get("format") != FORMAT or "network" not in metadata:
        raise _fail(target, "is a safetensors file, but not one that zfcore saved: its metadata describes no "
                            "network; weights with PyTorch's keys need architecture= (--architecture), as in "
                            "'torchvision/resnet18'")
    own = {key.removeprefix(PREPROCESSING): tensors.pop(key)
           for key in list(tensors) if key.startswith(PREPROCESSING)}
    try:
        network = Network.from_config(json.loads(metadata["network"]), own)
        wrong = [key for key, value in tensors.items() if str(value.dtype) not in _DTYPES]
        if wrong:
            raise ValueError(f"arrays that are not float32 or float64: {', '.join(wrong)}")
        network.load_parameters(tensors, copy=False)
        network.metadata = {str(key): str(value)
                            for key, value in dict(json.loads(metadata.get("metadata", "{}"))).items()}
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _fail(target, f"describes no network that this version understands: {error}") from error
    return network
