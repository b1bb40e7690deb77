"""Functional calls, tensor methods and composite patterns of PyTorch, each against PyTorch itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch_checks import Calls, imported, kinds, small_module  # noqa: E402

from zfcore.interop.torch import from_module  # noqa: E402

FUNCTIONS = {
    "one ReLU module often, in place": lambda m, x: m.relu(m.b(m.relu(m.a(x)))),
    "functional": lambda m, x: functional.relu(m.b(functional.relu(m.a(x), inplace=True))),
    "method in place": lambda m, x: m.b(m.a(x).relu_()).relu(),
    "torch.relu": lambda m, x: torch.relu_(m.a(torch.relu(x))),
    "functional convolution": lambda m, x: functional.conv2d(x, m.a.weight, None, padding=1).relu(),
    "functional pools": lambda m, x: functional.avg_pool2d(functional.max_pool2d(m.a(x), 2), 2, stride=1),
    "functional batch norm": lambda m, x: functional.batch_norm(
        m.a(x), m.n.running_mean, m.n.running_var, m.n.weight, m.n.bias),
    "response norm": lambda m, x: functional.local_response_norm(m.a(x), 3, k=2.0),
    "sums": lambda m, x: (m.a(x) + m.b(x)).add(x).relu(),
    "sum with itself": lambda m, x: torch.add(m.a(x), m.a(x)),
    "joined": lambda m, x: torch.cat([x, m.a(x), m.b(x).relu()], dim=1),
    "joined vectors": lambda m, x: m.k(
        torch.cat((m.a(x).flatten(1), x.mean((2, 3)), m.b(x).flatten(1)), -1).relu()),
    "view by size": lambda m, x: m.l(m.a(x).view(x.size(0), -1)),
    "reshape by shape": lambda m, x: m.l(m.a(x).reshape(x.shape[0], -1).contiguous()),
    "torch.flatten": lambda m, x: functional.linear(torch.flatten(m.a(x), 1), m.l.weight, m.l.bias),
    "mean": lambda m, x: m.a(x).mean([-1, -2]),
    "mean that keeps": lambda m, x: m.a(x).mean((2, 3), keepdim=True).relu(),
    "adaptive and squeezed": lambda m, x: functional.adaptive_avg_pool2d(m.a(x), 1).squeeze(-1).squeeze(-1),
    "softmax": lambda m, x: functional.softmax(m.a(x).mean((2, 3)), dim=1),
    "an unused branch": lambda m, x: (m.b(x), m.a(x))[1],
    "dropout": lambda m, x: functional.dropout(m.a(x), 0.3, m.training),
    "pool read as maps too": lambda m, x: m.b(functional.interpolate(x, (1, 1)) if False else
                                              functional.adaptive_avg_pool2d(m.a(x), 1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_calls(name):
    imported(small_module(FUNCTIONS[name]), (3, 5, 6))


@pytest.mark.parametrize(("function", "reason"), [
    (lambda m, x: m.a(x) + torch.ones(5, 6), "differs from place to place"),
    (lambda m, x: 1.0 / m.a(x), "__rtruediv__|a constant divided"),
    (lambda m, x: m.a(x)[:1], "a slice of other axes"),
    (lambda m, x: torch.cat([x, m.a(x)], 2), "cat.*dim 2"),
    (lambda m, x: m.a(x).transpose(1, 2), "Tensor.transpose"),
    (lambda m, x: m.a(x).mean(1), "mean.*dim 1"),
    (lambda m, x: torch.split(m.a(x), 2, 2)[0], "another axis"),
    (lambda m, x: torch.topk(m.a(x), 2, 1)[0], "several results"),
    (lambda m, x: m.a(x)[:, ::2], "a slice with steps"),
    (lambda m, x: m.a(x).view(x.shape[0], 3, 30), "3 dimensions"),
    (lambda m, x: torch.cat([m.a(x).flatten(2)] * 2, 1), "3 dimensions"),
    (lambda m, x: m.a(x).view(-1, 3), "which moves values between images"),
    (lambda m, x: functional.conv2d(x, m.a.weight * 2), "weight that is computed"),
])
def test_single_refusals(function, reason):
    with pytest.raises(ValueError, match=reason):
        from_module(small_module(function), (3, 5, 6))


ELEMENTWISE = {
    "ReLU6": lambda m, x: functional.relu6(nn.ReLU6()(m.a(x)) * 3.0),
    "clamps": lambda m, x: torch.clamp(functional.hardtanh(m.a(x) * 2), -0.5, 0.5).clamp(min=-0.25),
    "leaky": lambda m, x: functional.leaky_relu(m.a(x), 0.2, inplace=True) + nn.LeakyReLU()(x),
    "PReLU": lambda m, x: m.p(m.a(x)),
    "sigmoids": lambda m, x: torch.sigmoid(m.a(x)) - m.b(x).tanh(),
    "swishes": lambda m, x: functional.silu(m.a(x)) + functional.hardswish(m.b(x)) + functional.hardsigmoid(x),
    "squeeze and excitation": lambda m, x: m.a(x) * m.b(functional.adaptive_avg_pool2d(m.a(x), 1)).sigmoid(),
    "broadcast sum": lambda m, x: m.a(x).mean((2, 3), keepdim=True) + m.b(x),
    "scalars": lambda m, x: (1.5 - m.a(x)) / 4 - 0.25 + 2 * x,
    "a buffer": lambda m, x: m.a((x - m.mean) / m.deviation),
    "log softmax": lambda m, x: functional.log_softmax(m.a(x).mean((2, 3)), 1),
    "quotient": lambda m, x: m.a(x) / (m.b(x).sigmoid() + 0.5),
    "transposed": lambda m, x: m.t(m.a(x)),
    "nearest": lambda m, x: functional.interpolate(m.a(x), scale_factor=2),
    "nearest to a size": lambda m, x: functional.interpolate(m.a(x), (7, 4)),
    "nearest exact": lambda m, x: functional.interpolate(m.a(x), (8, 9), mode="nearest-exact"),
    "bilinear": lambda m, x: functional.interpolate(m.a(x), scale_factor=1.7, mode="bilinear"),
    "bilinear corners": lambda m, x: functional.interpolate(m.a(x), (9, 8), mode="bilinear", align_corners=True),
    "padding": lambda m, x: functional.pad(nn.ZeroPad2d((1, 0, 2, 1))(m.a(x)), (1, 2, 0, 1), "replicate"),
    "mirrored": lambda m, x: nn.ReflectionPad2d(2)(m.a(x)),
    "chunks": lambda m, x: torch.cat(list(torch.cat([m.a(x), x], 1).chunk(2, 1))[::-1], 1),
    "slices": lambda m, x: m.a(x)[:, 1:] + m.b(x)[:, :-1],
    "vector scale": lambda m, x: m.k(torch.cat([m.a(x).flatten(1), m.b(x).flatten(1), x.mean((2, 3))], 1) * m.v),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_further_calls(name):
    module = small_module(ELEMENTWISE[name])
    module.p = nn.PReLU(3, init=0.3)
    module.t = nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1)
    generator = torch.Generator().manual_seed(2)
    for key, shape in (("mean", (3, 1, 1)), ("deviation", (1, 3, 1, 1)), ("v", (183,))):
        module.register_buffer(key, torch.rand(shape, generator=generator) + 0.5)
    imported(module, (3, 5, 6), rounded=name in ("swishes", "a buffer"))


def shuffled(x, groups):
    count, channels, height, width = x.shape
    x = x.view(count, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(count, -1, height, width)


def test_channel_shuffles():
    module = Calls(lambda m, x: m.b(shuffled(m.a(x), 3)).relu(), a=nn.Conv2d(2, 12, 3), b=nn.Conv2d(12, 4, 1, groups=2))
    network = imported(module, (2, 6, 7))
    assert list(kinds(network).values()) == ["Convolution", "Rearrange", "Convolution"]


class MobileBlock(nn.Module):
    """An inverted residual with squeeze and excitation, as in MobileNetV2 and V3."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
                                  nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12),
                                  nn.Hardswish(inplace=True))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 3, 1), nn.ReLU(inplace=True),
                                  nn.Conv2d(3, 12, 1), nn.Hardsigmoid(inplace=True))
        self.out = nn.Sequential(nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x):
        y = self.body(x)
        return x + self.out(y * self.gate(y))


