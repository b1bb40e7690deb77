"""Saliency, the rules, class activation maps: against PyTorch's autograd, Captum, and their own formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import classifier, pooled

from zfcore import Network, explain, layers
from zfcore.formats.results import ResultError

ALL = [explain.saliency, explain.gradient, explain.gradient_times_input, explain.smoothgrad, explain.guided,
       explain.deconvnet, explain.gradcam, explain.guided_gradcam]
TARGETS = [None, 3, [1, None, 4], "conv2:5@4,6", "conv1.pre:2@0,0", "conv2:5", "conv2", "fc3:7",
           ["conv2:1", "conv2:5@3,3", "conv2"]]


def images(net: Network, count: int, seed: int = 1, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *net.input_shape)).astype(dtype)


def score(tensors: dict, net: Network, targets: explain.Targets):
    """The rows' scores as PyTorch computes them."""
    values = tensors[targets.tensor]
    found = []
    for row, (unit, i, j) in enumerate(zip(targets.maps, targets.rows, targets.columns, strict=True)):
        item = values[row]
        if unit < 0:
            found.append((item * item).mean())
        elif item.ndim == 1 or i < 0:
            found.append(item[unit].mean())
        else:
            found.append(item[unit, i, j])
    return found


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("rule", ["gradient", "guided", "deconvnet"])
def test_gradient_equals_autograd(target: object, rule: str) -> None:
    pytest.importorskip("torch")
    from twin import Twin

    net = classifier().astype(np.float64)
    x = images(net, 3, dtype=np.float64)
    found = explain.gradient(net, x, target, rule=rule)
    targets = explain.resolve(net, target, x)
    twin = Twin(net, x, rule)
    scores = score(twin.tensors, net, targets)
    sum(scores).backward()
    expected = twin.input.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.scores, [float(value.detach()) for value in scores], rtol=1e-9)
    assert np.abs(expected).max() > 0


def test_none_is_the_top_class_of_each_row() -> None:
    net = classifier()
    x = images(net, 6)
    top = net(x).argmax(axis=1)
    assert len(set(top)) > 1
    found = explain.saliency(net, x)
    assert found.targets == [f"class {index}" for index in top]
    np.testing.assert_array_equal(found.values, explain.saliency(net, x, top).values)


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_and_its_kin_follow_their_formulas(channels: int) -> None:
    net = classifier(channels)
    x = images(net, 3)
    signed = explain.gradient(net, x, 2).values
    assert signed.shape == x.shape
    np.testing.assert_array_equal(explain.saliency(net, x, 2).values, np.abs(signed).max(axis=3))
    np.testing.assert_array_equal(explain.gradient_times_input(net, x, 2).values, x * signed)
    np.testing.assert_allclose(explain.smoothgrad(net, x, 2, samples=3, noise=0.0).values, signed, rtol=1e-5,
                               atol=1e-7)


def test_smoothgrad_is_the_mean_over_noise() -> None:
    net = classifier()
    x = images(net, 2)
    found = explain.smoothgrad(net, x, [0, 3], samples=4, noise=0.2, seed=5)
    for row, target in enumerate((0, 3)):
        generator = np.random.default_rng([5, row])
        spread = np.float32(0.2 * (x[row].max() - x[row].min()))
        copies = np.stack([x[row] + spread * generator.standard_normal(x.shape[1:], np.float32) for _ in range(4)])
        expected = explain.gradient(net, copies, target).values.mean(axis=0)
        np.testing.assert_allclose(found.values[row], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found.values - explain.gradient(net, x, [0, 3]).values).max() > 1e-3
    np.testing.assert_array_equal(found.values, explain.smoothgrad(
        net, x, [0, 3], samples=4, noise=0.2, seed=5, batch_size=3).values)


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.__name__)
def test_rows_do_not_depend_on_the_batch(method) -> None:
    net = classifier()
    x = images(net, 5)
    whole = method(net, x)
    np.testing.assert_array_equal(whole.values, method(net, x, batch_size=2).values)
    if method is not explain.smoothgrad:
        np.testing.assert_array_equal(whole.values[3:4], method(net, x[3:4]).values)
    assert method(net, x[:0]).values.shape[0] == 0
    np.testing.assert_array_equal(whole.scores, net.forward(x, to="fc4").output.max(axis=1))


# Class activation maps


