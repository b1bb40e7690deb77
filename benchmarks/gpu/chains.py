"""The first network's stages of convolution, ReLU and max pool: up, down in training, down in the deconvnet.

Ours is the fused kernel, and besides it our single kernels one by one: the faster counts. A first layer's channels may
be padded, by us and by the peers, always inside the time.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import product

import torch
from torch.nn import functional as F

from . import peers
from .bench import Bench, Compiled, Contender, eager_and_compiled, first
from .convolutions import WIDER, Buffers, Form, is_narrow
from .plan import BFLOAT16, STRICT, TF32, Conv, Pool, Precision, variants


def chains(bench: Bench) -> None:
    """All stages; the first one's way up and backward are targets, and every stage's way down."""
    for precision in (BFLOAT16, TF32, STRICT):
        for number, (name, (layer, pool)) in enumerate(bench.plan.stages().items()):
            stage = Stage.of(bench, layer, pool, precision)
            title, family = f"{bench.plan.first[0]} {name}", "" if number else "chain"
            up(bench, f"{title} + ReLU + pool forward, {precision.name}", stage, family)
            backward(bench, f"{title} + ReLU + pool weight gradient, {precision.name}", stage, family)
            for last_wins in (False, True):
                down(bench, f"{title}: unpool{' (last wins)' if last_wins else ''}, rectify, filter, {precision.name}",
                     stage, last_wins)


@dataclass
class Stage:
    """A stage's arrays: its input, its maps after the rectifier (of an earlier pass), signals at the pooled maps."""

    layer: Conv
    pool: Pool
    buffers: Buffers
    bias: torch.Tensor
    maps: list[torch.Tensor]
    pooled: list[torch.Tensor]
    switches: list[torch.Tensor]
    indices: list[torch.Tensor]
    signals: list[torch.Tensor]

    @classmethod
    def of(cls, bench: Bench, layer: Conv, pool: Pool, precision: Precision) -> Stage:
        """Everybody's maps are PyTorch's, so that all agree on which cell won."""
        buffers = Buffers(bench, layer, precision)
        peer, bias = peers.Convolving(layer), bench.random(layer.filters)[0]
        x = buffers.x[:buffers.sets]
        maps = [F.relu(peer.forward(first(each), first(buffers.weight), bias.to(each.dtype)))
                .permute(0, 2, 3, 1).contiguous() for each in x]
        pooled = [bench.empty(len(each), *pool.outputs, pool.channels, dtype=precision.dtype) for each in x]
        switches = [bench.empty(*each.shape, dtype="uint8") for each in pooled]
        for y, places, each in zip(pooled, switches, maps, strict=True):
            bench.run("max_pool", y, places, each, None, pool.window, pool.stride, (0, 0))
        indices = [peers.Pooling(pool).forward(first(each))[1] for each in maps]
        signals = bench.random(*pooled[0].shape, sets=buffers.sets, dtype=precision.dtype)
        return cls(layer, pool, buffers, bias, maps, pooled, switches, indices, signals)

    @property
    def window(self) -> tuple[object, ...]:
        """The pool's as the kernels take it."""
        return self.pool.window, self.pool.stride, (0, 0)

    def arguments(self, i: int, signals: list[torch.Tensor], places: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What the peers get on the way down: signals, maps, indices or places, input, filters."""
        return (first(signals[i]), first(self.maps[i]), places[i], first(self.buffers.x[i]),
                first(self.buffers.weight))

    def bytes(self, batch: int) -> float:
        """Moved at least, in any direction: the input, the pooled maps, their switches, the filters."""
        layer, size = self.layer, self.buffers.precision.size
        return float(size * (batch * (layer.inputs + self.pool.pooled) + layer.weights) + batch * self.pool.pooled)


def forms(buffers: Buffers) -> dict[str, Form]:
    """What our kernels may start from; a first layer's channels may be padded, inside the time."""
    wide = WIDER[0]
    return {"": Form(buffers)} | ({f", {wide} channels": Form(buffers, wide)} if is_narrow(buffers.layer) else {})


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The same for the peers: (N, C, H, W) with zeros for further channels."""
    return F.pad(tensor, (0, 0, 0, 0, 0, WIDER[0] - tensor.shape[1]))


def up(bench: Bench, work: str, stage: Stage, family: str) -> None:
    """Convolution, bias, ReLU, pool with switches."""
    buffers, layer, precision = stage.buffers, stage.layer, stage.buffers.precision
    y, places = torch.full_like(stage.pooled[0], math.nan), torch.full_like(stage.switches[0], 255)
    maps = torch.full_like(stage.maps[0], math.nan)
    convolve, pool = peers.Convolving(layer), peers.Pooling(stage.pool)
    contenders: dict[str, Contender] = {}
    for (label, number), (ending, form) in product(variants(precision).items(), forms(buffers).items()):
        def one_by_one(i: int, number: int = number, form: Form = form) -> torch.Tensor:
            bench.run("convolution_forward", maps, form.maps(i), form.filters(), stage.bias, *buffers.sizes, True,
                      number)
            bench.run("max_pool", y, places, maps, None, *stage.window)
            return first(y)

        def fused(i: int, number: int = number, form: Form = form) -> torch.Tensor:
            bench.run("convolution_pool", y, places, form.maps(i), form.filters(), stage.bias, None, layer.outputs,
                      *buffers.sizes, True, *stage.window, number)
            return first(y)

        contenders |= {label + ending: fused, f"{label}{ending}, one by one": one_by_one}

    def chain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pool.forward(F.relu(convolve.forward(x, weight, bias)))

    def with_places(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pool.offsets(F.relu(convolve.forward(x, weight, bias)))

    def wide(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return with_places(widened(x), widened(weight), bias)

    bias = stage.bias.to(buffers.weight.dtype)

    def arguments(i: int) -> tuple[torch.Tensor, ...]:
        return first(buffers.x[i]), first(buffers.weight), bias

    exact = chain(first(buffers.x[0]).double(), first(buffers.weight).double(), stage.bias.double())[0]
    if is_narrow(layer):
        contenders |= eager_and_compiled(lambda x, weight, bias: chain(widened(x), widened(weight), bias), arguments,
                                         f"torch, {WIDER[0]} channels")
        contenders[f"torch.compile, int8 places, {WIDER[0]} channels"] = Compiled(wide, arguments)
    bench.add(work, {**contenders, **eager_and_compiled(chain, arguments),
                     "torch.compile, int8 places": Compiled(with_places, arguments)},
              buffers.sets, family=family, gflop=layer.gflop(bench.plan.batch), bytes=stage.bytes(bench.plan.batch),
              precision=precision, exact=exact)


def backward(bench: Bench, work: str, stage: Stage, family: str) -> None:
    """From the gradient at the pooled maps to the filters': unpool, ReLU's gradient, weight gradient.

    We mask at the pooled maps, which says the same: what won is positive or its gradient is dropped.
    """
    buffers, layer, precision = stage.buffers, stage.layer, stage.buffers.precision
    masked, maps = torch.full_like(stage.pooled[0], math.nan), torch.full_like(stage.maps[0], math.nan)
    dweight, elements = bench.empty(*buffers.weight.shape), 0
    convolve, pool = peers.Convolving(layer), peers.Pooling(stage.pool)
    contenders: dict[str, Contender] = {}
    for ending, form in forms(buffers).items():
        wide = bench.empty(*form.arrays.weight.shape) if ending else dweight
        needed = bench.asked("weight_gradient_workspace", wide, stage.maps[0], form.arrays.x[0], *buffers.sizes)
        room, elements = bench.empty(max(needed, 1)), max(needed, elements)
        for label, number in variants(precision).items():
            def ours(i: int, number: int = number, form: Form = form, wide: torch.Tensor = wide,
                     room: torch.Tensor = room) -> torch.Tensor:
                bench.run("relu_gradient", masked, stage.signals[i], stage.pooled[i])
                bench.run("max_unpool", maps, masked, stage.switches[i], None, *stage.window, False)
                bench.run("convolution_weight_gradient", wide, room, maps, form.maps(i), *buffers.sizes, number)
                return form.kept(dweight, wide)

            contenders[label + ending] = ours

    def chain(dy: torch.Tensor, maps: torch.Tensor, indices: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
              ) -> torch.Tensor:
        signal = torch.ops.aten.threshold_backward(pool.gradient(dy, maps, indices), maps, 0)
        return convolve.weight_gradient(signal, x, weight)

    def with_places(dy: torch.Tensor, maps: torch.Tensor, places: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
                    ) -> torch.Tensor:
        signal = torch.ops.aten.threshold_backward(pool.gradient_of_offsets(dy, maps, places), maps, 0)
        return convolve.weight_gradient(signal, x, weight)

    @functools.cache
    def offsets() -> list[torch.Tensor]:
        return [pool.offsets(first(each))[1] for each in stage.maps]

    def arguments(i: int) -> tuple[torch.Tensor, ...]:
        return stage.arguments(i, stage.signals, stage.indices)

    def placed(i: int) -> tuple[torch.Tensor, ...]:
        return stage.arguments(i, stage.signals, offsets())

    exact = chain(*(each.double() if each.is_floating_point() else each for each in arguments(0)))
    if is_narrow(layer):
        def padded(*given: torch.Tensor) -> torch.Tensor:
            return chain(*given[:3], *map(widened, given[3:]))[:, :layer.channels].contiguous()

        contenders |= eager_and_compiled(padded, arguments, f"torch, {WIDER[0]} channels")
    bench.add(work, {**contenders, **eager_and_compiled(chain, arguments),
                     "torch.compile, int8 places": Compiled(with_places, placed)},
              buffers.sets, family=family, gflop=layer.gflop(bench.plan.batch), bytes=stage.bytes(bench.plan.batch),
              precision=precision, exact=exact, workspace=4 * elements)


def down(bench: Bench, work: str, stage: Stage, last_wins: bool) -> None:
    """The deconvnet's: unpool, rectify, filter with the transposed convolution.

    Where windows overlap, values are added, as zfcore's rule has it and the pool's gradient does; or the last one's
    stays, as `max_unpool2d` has it: there the signal is the pooled values, so that such windows agree.
    """
    buffers, layer, precision = stage.buffers, stage.layer, stage.buffers.precision
    signals = stage.pooled if last_wins else stage.signals
    dx, maps = torch.full_like(buffers.x[0], math.nan), torch.full_like(stage.maps[0], math.nan)
    convolve, pool = peers.Convolving(layer), peers.Pooling(stage.pool)
    contenders: dict[str, Contender] = {}
    for label, number in variants(precision).items():
        def one_by_one(i: int, number: int = number) -> torch.Tensor:
            bench.run("max_unpool", maps, signals[i], stage.switches[i], None, *stage.window, last_wins)
            bench.run("relu", maps, maps)
            bench.run("convolution_input_gradient", dx, maps, buffers.weight, *buffers.sizes, number)
            return first(dx)

        def fused(i: int, number: int = number) -> torch.Tensor:
            bench.run("unpool_filter", dx, signals[i], stage.switches[i], buffers.weight, None, *stage.window,
                      last_wins, True, layer.outputs, *buffers.sizes, number)
            return first(dx)

        contenders |= {label: fused, f"{label}, one by one": one_by_one}

    def chain(dy: torch.Tensor, maps: torch.Tensor, indices: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
              ) -> torch.Tensor:
        signal = pool.unpool(dy, indices) if last_wins else pool.gradient(dy, maps, indices)
        return convolve.input_gradient(F.relu(signal), x, weight)

    def arguments(i: int) -> tuple[torch.Tensor, ...]:
        return stage.arguments(i, signals, stage.indices)

    exact = chain(*(each.double() if each.is_floating_point() else each for each in arguments(0)))
    bench.add(work, {**contenders, **eager_and_compiled(chain, arguments)}, buffers.sets, family="chain down",
              gflop=layer.gflop(bench.plan.batch), bytes=stage.bytes(bench.plan.batch), precision=precision,
              exact=exact)
