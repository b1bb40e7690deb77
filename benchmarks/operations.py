"""Every op on the shapes of the large networks, beside PyTorch in its better layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zfcore import ops

from .measure import OURS, Row, interleave
from .torch_networks import layouts

BATCH = 16
# name, input height and channels, filters, window, stride, padding, input needs a gradient
# name, batch, input height and channels, filters, window, stride, padding, groups
CONVOLUTIONS = [
    ("zf conv1 7x7 s2 3->96", 16, 224, 3, 96, 7, 2, 1, 1),
    ("zf conv2 5x5 s2 96->256", 16, 55, 96, 256, 5, 2, 0, 1),
    ("zf conv3 3x3 256->384", 16, 13, 256, 384, 3, 1, 1, 1),
    ("zf conv4 3x3 384->384", 16, 13, 384, 384, 3, 1, 1, 1),
    ("zf conv5 3x3 384->256", 16, 13, 384, 256, 3, 1, 1, 1),
    ("alex conv1 11x11 s4 3->96", 16, 227, 3, 96, 11, 4, 0, 1),
    ("alex conv2 5x5 96->256 g2", 16, 27, 96, 256, 5, 1, 2, 2),
    ("alex conv4 3x3 384->384 g2", 16, 13, 384, 384, 3, 1, 1, 2),
    ("alex conv5 3x3 384->256 g2", 16, 13, 384, 256, 3, 1, 1, 2),
    ("vgg conv1_1 3x3 3->64", 4, 224, 3, 64, 3, 1, 1, 1),
    ("vgg conv1_2 3x3 64->64", 4, 224, 64, 64, 3, 1, 1, 1),
    ("vgg conv2_1 3x3 64->128", 4, 112, 64, 128, 3, 1, 1, 1),
    ("vgg conv2_2 3x3 128->128", 4, 112, 128, 128, 3, 1, 1, 1),
    ("vgg conv3_1 3x3 128->256", 4, 56, 128, 256, 3, 1, 1, 1),
    ("vgg conv3_2 3x3 256->256", 4, 56, 256, 256, 3, 1, 1, 1),
    ("vgg conv4_1 3x3 256->512", 4, 28, 256, 512, 3, 1, 1, 1),
    ("vgg conv4_2 3x3 512->512", 4, 28, 512, 512, 3, 1, 1, 1),
    ("vgg conv5_1 3x3 512->512", 4, 14, 512, 512, 3, 1, 1, 1),
]
POOLS = [("pool1 110x110x96", 110, 96), ("pool2 26x26x256", 26, 256), ("pool5 13x13x256", 13, 256)]


def _both(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    array = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return array, layouts(array)


def _peers(tensors: dict[str, torch.Tensor], call: Callable[[torch.Tensor], Any]) -> dict[str, Callable[[], Any]]:
    def under_no_grad(tensor: torch.Tensor) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return call(tensor)
        return run
    return {name: under_no_grad(tensor) for name, tensor in tensors.items()}


def _error(value: Any, exact: torch.Tensor) -> float:
    """Root mean square of the difference from float64, relative to that of the values; NCHW or NHWC."""
    array = value.numpy() if isinstance(value, torch.Tensor) else value.transpose(0, 3, 1, 2)
    return float(np.sqrt(np.mean((array - exact.numpy()) ** 2) / np.mean(exact.numpy() ** 2)))


def convolutions(seconds: float) -> Iterator[Row]:
    """Forward with ReLU, input gradient and weight gradient of the layers of ZFNet, AlexNet and VGG-16.

    The notes give both errors against float64, ours first. Ours is `algorithm="auto"`, as in networks.
    """
    engine = ops.bind()
    for name, batch, size, channels, filters, window, stride, padding, groups in CONVOLUTIONS:
        x, xs = _both((batch, size, size, channels), 0)
        shape = (filters, window, window, channels // groups)
        w = np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * 0.05
        b = np.zeros(filters, np.float32)
        settings = {"stride": stride, "padding": padding, "groups": groups, "algorithm": "auto"}
        y = engine.convolution(x, w, b, **settings)
        dy, dys = _both(y.shape, 2)
        weights = layouts(w)
        bias = torch.from_numpy(b)
        gflop = 2e-9 * y.size * w[0].size

        def forward(key: str) -> Callable[[], Any]:
            def run() -> Any:
                with torch.no_grad():
                    return functional.relu_(functional.conv2d(xs[key], weights[key], bias, stride, padding, 1, groups))
            return run

        def backward(key: str, wanted: int) -> Callable[[], Any]:
            mask = [place == wanted for place in range(3)]
            return lambda: torch.ops.aten.convolution_backward(
                dys[key], xs[key], weights[key], None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups,
                mask)[wanted]

        double = {"x": xs["torch"].double(), "w": weights["torch"].double(), "dy": dys["torch"].double()}
        exact = functional.relu_(functional.conv2d(double["x"], double["w"], None, stride, padding, 1, groups))
        gradients = torch.ops.aten.convolution_backward(
            double["dy"], double["x"], double["w"], None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups,
            [True, True, False])
        ours: dict[str, Callable[[], Any]] = {
            "forward + ReLU": lambda: engine.convolution(x, w, b, activation="relu", **settings),
            "input gradient": lambda: engine.convolution_input_gradient(dy, w, x.shape, **settings),
            "weight gradient": lambda: engine.convolution_weight_gradient(dy, x, w.shape, **settings)}
        for place, (kind, call) in enumerate(ours.items()):
            theirs = {key: forward(key) if place == 0 else backward(key, place - 1) for key in xs}
            true = exact if place == 0 else gradients[place - 1]
            note = f"errors {_error(call(), true):.1e}, {_error(theirs['torch'](), true):.1e}"
            yield interleave(f"{name} {kind}", {OURS: call, **theirs}, seconds=seconds, gflop=gflop, note=note)


def linears(seconds: float) -> Iterator[Row]:
    """ZFNet's first fully connected layer."""
    engine = ops.bind()
    generator = np.random.default_rng(0)
    w = generator.standard_normal((4096, 9216), dtype=np.float32) * 0.01
    weight = torch.from_numpy(w)
    for batch in (1, BATCH):
        x = generator.standard_normal((batch, 9216), dtype=np.float32)
        dy = generator.standard_normal((batch, 4096), dtype=np.float32)
        tensor, signal = torch.from_numpy(x), torch.from_numpy(dy)
        gflop = 2e-9 * w.size * batch
        yield interleave(f"fc6 9216->4096 batch {batch} forward", {
            OURS: lambda: engine.linear(x, w), "torch": lambda: functional.linear(tensor, weight)},
            seconds=seconds, gflop=gflop)
        yield interleave(f"fc6 batch {batch} input gradient", {
            OURS: lambda: engine.linear_input_gradient(dy, w), "torch": lambda: signal @ weight},
            seconds=seconds, gflop=gflop)
        yield interleave(f"fc6 batch {batch} weight gradient", {
            OURS: lambda: engine.linear_weight_gradient(dy, x), "torch": lambda: signal.t() @ tensor},
            seconds=seconds, gflop=gflop)


