"""How pixels become the input of somebody else's network: presets by name, or a JSON file; never a guess."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..preprocessing import Preprocessing

# What the customs have in common: the picture is resized to 256, its centre is the input.
_RESIZED = 256
MAX_JSON = 10_000_000


def _caffe(shape: Sequence[int]) -> Preprocessing:
    """Caffe's reference networks: BGR, 0 to 255, minus ImageNet's mean colour, warped to 256 x 256."""
    return Preprocessing("BGR", (104.0, 117.0, 123.0), 1.0, _warp(shape), _size(shape))


def _torchvision(shape: Sequence[int]) -> Preprocessing:
    """torchvision's classification networks: RGB in units of ImageNet's standard deviation."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Preprocessing("RGB", [255 * value for value in mean], [1 / (255 * value) for value in deviation],
                         max(_RESIZED, *shape[:2]), _size(shape))


def _zero_one(shape: Sequence[int]) -> Preprocessing:
    """Values from 0 to 1, the whole picture warped to the input's size."""
    return Preprocessing("L" if shape[2] == 1 else "RGB", 0.0, 1 / 255, _size(shape))


def _minus_one_one(shape: Sequence[int]) -> Preprocessing:
    """Values from -1 to 1, the whole picture warped to the input's size."""
    return Preprocessing("L" if shape[2] == 1 else "RGB", 127.5, 1 / 127.5, _size(shape))


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], shape[1]


def _warp(shape: Sequence[int]) -> tuple[int, int]:
    return max(_RESIZED, shape[0]), max(_RESIZED, shape[1])


PRESETS = {"caffe-bgr": _caffe, "torchvision": _torchvision, "zero-one": _zero_one,
           "minus-one-one": _minus_one_one}
_CHANNELS = {"caffe-bgr": (3,), "torchvision": (3,), "zero-one": (1, 3), "minus-one-one": (1, 3)}


def resolve(preprocessing: Any, input_shape: Sequence[int], model: Path | None = None) -> Preprocessing | None:
    """A Preprocessing from what a user gave, or from the JSON file beside the model.

    Parameters
    ----------
    preprocessing : a Preprocessing; a preset's name; the path of a JSON file; its mapping; None: the file
        `model.json` beside `model.onnx`, if it is there and says something about preprocessing
    input_shape : (height, width, channels) of the network
    model : the model's path

    Returns
    -------
    None only where nothing says how: the network runs, studies on images will ask.
    """
    if preprocessing is None:
        beside = model.with_suffix(".json") if model is not None else None
        if beside is None or not beside.is_file() or beside.is_symlink():
            return None
        return from_json(_load(beside), input_shape, beside.name, required=False)
    if isinstance(preprocessing, Preprocessing):
        return _fitting(preprocessing, input_shape, "preprocessing")
    if isinstance(preprocessing, Mapping):
        return from_json(preprocessing, input_shape, "preprocessing")
    if isinstance(preprocessing, str) and preprocessing in PRESETS:
        if input_shape[2] not in _CHANNELS[preprocessing]:
            raise ValueError(f"preprocessing is {preprocessing!r}; allowed: one for inputs of "
                             f"{input_shape[2]} channels")
        return PRESETS[preprocessing](input_shape)
    if isinstance(preprocessing, (str, os.PathLike)) and Path(preprocessing).is_file():
        return from_json(_load(Path(preprocessing)), input_shape, str(preprocessing))
    raise ValueError(f"preprocessing is {preprocessing!r}; allowed: {', '.join(PRESETS)}, a JSON file, "
                     "or a Preprocessing")


def _load(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes; allowed: {MAX_JSON} for a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON: {error}") from None


def _fitting(found: Preprocessing, shape: Sequence[int], where: str) -> Preprocessing:
    channels = 1 if found.channels == "L" else 3
    if channels != shape[2]:
        raise ValueError(f"{where}: channels are {found.channels!r}; allowed: an order of {shape[2]}, "
                         "as the network's input has")
    return found


def from_json(config: Any, input_shape: Sequence[int], where: str, required: bool = True) -> Preprocessing | None:
    """Read the description of a preprocessing.

    Parameters
    ----------
    config : a mapping: `Preprocessing.to_config()`'s keys themselves or under "preprocessing"; or, as
        some published models have it, "preprocess" (at the top or under "meta") with color, mean_bgr,
        mean_rgb or mean, scale (a factor after the mean), and resize in words
    input_shape : (height, width, channels)
    where : its name, for errors
    required : whether a mapping that describes none is an error, or gives None
    """
    if isinstance(config, Mapping):
        ours = config.get("preprocessing", config if "channels" in config else None)
        if isinstance(ours, Mapping):
            return _fitting(Preprocessing.from_config(ours), input_shape, where)
        meta = config.get("meta")
        theirs = config.get("preprocess", meta.get("preprocess") if isinstance(meta, Mapping) else None)
        if isinstance(theirs, Mapping):
            return _fitting(_published(theirs, input_shape, where), input_shape, where)
    if not required:
        return None
    raise ValueError(f"{where}: describes no preprocessing; allowed: a mapping with channels, mean, scale, "
                     'size and crop, itself or under "preprocessing"')


def _published(config: Mapping[str, Any], shape: Sequence[int], where: str) -> Preprocessing:
    """A description in the words of Caffe's users."""
    color = config.get("color")
    if color not in ("RGB", "BGR", "L"):
        raise ValueError(f"{where}: color is {color!r}; allowed: 'RGB', 'BGR' or 'L'")
    means = [key for key in ("mean", "mean_bgr", "mean_rgb") if key in config]
    if len(means) > 1:
        raise ValueError(f"{where}: it has {' and '.join(means)}; allowed: one of them")
    mean: Any = config[means[0]] if means else 0.0
    if means and means[0] != "mean" and means[0] != f"mean_{color.lower()}" and isinstance(mean, (list, tuple)):
        mean = mean[::-1]
    words = str(config.get("resize", ""))
    warped = re.search(r"\bwarp(?:ed)? to (\d{1,5}) ?x ?(\d{1,5})\b", words)
    cropped = re.search(r"\bcrop\b(?: (?:of|to))? ?(\d{1,5})?", words)
    size: Any = (int(warped[1]), int(warped[2])) if warped else None
    crop: Any = None
    if cropped:
        crop = int(cropped[1]) if cropped[1] else (shape[0], shape[1])
    if size is None and crop is None:
        raise ValueError(f"{where}: resize is {words!r}; allowed: words such as 'warp to 256x256, center "
                         "crop 227'")
    return Preprocessing(color, mean, config.get("scale", 1.0), size, crop)
