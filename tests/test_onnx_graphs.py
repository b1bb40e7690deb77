"""Published networks' graphs from ONNX: every layer against onnxruntime, every rule against PyTorch, crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort
from onnx_models import NAMES, light

from zfcore import Preprocessing, ops
from zfcore.data import Arrays
from zfcore.formats.onnx import Import, read
from zfcore.rules import RULES

OPS = ops.bind()
UNIT = 2.0**-24
EXACT = {"ReLU", "MaxPool", "Concat", "Dropout"}
OWN = {"Rearrange", "Flatten"}  # no operator of the file: they move elements for the layers after them


def gamma(count: int) -> float:
    return count * UNIT / (1 - count * UNIT)


def take(folder: Path, name: str) -> tuple[Any, Import]:
    proto = light(name)
    path = folder / f"{name}.onnx"
    onnx.save(proto, path)
    return proto, read(path)


def image(seed: int = 0, size: int = 224) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, size, size, 3)).astype(np.float32)


def run_all(proto: Any, tensors: list[str], x: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors of a model by name, from onnxruntime without its own fusing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    wanted = [name for name in tensors if any(name in node.output for node in copy.graph.node)]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    return dict(zip(wanted, found, strict=True))


def ours(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An ONNX tensor in the layout of a layer's output of this shape."""
    if array.ndim == 4 and len(shape) == 3:
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array).reshape(len(array), *shape)


