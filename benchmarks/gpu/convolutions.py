"""Convolutions of all networks in their three directions, like with like: the same factors, the same layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch.nn import functional

from . import peers
from .bench import Bench, Compiled, Contender, first
from .plan import BFLOAT16, SHORT, STRICT, Conv, Precision, variants

DIRECTIONS = ("forward", "input_gradient", "weight_gradient")
WIDER = (4, 8)  # channels that a first layer's three are padded to, by us and by cuDNN alike
IMAGES = 2  # whose results are compared with float64


def convolutions(bench: Bench) -> None:
    """On tensor cores: tf32 and both types of 16 bits."""
    for name, layer in bench.plan.convolutions().items():
        for precision in SHORT:
            rows(bench, name, layer, precision, "convolution")


def strict(bench: Bench) -> None:
    """float32, tf32 off: ours by plain arithmetic, and by three products in tf32 where there is that."""
    for name, layer in bench.plan.convolutions().items():
        rows(bench, name, layer, STRICT, "strict")


def compiled(bench: Bench) -> None:
    """The forward rows in bfloat16 again, with torch.compile beside cuDNN (gradients it hands to cuDNN anyway)."""
    for name, layer in bench.plan.convolutions().items():
        rows(bench, name, layer, BFLOAT16, "convolution", ("forward",), with_compiled=True)


class Buffers:
    """A layer's arrays; one set more than are timed has few images, for the comparison with float64."""

    def __init__(self, bench: Bench, layer: Conv, precision: Precision) -> None:
        self.bench, self.layer, self.precision = bench, layer, precision
        batch = bench.plan.batch
        self.sets = bench.sets(precision.size * batch * (layer.inputs + layer.made))
        shapes = ((layer.height, layer.width, layer.channels), (*layer.outputs, layer.filters))
        self.x, self.dy = (
            [each for count, sets in ((batch, self.sets), (IMAGES, 1))
             for each in bench.random(count, *shape, sets=sets, dtype=precision.dtype)] for shape in shapes)
        window = (*layer.window, layer.channels // layer.groups)
        self.weight = (bench.random(layer.filters, *window)[0] / math.prod(window)**0.5).to(self.x[0].dtype)
        self.sizes = (layer.stride, layer.padding, (1, 1), layer.groups)

    def widened(self, channels: int) -> Buffers:
        """The same with zeros for further channels."""
        wide = object.__new__(Buffers)
        wide.__dict__.update(self.__dict__)
        wide.layer = replace(self.layer, channels=channels)
        wide.x, wide.weight = [widen(each, channels) for each in self.x], widen(self.weight, channels)
        return wide


def widen(tensor: torch.Tensor, channels: int) -> torch.Tensor:
    """Zeros for further channels, the last axis."""
    return functional.pad(tensor, (0, channels - tensor.shape[-1]))


def results(given: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Room for results of these arrays' shapes, by the number of images: of the timed sets, and of the last one."""
    return {len(each): torch.full_like(each, math.nan) for each in given[-2:]}


class Ours:
    """Our kernels on a layer's buffers."""

    def __init__(self, buffers: Buffers, number: int) -> None:
        self.buffers, self.bench, self.number = buffers, buffers.bench, number
        self.x, self.dy, self.weight = buffers.x, buffers.dy, buffers.weight
        self.dx, self.y = results(self.x), results(self.dy)
        self.dweight = self.bench.empty(*self.weight.shape)
        self.elements = max(self.bench.asked("weight_gradient_workspace", self.dweight, dy, x, *buffers.sizes)
                            for dy, x in zip(self.dy[-2:], self.x[-2:], strict=True))
        self.room = self.bench.empty(max(self.elements, 1))

    def forward(self, i: int) -> torch.Tensor:
        """y."""
        y = self.y[len(self.x[i])]
        self.bench.run("convolution_forward", y, self.x[i], self.weight, None, *self.buffers.sizes, False, self.number)
        return first(y)

    def input_gradient(self, i: int) -> torch.Tensor:
        """dx."""
        dx = self.dx[len(self.dy[i])]
        self.bench.run("convolution_input_gradient", dx, self.dy[i], self.weight, *self.buffers.sizes, self.number)
        return first(dx)

    def weight_gradient(self, i: int) -> torch.Tensor:
        """dw, of float32 whatever the factors are."""
        self.bench.run("convolution_weight_gradient", self.dweight, self.room, self.dy[i], self.x[i],
                       *self.buffers.sizes, self.number)
        return first(self.dweight)


class Form:
    """A layer's arrays as kernels get them: as they are, or padded to more channels each time they are asked for."""

    def __init__(self, given: Buffers, channels: int = 0) -> None:
        self.given, self.arrays = given, given.widened(channels) if channels else given

    def maps(self, i: int) -> torch.Tensor:
        """x of set i."""
        return self._filled(self.arrays.x[i], self.given.x[i])

    def filters(self) -> torch.Tensor:
        """The weights."""
        return self._filled(self.arrays.weight, self.given.weight)

    def _filled(self, wide: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        if wide is not given:
            self.given.bench.run("pad_channels", wide.view(-1, wide.shape[-1]), given.view(-1, given.shape[-1]))
        return wide

    def kept(self, few: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """A result without the channels that were added, in `few` where there are any."""
        if self.arrays is self.given:
            return first(wide)
        channels = few.shape[-1]
        self.given.bench.run("copy_columns", few.view(-1, channels), wide.view(-1, wide.shape[-1]), 0, 0, channels)
        return first(few)


def is_narrow(layer: Conv) -> bool:
    """Whether padding its channels may pay: a first layer."""
    return layer.groups == 1 and layer.channels % WIDER[0] != 0


class Padded(Ours):
    """The same with channels padded inside the time, from arrays of few channels and to them."""

    def __init__(self, buffers: Buffers, number: int, channels: int) -> None:
        self.form = Form(buffers, channels)
        super().__init__(self.form.arrays, number)
        self.narrow, self.few = results(buffers.x), self.bench.empty(*buffers.weight.shape)

    def forward(self, i: int) -> torch.Tensor:
        """Both factors padded, then y."""
        self.form.maps(i)
        self.form.filters()
        return super().forward(i)

    def input_gradient(self, i: int) -> torch.Tensor:
        """Filters padded, then dx, of which few channels are kept."""
        self.form.filters()
        super().input_gradient(i)
        count = len(self.dy[i])
        return self.form.kept(self.narrow[count], self.dx[count])

    def weight_gradient(self, i: int) -> torch.Tensor:
        """Maps padded, then dw, of which few channels are kept."""
        self.form.maps(i)
        super().weight_gradient(i)
        return self.form.kept(self.few, self.dweight)


class CuDNN:
    """PyTorch's convolution, channels last, with cudnn.benchmark; `channels`: padded to so many inside the time."""

    def __init__(self, buffers: Buffers, channels: int = 0) -> None:
        self.peer, self.channels = peers.Convolving(buffers.layer), channels
        self.x, self.dy, self.weight = buffers.x, buffers.dy, buffers.weight

    def _wide(self, tensor: torch.Tensor) -> torch.Tensor:
        return first(widen(tensor, self.channels) if self.channels else tensor)

    def _narrow(self, tensor: torch.Tensor) -> torch.Tensor:
        few = self.x[0].shape[-1]
        return tensor[:, :few].contiguous(memory_format=torch.channels_last) if self.channels else tensor

    def forward(self, i: int) -> torch.Tensor:
        """y."""
        return self.peer.forward(self._wide(self.x[i]), self._wide(self.weight))

    def input_gradient(self, i: int) -> torch.Tensor:
        """dx; of x only the shape counts, which is padded here outside the time where it is."""
        weight = self._wide(self.weight)
        x = first(self.x[i]) if not self.channels else self._shape(i)
        return self._narrow(self.peer.input_gradient(first(self.dy[i]), x, weight))

    def _shape(self, i: int) -> torch.Tensor:
        """Something of the padded maps' shape; its values are not looked at."""
        count, height, width, _ = self.x[i].shape
        return torch.empty((count, self.channels, height, width), dtype=self.x[i].dtype, device=self.x[i].device,
                           memory_format=torch.channels_last)

    def weight_gradient(self, i: int) -> torch.Tensor:
        """dw; of the weight only the shape counts."""
        dweight = self.peer.weight_gradient(first(self.dy[i]), self._wide(self.x[i]), self._wide(self.weight))
        return self._narrow(dweight)


def rows(bench: Bench, name: str, layer: Conv, precision: Precision, family: str,
         directions: Sequence[str] = DIRECTIONS, with_compiled: bool = False) -> None:
    """A layer's rows; a layer whose channels are not a multiple of four has them once more, padded beforehand."""
    buffers = Buffers(bench, layer, precision)
    title = f"{name} {layer.window[0]}x{layer.window[1]} s{layer.stride[0]} {layer.channels}->{layer.filters}"
    title += f" g{layer.groups}" if layer.groups > 1 else ""
    ours, peer = numbered(buffers, precision), {"cuDNN": CuDNN(buffers)}
    narrow = is_narrow(layer)
    inside = {**ours, **peer}
    if narrow:
        inside |= {f"{label}, {channels} channels": Padded(buffers, number, channels)
                   for channels in WIDER for label, number in variants(precision).items()}
        inside |= {f"cuDNN, {channels} channels": CuDNN(buffers, channels) for channels in WIDER}
    race(bench, title, buffers, inside, family, directions, with_compiled, "padding in the time" if narrow else "")
    if narrow:
        wide = {channels: buffers.widened(channels) for channels in WIDER}
        before = {**ours, **peer}
        for channels, each in wide.items():
            before |= {f"{label}, {channels} channels": one for label, one in numbered(each, precision).items()}
            before[f"cuDNN, {channels} channels"] = CuDNN(each)
        race(bench, f"{title}, padded before", buffers, before, family, directions, False,
             "padding outside the time, results left wide")


def numbered(buffers: Buffers, precision: Precision) -> dict[str, Ours]:
    """Our contenders of a precision."""
    return {label: Ours(buffers, number) for label, number in variants(precision).items()}


def race(bench: Bench, title: str, buffers: Buffers, contenders: dict[str, Ours | CuDNN], family: str,
         directions: Sequence[str], with_compiled: bool, note: str) -> None:
    """The rows of one layer and precision, a direction each."""
    precision, batch, references = buffers.precision, bench.plan.batch, reference(buffers)
    for direction in directions:
        exact = references[direction]()

        def unpadded(result: torch.Tensor) -> torch.Tensor:
            return result[:, :exact.shape[1]]

        entries: dict[str, Contender] = {label: getattr(each, direction) for label, each in contenders.items()}
        if with_compiled:
            peer = peers.Convolving(buffers.layer)
            entries["torch.compile"] = Compiled(peer.forward, lambda i: (first(buffers.x[i]), first(buffers.weight)))
        room = max((each.elements for each in contenders.values() if isinstance(each, Ours)), default=0)
        bench.add(f"{title} {direction.replace('_', ' ')}, {precision.name}", entries, buffers.sets, family=family,
                  gflop=buffers.layer.gflop(batch), bytes=buffers.layer.bytes(batch, precision.size),
                  precision=precision, exact=exact, part=unpadded, checked=buffers.sets,
                  workspace=4 * room if direction == "weight_gradient" else 0, note=note)


def reference(buffers: Buffers) -> dict[str, Callable[[], torch.Tensor]]:
    """In float64, of the last set's few images, by the factors as they are stored."""
    peer = peers.Convolving(buffers.layer)
    x, dy, weight = (first(each).double() for each in (buffers.x[-1], buffers.dy[-1], buffers.weight))
    return {"forward": lambda: peer.forward(x, weight), "input_gradient": lambda: peer.input_gradient(dy, x, weight),
            "weight_gradient": lambda: peer.weight_gradient(dy, x, weight)}

