"""The three rules, all gradients and forks, against autograd with hand-written rules and Captum."""

from __future__ import annotations

import numpy as np
import pytest
from architectures import images, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from zfcore import Network, layers, rules

torch = pytest.importorskip("torch")
from twin import Twin  # noqa: E402


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-10 of the largest value; values are of the order of 1, and some cancel to zero."""
    largest = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * largest)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_whole_nets_against_autograd(seed: int) -> None:
    """Forward, the signal at the pixels under every rule, and every parameter's gradient, in float64."""
    net, rng = random_network(seed, stages=6, sizes=(12, 20))
    net.astype(np.float64)
    x = images(net, rng, 2, np.float64)
    forward = net.forward(x, cache=True)
    signal = rng.standard_normal(forward.output.shape)
    for rule in rules.RULES:
        twin = Twin(net, x, rule)
        assert_close(forward.output, twin.output(net.output))
        found = net.backward(forward, signal, rule, parameters=rule == "gradient")
        assert_close(found.input, twin.down(net.output, signal))
        if rule == "gradient":
            expected = twin.gradients()
            assert set(found.gradients) == set(expected)
            for key, value in expected.items():
                assert_close(found.gradients[key], value)


def two_paths() -> Network:
    """A fork whose branches meet twice, with overlapping pools below."""
    net = Network("fork", (15, 13, 2))
    net.add("conv1", layers.Convolution(4, 3, activation="relu"))
    net.add("pool1", layers.MaxPool(3, 2, ceil_mode=True))
    net.add("norm1", layers.ResponseNorm(3, 0.5))
    net.add("left", layers.Convolution(4, 3, padding=1, activation="relu"), "norm1")
    net.add("right", layers.Convolution(4, 1, activation="relu"), "norm1")
    net.add("sum", layers.Add(activation="relu"), ["left", "norm1", "right"])
    net.add("twice", layers.Add(), ["sum", "sum"])
    net.add("all", layers.Concat(), ["twice", "right", "pool1"])
    net.add("conv2", layers.Convolution(5, 3, activation="relu"))
    return net.initialize(5, "he").astype(np.float64)


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_forks_and_signals_in_between(rule: str) -> None:
    net = two_paths()
    rng = np.random.default_rng(0)
    x = images(net, rng, 3, np.float64)
    names = ("norm1", "right", "conv1.pre", "pool1", "conv2.pre")
    forward = net.forward(x, cache=True)
    signal = rng.standard_normal(forward.output.shape)
    found = net.backward(forward, signal, rule, keep=names, parameters=False)
    twin = Twin(net, x, rule)
    for name in names:
        twin.tensors[name].retain_grad()
    assert_close(found.input, twin.down("conv2", signal))
    for name in names:
        gradient = twin.tensors[name].grad
        assert gradient is not None
        assert_close(found.kept[name], gradient.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_several_seeds_at_once_add_up(rule: str) -> None:
    net = two_paths()
    rng = np.random.default_rng(1)
    x = images(net, rng, 2, np.float64)
    forward = net.forward(x, cache=True)
    seeds = {name: rng.standard_normal((2, *net.tensor_shape(name)))
             for name in ("left", "right.pre", "conv2")}
    found = net.backward(forward, seeds, rule, parameters=False).input
    twin = Twin(net, x, rule)
    ends = [twin.tensors[name] for name in seeds]
    torch.autograd.backward(ends, [torch.tensor(seed.transpose(0, 3, 1, 2).copy())
                                   for seed in seeds.values()])
    assert_close(found, twin.input.grad.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("rule", list(rules.RULES))
def test_projections_against_autograd(rule: str) -> None:
    net = two_paths()
    x = images(net, np.random.default_rng(2), 1, np.float64)
    twin = Twin(net, x, rule)
    for layer in ("conv1", "sum", "conv2", "conv2.pre"):
        found = net.project(x, f"{layer}:2@3,2", rule, crop=False, allow_negative=True)
        value = twin.output(layer)[0, 3, 2, 2]
        signal = np.zeros((1, *net.tensor_shape(layer)))
        signal[0, 3, 2, 2] = value
        assert_close(found.values, np.array([value]))
        assert_close(found.pixels, twin.down(layer, signal))


def test_against_captum() -> None:
    """Guided backpropagation, the deconvnet and saliency of a plain net, bit for bit where exact."""
    attr = pytest.importorskip("captum.attr")
    net = Network("plain", (14, 14, 1))
    for number in (1, 2):
        net.add(f"conv{number}", layers.Convolution(4, 3, activation="relu"))
        net.add(f"pool{number}", layers.MaxPool(2, 2))
    net.add("flatten", layers.Flatten())
    net.add("fc3", layers.Linear(3))
    rng = np.random.default_rng(3)
    # Small integers: every sum is exact in float32, so the orders of summation do not matter.
    net.load_parameters({key: rng.integers(-2, 3, shape) for key, shape in net.parameter_shapes().items()})
    x = rng.integers(-3, 4, (2, 14, 14, 1)).astype(np.float32)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3)
            self.relu1, self.relu2 = torch.nn.ReLU(), torch.nn.ReLU()
            self.fc3 = torch.nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.max_pool2d(self.relu1(self.conv1(x)), 2)
            x = torch.nn.functional.max_pool2d(self.relu2(self.conv2(x)), 2)
            return self.fc3(x.permute(0, 2, 3, 1).flatten(1))

    model = Plain()
    values = net.parameters()
    with torch.no_grad():
        for name in ("conv1", "conv2", "fc3"):
            weight = values[f"{name}.weight"]
            weight = weight.transpose(0, 3, 1, 2).copy() if weight.ndim == 4 else weight
            getattr(model, name).weight.copy_(torch.tensor(weight))
            getattr(model, name).bias.copy_(torch.tensor(values[f"{name}.bias"]))
    pixels = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    for rule, method in (("guided", attr.GuidedBackprop(model)), ("deconvnet", attr.Deconvolution(model)),
                         ("gradient", attr.Saliency(model))):
        options = {"abs": False} if rule == "gradient" else {}
        with pytest.warns(UserWarning) if rule != "gradient" else _quiet():
            expected = method.attribute(pixels, target=1, **options).detach().numpy().transpose(0, 2, 3, 1)
        found = net.project(x, "fc3:1", rule, "one", allow_negative=True)
        assert np.abs(expected).max() > 0
        np.testing.assert_array_equal(found.pixels, expected)


class _quiet:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...


def test_gradient_rule_is_the_training_gradient_bit_for_bit() -> None:
    net, rng = random_network(11, stages=5)
    x = images(net, rng, 2)
    forward = net.forward(x, cache=True)
    signal = rng.standard_normal(forward.output.shape).astype(np.float32)
    training = net.backward(forward, signal, parameters=True, inputs=True)
    saliency = net.backward(net.forward(x, cache=True, parameters=False), signal, parameters=False)
    np.testing.assert_array_equal(training.input, saliency.input)
    only = net.backward(forward, signal, parameters=["first"], inputs=False)
    assert only.input is None and set(only.gradients) == {"first.weight", "first.bias"}
    np.testing.assert_array_equal(only.gradients["first.weight"], training.gradients["first.weight"])


def test_batch_norm_at_inference_is_linear_under_every_rule() -> None:
    net = Network("bn", (4, 4, 3))
    net.add("bn", layers.BatchNorm())
    net.initialize(0)
    values = net.parameters()
    values["bn.scale"][:], values["bn.variance"][:] = [2, -3, 4], [4, 9, 16]
    x = images(net, np.random.default_rng(0), 1)
    forward = net.forward(x, cache=True)
    for rule in rules.RULES:
        found = net.backward(forward, np.ones_like(x), rule).input
        factor = np.array([2, -3, 4]) / np.sqrt(np.array([4, 9, 16]) + 1e-5)
        np.testing.assert_allclose(found, np.broadcast_to(factor, x.shape), rtol=1e-6)
    training = net.forward(x, cache=True, training=True)
    for rule in ("deconvnet", "guided"):
        with pytest.raises(ValueError, match="BatchNorm: rule is"):
            net.backward(training, np.ones_like(x), rule)


def test_layers_without_a_rule_say_so() -> None:
    net = Network("soft", (2, 2, 1))
    net.add("flatten", layers.Flatten())
    net.add("prob", layers.Softmax())
    x = np.zeros((1, 2, 2, 1), np.float32)
    forward = net.forward(x, cache=True)
    net.backward(forward, np.ones((1, 4), np.float32))
    for rule in ("deconvnet", "guided"):
        with pytest.raises(ValueError, match="Softmax: rule is .*layer below it"):
            net.backward(forward, np.ones((1, 4), np.float32), rule)
    with pytest.raises(ValueError, match="one of 'gradient', 'deconvnet', 'guided'"):
        rules.get("deconv")


def test_overlap_last_is_an_option() -> None:
    import dataclasses

    net = Network("overlap", (5, 5, 1))
    net.add("pool", layers.MaxPool(3, 2))
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2] = 1  # all four windows choose it
    forward = net.forward(x, cache=True)
    signal = np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2, 1)
    assert net.backward(forward, signal, "deconvnet").input[0, 2, 2, 0] == 10
    last = dataclasses.replace(rules.DECONVNET, overlap="last")
    assert net.backward(forward, signal, last).input[0, 2, 2, 0] == 4


@pytest.mark.parametrize(("rule", "other"), [("deconvnet", "guided"), ("guided", "gradient"),
                                             ("gradient", "deconvnet")])
def test_the_comparison_can_fail(rule: str, other: str) -> None:
    """Each rule's pictures differ from the others': a rule mistaken for another one is seen."""
    net = two_paths()
    x = images(net, np.random.default_rng(2), 1, np.float64)
    found = net.project(x, "conv2.pre:2@1,1", rule, "one", crop=False)
    signal = np.zeros((1, *net.tensor_shape("conv2")))
    signal[0, 1, 1, 2] = 1
    assert_close(found.pixels, Twin(net, x, rule).down("conv2.pre", signal))
    with pytest.raises(AssertionError):
        assert_close(found.pixels, Twin(net, x, other).down("conv2.pre", signal))