def pools(seconds: float) -> Iterator[Row]:
    """Max pooling with switches, its gradient and unpooling on ZFNet's three pools (3x3, stride 2).

    Both gradients take the switches as they come, as training does; both unpoolings look at them first.
    """
    engine = ops.bind()
    for name, size, channels in POOLS:
        x, xs = _both((BATCH, size, size, channels), 0)
        settings = {"window": 3, "stride": 2, "ceil_mode": True}
        y, switches = engine.max_pool(x, **settings)
        dy, dys = _both(y.shape, 1)
        indices = {key: functional.max_pool2d(value, 3, 2, ceil_mode=True, return_indices=True)[1]
                   for key, value in xs.items()}

        def gradient(key: str) -> Callable[[], Any]:
            return lambda: torch.ops.aten.max_pool2d_with_indices_backward(
                dys[key], xs[key], [3, 3], [2, 2], [0, 0], [1, 1], True, indices[key])

        def unpool(key: str) -> Callable[[], Any]:
            return lambda: functional.max_unpool2d(dys[key], indices[key], 3, 2, output_size=(size, size))

        yield interleave(f"max pool with switches {name}", {
            OURS: lambda: engine.max_pool(x, **settings),
            **_peers(xs, lambda t: functional.max_pool2d(t, 3, 2, ceil_mode=True, return_indices=True))},
            seconds=seconds)
        yield interleave(f"max pool gradient {name}", {
            OURS: lambda: engine.max_unpool(dy, switches, x.shape, window=3, stride=2, trusted=True),
            **{key: gradient(key) for key in xs}}, seconds=seconds, note="ours sums overlaps, as the gradient does")
        yield interleave(f"unpool, last wins {name}", {
            OURS: lambda: engine.max_unpool(dy, switches, x.shape, window=3, stride=2, overlap="last"),
            **{key: unpool(key) for key in xs}}, seconds=seconds)


def _autograd(function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor,
              signal: torch.Tensor) -> Callable[[], Any]:
    """The backward pass alone: the graph is built once and kept."""
    leaf = value.clone().requires_grad_()
    result = function(leaf)
    return lambda: torch.autograd.grad(result, leaf, signal, retain_graph=True)


def _contrast(t: torch.Tensor) -> torch.Tensor:
    """Local contrast normalisation as a PyTorch user would compose it."""
    mean = functional.avg_pool2d(t, 5, 1, 2, count_include_pad=False)
    square = functional.avg_pool2d((t - mean) ** 2, 5, 1, 2, divisor_override=1)
    return t * (1.0 + 1e-3 * square) ** -0.75


