"""Built-in architectures: the papers' sizes, whole nets against PyTorch, the real AlexNet stages."""

from __future__ import annotations

import numpy as np
import pytest
import real_alexnet
from architectures import images

from zfcore import layers, models

SIZES = {
    "zfnet": {"conv1": (110, 110, 96), "pool1": (55, 55, 96), "conv2": (26, 26, 256), "pool2": (13, 13, 256),
              "conv4": (13, 13, 384), "pool5": (6, 6, 256), "flatten": (9216,), "prob": (1000,)},
    "alexnet": {"conv1": (55, 55, 96), "pool1": (27, 27, 96), "conv2": (27, 27, 256), "pool2": (13, 13, 256),
                "conv3": (13, 13, 384), "conv5": (13, 13, 256), "pool5": (6, 6, 256), "fc8": (1000,)},
    "alexnet-dense": {"pool5": (6, 6, 256)},
    "alexnet-torchvision": {"conv1": (55, 55, 64), "conv2": (27, 27, 192), "pool5": (6, 6, 256)},
    "vgg16": {"conv1_2": (224, 224, 64), "conv3_3": (56, 56, 256), "pool5": (7, 7, 512)},
    "mnist": {"conv1": (14, 14, 32), "pool1": (7, 7, 32), "conv2": (4, 4, 64), "pool2": (2, 2, 64), "fc3": (128,)},
    "five-class": {"conv1": (112, 112, 32), "pool2": (14, 14, 64), "norm3": (4, 4, 128), "pool4": (1, 1, 128)},
    "convnetjs": {"conv1": (32, 32, 16), "pool3": (4, 4, 20), "fc4": (10,)},
    "digits": {"conv1": (32, 32, 24), "pool3": (4, 4, 64), "fc5": (10,)},
    "zfnet-cifar": {"conv1": (32, 32, 32), "pool1": (16, 16, 32), "norm2": (8, 8, 64), "conv4": (8, 8, 96),
                    "pool5": (4, 4, 64), "fc7": (512,), "fc8": (10,)},
    "zfnet-cifar-small": {"conv1": (32, 32, 16), "conv5": (8, 8, 24), "pool5": (4, 4, 24), "fc6": (128,)},
    "zfnet-mnist": {"conv1": (28, 28, 16), "pool1": (14, 14, 16), "norm2": (7, 7, 32), "pool5": (3, 3, 32),
                    "fc6": (256,)},
}
PARAMETERS = {  # counted by hand from the layers' sizes; torchvision's published counts are among them
    "zfnet": 62_357_608, "alexnet": 60_965_224, "alexnet-torchvision": 61_100_840, "vgg16": 138_357_544,
    "mnist": 53_002, "convnetjs": 22_466, "zfnet-cifar": 1_007_306,
}


def test_every_model_has_its_sizes_here_or_in_test_torchvision() -> None:
    assert {name for name in models.MODELS if not name.startswith("torchvision/")} == set(SIZES)


def test_torchvisions_alexnet_is_there_once() -> None:
    assert models.MODELS["alexnet-torchvision"] == models.MODELS["torchvision/alexnet"]
    assert not hasattr(models, "alexnet_torchvision") and not hasattr(models.large, "alexnet_torchvision")


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_papers(name: str) -> None:
    net = models.build(name)
    for layer, shape in SIZES[name].items():
        assert net.tensor_shape(layer) == shape, layer
    assert net.parameter_count == PARAMETERS.get(name, net.parameter_count)
    assert net.name == {"alexnet-torchvision": "torchvision/alexnet"}.get(name, name) and net.output == "prob"
    assert net.preprocessing is not None
    kinds = [row.type for row in net.layers()]
    assert kinds[-1] == "Softmax" and (("Dropout" in kinds) == (name != "convnetjs"))
    with pytest.raises(ValueError, match="no parameters yet"):
        net(np.zeros((1, *net.input_shape), np.float32))