def test_gradcam_by_autograd() -> None:
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = classifier().astype(np.float64)
    x = images(net, 3, dtype=np.float64)
    for target, layer in ((None, "conv2"), (2, "conv1"), ("fc3:7", "pool1"), ("conv2:3", "conv1.pre")):
        targets = explain.resolve(net, target, x)
        twin = Twin(net, x)
        maps = twin.tensors[layer]
        slope = torch.autograd.grad(sum(score(twin.tensors, net, targets)), maps)[0]
        expected = (slope.mean((2, 3), keepdim=True) * maps).sum(1).detach().numpy()
        found = explain.gradcam(net, x, target, layer=layer, rectify=False)
        np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-12)
        assert np.abs(expected).max() > 0 and found.settings == {"layer": layer}
        np.testing.assert_array_equal(explain.gradcam(net, x, target, layer=layer).values, found.values.clip(min=0))


def test_gradcam_takes_the_last_maps_and_is_cam_under_a_global_pool() -> None:
    net = pooled()
    x = images(net, 3)
    found = explain.gradcam(net, x, rectify=False)
    assert found.settings == {"layer": "conv2"} and found.signed
    maps = explain.cam(net, x)
    assert maps.values.shape == (3, 10, 10)
    np.testing.assert_allclose(found.values * 100, maps.values, rtol=1e-4, atol=1e-4)
    weight, bias = net.parameters()["fc.weight"], net.parameters()["fc.bias"]
    classes = net(x).argmax(axis=1)
    np.testing.assert_allclose(maps.values.mean(axis=(1, 2)) + bias[classes], maps.scores, rtol=1e-4)
    direct = np.einsum("nhwk,nk->nhw", net.features(x, ["conv2"])["conv2"], weight[classes])
    np.testing.assert_allclose(maps.values, direct, rtol=1e-4, atol=1e-5)


def test_cam_of_a_network_whose_pool_gives_the_classes() -> None:
    net = pooled(linear=False)
    x = images(net, 2)
    found = explain.cam(net, x, [4, 0])
    maps = net.features(x, ["conv2"])["conv2"]
    np.testing.assert_array_equal(found.values, np.stack([maps[0, ..., 4], maps[1, ..., 0]]))


def test_guided_gradcam_is_a_product() -> None:
    net = classifier()
    x = images(net, 2)
    found = explain.guided_gradcam(net, x, 1, layer="conv2")
    coarse = explain.resize_maps(explain.gradcam(net, x, 1, layer="conv2").values, x.shape[1:3])
    np.testing.assert_array_equal(found.values, explain.guided(net, x, 1).values * coarse[..., None])


@pytest.mark.parametrize(("shape", "size"), [((5, 7), (20, 23)), ((20, 23), (20, 23)), ((1, 1), (4, 6)),
                                             ((12, 9), (7, 8))])
def test_resize_is_bilinear(shape: tuple[int, int], size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")

    maps = np.random.default_rng(0).standard_normal((2, *shape))
    expected = torch.nn.functional.interpolate(torch.tensor(maps)[None], size, mode="bilinear")[0].numpy()
    np.testing.assert_allclose(explain.resize_maps(maps, size), expected, rtol=1e-12, atol=1e-12)
    coloured = explain.resize_maps(maps[..., None].repeat(3, axis=3), size)
    np.testing.assert_allclose(coloured[..., 1], expected, rtol=1e-12, atol=1e-12)


def test_captum_agrees() -> None:
    captum = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")

    net = pooled()
    values = net.parameters()
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                                torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.ReLU(),
                                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    with torch.no_grad():
        for index, name in ((0, "conv1"), (3, "conv2")):
            model[index].weight.copy_(torch.tensor(values[f"{name}.weight"].transpose(0, 3, 1, 2).copy()))
            model[index].bias.copy_(torch.tensor(values[f"{name}.bias"]))
        model[7].weight.copy_(torch.tensor(values["fc.weight"]))
        model[7].bias.copy_(torch.tensor(values["fc.bias"]))
    x = images(net, 2)
    image = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)

    def theirs(array) -> np.ndarray:
        return array.detach().numpy().transpose(0, 2, 3, 1)

    pairs = [(explain.gradient(net, x, 3), captum.Saliency(model).attribute(image, 3, abs=False)),
             (explain.gradient_times_input(net, x, 3), captum.InputXGradient(model).attribute(image, 3)),
             (explain.gradcam(net, x, 3, layer="conv2"),
              captum.LayerGradCam(model, model[4]).attribute(image, 3, relu_attributions=True))]
    with pytest.warns(UserWarning, match="hooks"):
        pairs.append((explain.guided(net, x, 3), captum.GuidedBackprop(model).attribute(image, 3)))
    with pytest.warns(UserWarning, match="hooks"):
        pairs.append((explain.deconvnet(net, x, 3), captum.Deconvolution(model).attribute(image, 3)))
    for ours, other in pairs:
        expected = theirs(other)
        values = ours.values if ours.values.ndim == 4 else ours.values[..., None]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=ours.method)


