"""How kernels are compiled and where the compiled code is kept.

Numba's own cache notices an edit of a kernel's file but not of a kernel it calls in another file.
So the cache folder's name holds a hash of every kernel source: any edit starts a fresh folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Folder of the compiled kernels, named by the hash of their sources and Numba's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    root = os.environ.get("ZFCORE_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zfcore"
    return base / f"kernels-{digest.hexdigest()[:16]}"


def kernel(function: Callable[..., Any] | None = None, *, fastmath: bool | set[str] = False,
           inline: bool = False) -> Any:
    """Compile with the GIL released, cached on disk; where no folder can be written, in memory only."""
    if function is None:
        return lambda inner: kernel(inner, fastmath=fastmath, inline=inline)
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy",
                               "boundscheck": False}
    if inline:
        options["inline"] = "always"
    before = config.CACHE_DIR
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        config.CACHE_DIR = str(folder)
        return numba.njit(cache=True, **options)(function)
    except (OSError, RuntimeError):
        return numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before
