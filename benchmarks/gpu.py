"""The CUDA kernels beside cuDNN and PyTorch, on the device: `make gpu PART=bench`.

Method (docs/performance.md): each contender is captured into a CUDA graph that goes once through enough sets of
buffers to leave the cache behind (180 MB), graphs are replayed in turn, and the events around each replay give one
sample. Data are random. Two ceilings are measured in the same run: what a copy moves, and what the library's
matrix product computes in float32 and tf32. Medians with the 10th and 90th percentile, all raw samples in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from zfcore import backends

BATCH = 128
ROTATE = 180e6  # bytes that one graph goes through
REPEATS = 60
OURS = "zfcore"
PRECISIONS = {"float32": 0, "tf32": 1}
# name, input height, channels, filters, window, stride, padding: ZFNet's
CONVOLUTIONS = [
    ("conv1 7x7 s2 3->96", 224, 3, 96, 7, 2, 1),
    ("conv2 5x5 s2 96->256", 55, 96, 256, 5, 2, 0),
    ("conv3 3x3 256->384", 13, 256, 384, 3, 1, 1),
    ("conv4 3x3 384->384", 13, 384, 384, 3, 1, 1),
    ("conv5 3x3 384->256", 13, 384, 256, 3, 1, 1),
]
POOLS = [("pool1 110x110x96", 110, 96), ("pool2 26x26x256", 26, 256), ("pool5 13x13x256", 13, 256)]
LINEARS = [("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)]  # name, inputs, outputs: ZFNet's
Call = Callable[[int], Any]  # works on set number i of the buffers


@dataclass
class Row:
    """One piece of work: seconds of one call, by contender."""

    work: str
    samples: dict[str, list[float]] = field(repr=False)
    gflop: float = 0.0
    bytes: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)
    ceiling: float = 0.0  # seconds that the ceilings of this run allow

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.samples.items()}

    @property
    def peer(self) -> str:
        return min((name for name in self.samples if name != OURS), key=self.medians.__getitem__)

    def text(self) -> str:
        """One line of the table."""
        ours, peer = self.medians[OURS], self.medians[self.peer]
        tenth, ninetieth = (statistics.quantiles(self.samples[OURS], n=10)[place] for place in (0, 8))
        rate = f"{self.gflop / ours / 1e3:6.1f} TFLOP/s" if self.gflop else f"{self.bytes / ours / 1e9:6.0f} GB/s   "
        return (f"{self.work:<40} {ours * 1e6:9.1f} us ({tenth * 1e6:.1f}-{ninetieth * 1e6:.1f}) {rate} "
                f"{100 * self.ceiling / ours:5.1f} % of the ceiling, {peer / ours:5.2f}x {self.peer}")


class Eager:
    """A call that no graph can hold (autograd's own stream): its many launches are in its time."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self, index: int) -> None:
        self.call(index)


class Device:
    """What is asked of the device: graphs and events. A test may give another."""

    name = "cuda"

    def stream(self) -> int:
        return int(torch.cuda.current_stream().cuda_stream)

    def capture(self, call: Call, sets: int) -> Callable[[], Any]:
        """A graph of `call` on every set of buffers, warm already."""
        if isinstance(call, Eager):
            return lambda: [call(index) for index in range(sets)]
        side = torch.cuda.Stream()
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


class Bench:
    """Times contenders in turn and keeps the rows."""

    def __init__(self, extension: Any, device: Device, repeats: int = REPEATS, batch: int = BATCH) -> None:
        self.extension, self.device, self.repeats, self.batch = extension, device, repeats, batch
        self.rows: list[Row] = []
        self.copy = 0.0  # bytes a second
        self.products = dict.fromkeys(PRECISIONS, 0.0)  # operations a second

    def run(self, name: str, *arguments: Any) -> None:
        """Call one of our operations on the current stream."""
        getattr(self.extension, name)(*arguments, self.device.stream())

    def sets(self, bytes_of_one: float) -> int:
        return max(2, int(-(-ROTATE // bytes_of_one)))

    def random(self, *shape: int, sets: int = 1, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        return [torch.randn(shape, device=self.device.name, dtype=dtype) for _ in range(sets)]

    def samples(self, contenders: dict[str, Call], sets: int) -> dict[str, list[float]]:
        """Seconds of one call, contenders in turn."""
        graphs = {name: self.device.capture(call, sets) for name, call in contenders.items()}
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(self.repeats + 3):
            for name, replay in graphs.items():
                taken = self.device.seconds(replay) / sets
                if number >= 3:  # the clocks have settled
                    found[name].append(taken)
        return found

    def ceilings(self) -> None:
        """What a copy moves, and what a large matrix product computes, in this run."""
        source, target = (self.random(64 * 2**20)[0] for _ in range(2))
        taken = self.samples({"copy": lambda _: target.copy_(source)}, 2)["copy"]
        self.copy = 2 * source.nbytes / statistics.median(taken)
        a, b = (self.random(8192, 8192)[0] for _ in range(2))
        for name in PRECISIONS:
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            taken = self.samples({"product": lambda _: torch.mm(a, b)}, 2)["product"]
            self.products[name] = 2 * 8192**3 / statistics.median(taken)
        print(f"copy {self.copy / 1e9:.0f} GB/s; products "
              + ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in self.products.items()))

    def add(self, work: str, contenders: dict[str, Call], sets: int, *, gflop: float = 0.0, bytes: float = 0.0,
            precision: str = "float32", errors: dict[str, float] | None = None) -> None:
        """Time a row, keep it, print it."""
        ceiling = max(bytes / self.copy, gflop * 1e9 / self.products[precision] if gflop else 0.0)
        row = Row(work, self.samples(contenders, sets), gflop, bytes, errors or {}, ceiling)
        self.rows.append(row)
        print(row.text(), *(f"error {name} {value:.1e}" for name, value in row.errors.items()), sep="  ", flush=True)


def first(tensor: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) memory as PyTorch's channels-last (N, C, H, W), without a copy."""
    return tensor.permute(0, 3, 1, 2)


def error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference, relative to that of the exact values."""
    return float(((value.double() - exact).square().mean() / exact.square().mean()).sqrt())


def pooling(bench: Bench) -> None:
    """Max pooling 3x3 stride 2, ceil mode, with switches; and its gradient, which is unpooling."""
    for name, size, channels in POOLS:
        out = -(-(size - 3) // 2) + 1
        big, small = bench.batch * size * size * channels, bench.batch * out * out * channels
        moved = 4.0 * big + 5.0 * small
        sets = bench.sets(moved)
        x = bench.random(bench.batch, size, size, channels, sets=sets)
        dy = bench.random(bench.batch, out, out, channels, sets=sets)
        y, dx = [torch.empty_like(each) for each in dy], [torch.empty_like(each) for each in x]
        switches = [torch.empty(each.shape, dtype=torch.uint8, device=each.device) for each in dy]
        window = ((3, 3), (2, 2), (0, 0))

        def pool(i: int) -> None:
            bench.run("max_pool", y[i], switches[i], x[i], None, *window)  # noqa: B023

        def unpool(i: int) -> None:
            bench.run("max_unpool", dx[i], dy[i], switches[i], None, *window, False)  # noqa: B023

        for i in range(sets):
            pool(i)
        kept = [functional.max_pool2d(first(each), 3, 2, ceil_mode=True, return_indices=True)[1] for each in x]
        if not torch.equal(first(y[0]), functional.max_pool2d(first(x[0]), 3, 2, ceil_mode=True)):
            raise AssertionError(f"{name}: pooled values differ from PyTorch's")
        bench.add(f"{name} forward", {
            OURS: pool,
            "torch, indices": lambda i: functional.max_pool2d(first(x[i]), 3, 2, ceil_mode=True, return_indices=True),
            "torch, values only": lambda i: functional.max_pool2d(first(x[i]), 3, 2, ceil_mode=True),
        }, sets, bytes=moved)
        gradient = torch.ops.aten.max_pool2d_with_indices_backward
        bench.add(f"{name} gradient", {
            OURS: unpool,
            "torch": lambda i: gradient(first(dy[i]), first(x[i]), [3, 3], [2, 2], [0, 0], [1, 1], True, kept[i]),
        }, sets, bytes=moved)


def normalization(bench: Bench) -> None:
    """Response norm after pool1, up and down."""
    shape = (bench.batch, 55, 55, 96)
    size = 4.0 * bench.batch * 55 * 55 * 96
    sets = bench.sets(3 * size)
    x, dy = bench.random(*shape, sets=sets), bench.random(*shape, sets=sets)
    y = [torch.empty_like(each) for each in x]
    settings = (5, 1e-4, 0.75, 2.0)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return functional.local_response_norm(first(x), 5, 5e-4, 0.75, 2.0)

    bench.run("response_norm", y[0], x[0], *settings)
    bench.add("response norm 55x55x96 forward", {
        OURS: lambda i: bench.run("response_norm", y[i], x[i], *settings), "torch": lambda i: norm(x[i])},
        sets, bytes=2 * size, errors={OURS: error(first(y[0]), norm(x[0].double()))})
    open_x = [each.clone().requires_grad_() for each in x[:2]]
    outputs = [norm(each) for each in open_x]

    def down(i: int) -> None:
        torch.autograd.grad(outputs[i % 2], open_x[i % 2], first(dy[i]), retain_graph=True)

    bench.add("response norm 55x55x96 gradient", {
        OURS: lambda i: bench.run("response_norm_gradient", y[i], dy[i], x[i], *settings), "torch": Eager(down)},
        sets, bytes=3 * size)


def pointwise(bench: Bench) -> None:
    """ReLU's gradient, and a step of SGD over ZFNet's parameters."""
    count = bench.batch * 110 * 110 * 96
    sets = 2
    dx, dy, y = (bench.random(count, sets=sets) for _ in range(3))
    bench.add("relu gradient 110x110x96", {
        OURS: lambda i: bench.run("relu_gradient", dx[i], dy[i], y[i]),
        "torch": lambda i: torch.ops.aten.threshold_backward(dy[i], y[i], 0)}, sets, bytes=12.0 * count)
    count = 487_424 * bench.batch  # 62.4 million at the usual batch
    weight, velocity, gradient = (bench.random(count)[0] for _ in range(3))

    def torchs(_: int) -> None:
        torch._fused_sgd_([weight], [gradient], [velocity], weight_decay=5e-4, momentum=0.9, lr=1e-2, dampening=0.0,
                          nesterov=False, maximize=False, is_first_step=False)

    bench.add("SGD step, ZFNet's parameters", {
        OURS: lambda _: bench.run("sgd_step", weight, velocity, gradient, 1e-2, 0.9, 5e-4, True),
        "torch, fused": torchs}, 2, bytes=20.0 * count)


def convolutions(bench: Bench) -> None:
    """ZFNet's five, in all three directions, float32 and tf32, like with like."""
    for name, size, channels, filters, window, stride, pad in CONVOLUTIONS:
        out = (size + 2 * pad - window) // stride + 1
        gflop = 2e-9 * bench.batch * out * out * filters * window * window * channels
        moved = 4.0 * bench.batch * (size * size * channels + out * out * filters)
        sets = bench.sets(moved)
        x = bench.random(bench.batch, size, size, channels, sets=sets)
        dy = bench.random(bench.batch, out, out, filters, sets=sets)
        weight = bench.random(filters, window, window, channels)[0] / (window * channels**0.5)
        y, dx, dweight = torch.empty_like(dy[0]), torch.empty_like(x[0]), torch.empty_like(weight)
        sizes = ((stride, stride), (pad,) * 4, (1, 1), 1)
        room = torch.empty(max(bench.extension.weight_gradient_workspace(dweight, dy[0], x[0], *sizes), 1),
                           device=weight.device)
        two = slice(0, 2)
        exact = functional.conv2d(first(x[0][two].double()), first(weight.double()), None, stride, pad)
        backward = torch.ops.aten.convolution_backward
        for precision, number in PRECISIONS.items():
            torch.backends.cudnn.allow_tf32 = precision == "tf32"

            def theirs(mask: Sequence[bool]) -> Call:
                def call(i: int) -> None:
                    backward(first(dy[i]), first(x[i]), first(weight), None, [stride] * 2, [pad] * 2, [1, 1],  # noqa: B023
                             False, [0, 0], 1, mask)  # noqa: B023
                return call

            def forward(i: int) -> torch.Tensor:
                return functional.conv2d(first(x[i]), first(weight), None, stride, pad)  # noqa: B023

            work: Iterator[tuple[str, Call, Call]] = iter([
                ("forward", lambda i: bench.run("convolution_forward", y, x[i], weight, None, *sizes, False, number),
                 forward),
                ("input gradient", lambda i: bench.run("convolution_input_gradient", dx, dy[i], weight, *sizes, number),
                 theirs([True, False, False])),
                ("weight gradient",
                 lambda i: bench.run("convolution_weight_gradient", dweight, room, dy[i], x[i], *sizes, number),
                 theirs([False, True, False])),
            ])
            for direction, ours, peers in work:
                errors = {}
                if direction == "forward":
                    ours(0)
                    errors = {OURS: error(first(y)[two], exact), "cuDNN": error(forward(0)[two], exact)}
                bench.add(f"{name} {direction}, {precision}", {OURS: ours, "cuDNN": peers}, sets, gflop=gflop,
                          bytes=moved, precision=precision, errors=errors)


def linears(bench: Bench) -> None:
    """ZFNet's fully connected layers, of one image and of a batch, float32 and tf32; most traffic is weights."""
    for name, inputs, outputs in LINEARS:
        for rows in (1, bench.batch):
            moved = 4.0 * (inputs * outputs + rows * (inputs + outputs))
            sets = bench.sets(moved)
            x, dy, weight = (bench.random(*shape, sets=sets)
                             for shape in ((rows, inputs), (rows, outputs), (outputs, inputs)))
            y, dx = torch.empty_like(dy[0]), torch.empty_like(x[0])
            exact = x[0].double() @ weight[0].double().T
            for precision, number in PRECISIONS.items():
                torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
                room, other = (
                    torch.empty(max(bench.extension.linear_workspace(rows, *ends, number), 1), device=y.device)
                    for ends in ((outputs, inputs), (inputs, outputs)))

                def up(i: int) -> None:
                    bench.run("linear_forward", y, room, x[i], weight[i], None, False, number)  # noqa: B023

                def down(i: int) -> None:
                    bench.run("linear_input_gradient", dx, other, dy[i], weight[i], number)  # noqa: B023

                up(0)
                errors = {OURS: error(y, exact), "cuBLAS": error(functional.linear(x[0], weight[0]), exact)}
                work = f"{name} {inputs}->{outputs} batch {rows}"
                sizes = {"gflop": 2e-9 * rows * inputs * outputs, "bytes": moved, "precision": precision}
                bench.add(f"{work} forward, {precision}", {
                    OURS: up, "cuBLAS": lambda i: functional.linear(x[i], weight[i])}, sets, **sizes, errors=errors)
                bench.add(f"{work} input gradient, {precision}", {
                    OURS: down, "cuBLAS": lambda i: dy[i] @ weight[i]}, sets, **sizes)


def step(bench: Bench) -> None:
    """ZFNet: a whole training step as a user runs it, wall clock, beside PyTorch eager, channels last."""
    import numpy as np

    from zfcore import models
    from zfcore.interop.torch import to_module
    from zfcore.training import SGD, train_step

    net = models.build("zfnet")
    net._backend = "cuda"
    net.initialize(0)
    images = np.random.default_rng(0).standard_normal((bench.batch, *net.input_shape), np.float32)
    labels = np.arange(bench.batch) % 1000
    optimizer = SGD(learning_rate=1e-3)
    module = to_module(net).to("cuda", memory_format=torch.channels_last).train()
    peer = torch.optim.SGD(module.parameters(), 1e-3, 0.9)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    targets = torch.from_numpy(labels)

    def theirs(_: int) -> None:
        peer.zero_grad()
        output = module(x.cuda())
        functional.nll_loss(output.clamp_min(1e-30).log(), targets.cuda()).backward()
        peer.step()

    contenders: dict[str, Call] = {OURS: lambda _: train_step(net, images, labels, optimizer), "torch": theirs}
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for number in range(8):
        for name, call in contenders.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            call(0)
            torch.cuda.synchronize()
            if number >= 3:
                samples[name].append(time.perf_counter() - begin)
    row = Row("ZFNet training step, float32", samples, gflop=3 * 299.0 * bench.batch / 128)
    row.ceiling = row.gflop * 1e9 / bench.products["float32"]
    bench.rows.append(row)
    print(row.text(), flush=True)


def main() -> int:
    """Run everything and write the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: this PyTorch sees no CUDA device; nothing was measured", file=sys.stderr)
        return 3
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    bench = Bench(backends.get("cuda").extension, Device())
    begin = time.monotonic()
    bench.ceilings()
    for part in (pooling, normalization, pointwise, convolutions, linears, step):
        part(bench)
        torch.cuda.empty_cache()
        written = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "batch": bench.batch,
                   "copy_bytes_per_second": bench.copy, "product_operations_per_second": bench.products,
                   "rows": [{**asdict(row), "medians": row.medians, "best_peer": row.peer} for row in bench.rows]}
        options.out.write_text(json.dumps(written, indent=1) + "\n")  # what is done is kept if time runs out
    print(f"{len(bench.rows)} rows in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
