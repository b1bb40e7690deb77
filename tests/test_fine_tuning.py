"""Fine-tuning: other classes on a trained network, frozen layers, rates by layer; parts of data sets."""

from __future__ import annotations

import numpy as np
import pytest
from training_cases import feeds, images, network

import zfcore
from zfcore import models
from zfcore.data import Arrays, split, subset
from zfcore.layers import Convolution, GlobalAveragePool, Linear, MaxPool
from zfcore.network import Network
from zfcore.training import SGD, ArrayFeed
from zfcore.training.fine_tuning import classifier, take, with_classes
from zfcore.training.loop import Training


def test_the_last_layer_is_replaced_and_the_others_are_taken() -> None:
    source = network()
    net = with_classes(source, 7, list("abcdefg")).initialize(9)
    assert net.tensor_shape(net.logits) == (7,) and net.class_names == list("abcdefg")
    assert net.algorithm == "direct"
    assert take(net, source) == ["fc3"]
    for name, value in net.parameters().items():
        if name.startswith("fc3."):
            assert value.shape[0] == 7
        else:
            assert value.tobytes() == source.parameters()[name].tobytes()
            assert value is not source.parameters()[name]
    again = with_classes(source, 3).initialize(9)
    assert take(again, source, ["fc2"]) == ["fc2"]
    assert again.parameters()["fc3.weight"].tobytes() == source.parameters()["fc3.weight"].tobytes()
    with pytest.raises(ValueError, match="a layer to replace is 'pool1'"):
        take(again, source, ["pool1"])


def test_which_layer_gives_the_classes() -> None:
    assert classifier(models.build("zfnet")) == "fc8"
    assert classifier(models.build("torchvision/squeezenet1_1")) == "conv10"
    assert with_classes(models.build("torchvision/squeezenet1_1"), 5).tensor_shape("prob") == (5,)
    net = Network("odd", (4, 4, 2))
    net.add("conv1", Convolution(6, 3))
    net.add("pool1", MaxPool(2, 2))
    net.add("gap", GlobalAveragePool())
    assert classifier(net) == "conv1"
    net.add("fc", Linear(4))
    assert classifier(net) == "fc"
    with pytest.raises(ValueError, match="classes is 0"):
        with_classes(net, 0)


def trained(frozen: tuple[str, ...] = (), factors: dict[str, float] | None = None, momentum: float = 0.0) -> Network:
    net = network()
    Training(net, feeds()[0], SGD(0.05, momentum=momentum, factors=factors or {}), frozen=frozen).run(
        2, progress=False)
    return net


def test_frozen_layers_stay_as_they_are_statistics_included() -> None:
    fresh, net, free = network().parameters(), trained(("conv1", "norm1")).parameters(), trained().parameters()
    for name, value in net.items():
        same = value.tobytes() == fresh[name].tobytes()
        assert same == name.startswith(("conv1.", "norm1.")), name
        assert (free[name].tobytes() == fresh[name].tobytes()) is False, name


def test_frozen_layers_run_as_at_inference() -> None:
    """What reaches the layer above a frozen part is what the features of the network are."""
    net, (pixels, labels) = network(), images()
    features = net.features(pixels, ["norm1"])["norm1"]
    whole = net.forward(pixels, keep=["norm1"], training=True, frozen=("conv1", "norm1"), cache=True)
    assert whole.kept["norm1"].tobytes() == features.tobytes()
    assert net.forward(pixels, keep=["norm1"], training=True).kept["norm1"].tobytes() != features.tobytes()
    assert len(labels) == len(features)


def test_a_factor_scales_a_layers_rate() -> None:
    pixels, labels = images()
    feed = ArrayFeed(pixels, labels, batch_size=len(labels), shuffle=False)
    moves = {}
    for factor in (1.0, 0.5, 0.0):
        net = network()
        before = {name: value.copy() for name, value in net.parameters().items()}
        Training(net, feed, SGD(0.05, momentum=0.0, factors={"fc2": factor})).run(1, progress=False)
        moves[factor] = {name: value - before[name] for name, value in net.parameters().items()}
    for name, move in moves[1.0].items():
        share = 0.5 if name.startswith("fc2.") else 1.0
        np.testing.assert_allclose(moves[0.5][name], share * move, rtol=1e-3, atol=1e-7)
    assert not moves[0.0]["fc2.weight"].any() and moves[0.0]["fc3.weight"].any()


def test_the_algorithm_is_saved_with_the_model(tmp_path: object) -> None:
    import pathlib

    path = pathlib.Path(str(tmp_path)) / "net.safetensors"
    zfcore.save(network(), path)
    assert zfcore.load(path).algorithm == "direct"
    assert network().at_size(6, 6).algorithm == "direct"
    config = network().to_config()
    del config["algorithm"]  # the usual one is left out, so that hashes of networks stay what they were
    assert Network.from_config(config).algorithm == "auto"


def test_parts_of_a_data_set() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3)).astype(np.uint8)
    whole = Arrays(pixels, np.arange(30) % 3, class_names=list("abc"))
    part = subset(whole, [4, 0, 17])
    assert part.names == [whole.names[index] for index in (4, 0, 17)] and part.class_names == list("abc")
    assert part.labels is not None and part.labels.tolist() == [1, 0, 2]
    assert (part.pixels(2) == pixels[17]).all()
    rest, held_out = split(whole, 0.2, seed=5)
    assert sorted([*rest.names, *held_out.names]) == sorted(whole.names)
    assert held_out.labels is not None and np.bincount(held_out.labels).tolist() == [2, 2, 2]
    assert split(whole, 0.2, seed=5)[1].manifest() == held_out.manifest() != split(whole, 0.2, seed=6)[1].manifest()
    for indices in ([30], [-1]):
        with pytest.raises(ValueError, match=r"allowed: 0\.\.29"):
            subset(whole, indices)
    for share in (0, 1, 0.01):
        with pytest.raises(ValueError, match="held_out"):
            split(whole, share)
    with pytest.raises(ValueError, match="a class for every picture"):
        split(Arrays(pixels), 0.5)
