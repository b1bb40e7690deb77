"""Table 3's networks: layers taken out of and resized in ZFNet, AlexNet and their like."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import classifier

from zfcore import Network, layers, models
from zfcore.models import ablation

FULL = 62_357_608  # ZFNet, counted in test_models
# Parameters by hand: weights and biases of the layers that change, at 224x224 (pool5 gives 6 * 6 * 256 = 9216).
CONV34 = (256 * 9 + 1) * 384 + (384 * 9 + 1) * 384 + (384 * 9 + 1) * 256
FC = (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
ZFNET = {
    "whole": FULL,
    "without-3-4": FULL - CONV34 + (256 * 9 + 1) * 256,
    "without-7": FULL - (4096 + 1) * 4096,
    "without-6-7": FULL - FC + (9216 + 1) * 1000,
    "without-3-4-6-7": FULL - CONV34 + (256 * 9 + 1) * 256 - FC + (9216 + 1) * 1000,
    "half-6-7": FULL - FC + (9216 + 1) * 2048 + (2048 + 1) * 2048 + (2048 + 1) * 1000,
    "double-6-7": FULL - FC + (9216 + 1) * 8192 + (8192 + 1) * 8192 + (8192 + 1) * 1000,
    "wide-3-4-5": FULL - CONV34 + (256 * 9 + 1) * 512 + (512 * 9 + 1) * 1024 + (1024 * 9 + 1) * 512
                  + 6 * 6 * 256 * 4096,
}


@pytest.mark.parametrize("row", ZFNET)
def test_the_rows_of_zfnet_have_the_parameters_counted_by_hand(row: str) -> None:
    assert ablation.ablated(models.zfnet(), row).parameter_count == ZFNET[row]


def test_both_of_zfnet() -> None:
    net = ablation.ablated(models.zfnet(), "wide-3-4-5-double-6-7")
    assert [net.tensor_shape(name) for name in ("conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")] == [
        (13, 13, 512), (13, 13, 1024), (13, 13, 512), (6, 6, 512), (8192,), (8192,), (1000,)]
    assert net.to_config()["layers"] == models.zfnet(
        widths=(96, 256, 512, 1024, 512), hidden=(8192, 8192)).to_config()["layers"]


@pytest.mark.parametrize("name", ["alexnet", "alexnet-dense", "zfnet", "zfnet-cifar", "zfnet-mnist"])
@pytest.mark.parametrize("row", ablation.ROWS)
def test_rows_keep_names_settings_and_the_original(name: str, row: str) -> None:
    whole = models.build(name)
    before = whole.to_config()
    net = ablation.ablated(whole, row)
    assert whole.to_config() == before
    gone = {"3": "conv3", "4": "conv4", "6": "fc6", "7": "fc7"}
    gone_names = {gone[part] for part in row.split("-")[1:] if row.startswith("without")}
    dropouts = {name.replace("fc", "drop") for name in gone_names if name.startswith("fc")}
    assert list(net.nodes) == [each for each in whole.nodes if each not in gone_names | dropouts]
    assert net.preprocessing is whole.preprocessing and net.scheme == whole.scheme
    assert net.tensor_shape("fc8") == whole.tensor_shape("fc8")
    for each in net.nodes.values():
        groups = getattr(each.layer, "groups", None)
        assert groups == getattr(whole.nodes[each.name].layer, "groups", None)


def test_alexnets_groups_stay_and_count() -> None:
    net = ablation.ablated(models.alexnet(), "without-3-4-6-7")
    # conv1, conv2 in two groups of 48 inputs, conv5 in two groups of conv2's 128, then the classes.
    assert net.parameter_count == ((11 * 11 * 3 + 1) * 96 + (5 * 5 * 48 + 1) * 256 + (9 * 128 + 1) * 256
                                   + (9216 + 1) * 1000)


def test_layers_that_stay_as_they_were_begin_with_the_same_weights() -> None:
    whole = models.zfnet_mnist().initialize(3)
    part = ablation.ablated(whole, "without-3-4").initialize(3)
    for name in ("conv1", "conv2", "fc6", "fc8"):
        np.testing.assert_array_equal(part.parameters()[f"{name}.weight"], whole.parameters()[f"{name}.weight"])
    images = np.random.default_rng(0).standard_normal((2, 28, 28, 1), dtype=np.float32)
    np.testing.assert_allclose(part(images).sum(axis=1), 1, rtol=1e-5)


def test_a_relu_and_a_dropout_go_with_their_layer_and_pools_stay() -> None:
    net = Network("chain", (12, 12, 3))
    net.add("a", layers.Convolution(4, 3, padding=1))
    net.add("a-relu", layers.ReLU())
    net.add("b", layers.Convolution(4, 3, padding=1))
    net.add("b-relu", layers.ReLU())
    net.add("b-drop", layers.Dropout(0.1))
    net.add("pool", layers.MaxPool(2, 2))
    net.add("flatten", layers.Flatten())
    net.add("c", layers.Linear(7))
    assert ablation.counted(net) == ["a", "b", "c"]
    assert list(ablation.without(net, [2]).nodes) == ["a", "a-relu", "pool", "flatten", "c"]
    assert list(ablation.without(net, [1, 2]).nodes) == ["pool", "flatten", "c"]
    small = ablation.resized(net, {1: 2})
    assert small.tensor_shape("pool") == (6, 6, 4) and small.tensor_shape("a-relu") == (12, 12, 2)


@pytest.mark.parametrize(("row", "number"), [("without-7", 7), ("without-3-4-6-7", 4), ("double-6-7", 6)])
def test_a_layer_that_is_not_there_is_named(row: str, number: int) -> None:
    with pytest.raises(ValueError, match=rf"ablated\('{row}'\): a layer's number is {number}; allowed: 1 to 3: "
                                         r"convnetjs has 4 layers with weights \(conv1, conv2, conv3, fc4\)"):
        ablation.ablated(models.convnetjs(), row)


def test_other_bad_calls() -> None:
    with pytest.raises(ValueError, match="row is 'without-9'; allowed: one of"):
        ablation.ablated(models.zfnet(), "without-9")
    with pytest.raises(ValueError, match="a layer's number is 8; allowed: 1 to 7"):
        ablation.without(models.zfnet(), [8])
    with pytest.raises(ValueError, match="a layer's number is 0"):
        ablation.without(models.zfnet(), [0])
    with pytest.raises(TypeError, match="size of conv3 is 2.5"):
        ablation.resized(models.zfnet(), {3: 2.5})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="layer 'conv2'.*groups"):
        ablation.resized(models.alexnet(), {1: 95})
    with pytest.raises(ValueError, match="a chain of layers, without branches"):
        ablation.without(models.build("torchvision/resnet18"), [2])


def test_possible_rows() -> None:
    assert ablation.possible(models.zfnet()) == list(ablation.ROWS)
    assert ablation.possible(models.convnetjs()) == ["whole"]
    assert ablation.possible(classifier()) == ["whole"]
    assert ablation.possible(models.zfnet(hidden=(64,))) == ["whole", "without-3-4", "wide-3-4-5"]
