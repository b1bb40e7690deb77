"""The real AlexNet convolution stages and photographs, where they are on this machine.

`ZFCORE_SHARED_DATA`, or `../shared/data` beside the repository, is the folder of development data;
tests that need it skip where it is absent.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from zfcore import Network, Preprocessing, layers

DATA = Path(os.environ.get("ZFCORE_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")


def data(*parts: str) -> Path:
    """A file of the development data; the test is skipped where it is absent."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def alexnet() -> Network:
    """AlexNet conv1 to pool5 with the pretrained weights (Caffe's constants, BGR)."""
    import safetensors.numpy

    config = json.loads(data("models", "alexnet_conv_pq.json").read_text())
    weights = safetensors.numpy.load_file(data("models", "alexnet_conv_pq.safetensors"))
    mean = tuple(float(value) for value in config["meta"]["preprocess"]["mean_bgr"])
    net = Network("alexnet_conv_pq", (227, 227, 3),
                  preprocessing=Preprocessing("BGR", mean=mean, size=(256, 256), crop=227))
    for entry in config["layers"]:
        if entry["type"] == "Convolution":
            net.add(entry["name"], layers.Convolution(
                entry["num_output"], tuple(entry["kernel"]), tuple(entry["stride"]), tuple(entry["pad"]),
                groups=entry["group"], activation="relu"))
        elif entry["type"] == "LRN":
            constants = (entry[key] for key in ("local_size", "alpha", "beta", "k"))
            net.add(entry["name"], layers.ResponseNorm(*constants, alpha_is_divided_by_size=True))
        elif entry["type"] == "Pooling":
            net.add(entry["name"], layers.MaxPool(tuple(entry["kernel"]), tuple(entry["stride"]),
                                                  tuple(entry["pad"]), entry["ceil_mode"]))
        else:
            assert entry["type"] == "ReLU", entry
    values = {}
    for name, array in weights.items():
        values[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array  # OIHW to KRSC
    return net.load_parameters(values)


def photographs(indices: list[int] | None = None) -> np.ndarray:
    """The packed ImageNet photographs, cropped to 227: uint8 (N, 227, 227, 3) RGB."""
    from PIL import Image

    with np.load(data("imagenet300_warp256_jpeg.npz"), allow_pickle=False) as packed:
        blob, offsets = packed["jpeg"], packed["offsets"]
    chosen = range(len(offsets) - 1) if indices is None else indices
    images = []
    for index in chosen:
        with Image.open(io.BytesIO(blob[offsets[index]:offsets[index + 1]].tobytes())) as image:
            images.append(np.asarray(image.convert("RGB"))[14:241, 14:241])
    return np.stack(images)


def top9() -> dict[str, dict[str, list[dict[str, float]]]]:
    """Layer -> map -> the nine strongest: image, value, row, column; computed with PyTorch."""
    return json.loads(data("reference", "top9.json").read_text())["top9"]
