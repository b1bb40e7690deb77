"""Studies and explanations on published graphs from ONNX: branches, sums, concatenations, channel shuffles."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx_models import light

from zfcore import Preprocessing
from zfcore.explain import gradcam
from zfcore.formats.onnx import load
from zfcore.study.occlusion import occlusion

GRAPHS = ("squeezenet", "shufflenet", "resnet50", "inception_v1", "densenet121")


@pytest.fixture(scope="module", params=GRAPHS)
def network(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / f"{request.param}.onnx"
    onnx.save(light(request.param), path)
    net = load(path)
    net.preprocessing = Preprocessing(mean=128, scale=1 / 64)
    return net


def test_occlusion_recomputes_what_the_square_reaches(network):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    local, whole = (occlusion(network, image, window=96, stride=128, local=local, progress=False)
                    for local in (True, False))
    assert np.array_equal(local.activity, whole.activity)
    assert np.array_equal(local.probability, whole.probability)
    assert np.ptp(local.activity) > 0


def test_gradcam_is_a_map_of_the_last_convolution(network):
    x = np.random.default_rng(1).standard_normal((2, 224, 224, 3)).astype(np.float32)
    both, alone = gradcam(network, x), gradcam(network, x[1:])
    assert np.isfinite(both.values).all() and (both.values >= 0).all()
    assert np.array_equal(both.values[1:], alone.values)
