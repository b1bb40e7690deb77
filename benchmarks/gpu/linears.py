"""The first network's fully connected layers, of one image and of a batch; most of their traffic is weights."""

from __future__ import annotations

import torch
from torch.nn import functional

from .bench import Bench, Contender
from .plan import PRECISIONS, Dense, Precision, variants

WHOLE = ((1, 1), (0, 0, 0, 0), (1, 1), 1)  # maps of one cell as a convolution's


def linears(bench: Bench) -> None:
    """Forward, input gradient and, of a batch, weight gradient, in every precision."""
    for name, layer in bench.plan.dense().items():
        for rows in (1, bench.plan.batch):
            for precision in PRECISIONS:
                dense(bench, name, layer, rows, precision)


def dense(bench: Bench, name: str, layer: Dense, rows: int, precision: Precision) -> None:
    """One layer, number of rows and precision."""
    inputs, outputs = layer.inputs, layer.outputs
    moved = layer.bytes(rows, precision.size)
    sets = bench.sets(moved)
    x, dy, weight = (bench.random(*shape, sets=sets, dtype=precision.dtype)
                     for shape in ((rows, inputs), (rows, outputs), (outputs, inputs)))
    y, dx, dweight = (bench.empty(*shape, dtype=kind) for shape, kind in (
        ((rows, outputs), precision.dtype), ((rows, inputs), precision.dtype), ((outputs, inputs), "float32")))

    def cells(*matrices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(matrix.view(len(matrix), 1, 1, -1) for matrix in matrices)

    up, down, across = {}, {}, {}
    workspaces = [0, 0, 0]
    for label, number in variants(precision).items():
        elements = (bench.asked("linear_workspace", rows, outputs, inputs, number),
                    bench.asked("linear_workspace", rows, inputs, outputs, number),
                    bench.asked("weight_gradient_workspace", *cells(dweight, dy[0], x[0]), *WHOLE))
        rooms = [bench.empty(max(each, 1)) for each in elements]
        workspaces = [max(most, 4 * each) for most, each in zip(workspaces, elements, strict=True)]

        def forward(i: int, number: int = number, room: torch.Tensor = rooms[0]) -> torch.Tensor:
            bench.run("linear_forward", y, room, x[i], weight[i], None, False, number)
            return y

        def backward(i: int, number: int = number, room: torch.Tensor = rooms[1]) -> torch.Tensor:
            bench.run("linear_input_gradient", dx, room, dy[i], weight[i], number)
            return dx

        def filters(i: int, number: int = number, room: torch.Tensor = rooms[2]) -> torch.Tensor:
            result, signal, rows = cells(dweight, dy[i], x[i])
            bench.run("convolution_weight_gradient", result, room, signal, rows, *WHOLE, number)
            return dweight

        up[label], down[label], across[label] = forward, backward, filters
    exact = x[0].double(), dy[0].double(), weight[0].double()
    title = f"{name} {inputs}->{outputs} batch {rows}"
    directions: list[tuple[str, dict[str, Contender], Contender, torch.Tensor]] = [
        ("forward", up, lambda i: functional.linear(x[i], weight[i]), exact[0] @ exact[2].T),
        ("input gradient", down, lambda i: dy[i] @ weight[i], exact[1] @ exact[2])]
    if rows > 1:
        directions.append(("weight gradient", across, lambda i: dy[i].T @ x[i], exact[1].T @ exact[0]))
    for (direction, ours, peer, expected), workspace in zip(directions, workspaces, strict=False):
        bench.add(f"{title} {direction}, {precision.name}", {**ours, "cuBLAS": peer}, sets, gflop=layer.gflop(rows),
                  bytes=moved, precision=precision, exact=expected, workspace=workspace)
