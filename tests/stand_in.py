"""A stand-in for CuPy: arrays that only the emulated kernels may look into, and that count every copy.

As CuPy's, they refuse to become NumPy's unasked and to be mixed with them, and share no memory with the host.
`installed()` puts it where `zfcore.backends.cuda` looks for CuPy, with the emulated kernels for the compiled ones,
so that the CUDA backend runs as it stands.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from zfcore import backends

copies: Counter[str] = Counter()  # "up", "down": arrays copied; "read": single values looked at
LIMIT = 2**40  # bytes that the device holds; a test may lower it


class OutOfMemoryError(MemoryError):
    """CuPy's."""


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801 (CuPy's name)
    """An array on the pretended device."""

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        self.device = SimpleNamespace(id=0)

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._memory.flags.c_contiguous))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _wrap(getattr(ufunc, method)(*map(_inside, inputs), **{k: _inside(v) for k, v in options.items()}))

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        return _wrap(function(*_inside(arguments), **{k: _inside(v) for k, v in options.items()}))

    def __getattr__(self, name: str) -> Any:
        if name not in ("reshape", "astype", "copy", "sum", "max", "min", "any", "all", "transpose", "argmax", "mean"):
            raise AttributeError(name)
        method = getattr(self._memory, name)
        return lambda *arguments, **options: _wrap(method(*map(_inside, arguments), **options))

    def __getitem__(self, key: Any) -> Any:
        return _wrap(self._memory[_inside(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("a NumPy array assigned to a part of a device array")
        self._memory[_inside(key)] = _inside(value)

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def set(self, host: np.ndarray) -> None:
        copies["up"] += 1
        self._memory[...] = host

    def _read(self, kind: Any) -> Any:
        copies["read"] += 1
        return kind(self._memory)

    def __bool__(self) -> bool:
        return self._read(bool)

    def __int__(self) -> int:
        return self._read(int)

    def __float__(self) -> float:
        return self._read(float)


def _inside(value: Any) -> Any:
    """What NumPy works on; arrays of the host's are refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inside, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(map(_wrap, value))
    return ndarray(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _room(shape: Any, dtype: Any) -> None:
    if int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize > LIMIT:
        raise OutOfMemoryError("out of memory allocating")


def _empty(shape: Any, dtype: Any = float) -> ndarray:
    """0xff everywhere, so that a cell which no kernel writes shows."""
    _room(shape, dtype)
    memory = np.empty(shape, dtype)
    memory.reshape(-1).view(np.uint8)[:] = 0xFF
    return ndarray(memory)


def _zeros(shape: Any, dtype: Any = float) -> ndarray:
    _room(shape, dtype)
    return ndarray(np.zeros(shape, dtype))


def asnumpy(array: ndarray) -> np.ndarray:
    """CuPy's copy to the host."""
    copies["down"] += 1
    return np.array(array._memory, order="C")


class _Kernels:
    """The emulated kernels, which take nothing but the stand-in's arrays."""

    targets = "80-real 90a-real 90-virtual"

    def __init__(self, extension: Any) -> None:
        self._extension = extension

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._extension, name)

        def call(*arguments: Any) -> Any:
            assert not any(isinstance(each, np.ndarray) for each in arguments), f"{name} got an array of the host's"
            return function(*(each._memory if isinstance(each, ndarray) else each for each in arguments))

        return call


def module() -> ModuleType:
    """What stands for `cupy`."""
    made: Any = ModuleType("cupy")
    made.ndarray, made.empty, made.zeros, made.asnumpy = ndarray, _empty, _zeros, asnumpy
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, memGetInfo=lambda: (LIMIT, LIMIT),
                              getDeviceProperties=lambda _: {"name": b"a stand-in"})
    made.cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(compute_capability="90"),
                                get_current_stream=lambda: SimpleNamespace(ptr=0),
                                memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError))
    made.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 0)
    return made


@contextmanager
def installed() -> Iterator[Any]:
    """The CUDA backend over the stand-in; ImportError where the emulated kernels are not built."""
    from zfcore.backends import compiled

    kernels = _Kernels(backends.get("emulated").extension)
    before = {name: sys.modules.pop(name, None) for name in ("cupy", "zfcore.backends.cuda")}
    load, compiled.load = compiled.load, lambda: kernels
    sys.modules["cupy"] = module()
    try:
        yield backends.get("cuda")
    finally:
        compiled.load = load
        backends.use(None)
        vars(backends).pop("cuda", None)
        for name, each in before.items():
            sys.modules.pop(name, None)
            if each is not None:
                sys.modules[name] = each
