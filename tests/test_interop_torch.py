"""PyTorch modules into networks and back: numbers, gradients, names, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_models  # noqa: E402
from layer_networks import CASES, filled, unpooling  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_checks import imported, kinds, last, same, small_module  # noqa: E402

from zfcore import Network  # noqa: E402
from zfcore.interop.torch import from_module, to_module  # noqa: E402
from zfcore.layers import (  # noqa: E402
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    ContrastNorm,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Linear,
    MaxPool,
    ReLU,
    ResponseNorm,
    Softmax,
)
from zfcore.network.layout import flattened  # noqa: E402


@pytest.mark.parametrize("make", [
    lambda: torch_models.ResNet(18, 5, (8, 8, 16, 16)), lambda: torch_models.ResNet(50, 5, (4, 4, 8, 8)),
    lambda: torch_models.DenseNet((2, 2, 2, 2), 4, 8, 5)])
def test_residual_and_dense_networks(make):
    network = imported(make(), (3, 64, 64))
    assert "GlobalAveragePool" in kinds(network).values()
    assert "AveragePool" not in [kind for name, kind in kinds(network).items() if "avgpool" in name]


def test_names_and_fusion():
    network = imported(torch_models.ResNet(18, 5, (4, 4, 4, 4)), (3, 32, 32))
    assert {"conv1", "bn1", "relu", "maxpool", "layer1.0.conv1", "layer2.0.downsample.0", "fc"} <= set(
        network.nodes)
    sums = [node.layer for node in network.nodes.values() if isinstance(node.layer, Add)]
    assert len(sums) == 8 and all(layer.activation == "relu" for layer in sums)
    squeeze = imported(torch_models.SqueezeNet("1_1", 5), (3, 48, 48))
    assert squeeze.nodes["features.3.squeeze"].layer.activation == "relu"
    assert "ReLU" not in kinds(squeeze).values() and "Flatten" not in kinds(squeeze).values()


def test_flattened_maps_and_batch_norm_on_vectors():
    imported(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.BatchNorm1d(3 * 4 * 5), nn.ReLU(True),
                           nn.Linear(60, 4), nn.BatchNorm1d(4, affine=False), nn.Softmax(dim=1)), (2, 6, 7))


CONVOLUTIONS = [
    nn.Conv2d(4, 6, 3, padding="same"), nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(2, 1)),
    nn.Conv2d(4, 6, 3, padding="valid"), nn.Conv2d(4, 8, (3, 2), (2, 1), (1, 0), groups=2, bias=False),
    nn.Conv2d(4, 4, 3, dilation=2, groups=4), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d((3, 2), (2, 1)), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(3, 2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, divisor_override=4), nn.AdaptiveAvgPool2d(1),
    nn.AdaptiveAvgPool2d((3, 1)), nn.AdaptiveMaxPool2d(1), nn.BatchNorm2d(4),
    nn.LocalResponseNorm(3, 0.1, 0.6, 1.5), nn.LocalResponseNorm(4, 0.1),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("module", CONVOLUTIONS, ids=str)
def test_single_modules(module):
    network = imported(nn.Sequential(module, nn.Identity(), nn.Dropout(0.1)), (4, 9, 8))
    assert "1" not in network.nodes and isinstance(network.nodes["2"].layer, Dropout)


def in_place_before_use(m, x):
    y = m.a(x)
    z = y.relu_()
    return y + m.b(z)  # y was rectified too


def in_place_sum(m, x):
    y = m.a(x)
    z = y
    y += m.b(x)
    return z * 1.0 if False else torch.cat([z, y], 1)  # z is the sum as well


def sum_then_relu_of_a_residual(m, x):
    y = m.a(x).relu()
    kept = y
    y = m.b(y)
    y += kept
    return m.relu(y)


def rectified_after_use(m, x):
    y = m.a(x)
    z = m.b(y)  # reads y before it is rectified
    return torch.relu_(y) + z


def by_the_data(m, x):
    y = m.a(x)
    if y.shape[2] > 4 and bool(x.shape[0] > 0):
        y = y.relu()
    return y


@pytest.mark.parametrize("function", [in_place_before_use, in_place_sum, sum_then_relu_of_a_residual,
                                      rectified_after_use, by_the_data])
def test_in_place_writes_mean_what_they_mean(function):
    # PyTorch refuses to differentiate where it has overwritten what it needs.
    imported(small_module(function), (3, 5, 6), gradient=function is not rectified_after_use)


class Asserting(nn.Module):
    """Control flow that symbolic tracing cannot follow and an export can."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        if x.shape[-1] < 4:
            raise ValueError("too small")
        x = functional.max_pool2d(functional.relu(self.norm(self.body(x))), 2)
        return torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)