# Segmentation


def test_grabcut_finds_a_disc() -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    disc = (rows - 30) ** 2 + (columns - 45) ** 2 < 15**2
    for channels in (1, 3):
        pixels = rng.integers(0, 60, (1, 60, 80, channels)) + np.where(disc, 180, 20)[None, ..., None]
        saliency = np.where(disc, 1.0, 0.05)[None] * rng.random((1, 60, 80))
        mask = explain.grabcut(pixels.astype(np.uint8), saliency)[0]
        assert (mask & disc).sum() / (mask | disc).sum() > 0.95


def test_grabcut_refuses() -> None:
    pixels, saliency = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8))
    with pytest.raises(ValueError, match="shape"):
        explain.grabcut(pixels, saliency[:, :4])
    with pytest.raises(ValueError, match="foreground"):
        explain.grabcut(pixels, saliency, foreground=20)
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match="peak"):
        explain.grabcut(pixels, saliency)


def test_grabcut_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="opencv-python-headless"):
        explain.grabcut(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8)))


# What is refused, and what is kept


@pytest.mark.parametrize(("target", "words"), [
    ("conv9:1", "conv1"), ("conv2:8", "0 to 7"), ("conv2:1@99,0", "row"), (5, "0 to 4"), (-1, "integer >= 0"),
    ([0, 1], "one a row"), (["conv1:0", "conv2:0", "conv2:1"], "one layer"), ("conv2:x", "allowed")])
def test_targets_that_do_not_exist(target: object, words: str) -> None:
    net = classifier()
    with pytest.raises(ValueError, match=words):
        explain.saliency(net, images(net, 3), target)


def test_bad_input() -> None:
    net = classifier()
    x = images(net, 2)
    with pytest.raises(ValueError, match="x.shape"):
        explain.saliency(net, x[:, :10])
    with pytest.raises(TypeError, match="class"):
        explain.saliency(net, x, [0, 1.5])
    with pytest.raises(ValueError, match="rule"):
        explain.gradient(net, x, rule="backwards")
    with pytest.raises(ValueError, match="global average pool"):
        explain.cam(net, x)
    with pytest.raises(ValueError, match="layer of maps"):
        explain.gradcam(net, x, layer="fc3")
    with pytest.raises(ValueError, match="conv1"):
        explain.gradcam(net, x, layer="conv7")
    with pytest.raises(ValueError, match="computed from"):
        explain.gradcam(net, x, "conv1:2", layer="conv2")
    with pytest.raises(ValueError, match="class"):
        explain.cam(pooled(), images(pooled(), 2), "conv2:1")
    for options in ({"samples": 0}, {"noise": -1.0}, {"noise": np.nan}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            explain.smoothgrad(net, x, **options)


def test_a_network_without_classes_says_what_to_name() -> None:
    net = Network("maps", (12, 12, 1))
    net.add("conv1", layers.Convolution(3, 3))
    net.initialize(0)
    with pytest.raises(ValueError, match="conv1:0"):
        explain.saliency(net, images(net, 1))


def test_a_softmax_has_no_guided_rule() -> None:
    net = classifier()
    with pytest.raises(ValueError, match="Softmax"):
        explain.gradient(net, images(net, 1), "prob:2", rule="guided")


def test_saved_and_loaded(tmp_path: Path) -> None:
    net = classifier()
    found = explain.guided_gradcam(net, images(net, 2))
    found.save(tmp_path / "result")
    again = explain.Attribution.load(tmp_path / "result")
    np.testing.assert_array_equal(again.values, found.values)
    assert (again.method, again.targets, again.signed, again.settings) == (
        found.method, found.targets, found.signed, found.settings)
    with pytest.raises(FileExistsError):
        found.save(tmp_path / "result")
    with pytest.raises(ResultError, match="kind"):
        explain.Synthesis.load(tmp_path / "result")


def test_another_size_shares_the_parameters() -> None:
    net = classifier()
    larger = net.at_size(31, 40, to="conv2")
    assert larger.input_shape == (31, 40, 3) and larger.output == "conv2"
    assert larger.parameters()["conv1.weight"] is net.parameters()["conv1.weight"]
    x = images(larger, 1)
    same = net.forward(np.ascontiguousarray(x[:, :20, :23]), to="conv2").output
    np.testing.assert_array_equal(larger(x)[:, :8, :8], same[:, :8, :8])
    with pytest.raises(ValueError, match="fc3.weight"):
        net.at_size(40, 40)
    with pytest.raises(ValueError, match="height"):
        net.at_size(-3, 40)
