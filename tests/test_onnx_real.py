"""Real pretrained networks from ONNX on real photographs, where they are on this machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from real_alexnet import alexnet, data, photographs

import zfcore
from zfcore.data import open_images
from zfcore.formats.onnx import load, read

UNIT = 2.0**-24
# Of 300 photographs, through onnxruntime: top-1 59.7 %, top-5 81.7 %.
TOP1, TOP5 = 179, 245


@pytest.fixture(scope="module")
def squeezenet() -> zfcore.Network:
    return load(data("models", "squeezenet_v1.1.onnx"))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    with np.load(data("imagenet300_warp256_jpeg.npz"), allow_pickle=False) as packed:
        return packed["labels"].astype(np.int64)


def test_the_preprocessing_is_that_of_the_json_beside_it(squeezenet: zfcore.Network) -> None:
    found = squeezenet.preprocessing
    assert found is not None and found.to_config() == {
        "channels": "BGR", "mean": [104.0, 117.0, 123.0], "scale": 1.0, "size": (256, 256), "crop": (227, 227)}
    assert load(data("models", "squeezenet_v1.1.onnx"), "caffe-bgr").preprocessing.to_config() == found.to_config()
    pixels = photographs([0, 7])
    expected = pixels[..., ::-1].astype(np.float32) - np.float32([104, 117, 123])
    np.testing.assert_array_equal(found.apply(pixels), expected)
    # Crop at 14 of 256, through the package's own loading of the packed set.
    source = open_images(data("imagenet300_warp256_jpeg.npz"))
    np.testing.assert_array_equal(source.load(7, found), pixels[1])


def test_squeezenet_classifies_the_photographs(squeezenet: zfcore.Network, labels: np.ndarray) -> None:
    ort = pytest.importorskip("onnxruntime")
    assert squeezenet.preprocessing is not None
    session = ort.InferenceSession(str(data("models", "squeezenet_v1.1.onnx")), providers=["CPUExecutionProvider"])
    images = photographs()
    top1 = top5 = compared = 0
    for start in range(0, len(images), 20):
        x = squeezenet.preprocessing.apply(images[start:start + 20])
        y = squeezenet(x)
        theirs = session.run(None, {"data": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0].reshape(y.shape)
        best, reference = np.argsort(-y, axis=1, kind="stable"), np.argsort(-theirs, axis=1, kind="stable")
        truth = labels[start:start + 20, None]
        top1 += int((best[:, :1] == truth).sum())
        top5 += int((best[:, :5] == truth).sum())
        ordered = np.log(np.sort(theirs.astype(np.float64), axis=1)[:, -6:])
        clear = ordered[:, 1] - ordered[:, 0] > 4 * logit_error(squeezenet, x)
        compared += int(clear.sum())
        for row in np.flatnonzero(clear):
            assert set(best[row, :5]) == set(reference[row, :5])
        assert np.abs(y - theirs).max() < 1e-5
    assert abs(top1 - TOP1) <= 1 and abs(top5 - TOP5) <= 1
    assert compared > 280
    print(f"top-1 {top1}, top-5 {top5} of {len(images)}; top 5 compared on {compared}")


def logit_error(net: zfcore.Network, x: np.ndarray) -> np.ndarray:
    """How far an image's logits may be off in float32: two roundings a layer of the largest, 26 layers.

    Two results differ by twice that, and so do the logarithms of two probabilities from each other.
    """
    logits = net.forward(x, keep=(net.logits,), to=net.logits).output
    return 52 * UNIT * np.abs(logits).max(axis=1)


def test_alexnet_through_its_external_data_is_the_same_network() -> None:
    imported = read(data("models", "alexnet_conv_pq.onnx"))
    net, reference = imported.network, alexnet()
    assert list(net.nodes) == list(reference.nodes)
    mine, others = net.parameters(), reference.parameters()
    assert mine.keys() == others.keys()
    for key, array in mine.items():
        np.testing.assert_array_equal(array, others[key])
    assert net.preprocessing is not None and reference.preprocessing is not None
    x = reference.preprocessing.apply(photographs([3, 5]))
    np.testing.assert_array_equal(net.preprocessing.apply(photographs([3, 5])), x)
    np.testing.assert_array_equal(net(x), reference(x))
    for layer in ("conv2.pre", "norm2", "conv5"):
        np.testing.assert_array_equal(net.features(x, [layer])[layer], reference.features(x, [layer])[layer])


def atlas_of(net: zfcore.Network, layers: list[str]) -> Any:
    source = open_images(data("imagenet300_warp256_jpeg.npz"))
    images = zfcore.Arrays(np.stack([source.pixels(index) for index in range(20)]))
    return zfcore.scan(net, images, layers=layers, top=3)


@pytest.mark.parametrize(("name", "layers"), [
    ("alexnet_conv_pq", ["conv3", "conv5"]), ("squeezenet_v1.1", ["fire3/concat", "fire5/expand3x3"])])
def test_an_atlas_of_both(name: str, layers: list[str]) -> None:
    net = load(data("models", f"{name}.onnx"))
    assert net.preprocessing is not None
    atlas = atlas_of(net, layers)
    x = net.preprocessing.apply(photographs(list(range(20))))
    for layer in layers:
        features = net.features(x, [layer])[layer].max(axis=(1, 2))
        np.testing.assert_array_equal(atlas[layer].values, -np.sort(-features, axis=0)[:3].T)
        projected = net.project(x[:1], f"{layer}:1", "deconvnet")
        assert np.abs(projected.pixels).max() > 0
