"""The device as the bench sees it: streams, graphs, events, compilation, clocks; tensors as the kernels see them."""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

Call = Callable[[int], Any]  # works on set number i of the buffers; returns its result
TYPES = {torch.float32: "<f4", torch.float64: "<f8", torch.float16: "<f2", torch.bfloat16: "<u2", torch.uint8: "|u1",
         torch.int64: "<i8"}


class Shared:
    """A tensor as the extension's functions read it; bfloat16 as its bits."""

    def __init__(self, tensor: torch.Tensor) -> None:
        if not tensor.is_contiguous():
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous; allowed: dense NHWC memory")
        described = {"shape": tuple(tensor.shape), "typestr": TYPES[tensor.dtype], "data": (tensor.data_ptr(), False),
                     "strides": None, "version": 3}
        self.__cuda_array_interface__ = described
        self.__array_interface__ = described  # of the emulated kernels
        self.tensor = tensor  # holds its memory


class Device:
    """What is asked of the device: graphs, events, compilation. A test gives another."""

    name = "cuda"

    def stream(self) -> int:
        """The current stream's address."""
        return int(torch.cuda.current_stream().cuda_stream)

    def synchronize(self) -> None:
        """Wait for all work."""
        torch.cuda.synchronize()

    def release(self) -> None:
        """Give memory that nobody uses back, that of former graphs too."""
        torch.cuda.empty_cache()

    def forget(self) -> None:
        """Drop all that was compiled, whose graphs keep their memory, and what is unreachable.

        CuPy's pools of steps that nobody has any more are freed here, not by the collector in the middle of a capture,
        which that would break.
        """
        torch.compiler.reset()
        gc.collect()
        self.release()

    def capture(self, call: Call, sets: int) -> Callable[[], Any]:
        """A graph of `call` on every set of buffers, warm already."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for index in range(min(sets, 3)):
                call(index)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for index in range(sets):
                call(index)
        return graph.replay

    def seconds(self, run: Callable[[], Any]) -> float:
        """Time of what `run` puts on the stream."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def wall(self, run: Callable[[], Any]) -> float:
        """Time until `run` has returned and the device has nothing to do."""
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    def compile(self, function: Callable[..., Any], graphs: bool = False) -> Callable[..., Any]:
        """By max-autotune; in graphs of its own, or without, for one of ours around it."""
        settings = torch._dynamo.config
        for name in ("recompile_limit", "cache_size_limit"):  # of PyTorch's versions
            for limit in (name, f"accumulated_{name}"):
                if hasattr(settings, limit):
                    setattr(settings, limit, 10_000)  # else the ninth shape of one function would silently run eagerly
        mode = "max-autotune" if graphs else "max-autotune-no-cudagraphs"
        return torch.compile(function, mode=mode, dynamic=False)


class Clocks:
    """The device's clocks, power and temperature, asked once a second while rows are measured; never set."""

    ASKED = "clocks.sm,clocks.mem,power.draw,temperature.gpu"

    def __enter__(self) -> Clocks:
        asked = ["nvidia-smi", f"--query-gpu={self.ASKED}", "--format=csv,noheader,nounits", "-lms", "1000"]
        by_line = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []  # else the last lines are lost
        try:
            self.program: Any = subprocess.Popen([*by_line, *asked], stdout=subprocess.PIPE,
                                                 stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.program = None
        self.samples: list[list[str]] = []
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
                 ) -> None:
        if self.program is not None:
            self.program.terminate()
            text, _ = self.program.communicate()
            self.samples = [line.split(", ") for line in text.splitlines()]
