"""A pretrained classifier under torchvision's keys on photographs: the numbers of its publication."""

from __future__ import annotations

import numpy as np
import pytest
from real_alexnet import data, photographs

import zfcore

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
files = pytest.importorskip("safetensors.numpy")

PART = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
PLACE = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))  # of fire modules in `features`


def torch_key(name):
    """torchvision's key for a Caffe-style one: conv1.weight, fire2/squeeze1x1.bias, conv10.weight."""
    layer, kind = name.rsplit(".", 1)
    if "/" not in layer:
        return {"conv1": "features.0", "conv10": "classifier.1"}[layer] + f".{kind}"
    fire, part = layer.split("/")
    return f"features.{PLACE[int(fire[4:])]}.{PART[part]}.{kind}"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = onnx.load(data("models", "squeezenet_v1.1.onnx"))
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.safetensors"
    files.save_file({torch_key(item.name): onnx.numpy_helper.to_array(item)
                     for item in model.graph.initializer if item.name.endswith((".weight", ".bias"))}, path)
    return zfcore.load(path, architecture="torchvision/squeezenet1_1", preprocessing="caffe-bgr", input_size=227)


def test_accuracy_on_the_packed_photographs(network):
    """59.7 % top-1 and 81.7 % top-5 of 300, each within one image."""
    labels = np.load(data("imagenet300_warp256_jpeg.npz"))["labels"]
    right = np.zeros(2, int)
    for start in range(0, 300, 50):
        x = network.preprocessing.apply(photographs(list(range(start, start + 50))))
        order = np.argsort(-network(x), axis=1, kind="stable")[:, :5]
        hits = order == labels[start:start + 50, None]
        right += hits[:, 0].sum(), hits.any(1).sum()
    assert abs(right[0] - 179) <= 1 and abs(right[1] - 245) <= 1, right


def test_the_export_gives_the_same_classes(network, tmp_path):
    x = network.preprocessing.apply(photographs(list(range(8))))
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    mine = network(x)
    zfcore.save(network, tmp_path / "net.onnx")
    for path, name in ((tmp_path / "net.onnx", "input"), (data("models", "squeezenet_v1.1.onnx"), "data")):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        theirs = session.run(None, {name: first})[0].reshape(8, 1000)
        assert np.abs(mine - theirs).max() <= 1e-5
        ordered = -np.sort(-theirs, axis=1)
        clear = ordered[:, 4] - ordered[:, 5] > 2e-5
        for row in np.flatnonzero(clear):
            assert set(np.argsort(-mine[row])[:5]) == set(np.argsort(-theirs[row])[:5])
