"""Ascent, inversion, dreams, adversarial examples, facets, invariances: formulas, PyTorch, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_nets import classifier, pooled

from zfcore import Network, explain, layers
from zfcore.explain import penalties
from zfcore.explain.ascent import PRESETS
from zfcore.explain.steps import amplitude


def images(net: Network, count: int, seed: int = 1, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *net.input_shape)).astype(dtype)


# Penalties


@pytest.mark.parametrize("name", ["l1", "l2", "variation 2", "variation 1", "variation 1.5", "variation 3"])
def test_penalties_have_their_gradients(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 3))
    t = torch.tensor(x, requires_grad=True)
    if name.startswith("variation"):
        beta = float(name.split()[1])
        values, gradient = penalties.total_variation(x, beta)
        right, down = torch.zeros_like(t), torch.zeros_like(t)
        right[:, :, :-1] = t[:, :, 1:] - t[:, :, :-1]
        down[:, :-1] = t[:, 1:] - t[:, :-1]
        expected = ((right**2 + down**2 + (1e-6 if beta < 2 else 0)) ** (beta / 2)).sum((1, 2, 3))
    else:
        values, gradient = getattr(penalties, name)(x)
        expected = t.abs().sum((1, 2, 3)) if name == "l1" else (t**2).sum((1, 2, 3)) / 2
    expected.sum().backward()
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-9, atol=1e-12)


# Gradient ascent


@pytest.mark.parametrize("target", ["conv2:5@4,6", "conv2:5", "conv2", 2, "fc3:7"], ids=str)
@pytest.mark.parametrize("step", ["plain", "normalized", "adam"])
def test_ascent_equals_a_pytorch_loop(target: object, step: str) -> None:
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = classifier().astype(np.float64)
    begin = images(net, 1, dtype=np.float64)
    settings = {"steps": 4, "step": step, "rate": 0.1, "l1": 0.01, "l2": 0.02, "variation": 0.03, "limits": False}
    found = explain.ascent(net, target, "plain", start=begin, **settings)
    targets = explain.resolve(net, target, begin)
    size = amplitude(net)
    assert size == 1.0  # 64 gray levels of scale 1/64
    x, history = begin.copy(), []
    leaf = torch.zeros(begin.shape, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([leaf], lr=0.1, eps=1e-12, maximize=True)
    for _ in range(4):
        twin = Twin(net, x)
        tensor = twin.tensors[targets.tensor][0]
        unit, row, column = targets.maps[0], targets.rows[0], targets.columns[0]
        score = (tensor**2).mean() if unit < 0 else tensor[unit] if tensor.ndim == 1 else \
            tensor[unit].mean() if row < 0 else tensor[unit, row, column]
        score.backward()
        history.append(float(score.detach()))
        slope = twin.input.grad.numpy().transpose(0, 2, 3, 1)
        if step != "plain":
            slope = slope / np.sqrt((slope**2).mean())
        slope = slope - 0.01 * np.sign(x) - 0.02 * x - 0.03 * penalties.total_variation(x)[1]
        if step == "adam":
            with torch.no_grad():
                leaf.copy_(torch.tensor(x))
            leaf.grad = torch.tensor(slope)
            adam.step()
            x = leaf.detach().numpy().copy()
        else:
            x = x + 0.1 * slope
    np.testing.assert_allclose(found.images, x, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.scores[:-1, 0], history, rtol=1e-6)


def test_many_units_in_one_batch_are_those_alone() -> None:
    net = classifier()
    options = {"steps": 3, "seed": 4, "jitter": 2, "blur": 0.5, "blur_every": 2}
    units = ["conv2:0@4,5", "conv2:5", "conv2", "conv2:3@0,0"]
    whole = explain.ascent(net, units, **options)
    assert whole.images.shape == (4, *net.input_shape) and whole.scores.shape == (4, 4) and whole.targets == units
    np.testing.assert_array_equal(whole.images, explain.ascent(
        net, units, **options, batch_size=3).images)
    again = explain.ascent(net, ["conv2:0@4,5"], **options)
    np.testing.assert_allclose(again.images[0], whole.images[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_climbs(preset: str) -> None:
    net = classifier()
    found = explain.ascent(net, [0, 3], preset, steps=15, seed=1)
    assert (found.scores[1:].max(axis=0) > found.scores[0] + 0.1).all(), found.scores
    low, high = net.preprocessing.limits(net.input_shape)
    assert (found.images >= low - 1e-5).all() and (found.images <= high + 1e-5).all()
    assert explain.presets() == list(PRESETS)


def test_small_pixels_and_contributions_become_zero() -> None:
    net = classifier()
    for name in ("small_pixels", "small_gradients"):
        found = explain.ascent(net, 1, "plain", steps=2, **{name: 60})
        assert 0.55 < (np.abs(found.images[0]).sum(axis=2) == 0).mean() < 0.75


def test_dead_units_are_skipped() -> None:
    net = classifier()
    net.nodes["conv2"].layer.parameters["bias"][3] = -1e6
    found = explain.ascent(net, ["conv2:2", "conv2:3", "conv2:4"], steps=3)
    assert found.dead.tolist() == [False, True, False]
    assert found.scores[:, 1].tolist() == [0.0] * 4 and found.scores[-1, 0] > found.scores[0, 0]
    before = explain.ascent(net, "conv2.pre:3", steps=3)
    assert not before.dead.any() and before.scores[-1, 0] > before.scores[0, 0]


def test_a_start_without_a_gradient_gets_noise() -> None:
    net = classifier()
    net.nodes["conv1"].layer.parameters["bias"][:] = -0.01
    net.nodes["conv2"].layer.parameters["bias"][:] = -0.01
    found = explain.ascent(net, ["conv2:1", "conv2:2"], steps=2, start=np.zeros(net.input_shape, np.float32))
    assert not found.dead.any() and (found.images != 0).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("separate", [False, True])
def test_a_shy_unit_is_woken_through_what_is_before_its_relu(separate: bool) -> None:
    net = Network("shy", (9, 9, 1))
    net.add("conv1", layers.Convolution(2, 5, padding=2, activation=None if separate else "relu"))
    if separate:
        net.add("relu1", layers.ReLU())
    net.initialize(0, "he")
    weight = net.nodes["conv1"].layer.parameters
    weight["weight"][:] = 0.2
    weight["bias"][:] = -12.0  # no noise of these lengths adds up to it
    found = explain.ascent(net, f"{net.output}:1@4,4", steps=3)
    assert not found.dead.any() and found.scores[-1, 0] > 0


@pytest.mark.parametrize(("options", "word"), [
    ({"steps": -1}, "steps"), ({"rate": -0.1}, "rate"), ({"rate": np.inf}, "rate"), ({"step": "newton"}, "step"),
    ({"small_pixels": 100}, "small_pixels"), ({"blur": -1}, "blur"), ({"colour": 3}, "settings"),
    ({"settings": "best"}, "settings"), ({"blur_every": 0}, "blur_every"), ({"batch_size": 0}, "batch_size")])
def test_ascent_refuses(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        explain.ascent(classifier(), 1, **options)


@pytest.mark.parametrize("target", [7, -1, [], "conv9:1", ["conv1:1", "conv2:1"], "conv1:99"], ids=str)
def test_ascent_refuses_targets(target: object) -> None:
    with pytest.raises(ValueError, match="allowed"):
        explain.ascent(classifier(), target, steps=1)


# Feature inversion


def test_inversion_follows_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = classifier().astype(np.float64)
    x = images(net, 2, dtype=np.float64)
    found = explain.inversion(net, x, "conv2", steps=1, rate=1e-3, variation=0.5, noise=0.1, seed=3)
    begin = np.stack([np.random.default_rng([3, row]).standard_normal(x.shape[1:], np.float32) * 0.1
                      for row in range(2)]).astype(np.float64)
    twin, wanted = Twin(net, begin), torch.tensor(Twin(net, x).tensors["conv2"].detach().numpy())
    error = ((twin.tensors["conv2"] - wanted) ** 2).sum((1, 2, 3)) / (wanted**2).sum((1, 2, 3))
    error.sum().backward()
    np.testing.assert_allclose(found.scores[0], error.detach().numpy(), rtol=1e-5)
    slope = twin.input.grad.numpy().transpose(0, 2, 3, 1)
    slope = slope + 0.5 / (20 * 23) * penalties.total_variation(begin)[1]
    np.testing.assert_allclose(found.images - begin, -1e-3 * np.sign(slope), rtol=1e-3, atol=1e-6)


def test_inversion_of_an_early_layer_finds_the_image() -> None:
    net = pooled()
    x = np.clip(images(net, 2) * 0.5, -1, 1)
    found = explain.inversion(net, x, "conv1.pre", steps=150, rate=0.1, variation=0.0)
    assert (found.scores[-1] < 0.01).all() and (found.scores[-1] < found.scores[0] / 50).all()
    assert np.corrcoef(found.images[0].ravel(), x[0].ravel())[0, 1] > 0.95
    alone = explain.inversion(net, x[:1], "conv1.pre", steps=150, rate=0.1, variation=0.0)
    np.testing.assert_allclose(alone.images[0], found.images[0], rtol=1e-3, atol=1e-4)


def test_inversion_refuses() -> None:
    net = classifier()
    x = images(net, 1)
    for options, word in (({"layer": "conv7"}, "conv1"), ({"layer": "conv1", "steps": -1}, "steps"),
                          ({"layer": "conv1", "variation": -1.0}, "variation")):
        with pytest.raises(ValueError, match=word):
            explain.inversion(net, x, **options)
    net.nodes["conv2"].layer.parameters["bias"][:] = -1e6
    with pytest.raises(ValueError, match="excites"):
        explain.inversion(net, x, "conv2")


# DeepDream


def test_dream_climbs_at_any_size() -> None:
    net = classifier()
    for shape in ((1, 20, 23, 3), (1, 37, 64, 3), (1, 70, 41, 3)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 0.3
        found = explain.dream(net, x, "conv2", octaves=2, steps=4, jitter=3)
        assert found.images.shape == shape and found.scores[-1, 0] > 1.5 * found.scores[0, 0]
        assert np.isfinite(found.images).all()


def test_dream_in_tiles_is_close_to_the_whole() -> None:
    net = classifier()
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32) * 0.3
    whole = explain.dream(net, x, "conv2", octaves=1, steps=1, jitter=0)
    tiled = explain.dream(net, x, "conv2", octaves=1, steps=1, jitter=0, tile=32)
    inside = np.abs((whole.images - x) - (tiled.images - x) * np.abs(whole.images - x).mean()
                    / np.abs(tiled.images - x).mean())[:, 8:24, 8:24]
    assert np.median(inside) < 0.1 * np.abs(whole.images - x).mean()


def test_dream_refuses() -> None:
    net = classifier()
    x = images(net, 1)
    for target, options, word in (("fc3", {}, "maps"), ("conv2:1@1,1", {}, "maps"),
                                  ("conv2", {"octaves": 0}, "octaves"),
                                  ("conv2", {"scale": 1.0}, "scale"), ("conv2", {"octaves": 30}, "window"),
                                  ("nothing", {}, "conv1"), ("conv2", {"tile": 4}, "tile")):
        with pytest.raises(ValueError, match=word):
            explain.dream(net, x, target, **options)
    with pytest.raises(ValueError, match="x.shape"):
        explain.dream(net, images(net, 2), "conv2")


# Adversarial examples


def linear_classifier() -> Network:
    net = Network("linear", (4, 4, 1), scheme="he")
    net.add("flatten", layers.Flatten())
    net.add("fc", layers.Linear(3))
    return net.initialize(2)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_adversarial_change_of_a_linear_network_is_the_shortest(norm: str) -> None:
    net = linear_classifier().astype(np.float64)
    x = images(net, 8, dtype=np.float64)
    found = explain.adversarial(net, x, norm=norm, halvings=20)
    weight, scores = net.parameters()["fc.weight"], net(x)
    assert found.found.all() and (found.after != found.before).all()
    for row, now in enumerate(found.before):
        gaps = []
        for rival in set(range(3)) - {int(now)}:
            difference = weight[rival] - weight[now]
            size = np.linalg.norm(difference) if norm == "l2" else np.abs(difference).sum()
            gaps.append((scores[row, now] - scores[row, rival]) / size)
        change = found.changes[row]
        length = np.linalg.norm(change) if norm == "l2" else np.abs(change).max()
        assert min(gaps) <= length * (1 + 1e-9) and length < min(gaps) * 1.001 + 1e-5


def test_adversarial_with_a_wanted_class() -> None:
    net = classifier()
    x = images(net, 4) * 0.5
    before = net(x).argmax(axis=1)
    wanted = (before + 2) % 5
    found = explain.adversarial(net, x, wanted, limits=False)
    assert found.found.all() and (found.after == wanted).all() and (found.before == before).all()
    np.testing.assert_array_equal(net(found.images).argmax(axis=1), wanted)
    np.testing.assert_allclose(found.certainty_before, net(x).max(axis=1), rtol=1e-5)
    assert (np.linalg.norm(found.changes.reshape(4, -1), axis=1) < np.linalg.norm(x.reshape(4, -1), axis=1)).all()
    np.testing.assert_array_equal(found.images[1:2], explain.adversarial(net, x[1:2], wanted[1:2], limits=False).images)


def test_adversarial_stays_in_the_pixels_range_and_refuses(tmp_path: Path) -> None:
    net = classifier()
    x = np.clip(images(net, 3), *net.preprocessing.limits(net.input_shape))
    found = explain.adversarial(net, x)
    low, high = net.preprocessing.limits(net.input_shape)
    assert (found.images >= low).all() and (found.images <= high).all()
    found.save(tmp_path / "a")
    np.testing.assert_array_equal(explain.Adversarial.load(tmp_path / "a").images, found.images)
    with pytest.raises(ValueError, match="another class"):
        explain.adversarial(net, x, int(found.before[0]))
    with pytest.raises(ValueError, match="norm"):
        explain.adversarial(net, x, norm="l7")
    with pytest.raises(ValueError, match="target"):
        explain.adversarial(net, x, "conv1:1")


# Facets and invariances


def test_facets_start_from_clusters() -> None:
    net = classifier()
    kinds = np.random.default_rng(0).standard_normal((2, *net.input_shape)).astype(np.float32)
    x = np.concatenate([kinds[[0]] + 0.05 * images(net, 6), kinds[[1]] + 0.05 * images(net, 5, 2)])
    found = explain.facets(net, x, "conv2:2", count=2, steps=2, seed=1)
    assert len(set(found.clusters[:6])) == 1 and len(set(found.clusters[6:])) == 1 and len(set(found.clusters)) == 2
    np.testing.assert_allclose(found.starts[found.clusters[0]], x[:6].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert found.images.shape == (2, *net.input_shape) and found.settings["layer"] == "norm1"
    with pytest.raises(ValueError, match="count"):
        explain.facets(net, x[:1], "conv2:2", count=2)


def test_invariances_against_the_dense_hessian() -> None:
    torch = pytest.importorskip("torch")

    net = Network("curved", (6, 5, 1), scheme="he")
    net.add("conv1", layers.Convolution(4, 3, padding=1))
    net.add("norm1", layers.ResponseNorm(3, 0.5, 0.75, 1.0))
    net.add("flatten", layers.Flatten())
    net.add("fc", layers.Linear(3))
    net.add("prob", layers.Softmax())
    net.initialize(0).astype(np.float64)
    x = images(net, 1, dtype=np.float64)[0]
    found = explain.invariances(net, x, "prob:1", count=2, step=1e-4, tolerance=1e-10)

    def score(flat):
        t = flat.reshape(1, 1, 6, 5)
        values = {key: torch.tensor(value) for key, value in net.parameters().items()}
        y = torch.nn.functional.conv2d(t, values["conv1.weight"].permute(0, 3, 1, 2), values["conv1.bias"], padding=1)
        y = torch.nn.functional.local_response_norm(y, 3, 1.5, 0.75, 1.0)
        y = y.permute(0, 2, 3, 1).flatten(1) @ values["fc.weight"].T + values["fc.bias"]
        return torch.softmax(y, 1)[0, 1]

    flat = torch.tensor(x.ravel())
    np.testing.assert_allclose(float(score(flat)), net(x[None])[0, 1], rtol=1e-9)
    hessian = torch.autograd.functional.hessian(score, flat).numpy()
    leaf = flat.clone().requires_grad_()
    score(leaf).backward()
    radius = np.linalg.norm(x)
    normal = x.ravel() / radius
    tangent = np.eye(30) - np.outer(normal, normal)
    sphere = tangent @ (radius**2 * hessian - (x.ravel() @ leaf.grad.numpy()) * np.eye(30)) @ tangent
    values = np.linalg.eigvalsh(sphere)[::-1]
    np.testing.assert_allclose(found.curvatures, [*values[:2], *values[-2:]], rtol=1e-4, atol=1e-7)
    flat_directions = found.directions.reshape(4, -1)
    np.testing.assert_allclose(flat_directions @ flat_directions.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(flat_directions @ normal, 0, atol=1e-6)
    middle = len(found.angles) // 2
    np.testing.assert_allclose(found.curves[:, middle], net(x[None])[0, 1], rtol=1e-6)
    angle = 0.01
    fine = explain.invariances(net, x, "prob:1", count=2, step=1e-4, tolerance=1e-10, reach=angle, points=3)
    bend = (fine.curves[:, 0] - 2 * fine.curves[:, 1] + fine.curves[:, 2]) / angle**2
    np.testing.assert_allclose(bend, found.curvatures, rtol=2e-2, atol=1e-4)


def test_invariances_refuse() -> None:
    net = classifier()
    x = images(net, 1)
    for image, options, word in ((x * 0, {}, "direction"), (x, {"count": 0}, "count"), (x, {"step": 0.0}, "step"),
                                 (x, {"count": 5000}, "count"), (x[:, :4], {}, "x.shape")):
        with pytest.raises(ValueError, match=word):
            explain.invariances(net, image, "conv2:1", **options)