def bound(layer: Any, inputs: list[np.ndarray], y: np.ndarray) -> Any:
    """How far two float32 results of a layer may be apart, by TESTING.md's formulas."""
    kind, x = type(layer).__name__, np.abs(inputs[0])
    values = {key: np.abs(value) for key, value in layer.parameters.items()}
    if kind in ("Convolution", "Linear"):
        length = int(np.prod(values["weight"].shape[1:]))
        size = type(layer)(**{**{key: value for key, value in layer.to_config().items() if key != "type"},
                              "activation": None})
        size.parameters = values
        return 2 * gamma(length + 2) * size.forward(OPS, x)[0]
    if kind == "BatchNorm":
        spread = values["scale"] / np.sqrt(values["variance"] + layer.epsilon)
        return 2 * gamma(8) * ((x + values["mean"]) * spread + values["bias"])
    if kind == "Scale":
        return 2 * gamma(2) * (x * values.get("scale", 1) + values.get("bias", 0))
    if kind == "Add":
        return 2 * gamma(len(inputs)) * sum(np.abs(each) for each in inputs)
    if kind in ("AveragePool", "GlobalAveragePool"):
        cells = int(np.prod(x.shape[1:3])) if kind == "GlobalAveragePool" else int(np.prod(layer._window))
        return 2 * gamma(cells + 2) * layer.forward(OPS, x)[0]
    if kind == "ResponseNorm":
        return (2 * layer.beta * gamma(layer.size + 3) + 16 * UNIT) * np.abs(y)
    assert kind == "Softmax"
    return 2 * gamma(y.shape[-1] + 16) * y + 1e-30


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_agrees_with_onnxruntime(tmp_path: Path, name: str) -> None:
    """Each layer gets onnxruntime's own tensors, so that only its own error counts; then the whole network."""
    proto, imported = take(tmp_path, name)
    net, x = imported.network, image()
    theirs = run_all(proto, list(imported.tensors), x)
    place = {tensor: theirs[source] for source, tensor in imported.tensors.items() if source in theirs}
    known = {"input": x}
    checked = 0
    for node in net.nodes.values():
        inputs = [known[each] for each in node.inputs]
        y, _ = node.layer.forward(OPS, *inputs)
        kind = type(node.layer).__name__
        if kind in OWN:
            known[node.name] = y
            continue
        expected = known[node.name] = ours(place[node.name], node.shape)
        if kind in EXACT:
            np.testing.assert_array_equal(y, expected, err_msg=node.name)
        else:
            excess = np.abs(y - expected) - bound(node.layer, inputs, expected)
            assert excess.max() <= 0, f"{node.name} ({kind}): {excess.max()} above its bound"
        checked += 1
    assert checked > 12
    expected = known[net.logits]
    assert np.ptp(expected) > 1e-3, "weights that say nothing"
    found = net.forward(x, keep=(net.logits,)).kept[net.logits]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_wrong_filter_is_found(tmp_path: Path) -> None:
    proto, imported = take(tmp_path, "squeezenet")
    layer = next(iter(imported.network.nodes.values())).layer
    x = image()
    expected, _ = layer.forward(OPS, x)
    layer.parameters["weight"] = layer.parameters["weight"][:, ::-1]
    y, _ = layer.forward(OPS, x)
    assert (np.abs(y - expected) > bound(layer, [x], expected)).any()


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50"])
def test_rules_and_gradients_agree_with_pytorch(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from twin import Twin

    _, imported = take(tmp_path, name)
    net = imported.network.astype(np.float64)
    x = image().astype(np.float64)
    top = net.logits
    forward = net.forward(x, to=top, cache=True)
    signal = np.random.default_rng(3).standard_normal(forward.output.shape)
    for rule in RULES:
        twin = Twin(net, x, rule)
        np.testing.assert_allclose(forward.output, twin.output(top).reshape(forward.output.shape), rtol=1e-9,
                                   atol=1e-9 * np.abs(forward.output).max())
        found = net.backward(forward, signal, rule, parameters=rule == "gradient")
        expected = twin.down(top, signal)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found.input, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        if rule == "gradient":
            gradients = twin.gradients()
            trained = {key for key in gradients if key in found.gradients}
            assert trained == set(found.gradients) and len(trained) > 50
            for key in trained:
                np.testing.assert_allclose(found.gradients[key], gradients[key], rtol=0,
                                           atol=1e-9 * np.abs(gradients[key]).max(), err_msg=key)


def middle(imported: Import) -> str:
    """A layer with ReLU about a third of the way up whose units see less than the image."""
    net = imported.network
    names = [row.name for row in net.layers()
             if row.type in ("Convolution", "ReLU", "Add", "Concat") and not net.cone(row.name).whole]
    return names[len(names) * 2 // 3]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50", "densenet121", "inception_v1"])
def test_projections_on_crops_are_those_on_whole_images(tmp_path: Path, name: str) -> None:
    _, imported = take(tmp_path, name)
    net, x = imported.network, image(1)
    layer = middle(imported)
    maps = net.tensor_shape(layer)[-1]
    for rule in RULES:
        units = [f"{layer}:{index}" for index in (0, maps // 2, maps - 1)]
        crops = net.project(x, units, rule, "one")
        whole = net.project(x, units, rule, "one", crop=False)
        assert np.abs(crops.pixels).max() > 0
        assert crops.pixels.shape[1] < 224
        placed = np.zeros_like(whole.pixels)
        for index, (row, column) in enumerate(crops.origins.tolist()):
            height, width = crops.pixels.shape[1:3]
            rows = slice(max(row, 0), min(row + height, 224))
            columns = slice(max(column, 0), min(column + width, 224))
            placed[index, rows, columns] = crops.pixels[index, rows.start - row:rows.stop - row,
                                                        columns.start - column:columns.stop - column]
        np.testing.assert_array_equal(placed, whole.pixels)


def test_a_rule_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    _, imported = take(tmp_path, "squeezenet")
    net, x = imported.network, image(1)
    with pytest.raises(ValueError, match="Softmax.*deconvnet"):
        net.project(x, f"{net.output}:0", "deconvnet")
    assert net.project(x, f"{net.output}:0", "gradient").pixels.shape == (1, 224, 224, 3)


def test_an_atlas_of_an_imported_graph(tmp_path: Path) -> None:
    import zfcore

    _, imported = take(tmp_path, "squeezenet")
    net = imported.network
    pixels = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)
    images = Arrays(pixels)
    name = middle(imported)
    with pytest.raises(ValueError, match="preprocessing"):
        zfcore.scan(net, images, layers=[name], top=2)
    net.preprocessing = Preprocessing("RGB", 128.0, 1 / 64, (224, 224))
    atlas = zfcore.scan(net, images, layers=[name], top=2)
    features = net.features(net.preprocessing.apply(pixels), (name,))[name]
    np.testing.assert_array_equal(atlas[name].values[:, 0], features.max(axis=(0, 1, 2)))
