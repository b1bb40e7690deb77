"""The bench: times contenders in turn, keeps the rows, writes each as soon as it is known."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .device import Call, Device, Shared
from .plan import PRECISIONS, Plan, Precision
from .rows import OURS, Row

WARM = 3  # samples that do not count: clocks and caches settle


class LeftOut(Exception):
    """Why a contender is not timed."""


class TimeIsUp(Exception):
    """The run's time is over: no further row begins."""


@dataclass
class Compiled:
    """A contender that torch.compile makes of `function`, which gets `arguments(i)`."""

    function: Callable[..., Any]
    arguments: Callable[[int], tuple[Any, ...]]


@dataclass
class Launched:
    """A contender that no graph can hold (autograd of an earlier pass): its launches are in its time."""

    call: Call


Contender = Call | Compiled | Launched


def words(problem: Exception) -> str:
    """An exception as a reason: its kind and the first line of its message."""
    lines = str(problem).strip().splitlines()
    text = lines[0][:200] if lines else ""
    return text if isinstance(problem, LeftOut) else f"{type(problem).__name__}: {text}"


def first(tensor: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) memory as PyTorch's channels-last (N, C, H, W), without a copy."""
    return tensor.permute(0, 3, 1, 2)


def only(result: Any) -> torch.Tensor:
    """A result, or the first of several."""
    return result if isinstance(result, torch.Tensor) else result[0]


def error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference, relative to that of the exact values."""
    return float(((value.double() - exact).square().mean() / exact.square().mean()).sqrt())


def set_tf32(allowed: bool) -> None:
    """Whether PyTorch's libraries may round float32 factors to tf32."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


