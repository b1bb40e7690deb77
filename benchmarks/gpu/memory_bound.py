"""What memory bounds: pools, normalisations, the update; float32 and bfloat16 (float16 moves the same bytes)."""

from __future__ import annotations

import functools
import math

import torch

from . import peers
from .bench import Bench, Compiled, Launched, eager_and_compiled, first
from .device import Call
from .plan import BFLOAT16, STRICT, Plan, Pool, Precision
from .rows import OURS

STORAGE = (STRICT, BFLOAT16)


def memory(bench: Bench) -> None:
    """All of it."""
    for name, pool in bench.plan.pools().items():
        for precision in STORAGE:
            pooling(bench, name, pool, precision)
    for name, shape in bench.plan.norms().items():
        for precision in STORAGE:
            response(bench, name, shape, precision)
    contrast(bench, next(iter(bench.plan.norms().values())))
    rectifier(bench, next(iter(bench.plan.pools().values())))
    for copied in (False, True):
        update(bench, bench.plan, copied)


def pooling(bench: Bench, name: str, pool: Pool, precision: Precision) -> None:
    """Max pooling with switches; its gradient; unpooling, where the last window wins.

    One set more than are timed has values full of ties: there our switches must be PyTorch's indices, and its signal
    is the pooled values, so that windows which share a cell agree on it and the last one's is anyone's.
    """
    batch, (rows, columns), peer = bench.plan.batch, pool.outputs, peers.Pooling(pool)
    moved = pool.bytes(batch, precision.size)
    sets = bench.sets(moved)
    x = bench.random(batch, pool.height, pool.width, pool.channels, sets=sets + 1, dtype=precision.dtype)
    dy = bench.random(batch, rows, columns, pool.channels, sets=sets + 1, dtype=precision.dtype)
    x[sets].copy_(torch.randint(0, 4, x[sets].shape, device=x[sets].device))
    y, dx = ([torch.full_like(each, math.nan) for each in given] for given in (dy, x))
    switches = [bench.empty(*each.shape, dtype="uint8") for each in dy]
    window = (pool.window, pool.stride, (0, 0))

    def forward(i: int) -> torch.Tensor:
        bench.run("max_pool", y[i], switches[i], x[i], None, *window)
        return first(y[i])

    def unpool(last_wins: bool) -> Call:
        def call(i: int) -> torch.Tensor:
            bench.run("max_unpool", dx[i], dy[i], switches[i], None, *window, last_wins)
            return first(dx[i])
        return call

    for i in range(sets + 1):
        forward(i)
    dy[sets].copy_(y[sets])
    values, indices = zip(*(peer.forward(first(each)) for each in x), strict=True)
    flat = bench.empty(*switches[sets].shape, dtype="int64")
    bench.run("switches_to_flat", flat, switches[sets], pool.width, *window)
    agree = torch.equal(first(flat), indices[sets]) and torch.equal(first(y[sets]), values[sets])
    refused = "" if agree else "its switches are not PyTorch's indices where values tie"
    title = f"{name} {pool.height}x{pool.width}x{pool.channels}"
    common = {"sets": sets, "family": "memory", "bytes": moved, "precision": precision, "refused": refused}
    bench.add(f"{title} forward, {precision.name}", {
        OURS: forward, **eager_and_compiled(peer.forward, lambda i: (first(x[i]),)),
        "torch.compile, int8 places": Compiled(peer.offsets, lambda i: (first(x[i]),)),
    }, exact=values[0].double(), **common)

    def signals(i: int) -> tuple[torch.Tensor, ...]:
        return first(dy[i]), first(x[i]), indices[i]

    @functools.cache
    def places() -> list[torch.Tensor]:
        return [peer.offsets(first(each))[1] for each in x]

    def placed(i: int) -> tuple[torch.Tensor, ...]:
        return first(dy[i]), first(x[i]), places()[i]

    exact = peer.gradient(first(dy[0]).double(), first(x[0]).double(), indices[0])
    bench.add(f"{title} gradient, {precision.name}", {
        OURS: unpool(False), **eager_and_compiled(peer.gradient, signals),
        "torch.compile, int8 places": Compiled(peer.gradient_of_offsets, placed),
    }, exact=exact, **common)
    chosen = torch.zeros_like(exact).flatten(2)
    chosen.scatter_(2, indices[sets].flatten(2), first(dy[sets]).double().flatten(2))
    bench.add(f"{title} unpool, {precision.name}", {
        OURS: unpool(True), **eager_and_compiled(peer.unpool, lambda i: (first(dy[i]), indices[i])),
    }, exact=chosen.reshape(exact.shape), checked=sets, **common)


def response(bench: Bench, name: str, shape: tuple[int, ...], precision: Precision) -> None:
    """Response norm across maps, both ways."""
    normalization(bench, f"{name} {'x'.join(map(str, shape))}", shape, precision, "response_norm", (5, 1e-4, 0.75, 2.0),
                  ())


def contrast(bench: Bench, shape: tuple[int, ...]) -> None:
    """Contrast norm over 5x5 cells, both ways; float32, which is all that it takes."""
    settings = (None, 5, 1e-3, 0.75, 1.0, False)
    title = f"contrast norm {'x'.join(map(str, shape))}"
    normalization(bench, title, shape, STRICT, "contrast_norm", settings, (False,))


