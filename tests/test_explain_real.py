"""Explanations of SqueezeNet 1.1 on photographs: classes are told apart, changes are small."""

from __future__ import annotations

import functools

import numpy as np
from real_alexnet import data

import zfcore
from zfcore import Network, explain

BULL_MASTIFF, TIGER_CAT, SHUTTLE = 243, 282, 812


@functools.cache
def squeezenet() -> Network:
    from zfcore import formats

    return formats.load(data("models", "squeezenet_v1.1.onnx"), preprocessing="caffe-bgr")


def photographs(*names: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and the network's numbers."""
    net = squeezenet()
    assert net.preprocessing is not None
    pixels = np.stack([zfcore.data.open_images(data("photos", name)).load(0, net.preprocessing) for name in names])
    return pixels, net.preprocessing.apply(pixels)


def centre(values: np.ndarray) -> tuple[float, float]:
    """Row and column of a map's centre of mass, from 0 to 1."""
    rows, columns = np.indices(values.shape)
    return (float((values * rows).sum() / values.sum() / (values.shape[0] - 1)),
            float((values * columns).sum() / values.sum() / (values.shape[1] - 1)))


def test_gradcam_tells_the_dog_from_the_cat() -> None:
    _, x = photographs("cat_dog.png", "cat_dog.png")
    net = squeezenet()
    for method in (explain.gradcam, explain.cam):
        dog, cat = method(net, x, [BULL_MASTIFF, TIGER_CAT]).values.clip(min=0)
        assert centre(dog**2)[0] < 0.35 and centre(cat**2)[0] > 0.5, (centre(dog**2), centre(cat**2))


def test_guided_maps_of_two_classes_are_alike_and_guided_gradcams_are_not() -> None:
    _, x = photographs("cat_dog.png", "cat_dog.png")
    net, classes = squeezenet(), [BULL_MASTIFF, TIGER_CAT]

    def likeness(values: np.ndarray) -> float:
        return float(np.corrcoef(np.abs(values[0]).ravel(), np.abs(values[1]).ravel())[0, 1])

    plain = likeness(explain.guided(net, x, classes).values)
    weighted = likeness(explain.guided_gradcam(net, x, classes).values)
    assert plain > weighted + 0.2, (plain, weighted)


def test_the_top_class_is_found_and_changed_by_little() -> None:
    _, x = photographs("space_shuttle.jpg", "darknet_eagle.jpg")
    found = explain.adversarial(squeezenet(), x)
    assert found.found.all() and found.before[0] == SHUTTLE
    assert np.abs(found.changes).max() < 16  # gray levels
    assert np.sqrt(np.square(found.changes).mean()) < 1


def test_ascent_makes_the_class() -> None:
    net = squeezenet()
    found = explain.ascent(net, [TIGER_CAT], steps=25)
    assert net(found.images).argmax() == TIGER_CAT and found.scores[-1, 0] > 30


def test_hiding_the_dog_costs_the_dog() -> None:
    _, x = photographs("cat_dog.png", "cat_dog.png")
    falls = explain.occlusion(squeezenet(), x, [BULL_MASTIFF, TIGER_CAT], window=64, stride=32).values
    head, cat = (slice(0, 110), slice(70, 150)), (slice(130, 227), slice(60, 227))
    assert falls[0][head].mean() > 5 * abs(falls[0][cat].mean())
    assert falls[1][cat].mean() > 2 * falls[0][cat].mean()


def test_inversion_loses_the_photograph_with_depth() -> None:
    _, x = photographs("darknet_eagle.jpg")
    likeness = []
    for layer in ("conv1", "fire4/concat", "fire9/concat"):
        found = explain.inversion(squeezenet(), x, layer, steps=30).images
        likeness.append(np.corrcoef(found.ravel(), x.ravel())[0, 1])
    assert likeness[0] > 0.75 and likeness[0] > 5 * likeness[1] and likeness[1] > 3 * likeness[2], likeness


def test_like_lies_by_like_in_a_deep_layer() -> None:
    net = squeezenet()
    source = zfcore.data.PackedImages(data("tiny_imagenet20_jpeg.npz"), "val")
    rows = np.flatnonzero(source.labels < 6)[::5]  # six classes, ten pictures of each
    assert net.preprocessing is not None
    x = net.preprocessing.apply(np.stack([source.load(int(row), net.preprocessing) for row in rows]))
    shares = {}
    for layer in ("pixels", net.logits):
        features = explain.extract(net, x, layer)
        nearest = explain.nearest(features, features, 2, metric="cosine")[0][:, 1]
        shares[layer] = float((source.labels[rows[nearest]] == source.labels[rows]).mean())
    assert shares[net.logits] > 0.35 and shares[net.logits] > shares["pixels"] + 0.15, shares  # chance: 1 in 6
