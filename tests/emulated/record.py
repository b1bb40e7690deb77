"""Record the calls of the emulated kernels, for the sanitizers' program (replay.cpp).

ZFCORE_RECORD=FILE pytest tests/emulated writes each distinct call of a size that a sanitizer runs in
a moment: name, arguments, arrays before and after, little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 40_000  # elements of all arrays of one call


def _integers(values: list[int]) -> bytes:
    return struct.pack(f"<b{len(values)}q", len(values), *values)


def _encode(argument: Any, before: bytes | None) -> bytes:
    if argument is None:
        return b"n"
    if isinstance(argument, np.ndarray):
        header = struct.pack("<ccb", b"a", argument.dtype.kind.encode(), argument.dtype.itemsize)
        assert before is not None
        return header + _integers(list(argument.shape)) + before + argument.tobytes()
    if isinstance(argument, (float, np.floating)):
        return b"d" + struct.pack("<d", float(argument))
    values = list(argument) if isinstance(argument, (tuple, list)) else [argument]
    return struct.pack("<ccb", b"i", b"i", 0) + _integers([int(value) for value in values])


class Recorder:
    """Wraps `Launchers._run`."""

    def __init__(self, launchers: Any, path: str) -> None:
        self._run = launchers._run
        self._stream = launchers._stream
        self._file = Path(path).open("wb")  # noqa: SIM115  (open as long as the tests run)
        self._seen: set[int] = set()
        launchers._run = self

    def __call__(self, name: str, *arguments: Any) -> None:
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        before = [a.tobytes() if isinstance(a, np.ndarray) else None for a in arguments]
        self._run(name, *arguments)
        if sum(a.size for a in arrays) > LARGEST:
            return
        given = (*arguments, self._stream())
        encoded = [_encode(a, b) for a, b in zip(given, (*before, None), strict=True)]
        first: dict[int, int] = {}
        for i, array in enumerate(given):
            if isinstance(array, np.ndarray) and array.size and first.setdefault(array.ctypes.data, i) != i:
                encoded[i] = struct.pack("<cb", b"r", first[array.ctypes.data])  # in place: that array again
        label = name.encode()
        call = struct.pack("<q", len(label)) + label + struct.pack("<q", len(encoded)) + b"".join(encoded)
        if hash(call) not in self._seen:
            self._seen.add(hash(call))
            self._file.write(call)
            self._file.flush()
