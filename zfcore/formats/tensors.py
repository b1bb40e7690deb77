"""Reading safetensors files of anyone's making: every byte is checked before it is believed.

A file is 8 bytes (the header's length), a JSON header {name: {dtype, shape, data_offsets}}, and the
arrays without holes or overlaps. Nothing in it is executed; memory is bounded by the file's size.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

MAX_HEADER = 100_000_000
MAX_BYTES = 4 << 30
# Bytes of an element, and numpy's name of it; bfloat16 has none.
DTYPES: dict[str, tuple[int, str | None]] = {
    "F64": (8, "<f8"), "F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, None),
    "I64": (8, "<i8"), "I32": (4, "<i4"), "I16": (2, "<i2"), "I8": (1, "|i1"),
    "U64": (8, "<u8"), "U32": (4, "<u4"), "U16": (2, "<u2"), "U8": (1, "|u1"), "BOOL": (1, "|b1"),
}
FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
CONVERT = ("convert it where you trust it: safetensors.torch.save_file(torch.load('file.pth', "
           "weights_only=True), 'file.safetensors')")


@dataclass(frozen=True)
class Entry:
    """An array in a file: the file's name of its dtype, its shape, and its bytes within the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return result


def _entry(name: str, described: Any) -> Entry:
    """One array's description; ValueError if it contradicts itself."""
    if not isinstance(described, dict) or set(described) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r} has dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_natural, shape)):
        raise ValueError(f"{name!r} has shape {shape!r}; allowed: at most 32 integers >= 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_natural, offsets)):
        raise ValueError(f"{name!r} has data_offsets {offsets!r}; allowed: [begin, end]")
    need = math.prod(shape) * DTYPES[dtype][0]  # Python's integers do not overflow
    if offsets[1] - offsets[0] != need:
        raise ValueError(f"{name!r} of shape {shape} needs {need} bytes, "
                         f"its data_offsets hold {offsets[1] - offsets[0]}")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _parse(header: bytes, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Descriptions and texts of a header before `size` bytes of data."""
    try:
        content = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"its header is not UTF-8: {error}") from error
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    texts = content.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("its __metadata__ is not texts by name")
    entries = {name: _entry(name, described) for name, described in content.items()}
    place = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != place:
            what = "overlaps the array before it" if entry.begin < place else "leaves a hole before it"
            raise ValueError(f"{name!r} {what}: it begins at byte {entry.begin} of the data, not at {place}")
        place = entry.end
    if place != size:
        raise ValueError(f"its arrays need {place} bytes, the file has {size} after its header")
    return entries, texts


class TensorFile:
    """An open safetensors file: `entries` and `texts` at once, arrays when they are asked for.

    Parameters
    ----------
    path : the file
    max_bytes : refuse a file whose arrays would need more

    FileNotFoundError if it is not there; ValueError, with the path and the reason, if it is a
    pickle, hostile, truncated or no such file.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        self._file = open(self.path, "rb")  # noqa: SIM115 (closed in __exit__ and below)
        try:
            self.entries, self.texts = self._head(max_bytes)
        except BaseException:
            self._file.close()
            raise

    def _fail(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: {what}")

    def _head(self, max_bytes: int) -> tuple[dict[str, Entry], dict[str, str]]:
        size = os.fstat(self._file.fileno()).st_size
        head = self._file.read(8)
        length = int.from_bytes(head, "little")
        if head.startswith(_PICKLES) and length + 8 > size:
            raise self._fail("looks like a pickle or a zip of one (.pt, .pth), which can run code when it "
                             f"is read: refused; allowed: .safetensors; {CONVERT}")
        if len(head) < 8:
            raise self._fail(f"is no safetensors file: {size} bytes")
        if length > MAX_HEADER:
            raise self._fail("is no safetensors file, or a hostile one: its header would be "
                             f"{length} bytes; allowed: {MAX_HEADER}")
        if length + 8 > size:
            raise self._fail(f"is truncated or no safetensors file: its header needs {length} bytes, "
                             f"the file has {size}")
        try:
            entries, texts = _parse(self._file.read(length), size - 8 - length)
        except ValueError as error:
            raise self._fail(f"cannot be read as safetensors: {error}") from error
        self._start = 8 + length
        # As float32, which a half becomes.
        need = sum(math.prod(entry.shape) * max(DTYPES[entry.dtype][0], 4) for entry in entries.values())
        if need > max_bytes:
            raise self._fail(f"its arrays would need {need} bytes; allowed: max_bytes, which is {max_bytes}")
        return entries, texts

    def array(self, name: str) -> np.ndarray:
        """One array; float16 and bfloat16 become float32, without loss."""
        entry = self.entries[name]
        buffer = np.empty(entry.end - entry.begin, np.uint8)
        self._file.seek(self._start + entry.begin)
        if self._file.readinto(buffer.data) != buffer.nbytes:
            raise self._fail(f"ends within {name!r}: it became shorter while it was read")
        if entry.dtype == "BF16":  # the upper half of a float32
            bits = buffer.view("<u2").astype("<u4") << 16
            return bits.view("<f4").reshape(entry.shape).astype(np.float32, copy=False)
        array = buffer.view(np.dtype(DTYPES[entry.dtype][1])).reshape(entry.shape)
        wanted = np.dtype(np.float32) if entry.dtype == "F16" else array.dtype.newbyteorder("=")
        return array.astype(wanted, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()