def normalizations(seconds: float) -> Iterator[Row]:
    """Response norm across maps and local contrast norm, both ways."""
    engine = ops.bind()
    settings: dict[str, Any] = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}
    contrast: dict[str, Any] = {"size": 5, "alpha": 1e-3, "beta": 0.75, "k": 1.0,
                                "alpha_is_divided_by_area": False}
    for size, channels in ((55, 96), (13, 256)):
        x, xs = _both((BATCH, size, size, channels), 0)
        dy, dys = _both(x.shape, 1)

        def response(t: torch.Tensor) -> torch.Tensor:
            return functional.local_response_norm(t, 5, 5e-4, 0.75, 2.0)

        shape = f"{size}x{size}x{channels}"
        yield interleave(f"response norm {shape} forward", {
            OURS: lambda: engine.response_norm(x, **settings), **_peers(xs, response)}, seconds=seconds)
        yield interleave(f"response norm {shape} backward", {
            OURS: lambda: engine.response_norm_gradient(dy, x, **settings),
            **{key: _autograd(response, xs[key], dys[key]) for key in xs}}, seconds=seconds)
        yield interleave(f"contrast norm 5x5 {shape} forward", {
            OURS: lambda: engine.contrast_norm(x, **contrast), **_peers(xs, _contrast)}, seconds=seconds)
        yield interleave(f"contrast norm 5x5 {shape} backward", {
            OURS: lambda: engine.contrast_norm_gradient(dy, x, **contrast),
            **{key: _autograd(_contrast, xs[key], dys[key]) for key in xs}}, seconds=seconds)


def others(seconds: float) -> Iterator[Row]:
    """What is left of a training step: ReLU, average pool, batch norm, loss, update."""
    engine = ops.bind()
    x, xs = _both((BATCH, 55, 55, 96), 0)
    dy, _ = _both(x.shape, 1)
    signal = layouts(dy)
    ones, zeros = np.ones(96, np.float32), np.zeros(96, np.float32)
    t_ones, t_zeros = torch.ones(96), torch.zeros(96)
    yield interleave("ReLU 55x55x96", {OURS: lambda: engine.relu(x), **_peers(xs, functional.relu)}, seconds=seconds)
    yield interleave("ReLU backward 55x55x96", {
        OURS: lambda: engine.relu_backward(dy, x, rule="gradient"),
        **{key: (lambda key=key: torch.ops.aten.threshold_backward(signal[key], xs[key], 0)) for key in xs}},
        seconds=seconds)
    yield interleave("average pool 3x3 s2 55x55x96", {
        OURS: lambda: engine.average_pool(x, window=3, stride=2),
        **_peers(xs, lambda t: functional.avg_pool2d(t, 3, 2))}, seconds=seconds)
    yield interleave("global average pool 55x55x96", {
        OURS: lambda: engine.global_average_pool(x),
        **_peers(xs, lambda t: functional.adaptive_avg_pool2d(t, 1))}, seconds=seconds)
    yield interleave("per-map maximum and position 55x55x96", {
        OURS: lambda: engine.map_maximum(x),
        **_peers(xs, lambda t: t.flatten(2).max(dim=2))}, seconds=seconds)
    yield interleave("batch norm, inference 55x55x96", {
        OURS: lambda: engine.batch_norm(x, ones, zeros, zeros, ones),
        **_peers(xs, lambda t: functional.batch_norm(t, t_zeros, t_ones, t_ones, t_zeros))}, seconds=seconds)
    yield interleave("batch norm, training 55x55x96", {
        OURS: lambda: engine.batch_norm_training(x, ones, zeros),
        **_peers(xs, lambda t: functional.batch_norm(t, None, None, t_ones, t_zeros, True))}, seconds=seconds)
    logits = np.random.default_rng(2).standard_normal((128, 1000), dtype=np.float32)
    labels = np.arange(128) % 1000
    t_logits, t_labels = torch.from_numpy(logits), torch.from_numpy(labels)
    yield interleave("softmax cross-entropy 128x1000", {
        OURS: lambda: engine.softmax_cross_entropy(logits, labels),
        "torch": lambda: functional.cross_entropy(t_logits, t_labels, reduction="none")}, seconds=seconds)
    w = np.zeros((4096, 9216), np.float32)
    v, g = np.zeros_like(w), np.ones_like(w)
    t_w = torch.zeros(4096, 9216, requires_grad=True)
    t_w.grad = torch.ones(4096, 9216)
    optimizer = torch.optim.SGD([t_w], lr=1e-2, momentum=0.9, weight_decay=5e-4)
    yield interleave("SGD step, 37.7 M parameters", {
        OURS: lambda: engine.sgd_step(w, v, g, learning_rate=1e-2, momentum=0.9, decay=5e-4),
        "torch": optimizer.step}, seconds=seconds)


def rows(seconds: float) -> Iterator[Row]:
    """All op benchmarks but the convolutions'."""
    for family in (linears, pools, normalizations, others):
        yield from family(seconds)
