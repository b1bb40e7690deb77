"""Random weights: the schemes' numbers, streams that belong to names."""

from __future__ import annotations

import numpy as np
import pytest

from zfcore import Network, layers, models
from zfcore.initializers import SCHEMES, draw, ones_of_krizhevsky, stream


def small(extra: bool = False) -> Network:
    net = Network("small", (40, 40, 3))
    if extra:
        net.add("first", layers.Convolution(5, 3))
        net.add("conv1", layers.Convolution(64, 5), "input")
    else:
        net.add("conv1", layers.Convolution(64, 5))
    net.add("bn", layers.BatchNorm())
    return net


def test_same_seed_same_numbers_other_seed_others() -> None:
    first, again, other = (small().initialize(seed).parameters() for seed in (3, 3, 4))
    np.testing.assert_array_equal(first["conv1.weight"], again["conv1.weight"])
    assert not np.array_equal(first["conv1.weight"], other["conv1.weight"])
    assert first["conv1.weight"].dtype == np.float32


def test_a_layer_keeps_its_numbers_when_others_are_added() -> None:
    plain, more = small().initialize(0).parameters(), small(True).initialize(0).parameters()
    np.testing.assert_array_equal(plain["conv1.weight"], more["conv1.weight"])
    assert not np.array_equal(stream(0, "a").random(4), stream(0, "b").random(4))


def test_deviations_and_constants() -> None:
    for scheme, deviation in (("zf", 1e-2), ("krizhevsky", 1e-2), ("he", (2 / 75) ** 0.5)):
        values = small().initialize(0, scheme).parameters()
        assert values["conv1.weight"].std() == pytest.approx(deviation, rel=0.03)
        assert abs(values["conv1.weight"].mean()) < 0.05 * deviation
        assert not values["conv1.bias"].any()
        assert (values["bn.scale"] == 1).all() and (values["bn.variance"] == 1).all()
        assert not values["bn.bias"].any() and not values["bn.mean"].any()


def test_krizhevsky_biases() -> None:
    net = models.alexnet(10, widths=(8, 8, 8, 8, 8), hidden=(6, 6)).initialize(0)
    ones = {key for key, value in net.parameters().items() if key.endswith("bias") and (value == 1).all()}
    assert ones == {f"{name}.bias" for name in ("conv2", "conv4", "conv5", "fc6", "fc7")}
    others = {key for key, value in net.parameters().items() if key.endswith("bias") and not value.any()}
    assert others == {f"{name}.bias" for name in ("conv1", "conv3", "fc8")}
    assert ones_of_krizhevsky({"only": "Linear"}) == set()


def test_zf_scaled_is_zf_at_the_pixels_and_for_4096_inputs() -> None:
    net = models.zfnet_mnist()
    scaled, zf = (net.initialize(0, scheme).parameters() for scheme in ("zf-scaled", "zf"))
    np.testing.assert_array_equal(scaled["conv1.weight"], zf["conv1.weight"])
    weights = [draw(scheme, "fc7", "weight", (6, 4096), 0) for scheme in ("zf-scaled", "zf")]
    np.testing.assert_array_equal(*weights)
    for name, inputs in (("conv2.weight", 3 * 3 * 16), ("conv4.weight", 3 * 3 * 48), ("fc8.weight", 256)):
        np.testing.assert_allclose(scaled[name], zf[name] * (4096 / inputs) ** 0.5, rtol=1e-5)


def test_bad_arguments() -> None:
    for seed in (-1, 1.5, "1", None, True):
        with pytest.raises((ValueError, TypeError), match="seed"):
            small().initialize(seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scheme is 'xavier'; allowed: .*'zf'"):
        small().initialize(0, "xavier")
    with pytest.raises(ValueError, match="scheme"):
        draw("other", "a", "weight", (2, 2), 0)
    assert set(SCHEMES) == {"zf", "krizhevsky", "he", "zf-scaled"}
