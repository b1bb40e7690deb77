"""zfcore: see inside convolutional networks with hand-written kernels.

    import zfcore
    net = zfcore.load("model.safetensors")
    net.project(images, "conv5:42@6,7")

Names are imported when they are first used, so that `import zfcore` is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

_NAMES = {
    "Network": "network", "Unit": "units", "Projections": "network", "Cone": "network",
    "Preprocessing": "preprocessing", "Rule": "rules",
    "load": "formats", "save": "formats",
    "Atlas": "study.atlas", "scan": "study.scan", "atlas": "study.scan",
    "ImageFolder": "data", "Arrays": "data",
    "set_num_threads": "kernels.threads", "get_num_threads": "kernels.threads",
}
_MODULES = ("backends", "data", "explain", "files", "formats", "geometry", "initializers", "layers", "models",
            "network", "ops", "pictures", "preprocessing", "report", "rules", "study", "training", "units")
__all__ = ["__version__", *_NAMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"zfcore.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"zfcore.{name}")
    else:
        raise AttributeError(f"module 'zfcore' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