def test_export_is_the_fall_back():
    network = imported(Asserting(), (3, 8, 8))
    assert kinds(network)["body"] == "Convolution" and kinds(network)["norm"] == "BatchNorm"


def test_the_module_is_left_as_it_was():
    module = torch_models.ResNet(18, 3, (4, 4, 4, 4)).train()
    module.layer1.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    from_module(module, (3, 32, 32))
    assert module.training and not module.layer1[0].training and module.layer2[0].training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(parameter.grad is not None for parameter in module.parameters())


def test_what_is_not_supported_is_listed_at_once():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.GELU(),
                           nn.MaxPool2d(3, dilation=2), nn.AdaptiveAvgPool2d(3), nn.GroupNorm(2, 4),
                           nn.Flatten(), nn.Linear(36, 2))
    with pytest.raises(ValueError) as caught:
        from_module(module, (3, 24, 24))
    message = str(caught.value)
    for part in ("_0 (Conv2d: padding_mode 'reflect')", "_1 (GELU)", "_2 (MaxPool2d: dilation)",
                 "_3 (AdaptiveAvgPool2d: 7 x 7 cells to 3 x 3", "_4 (GroupNorm)"):
        assert part in message
    assert "Linear" not in message


def test_wrong_arguments():
    with pytest.raises(TypeError, match="a torch.nn.Module"):
        from_module("resnet18", (3, 8, 8))
    with pytest.raises(ValueError, match="example"):
        from_module(nn.ReLU(), (8, 8))
    with pytest.raises(ValueError, match="example.shape"):
        from_module(nn.ReLU(), torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="one tensor"):
        from_module(small_module(lambda m, x: (m.a(x), m.b(x))), (3, 5, 6))
    with pytest.raises(ValueError, match="returns its input"):
        from_module(nn.Identity(), (3, 5, 6))


def every_layer():
    """A network with every kind of layer that PyTorch has too, at awkward sizes."""
    net = Network("all", (13, 12, 4))
    net.add("conv1", Convolution(6, (3, 2), (2, 1), (1, 0, 2, 1), groups=2, activation="relu"), "input")
    net.add("pool1", MaxPool(3, 2, ceil_mode=True))
    net.add("pool2", MaxPool(3, 1, (1, 0, 0, 1)), "conv1")
    net.add("odd.max", MaxPool(3, 2, (1, 1, 1, 0), ceil_mode=True), "conv1")
    net.add("norm", ResponseNorm(4, 0.2, 0.6, 1.2))
    net.add("norm2", ResponseNorm(3, 0.2, alpha_is_divided_by_size=True))
    net.add("contrast", ContrastNorm(3, 0.3, k=1.5), "pool2")
    net.add("contrast2", ContrastNorm(4, 0.3, mode="subtractive", mean_is_constant=True), "contrast")
    for divisor in ("valid", "padded", "window"):
        net.add(f"mean.{divisor}", AveragePool(3, 2, (1, 1, 0, 1), ceil_mode=True, divisor=divisor), "contrast2")
        net.add(f"mean2.{divisor}", AveragePool(2, 2, 1, ceil_mode=True, divisor=divisor), "contrast2")
    net.add("wide", Convolution(6, 3, padding="same", dilation=2), "norm2")
    net.add("batch", BatchNorm(1e-3))
    net.add("sum", Add("relu"), ("batch", "norm2", "wide"))
    net.add("sum.inner", Convolution(3, 1), "sum")
    net.add("relu", ReLU())
    net.add("flat", Flatten())
    net.add("drop", Dropout(0.5))
    net.add("batch2", BatchNorm())
    net.add("best", GlobalMaxPool(), "contrast2")
    net.add("average", GlobalAveragePool(), "mean.padded")
    net.add("flat2", Flatten(), "mean.window")
    net.add("flat3", Flatten(), "mean2.padded")
    net.add("flat4", Flatten(), "mean.valid")
    net.add("join", Concat(), ("batch2", "best", "average", "flat2", "flat3", "flat4"))
    net.add("fc1", Linear(9, activation="relu"))
    net.add("fc2", Linear(5, bias=False))
    net.add("prob", Softmax())
    net.initialize(3, "he")
    random = np.random.default_rng(4)
    for key, value in net.parameters().items():
        if value.ndim == 1:
            value += random.random(value.shape, np.float32) * 0.5
        assert np.isfinite(value).all(), key
    return net