class Bench:
    """Times contenders and keeps the rows.

    Parameters
    ----------
    extension : the compiled kernels
    device : graphs and events
    plan : what is measured
    keep : gets all rows after each one
    seconds : of the run, after which no row begins; of them `COMPILING` may pass until the last compilation begins
    """

    COMPILING = 0.7

    def __init__(self, extension: Any, device: Device, plan: Plan, keep: Callable[[list[Row]], Any],
                 seconds: float = float("inf")) -> None:
        self.extension, self.device, self.plan, self.keep, self.allowed = extension, device, plan, keep, seconds
        self.begun = time.monotonic()
        self.rows: list[Row] = []
        self.group = ""
        self.copy = 0.0  # bytes a second
        self.products: dict[str, float] = {}  # operations a second, by precision

    # ------------------------------------------------------------------------------------- buffers

    def run(self, name: str, *arguments: Any) -> None:
        """Call one of our operations on the current stream."""
        given = [Shared(each) if isinstance(each, torch.Tensor) else each for each in arguments]
        getattr(self.extension, name)(*given, self.device.stream())

    def asked(self, name: str, *arguments: Any) -> int:
        """Elements of a workspace."""
        given = [Shared(each) if isinstance(each, torch.Tensor) else each for each in arguments]
        return int(getattr(self.extension, name)(*given))

    def sets(self, bytes_of_one: float) -> int:
        """So many sets of buffers that no call finds its own in the cache."""
        return max(2, int(-(-self.plan.rotate // bytes_of_one)))

    def random(self, *shape: int, sets: int = 1, dtype: str = "float32") -> list[torch.Tensor]:
        """Normal numbers, new for each set."""
        kind = getattr(torch, dtype)
        return [torch.randn(shape, device=self.device.name).to(kind) for _ in range(sets)]

    def empty(self, *shape: int, dtype: str = "float32") -> torch.Tensor:
        """Room for results or a workspace; not a number until somebody computes one."""
        made = torch.empty(shape, device=self.device.name, dtype=getattr(torch, dtype))
        return made.fill_(float("nan")) if made.is_floating_point() else made.fill_(255)

    # ---------------------------------------------------------------------------------------- rows

    def ceilings(self) -> None:
        """What a copy moves, and what a large matrix product of each precision computes, in this run."""
        source, target = (self.random(self.plan.copy // 4)[0] for _ in range(2))
        self.copy = 2 * source.nbytes / statistics.median(
            self.timed({"copy": self.device.capture(lambda _: target.copy_(source), 2)}, 2)["copy"])
        side = self.plan.product
        for precision in PRECISIONS:
            set_tf32(precision.name == "tf32")
            a, b = (self.random(side, side, dtype=precision.dtype)[0] for _ in range(2))
            call = self.device.capture(lambda _: torch.mm(a, b), 2)
            self.products[precision.name] = 2 * side**3 / statistics.median(self.timed({"product": call}, 2)["product"])
        print(f"copy {self.copy / 1e9:.0f} GB/s; products "
              + ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in self.products.items()), flush=True)

    def timed(self, ready: Mapping[str, Callable[[], Any]], calls: float | Mapping[str, float], whole: bool = False
              ) -> dict[str, list[float]]:
        """Seconds of one call, contenders in turn; a run makes `calls` of them, which may be a part of one.

        Rounds of whole passes end early, after `few` samples at least.
        """
        found: dict[str, list[float]] = {name: [] for name in ready}
        clock = self.device.wall if whole else self.device.seconds
        begun = time.monotonic()
        for number in range(self.plan.repeats + WARM):
            if whole and number >= self.plan.few + WARM and time.monotonic() - begun > self.plan.seconds:
                break
            for name, replay in ready.items():
                taken = clock(replay) / (calls if isinstance(calls, (int, float)) else calls[name])
                if number >= WARM:
                    found[name].append(taken)
        return found

    def compiled(self, function: Callable[..., Any], graphs: bool = False) -> Callable[..., Any]:
        """What torch.compile makes of a function; LeftOut where too little time is left for it."""
        passed = time.monotonic() - self.begun
        if passed > self.COMPILING * self.allowed:
            raise LeftOut(f"no time was left to compile it ({passed:.0f} of {self.allowed:.0f} s had passed)")
        return self.device.compile(function, graphs)

    def add(self, work: str, contenders: Mapping[str, Contender], sets: int, *, family: str = "", gflop: float = 0.0,
            bytes: float = 0.0, precision: Precision = PRECISIONS[0], exact: torch.Tensor | None = None,
            part: Callable[[Any], torch.Tensor] = only, checked: int = 0, workspace: int = 0,
            refused: str = "", note: str = "") -> None:
        """Check a row's contenders, capture them, time them in turn, keep the row and print it.

        A contender that raises, or whose error is above its precision's bound, is left out with the reason: it costs
        nobody else.

        Parameters
        ----------
        work : the row's name
        contenders : ours begin with "zfcore"
        sets : of buffers, which one graph goes through
        family, gflop, bytes, workspace, note : of the row
        precision : of factors, ours and theirs
        exact : float64, what `part` of a result should be; None: nothing is checked
        part : of a contender's result
        checked : the set of buffers that `exact` is of; other than 0: one that is not timed, and that compiled
            contenders, which would be compiled anew for it, do not get
        refused : why ours is left out
        """
        self.in_time()
        set_tf32(precision.name == "tf32")
        row = Row(self.group, work, family, precision.name, gflop=gflop, bytes=bytes, workspace=workspace, note=note)
        row.ceiling = max(bytes / self.copy, gflop * 1e9 / self.products[precision.name])

        def ready(name: str, contender: Contender) -> Callable[[], Any]:
            if refused and name.startswith(OURS):
                raise LeftOut(refused)
            call = self.prepared(contender)
            if exact is not None and not (checked and isinstance(contender, Compiled)):
                row.errors[name] = error(part(call(checked)), exact)
                if not row.errors[name] <= precision.bound:
                    raise LeftOut(f"its error, {row.errors[name]:.1e}, is above {precision.bound:.0e}")
            if isinstance(contender, Launched):
                return lambda: [call(index) for index in range(sets)]
            return self.device.capture(call, sets)

        self.race(row, {name: functools.partial(ready, name, each) for name, each in contenders.items()}, sets)

    def in_time(self) -> None:
        """TimeIsUp if no further row may begin."""
        if time.monotonic() - self.begun > self.allowed:
            raise TimeIsUp(f"{self.allowed:.0f} s have passed")

    def race(self, row: Row, contenders: Mapping[str, Callable[[], Callable[[], Any]]],
             calls: float | Mapping[str, float], whole: bool = False) -> None:
        """Make every contender ready, time those that are, and keep the row."""
        ready = {}
        for name, make in contenders.items():
            try:
                ready[name] = make()
            except Exception as problem:  # whatever a contender dies of costs only itself
                row.left_out[name] = words(problem)
        row.samples = self.timed(ready, calls, whole)
        self.rows.append(row)
        self.keep(self.rows)
        print(row.text(), flush=True)
        ready.clear()
        if whole:
            self.device.forget()
        else:
            self.device.release()

    def prepared(self, contender: Contender) -> Call:
        """A contender as a call, compiled where it wants to be."""
        if isinstance(contender, Launched):
            return contender.call
        if isinstance(contender, Compiled):
            function, arguments = self.compiled(contender.function), contender.arguments
            return lambda index: function(*arguments(index))
        return contender


def eager_and_compiled(function: Callable[..., Any], arguments: Callable[[int], tuple[Any, ...]],
                       name: str = "torch") -> dict[str, Contender]:
    """PyTorch's way of doing something: as it stands, and compiled."""
    return {name: lambda index: function(*arguments(index)),
            name.replace("torch", "torch.compile", 1): Compiled(function, arguments)}

