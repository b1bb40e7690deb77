"""What a graph does not say, as texts in the file's `metadata_props`: name, class names, preprocessing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ... import __version__
from ...network import Network
from .. import presets

NAME, VERSION, PREPROCESSING, CLASSES = (f"zfcore.{key}" for key in ("name", "version", "preprocessing",
                                                                     "class_names"))


def preprocessing(network: Network) -> dict[str, Any]:
    """The preprocessing as JSON's values; a per-pixel mean is a nested list."""
    assert network.preprocessing is not None
    config = network.preprocessing.to_config()
    for key, value in network.preprocessing.tensors().items():
        config[key] = np.asarray(value).tolist()
    return config


def written(network: Network) -> dict[str, str]:
    """The texts of a network."""
    texts = {NAME: network.name, VERSION: __version__}
    if network.preprocessing is not None:
        texts[PREPROCESSING] = json.dumps(preprocessing(network))
    if network.class_names is not None:
        texts[CLASSES] = json.dumps(network.class_names)
    return texts


def restore(network: Network, model: Any) -> None:
    """Give a network what the texts of the file it was read from say; ValueError if they are malformed.

    Parameters
    ----------
    network : just read; a preprocessing that it has already stays
    model : the ModelProto
    """
    texts = {item.key: item.value for item in model.metadata_props}
    network.name = texts.get(NAME) or network.name
    if network.preprocessing is None and PREPROCESSING in texts:
        network.preprocessing = presets.from_json(_json(texts, PREPROCESSING), network.input_shape, PREPROCESSING)
    if CLASSES in texts:
        names = _json(texts, CLASSES)
        classes = math.prod(network.shapes[network.output])
        if not isinstance(names, list) or len(names) != classes:
            raise ValueError(f"{CLASSES} is no list of {classes} names, one for each output")
        network.class_names = [str(name) for name in names]


def _json(texts: dict[str, str], key: str) -> Any:
    try:
        return json.loads(texts[key])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key} is no JSON: {error}") from None