def test_mobile_blocks():
    imported(nn.Sequential(MobileBlock(), MobileBlock(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
             (4, 9, 8), rounded=True)


def test_axes_as_single_arguments():
    def shuffled_so(x):
        n, c, h, w = x.shape
        return x.view(n, 3, c // 3, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)

    imported(Calls(lambda m, x: m.b(shuffled_so(m.a(x))), a=nn.Conv2d(2, 12, 3), b=nn.Conv2d(12, 4, 1)),
             (2, 8, 9))
    module = Calls(lambda m, x: m.a(x).permute(0, 2, 3, 1).flatten(1), a=nn.Conv2d(2, 4, 3))
    with pytest.raises(ValueError, match="not supported: permute"):
        from_module(module, (2, 8, 9))


def test_what_works_along_the_batch_is_noticed_with_one_image_too():
    module = Calls(lambda m, x: m.a(x).view(1, -1), a=nn.Conv2d(2, 4, 3))
    for example in ((2, 8, 9), torch.zeros(1, 2, 8, 9)):
        with pytest.raises(ValueError, match="not supported: view"):
            from_module(module, example)
    squeezed = Calls(lambda m, x: m.a(x).mean((2, 3), keepdim=True).squeeze(), a=nn.Conv2d(2, 4, 3))
    assert from_module(squeezed, torch.zeros(1, 2, 8, 9))(np.zeros((3, 8, 9, 2), np.float32)).shape == (3, 4)


@pytest.mark.parametrize("function", [
    lambda m, x: m.a(x) * x.shape[0],
    lambda m, x: m.a(x) + float(x.size(0)),
    lambda m, x: m.a(x).flatten(1) / len(x),
    lambda m, x: m.a(x)[:, :x.shape[0]],
])
def test_constants_that_depend_on_the_number_of_images(function):
    for example in ((3, 5, 6), torch.randn((2, 3, 5, 6), generator=torch.Generator().manual_seed(0))):
        with pytest.raises(ValueError, match="number of images|cannot be followed|not supported"):
            from_module(small_module(function), example)


def test_a_network_that_differs_is_refused_by_its_first_layer(monkeypatch):
    from zfcore.interop.torch import elementwise
    from zfcore.interop.torch.making import Made
    from zfcore.layers import LeakyReLU

    module = small_module(lambda m, x: m.b(functional.leaky_relu(m.a(x), 0.2).clamp(min=-0.5)))
    from_module(module, (3, 5, 6))
    monkeypatch.setitem(elementwise.LAYERS, "leaky_relu", lambda values, shape: Made(LeakyReLU(0.3), [values["input"]]))
    monkeypatch.setattr("zfcore.interop.torch.reading.LAYERS", {
        **__import__("zfcore.interop.torch.layers", fromlist=["LAYERS"]).LAYERS, **elementwise.LAYERS})
    with pytest.raises(ValueError, match=r"differs from the module's; .* is '.*' \(LeakyReLU\)"):
        from_module(module, (3, 5, 6))
