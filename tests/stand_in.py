"""A stand-in for CuPy: arrays that only the emulated kernels may look into, and that count every copy.

As CuPy's, they refuse to become NumPy's unasked and to be mixed with them, and share no memory with the host.
Streams can record: what they are given then runs at each launch, on the arrays that it was given, and reading or
copying to and from the host is refused, as CUDA refuses it. Memory comes from pools that count how often they ask
the device for more.

`installed()` puts it where `zfcore.backends.cuda` looks for CuPy, with the emulated kernels for the compiled ones,
so that the CUDA backend runs as it stands.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from zfcore import backends

copies: Counter[str] = Counter()  # "up", "down": arrays copied; "read": single values looked at
LIMIT = 2**40  # bytes that the device holds; a test may lower it


class OutOfMemoryError(MemoryError):
    """CuPy's."""


class MemoryPool:
    """Counts: a piece that was let go serves the next array of its size, else the device is asked for more."""

    def __init__(self) -> None:
        self.free: Counter[int] = Counter()
        self.asked, self.total = 0, 0

    def malloc(self, size: int) -> _Piece:
        if self.free[size]:
            self.free[size] -= 1
        else:
            self.asked += 1
            self.total += size
        return _Piece(self, size)

    def total_bytes(self) -> int:
        return self.total


class _Piece:
    """Memory in use; its arrays and their views hold it."""

    def __init__(self, pool: MemoryPool, size: int) -> None:
        self.pool, self.size = pool, size

    def __del__(self) -> None:
        self.pool.free[self.size] += 1


class Stream:
    """A stream: where work is recorded, if it does."""

    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        self.recorded: list[Callable[[], object]] | None = None

    def __enter__(self) -> Stream:
        _streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _streams.pop()

    def record(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        """All work is done at once."""

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def begin_capture(self) -> None:
        assert self.recorded is None
        self.recorded = []

    def end_capture(self) -> SimpleNamespace:
        work, self.recorded = self.recorded, None

        def launch(stream: Stream) -> None:
            assert not stream.is_capturing()
            for each in work or ():
                each()

        return SimpleNamespace(launch=launch)


_streams = [Stream()]
_pools = [MemoryPool()]


@contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    _pools.append(malloc.__self__)
    try:
        yield
    finally:
        _pools.pop()


def _do(work: Callable[[], Any]) -> None:
    """Run work now, or record it."""
    recorded = _streams[-1].recorded
    if recorded is None:
        work()
    else:
        recorded.append(work)


def _waits() -> None:
    """What waits for the device, or copies to it or from it."""
    if _streams[-1].is_capturing():
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")


def _computed(work: Callable[[], Any], source: Any = None) -> Any:
    """An array of NumPy's work on arrays, which is done again at each launch where it is recorded."""
    with np.errstate(all="ignore") if _streams[-1].is_capturing() else nullcontext():
        value = work()
    if isinstance(value, (tuple, list)):
        return _wrap(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if source is not None and isinstance(value, np.ndarray) and np.may_share_memory(value, source._memory):
        return ndarray(value, source._piece)
    made = ndarray(np.array(value), _pools[-1].malloc(value.nbytes))
    if _streams[-1].is_capturing():
        memory = made._memory
        _do(lambda: memory.__setitem__(..., work()))
    return made


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801 (CuPy's name)
    """An array on the pretended device."""

    def __init__(self, memory: np.ndarray, piece: _Piece | None = None) -> None:
        self._memory, self._piece = memory, piece
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
        arrays, named = [_inside(each) for each in inputs], {k: _inside(v) for k, v in options.items()}
        return _computed(lambda: getattr(ufunc, method)(*arrays, **named))

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        given, named = _inside(arguments), {k: _inside(v) for k, v in options.items()}
        return _computed(lambda: function(*given, **named), self)

    def __getattr__(self, name: str) -> Any:
        if name not in ("reshape", "astype", "copy", "sum", "max", "min", "any", "all", "transpose", "argmax", "mean",
                        "view"):
            raise AttributeError(name)
        method = getattr(self._memory, name)


        def call(*arguments: Any, **options: Any) -> Any:
            given = [_inside(each) for each in arguments]
            return _computed(lambda: method(*given, **options), self)

        return call

    def __getitem__(self, key: Any) -> Any:
        memory, place = self._memory, _inside(key)
        return _computed(lambda: memory[place], self)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("a NumPy array assigned to a part of a device array")
        memory, place, given = self._memory, _inside(key), _inside(value)
        _do(lambda: memory.__setitem__(place, given))

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def set(self, host: np.ndarray) -> None:
        _waits()
        copies["up"] += 1
        self._memory[...] = host

    def _read(self, kind: Any) -> Any:
        _waits()
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


def _room(shape: Any, dtype: Any) -> _Piece:
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if size > LIMIT:
        raise OutOfMemoryError("out of memory allocating")
    return _pools[-1].malloc(size)


def _empty(shape: Any, dtype: Any = float) -> ndarray:
    """0xff everywhere, so that a cell which no kernel writes shows."""
    piece = _room(shape, dtype)
    memory = np.empty(shape, dtype)
    memory.reshape(-1).view(np.uint8)[:] = 0xFF
    return ndarray(memory, piece)


def _zeros(shape: Any, dtype: Any = float) -> ndarray:
    piece = _room(shape, dtype)
    memory = np.zeros(shape, dtype)
    if _streams[-1].is_capturing():
        _do(lambda: memory.fill(0))
    return ndarray(memory, piece)


def asnumpy(array: ndarray) -> np.ndarray:
    """CuPy's copy to the host."""
    _waits()
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
            given = [each._memory if isinstance(each, ndarray) else each for each in arguments]
            if not _streams[-1].is_capturing() or name in ("channel_sum_parts", "weight_gradient_workspace",
                                                           "linear_workspace"):
                return function(*given)  # the last three are sizes alone
            return _do(lambda: function(*given))

        return call


def module() -> ModuleType:
    """What stands for `cupy`."""
    made: Any = ModuleType("cupy")
    made.ndarray, made.empty, made.zeros, made.asnumpy = ndarray, _empty, _zeros, asnumpy
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, memGetInfo=lambda: (LIMIT, LIMIT),
                              getDeviceProperties=lambda _: {"name": b"a stand-in"})
    made.cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(compute_capability="90"),
                                get_current_stream=lambda: _streams[-1], Stream=Stream, MemoryPool=MemoryPool,
                                using_allocator=using_allocator,
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