def normalization(bench: Bench, title: str, shape: tuple[int, ...], precision: Precision, operation: str,
                  settings: tuple[object, ...], down: tuple[object, ...]) -> None:
    """One of the two. Contrast norm has workspaces of its input's size: one up, five down."""
    size = precision.size * bench.plan.batch * math.prod(shape)
    sets = bench.sets(3 * size)
    x, dy = (bench.random(bench.plan.batch, *shape, sets=sets, dtype=precision.dtype) for _ in range(2))
    y = [torch.full_like(each, math.nan) for each in x]
    up, back = (1, 5) if operation == "contrast_norm" else (0, 0)
    rooms = [torch.full_like(x[0], math.nan) for _ in range(back)]
    functions = {"torch": getattr(peers, operation)}
    if operation == "response_norm":
        functions["torch, of slices"] = peers.response_norm_of_slices
    function = functions["torch"]

    def forward(i: int) -> torch.Tensor:
        bench.run(operation, y[i], *rooms[:up], x[i], *settings)
        return first(y[i])

    def backward(i: int) -> torch.Tensor:
        bench.run(f"{operation}_gradient", y[i], *rooms, dy[i], x[i], *settings, *down)
        return first(y[i])

    @functools.cache
    def passes() -> list[tuple[torch.Tensor, torch.Tensor]]:
        begun = [each.clone().requires_grad_() for each in x]
        return [(function(first(each)), each) for each in begun]

    def autograd(i: int) -> torch.Tensor:
        output, given = passes()[i]
        return first(torch.autograd.grad(output, given, first(dy[i]), retain_graph=True)[0])

    common = {"sets": sets, "family": "memory", "precision": precision}
    double = first(x[0]).double()
    bench.add(f"{title} forward, {precision.name}", {
        OURS: forward,
        **{name: each for label, one in functions.items()
           for name, each in eager_and_compiled(one, lambda i: (first(x[i]),), label).items()},
    }, bytes=2.0 * size, exact=function(double), workspace=up * size, **common)
    bench.add(f"{title} gradient, {precision.name}", {
        OURS: backward, "torch, kept": Launched(autograd),
        **{name: each for label, one in functions.items() for name, each in eager_and_compiled(
            peers.gradient_of(one), lambda i: (first(dy[i]), first(x[i])), label).items()},
    }, bytes=3.0 * size, exact=peers.gradient_of(function)(first(dy[0]).double(), double), workspace=back * size,
        **common)


def rectifier(bench: Bench, pool: Pool) -> None:
    """ReLU's gradient."""
    count, sets = bench.plan.batch * pool.cells, 2
    dy, y = (bench.random(count, sets=sets) for _ in range(2))
    dx = torch.full_like(dy[0], math.nan)

    def ours(i: int) -> torch.Tensor:
        bench.run("relu_gradient", dx, dy[i], y[i])
        return dx

    bench.add(f"relu gradient {pool.height}x{pool.width}x{pool.channels}", {
        OURS: ours,
        **eager_and_compiled(lambda dy, y: torch.ops.aten.threshold_backward(dy, y, 0), lambda i: (dy[i], y[i])),
    }, sets, bytes=12.0 * count, exact=dy[0].double() * (y[0] > 0))


def update(bench: Bench, plan: Plan, copied: bool) -> None:
    """A step of SGD over all parameters of the first network; with a copy in bfloat16, our filters renormalised too.

    Everybody changes parameters of his own. One set is all: they do not fit the cache.
    """
    title, net = plan.first
    shapes = list(net.parameter_shapes().values())
    gradients = [bench.random(*shape)[0] for shape in shapes]
    begin = [bench.random(*shape)[0] for shape in shapes]

    def own() -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        return ([each.clone() for each in begin], [torch.zeros_like(each) for each in begin], gradients,
                [bench.empty(*shape, dtype="bfloat16") for shape in shapes] if copied else [])

    mine, fused, plain = own(), own(), own()

    def ours(_: int) -> torch.Tensor:
        weights, velocities, _, copies = mine
        for place, (weight, velocity, gradient) in enumerate(zip(weights, velocities, gradients, strict=True)):
            if copied:
                rows = (weight.shape[0], -1)
                bench.run("sgd_filters", weight.view(rows), velocity.view(rows), copies[place].view(rows),
                          gradient.view(rows), 1e-2, 0.9, 5e-4, False, 1e30)
            else:
                bench.run("sgd_step", weight, velocity, gradient, 1e-2, 0.9, 5e-4, False)
        return weights[0]

    def theirs(_: int) -> torch.Tensor:
        peers.fused_update(*fused)
        return fused[0][0]

    def compiled(*lists: list[torch.Tensor]) -> torch.Tensor:
        peers.update(*lists)
        return lists[0][0]

    count = sum(math.prod(shape) for shape in shapes)
    exact = begin[0].double() - 1e-2 * (gradients[0].double() + 5e-4 * begin[0].double())
    bench.add(f"SGD step, {title}'s parameters{', with a copy in bfloat16' if copied else ''}", {
        OURS: ours, "torch, fused": theirs, "torch.compile": Compiled(compiled, lambda _: plain),
    }, 1, family="memory", bytes=(22.0 if copied else 20.0) * count, exact=exact)
