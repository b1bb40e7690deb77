"""Work on the device that is recorded once, as a CUDA graph, and launched again and again.

For steps whose arrays have one size: a launch costs a few microseconds of the host's time, whatever the number of
kernels, and allocates nothing. What differs between launches lies in arrays that the work reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class Recording:
    """One recording, with a stream and a memory pool of its own.

    A launch writes where the recorded work wrote: its arrays come from the pool, which nobody else uses and which
    lives as long as the recording.

    Parameters
    ----------
    cupy : the library
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool()
        self._graph: Any = None

    @property
    def bytes(self) -> int:
        """What its pool holds of the device's memory."""
        return int(self._pool.total_bytes())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Work inside goes to the recording's stream, after what the current one holds, its arrays to the pool."""
        before = self._cupy.cuda.get_current_stream().record()
        with self._cupy.cuda.using_allocator(self._pool.malloc), self._stream:
            self._stream.wait_event(before)
            yield

    def put(self, target: Any, values: Any) -> None:
        """Copy values of the host's or the device's, under `running`, into an array of the same shape."""
        if isinstance(values, self._cupy.ndarray):
            target[...] = values
        else:
            target.set(values)

    def record(self, work: Callable[[], Any]) -> Any:
        """What `work` returns: arrays that have their values after each launch. It does not run now.

        It must have run before, under `running`, so that its memory is in the pool and its kernels are loaded; and
        nothing in it may wait for the device or copy from the host.
        """
        with self.running():
            self._stream.begin_capture()
            try:
                result = work()
            except BaseException:
                with contextlib.suppress(Exception):  # CUDA's, which has given the recording up already
                    self._stream.end_capture()
                raise
            self._graph = self._stream.end_capture()
        return result

    def launch(self) -> None:
        """Run what was recorded; the values are read under `running`."""
        self._graph.launch(self._stream)
