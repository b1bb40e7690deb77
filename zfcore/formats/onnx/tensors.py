"""Tensors of an ONNX file: read with every size checked before anything is allocated.

Data outside the file is read only from regular files inside the model's folder, never through a link.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

MAX_BYTES = 4 << 30

# TensorProto.DataType: its NumPy type, and the field that holds it when `raw_data` does not.
TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_data"), 2: (np.uint8, "int32_data"), 3: (np.int8, "int32_data"),
    4: (np.uint16, "int32_data"), 5: (np.int16, "int32_data"), 6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"), 9: (np.bool_, "int32_data"), 10: (np.float16, "int32_data"),
    11: (np.float64, "double_data"), 12: (np.uint32, "uint64_data"), 13: (np.uint64, "uint64_data"),
}


@dataclass
class Budget:
    """Bytes that a model's tensors may take in all; counted before they are allocated."""

    limit: int = MAX_BYTES
    used: int = field(default=0, init=False)

    def take(self, what: str, count: int) -> None:
        """Count `count` bytes more; ValueError if that is too much."""
        if self.used + count > self.limit:
            raise ValueError(f"onnx: {what} needs {count} bytes more than the {self.used} taken so far; "
                             f"allowed: {self.limit} in all (max_bytes)")
        self.used += count


def text(value: Any) -> str:
    """A name or text of the file; ValueError if it is not UTF-8 (protobuf then hands out bytes)."""
    if not isinstance(value, str):
        raise ValueError(f"onnx: a text is {value[:50]!r}; allowed: UTF-8")
    return value


def shape_of(what: str, dims: Any) -> tuple[int, ...]:
    """A declared shape; ValueError for negative sizes and for products that overflow."""
    shape = tuple(int(size) for size in dims)
    if any(size < 0 for size in shape) or len(shape) > 32:
        raise ValueError(f"onnx: {what} has shape {shape[:8]}; allowed: up to 32 sizes >= 0")
    if math.prod(max(size, 1) for size in shape) >= 2**62:
        raise ValueError(f"onnx: {what} has shape {shape}; allowed: fewer than 2**62 elements")
    return shape


def read(tensor: Any, folder: Path | None, budget: Budget) -> np.ndarray:
    """The array of a TensorProto.

    Parameters
    ----------
    tensor : the TensorProto
    folder : the model's folder, for external data; None: it has no folder, so it may have none
    budget : the bytes that may be taken
    """
    what = f"tensor {text(tensor.name)[:200]!r}"
    if tensor.data_type not in TYPES:
        raise ValueError(f"onnx: {what} has data type {tensor.data_type}; "
                         f"allowed: {', '.join(np.dtype(kind).name for kind, _ in TYPES.values())}")
    if tensor.HasField("segment"):
        raise ValueError(f"onnx: {what} is one segment of a tensor; allowed: whole tensors")
    kind, name = TYPES[tensor.data_type]
    dtype = np.dtype(kind)
    shape = shape_of(what, tensor.dims)
    count = math.prod(shape) * dtype.itemsize
    budget.take(what, count)
    if tensor.data_location == 1:
        data = _external(what, tensor.external_data, folder, count)
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    if tensor.external_data:
        raise ValueError(f"onnx: {what} has external data but says that its data is in the file")
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data  # every access copies
        if len(raw) != count:
            raise ValueError(f"onnx: {what} of shape {shape} holds {len(raw)} bytes; allowed: {count}")
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    values = getattr(tensor, name)
    if len(values) != math.prod(shape):
        raise ValueError(f"onnx: {what} of shape {shape} holds {len(values)} numbers; "
                         f"allowed: {math.prod(shape)}")
    if kind is np.float16:
        return np.array(values, np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    wide = np.array(values)
    return wide.astype(dtype).reshape(shape)


def _number(what: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError(f"onnx: {what}: external data's {key} is {text[:100]!r}; allowed: an integer >= 0")
    return int(text)


def _external(what: str, entries: Any, folder: Path | None, count: int) -> bytes:
    """Bytes of external data; its whole description is checked first."""
    keys = [text(entry.key)[:100] for entry in entries]
    given = {text(entry.key): text(entry.value) for entry in entries}
    if len(keys) != len(given) or "location" not in given:
        raise ValueError(f"onnx: {what}: external data has the keys {keys[:8]}; "
                         "allowed: location, and offset, length, checksum once each")
    if folder is None:
        raise ValueError(f"onnx: {what} has external data, but the model came from memory; allowed: a file")
    offset = _number(what, "offset", given.get("offset", "0"))
    length = _number(what, "length", given.get("length", str(count)))
    if length != count:
        raise ValueError(f"onnx: {what}: external data's length is {length}; "
                         f"allowed: {count}, what its shape and type need")
    location = given["location"]
    path = _inside(what, location, folder)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise ValueError(f"onnx: {what}: external data {location!r} cannot be opened: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ValueError(f"onnx: {what}: external data {location!r} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if offset + length > status.st_size:
            raise ValueError(f"onnx: {what}: external data ends at byte {offset + length} of {location!r}, "
                             f"which has {status.st_size}")
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise ValueError(f"onnx: {what}: external data {location!r} is shorter than it was")
    return data


def _inside(what: str, location: str, folder: Path) -> Path:
    """The path of external data; ValueError unless it is plainly inside the model's folder."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    plain = (location and "\0" not in location and "\\" not in location and not location.startswith("/")
             and not windows.drive and not windows.root and ".." not in parts and parts and len(location) < 1000)
    if not plain:
        raise ValueError(f"onnx: {what}: external data is at {location[:200]!r}; "
                         "allowed: a relative path without '..' inside the model's folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ValueError(f"onnx: {what}: external data {location!r} goes through the link {part!r}; "
                             "allowed: files inside the model's folder")
    return path
