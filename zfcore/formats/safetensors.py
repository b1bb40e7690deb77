"""Models as self-describing safetensors files: the parameters, and everything else as JSON.

The metadata holds the architecture, the preprocessing, the class names and the version that wrote
it; any safetensors reader can read the arrays. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import __version__
from ..files import atomic_write, refuse_existing
from ..network import Network

FORMAT = "zfcore"
MAX_HEADER = 100_000_000
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
    tensors = dict(network.parameters())
    if network.preprocessing is not None:
        tensors |= {PREPROCESSING + key: value for key, value in network.preprocessing.tensors().items()}
    config = json.dumps(network.to_config(), allow_nan=False)
    texts = {"format": FORMAT, "version": __version__, "network": config}
    extra = {str(key): str(value) for key, value in (metadata or {}).items()}
    if extra:
        texts["metadata"] = json.dumps(extra)
    header: dict[str, Any] = {"__metadata__": texts}
    offset = 0
    for key, array in tensors.items():
        header[key] = {"dtype": _DTYPES[str(array.dtype)], "shape": list(array.shape),
                       "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the arrays are aligned

    def writer(file: BinaryIO) -> None:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)

    atomic_write(target, writer)


def _fail(path: Path, what: str) -> ValueError:
    return ValueError(f"{path}: {what}")


def _check_head(path: Path) -> None:
    """Give a file that is no safetensors file a clear error before anything reads it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise _fail(path, "looks like a pickle or a zip of one (.pt, .pth), which can run code when it is "
                          "read: refused; allowed: .safetensors")
    if len(head) < 8:
        raise _fail(path, f"is no safetensors file: {size} bytes")
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER:
        raise _fail(path, f"is no safetensors file, or a hostile one: its header would be {length} bytes; "
                          f"allowed: {MAX_HEADER}")
    if length + 8 > size:
        raise _fail(path, f"is truncated or no safetensors file: its header needs {length} bytes, "
                          f"the file has {size}")


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read any safetensors file of floating-point arrays: (arrays by name, its metadata's texts).

    FileNotFoundError if it is not there, ValueError if it is hostile, truncated or no such file.
    """
    import safetensors

    target = Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"{target}: no such file")
    _check_head(target)
    try:
        with safetensors.safe_open(target, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise _fail(target, f"cannot be read as safetensors: {error}") from error


def load(path: str | os.PathLike[str]) -> Network:
    """Read a network that `save` wrote, with its parameters, preprocessing and class names.

    FileNotFoundError if it is not there; ValueError, with the path and the reason, for anything that is
    not such a file.
    """
    target = Path(path)
    tensors, metadata = read(target)
    if metadata.get("format") != FORMAT or "network" not in metadata:
        raise _fail(target, "is a safetensors file, but not one that zfcore saved: "
                            "its metadata describes no network")
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
