"""Modules that PyTorch's own exporter wrote: outputs, and the gradients of every parameter, against PyTorch."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from zfcore import ops, training  # noqa: E402
from zfcore.formats.onnx import read  # noqa: E402


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(maps, maps // 2, 1), nn.Conv2d(maps // 2, maps, 1)

    def forward(self, x: Any) -> Any:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(torch.relu(self.down(mean))))


class Mixed(nn.Module):
    """What MobileNets and ShuffleNets are made of, and a fully connected layer on maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.clip, self.depthwise, self.gate = nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), Gate(16)
        self.pool, self.up = nn.MaxPool2d(3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")
        self.prelu, self.decode = nn.PReLU(16), nn.ConvTranspose2d(16, 8, 3, 2, 1, 1)
        self.mean, self.fc, self.flat = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10), nn.Linear(16 * 8 * 8, 7)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.clip(self.bn1(self.conv1(x)))
        x = x + self.gate(self.depthwise(x))
        images, maps, height, width = x.shape
        x = x.view(images, 4, maps // 4, height, width).transpose(1, 2).reshape(images, maps, height, width)
        first, second = x.chunk(2, 1)
        x = self.pool(torch.cat([second, first], 1))
        up = self.prelu(self.up(x))
        decoded = self.decode(x).tanh().mean((2, 3))
        return torch.cat([self.fc(self.mean(up).flatten(1)), self.flat(x.flatten(1)), self.last(decoded)], 1)


def export(module: Any, x: Any, open_batch: bool) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(module, (x,), file, input_names=["x"], opset_version=17, dynamo=False,
                              training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
                              dynamic_axes={"x": {0: "n"}} if open_batch else None)
        except (TypeError, ImportError, AttributeError, RuntimeError) as error:
            pytest.skip(f"this PyTorch has no exporter for it: {error}")
    return file.getvalue()


# PyTorch's names of parameters that have another one here.
OURS = {"bn1.weight": "bn1.scale", "prelu.weight": "prelu.slope"}


@pytest.mark.parametrize("open_batch", [True, False])
def test_a_module_and_its_gradients(tmp_path: Path, open_batch: bool) -> None:
    torch.manual_seed(0)
    module = Mixed().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.25)
    x = torch.randn(3, 3, 32, 32, requires_grad=True)
    path = tmp_path / "model.onnx"
    path.write_bytes(export(module, x.detach() if open_batch else x.detach()[:1], open_batch))
    net = read(path).network
    images = x.detach().numpy().transpose(0, 2, 3, 1).copy()
    forward = net.forward(images, cache=True)
    y = module(x)
    scale = float(y.detach().abs().max())
    np.testing.assert_allclose(forward.output, y.detach().numpy(), rtol=0, atol=1e-5 * scale)
    signal = np.random.default_rng(0).standard_normal(forward.output.shape).astype(np.float32)
    found = net.backward(forward, signal)
    y.backward(torch.tensor(signal))
    expected = x.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found.input, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    compared = set()
    for name, parameter in module.named_parameters():
        key = OURS.get(name, name)
        gradient, mine = parameter.grad.numpy(), found.gradients.get(key)
        assert mine is not None, f"{name}: {sorted(found.gradients)}"
        if gradient.ndim == 4:  # in, out for the transposed one: the same order of axes
            gradient = gradient.transpose(0, 2, 3, 1)
        elif name == "flat.weight":
            gradient = gradient.reshape(7, 16, 8, 8).transpose(0, 2, 3, 1).reshape(7, -1)
        np.testing.assert_allclose(mine.reshape(gradient.shape), gradient, rtol=0,
                                   atol=5e-5 * np.abs(gradient).max(), err_msg=name)
        compared.add(key)
    assert compared == set(found.gradients)


def test_an_imported_network_trains_on(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                           nn.Flatten(), nn.Dropout(0.1), nn.Linear(8 * 5 * 5, 3), nn.Softmax(1)).eval()
    path = tmp_path / "model.onnx"
    path.write_bytes(export(module, torch.randn(1, 1, 16, 16), True))
    net = read(path).network
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    images = rng.standard_normal((60, 16, 16, 1)).astype(np.float32) * 0.3
    for image, label in zip(images, labels, strict=True):
        image[4 * label:4 * label + 4] += 2
    before = net(images)
    assert (before.argmax(1) == labels).mean() < 0.9
    optimizer = training.Adam(3e-3)
    for step in range(30):
        forward = net.forward(images, cache=True, training=True, to=net.logits, step=step)
        _, probabilities = ops.softmax_cross_entropy(forward.output, labels)
        signal = ops.softmax_cross_entropy_gradient(probabilities, labels)
        gradients = net.backward(forward, signal, inputs=False).gradients
        optimizer.step(net.ops, net.parameters(), gradients)
    assert (net(images).argmax(1) == labels).mean() == 1