def test_options() -> None:
    assert models.zfnet(10, widths=(96, 256, 512, 1024, 512)).tensor_shape("conv5") == (13, 13, 512)
    assert models.zfnet(7, hidden=(2048,)).nodes["fc7"].layer.units == 7
    assert models.alexnet(groups=1).nodes["conv2"].layer.groups == 1
    assert models.alexnet().nodes["conv4"].layer.groups == 2 and models.alexnet().nodes["conv3"].layer.groups == 1
    order = list(models.alexnet(norm_first=False).nodes)
    assert order.index("pool1") < order.index("norm1")
    caffe = models.alexnet(k=1.0, alpha_is_divided_by_size=True).nodes["norm1"].layer
    assert (caffe.k, caffe.alpha_is_divided_by_size) == (1.0, True)
    assert models.convnetjs(window=7).tensor_shape("conv3") == (8, 8, 20)
    assert models.five_class(3).class_names is None and models.five_class().class_names[0] == "goldfish"
    with pytest.raises(ValueError, match="name is 'resnet'; allowed: one of 'zfnet'"):
        models.build("resnet")
    with pytest.raises(ValueError, match="widths"):
        models.zfnet(widths=(1, 2, 3))


def test_the_paper_s_recipe_is_in_the_layers() -> None:
    net = models.zfnet()
    norm = net.nodes["norm1"].layer
    assert norm == layers.ResponseNorm(5, 1e-4, 0.75, 2.0, False)
    assert net.nodes["drop6"].layer.rate == net.nodes["drop7"].layer.rate == 0.5
    assert net.scheme == "zf" and models.alexnet().scheme == "krizhevsky"
    assert all(net.nodes[f"conv{n}"].layer.activation == "relu" for n in range(1, 6))


@pytest.mark.parametrize("name", ["mnist", "five-class", "convnetjs", "digits"])
def test_small_nets_against_torch(name: str) -> None:
    pytest.importorskip("torch")
    from twin import Twin

    net = models.build(name).initialize(1)
    x = images(net, np.random.default_rng(0), 3)
    forward = net.forward(x, cache=True, to=net.logits)
    twin = Twin(net, x)
    np.testing.assert_allclose(forward.output, twin.output(net.logits), atol=2e-5)
    signal = np.random.default_rng(1).standard_normal(forward.output.shape).astype(np.float32)
    found = net.backward(forward, signal)
    largest = np.abs(found.input).max()
    np.testing.assert_allclose(found.input, twin.down(net.logits, signal), atol=1e-5 * max(largest, 1))
    expected = twin.gradients()
    assert set(expected) == set(found.gradients)
    for key, value in expected.items():
        np.testing.assert_allclose(found.gradients[key], value, atol=1e-5 * max(1, np.abs(value).max()), err_msg=key)


@pytest.mark.parametrize("name", ["zfnet", "alexnet"])
def test_full_size_nets_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = models.build(name, classes=10, hidden=(64, 32)).initialize(0, "he")
    x = 20 * images(net, np.random.default_rng(0), 1)
    with torch.no_grad():
        twin = Twin(net, x)
    kept = net.forward(x, keep=["conv1", "conv2", "conv5", "fc8"]).kept
    for layer, value in kept.items():
        expected = twin.output(layer)
        np.testing.assert_allclose(value, expected, atol=1e-5 * np.abs(expected).max(), err_msg=layer)


def test_real_alexnet_finds_the_published_strongest_units() -> None:
    net, top = real_alexnet.alexnet(), real_alexnet.top9()
    chosen = sorted({found[0]["image"] for maps in top.values() for found in maps.values()})[:4]
    tensors = net.features(net.preprocessing.apply(real_alexnet.photographs(chosen)), ["conv3", "conv5"])
    checked = 0
    for layer, maps in top.items():
        for number, found in maps.items():
            for entry in found:
                if entry["image"] in chosen:
                    plane = tensors[layer][chosen.index(entry["image"]), :, :, int(number)]
                    assert plane[entry["row"], entry["column"]] == pytest.approx(entry["value"], abs=2e-3)
                    assert plane.max() == plane[entry["row"], entry["column"]]
                    checked += 1
    assert checked >= 4
