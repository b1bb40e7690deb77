"""Occlusion as an attribution: whole passes, Captum, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import classifier, pooled

from zfcore import explain


@pytest.mark.parametrize("target", [2, None, "conv2:5", "conv2:5@4,6", "conv2.pre:5", "conv2"], ids=str)
def test_occlusion_is_the_mean_over_squares(target: object) -> None:
    net = classifier()
    assert net.preprocessing is not None
    x = np.random.default_rng(0).standard_normal((2, *net.input_shape), dtype=np.float32)
    found = explain.occlusion(net, x, target, window=(7, 6), stride=(4, 3), fill=90, batch_size=5)
    gray = net.preprocessing.apply(np.full((1, *net.input_shape), 90, np.uint8))[0]
    net.algorithm = "direct"  # as occlusion computes
    whole = explain.gradient(net, x, target)
    np.testing.assert_array_equal(found.scores, whole.scores)
    chosen = [int(name.removeprefix("class ")) for name in found.targets] if target is None else target
    total, count = np.zeros(x.shape[:3]), np.zeros(x.shape[1:3])
    for top in (0, 4, 8, 12, 13):
        for left in (0, 3, 6, 9, 12, 15, 17):
            square = slice(top, top + 7), slice(left, left + 6)
            hidden = x.copy()
            hidden[:, square[0], square[1]] = gray[square]
            fall = whole.scores - explain.gradient(net, hidden, chosen).scores
            total[:, square[0], square[1]] += fall[:, None, None]
            count[square] += 1
    np.testing.assert_allclose(found.values, total / count, rtol=1e-4, atol=1e-6)
    assert found.signed and np.abs(found.values).max() > 0


def test_captum_agrees() -> None:
    captum = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    from twin import Twin

    net = pooled()
    x = np.random.default_rng(1).standard_normal((2, *net.input_shape)).astype(np.float32)

    def scores(image: torch.Tensor) -> torch.Tensor:
        return Twin(net, image.numpy().transpose(0, 2, 3, 1)).tensors[net.logits].detach()

    image = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    expected = captum.Occlusion(scores).attribute(image, (3, 8, 8), strides=(3, 4, 4), target=3, baselines=0)
    found = explain.occlusion(net, x, 3, window=8, stride=4)
    np.testing.assert_allclose(found.values, expected[:, 0].detach().numpy(), rtol=1e-3, atol=1e-5)


def test_rows_and_batches_do_not_matter() -> None:
    net = classifier()
    x = np.random.default_rng(2).standard_normal((3, *net.input_shape), dtype=np.float32)
    every = explain.occlusion(net, x, [1, 2, 3], window=6, stride=5)
    for row in range(3):
        alone = explain.occlusion(net, x[row:row + 1], row + 1, window=6, stride=5, batch_size=1)
        np.testing.assert_array_equal(alone.values[0], every.values[row])
    assert explain.occlusion(net, x[:0], window=6, stride=5).values.shape == (0, 20, 23)


@pytest.mark.parametrize(("options", "word"), [
    ({"window": 0}, "window"), ({"window": -3}, "window"), ({"window": 21}, "20 x 23"),
    ({"window": 4, "stride": 5}, "stride"), ({"window": 4, "stride": 0}, "stride"),
    ({"window": 4, "stride": 4, "fill": 256}, "fill"), ({"window": 4, "stride": 4, "fill": -1}, "fill"),
    ({"window": 4, "stride": 4, "batch_size": 0}, "batch_size"),
    ({"window": 4, "stride": 4, "target": "conv7:1"}, "conv7"), ({"window": 4, "stride": 4, "target": 5}, "0 to 4")])
def test_refusals(options: dict, word: str) -> None:
    net = classifier()
    with pytest.raises(ValueError, match=word):
        explain.occlusion(net, np.zeros((1, *net.input_shape), np.float32), **options)


def test_a_fill_needs_a_preprocessing() -> None:
    net = pooled()
    with pytest.raises(ValueError, match="no preprocessing"):
        explain.occlusion(net, np.zeros((1, *net.input_shape), np.float32), 0, window=8, stride=4, fill=3)