def test_a_network_becomes_a_module():
    net = every_layer()
    module = to_module(net).double()
    net.astype(np.float64)
    x = np.random.default_rng(5).standard_normal((2, 13, 12, 4))
    theirs_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    output = module(theirs_x)
    signal = np.random.default_rng(6).standard_normal((2, 5))
    output.backward(torch.from_numpy(signal))
    forward = net.forward(x, cache=True)
    back = net.backward(forward, signal)
    same(forward.output, last(output))
    same(back.input, last(theirs_x.grad))
    theirs = dict(module.named_parameters())
    assert theirs["conv1.weight"].shape == (6, 2, 3, 2)
    same(back.gradients["conv1.weight"].transpose(0, 3, 1, 2), theirs["conv1.weight"].grad.numpy())
    same(back.gradients["fc2.weight"], theirs["fc2.weight"].grad.numpy())
    same(back.gradients["sum.inner.bias"], theirs["sum.inner.bias"].grad.numpy())
    assert "batch.running_mean" in module.state_dict()


@pytest.mark.parametrize("name", [*CASES, "unpooling"])
def test_every_layer_becomes_a_module(name):
    network = filled(unpooling() if name == "unpooling" else CASES[name]())
    module = to_module(network).double()
    network.astype(np.float64)
    x = np.random.default_rng(1).standard_normal((2, *network.input_shape))
    theirs_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    output = module(theirs_x)
    signal = np.random.default_rng(2).standard_normal(tuple(output.shape))
    output.backward(torch.from_numpy(signal))
    forward = network.forward(x, cache=True)
    order = flattened(network).get(network.output)
    theirs, inner = (last(torch.as_tensor(array)) for array in (output.detach(), signal))
    same(forward.output, theirs if order is None else theirs[:, order])
    back = network.backward(forward, np.ascontiguousarray(inner if order is None else inner[:, order]))
    same(back.input, last(theirs_x.grad))


@pytest.mark.parametrize("make", [lambda: torch_models.ResNet(18, 4, (4, 8, 8, 8)),
                                  lambda: torch_models.SqueezeNet("1_0", 4)])
def test_there_and_back(make):
    """A module's network's module has the module's own keys and results, and its network is the same."""
    module = torch_models.randomize(make())
    first = from_module(module, (3, 48, 48))
    copy = to_module(first)
    own = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
    assert {key for key in copy.state_dict() if not key.endswith("num_batches_tracked")} == own
    assert not copy.training
    copy.load_state_dict(module.state_dict())
    x = torch.randn((1, 3, 48, 48), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(copy(x), module(x), rtol=1e-5, atol=1e-5)
    # Dropout is a function in the copy, which eval mode drops; a network keeps its place for training.
    second = from_module(copy, (3, 48, 48))
    assert np.array_equal(second(last(x)), first(last(x)))


def test_a_module_trains():
    net = Network("small", (4, 4, 1))
    net.add("conv", Convolution(2, 3, activation="relu"))
    net.add("norm", BatchNorm())
    net.add("flat", Flatten())
    net.add("fc", Linear(2))
    module = to_module(net.initialize(0, "he")).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.randn((8, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1] * 4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert np.array_equal(net.parameters()["fc.bias"], [0, 0])  # the network's own arrays are untouched


def test_torch_is_loaded_at_the_first_call_only():
    program = ("import sys, zfcore.interop.torch; assert 'torch' not in sys.modules; "
               "import zfcore.formats.state_dict; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True)
