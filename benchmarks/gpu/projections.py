"""The strongest activations of a layer's maps, projected to pixels: the top 9 of conv5's 256 maps are 2,304 units.

Each map has images and a place of its own. Ours projects all of them in one call; Captum takes one unit, in the nine
images at once, and so do hooks "map by map": these are timed for a few maps and extrapolated. The batched hooks project
many maps' units in each pass, which Captum cannot. All in strict float32, results on the host.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import zfcore

from ..torch_networks import captum_projection, twin
from .bench import Bench, LeftOut, error, set_tf32
from .peers import Deconvnet
from .rows import Row

BATCH = 256  # units of a pass, ours and the batched hooks'
APART = 0.05  # of a projection from float64's: where two cells of a pool are nearly equal, a rounding says who won


def projections(bench: Bench) -> None:
    """One row."""
    bench.in_time()
    set_tf32(False)
    plan = bench.plan
    title, net = plan.first
    net._backend = "cuda"
    net.initialize(0, "he")
    model = peer_model(bench)
    work = Work(bench, net.tensor_shape(plan.layer)[:2], net.input_shape)
    last = rectifier(model, plan.layer)
    by_map, batched = Deconvnet(model, last), work.batched
    units = [(int(image), zfcore.Unit(plan.layer, number, *map(int, work.places[number])))
             for number in range(plan.maps) for image in work.chosen[number]]
    count = len(units)
    row = Row(bench.group, f"{title} {plan.layer}: top {plan.top} of {plan.maps} maps projected, {count} units",
              "projections", note=f"Captum and 'map by map': {plan.sample} maps timed, {plan.maps} extrapolated")

    def ours() -> Callable[[], object]:
        found = net.project(work.images, units, "deconvnet", "one", batch_size=BATCH, allow_negative=True)
        exact = Deconvnet(peer_model(bench).double(), last, normalization=False)
        expected = work.project(exact, 0, work.tensors.double())[0].permute(1, 2, 0).cpu()
        row.errors["zfcore"] = error(torch.from_numpy(whole(found, expected.shape)), expected)
        if not row.errors["zfcore"] <= APART:
            raise LeftOut(f"its first projection's error is {row.errors['zfcore']:.1e}")
        return lambda: net.project(work.images, units, "deconvnet", "one", batch_size=BATCH, allow_negative=True)

    def hooks() -> Callable[[], object]:
        return lambda: [work.project(by_map, number, work.tensors).cpu() for number in range(plan.sample)]

    def many() -> Callable[[], object]:
        return lambda: batched(by_map)

    def captum() -> Callable[[], object]:
        import captum.attr  # noqa: F401 (missing: the reason)

        plain = peer_model(bench)
        return lambda: [captum_projection(plain, plain[last], work.tensors[work.chosen[number]],
                                          (number, *map(int, work.places[number]))).cpu()
                        for number in range(plan.sample)]

    part = plan.sample / plan.maps
    bench.race(row, {"zfcore": ours, "Captum": captum, "torch hooks, map by map": hooks, "torch hooks, batched": many},
               {"zfcore": 1, "Captum": part, "torch hooks, map by map": part, "torch hooks, batched": 1}, whole=True)


class Work:
    """What is projected: images, and for every map its images and its place."""

    def __init__(self, bench: Bench, size: tuple[int, ...], shape: tuple[int, ...]) -> None:
        plan, generator = bench.plan, np.random.default_rng(0)
        self.plan, self.device = plan, bench.device.name
        self.images = generator.standard_normal((plan.pictures, *shape), np.float32)
        self.tensors = torch.from_numpy(self.images).to(self.device).permute(0, 3, 1, 2)
        self.chosen = np.stack([generator.choice(plan.pictures, plan.top, replace=False) for _ in range(plan.maps)])
        self.places = generator.integers(0, size, (plan.maps, 2))

    def project(self, deconvnet: Deconvnet, number: int, images: torch.Tensor) -> torch.Tensor:
        """One map's unit in its images."""
        everywhere = [torch.full((self.plan.top,), int(each), device=self.device)
                      for each in (number, *self.places[number])]
        return deconvnet(images[self.chosen[number]], *everywhere)

    def batched(self, deconvnet: Deconvnet) -> list[torch.Tensor]:
        """All units, many in a pass."""
        images = self.chosen.reshape(-1)
        numbers = np.repeat(np.arange(self.plan.maps), self.plan.top)
        where = np.stack([numbers, *self.places[numbers].T])
        return [deconvnet(self.tensors[images[begin:begin + BATCH]],
                          *torch.from_numpy(where[:, begin:begin + BATCH]).to(self.device)).cpu()
                for begin in range(0, len(images), BATCH)]


def peer_model(bench: Bench) -> nn.Sequential:
    """The same network in PyTorch, channels last."""
    net = bench.plan.first[1].initialize(0, "he")
    model = twin(net).to(bench.device.name, memory_format=torch.channels_last).eval()
    return model.requires_grad_(False)  # type: ignore[no-any-return]


def rectifier(model: nn.Sequential, layer: str) -> int:
    """Where the rectifier of a convolution such as "conv5" stands."""
    seen = [place for place, module in enumerate(model) if isinstance(module, nn.Conv2d)]
    return seen[int(layer.removeprefix("conv")) - 1] + 1


def whole(found: zfcore.Projections, shape: tuple[int, ...]) -> np.ndarray:
    """The first projection's tile, put where it belongs in the image."""
    image = np.zeros(shape, np.float64)
    tile, (top, left) = found.pixels[0], found.origins[0]
    height, width = tile.shape[:2]
    rows, columns = (slice(max(begin, 0), min(begin + size, limit))
                     for begin, size, limit in ((top, height, shape[0]), (left, width, shape[1])))
    image[rows, columns] = tile[rows.start - top:rows.stop - top, columns.start - left:columns.stop - left]
    return image
