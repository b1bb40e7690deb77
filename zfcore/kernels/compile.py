"""How kernels are compiled and where the compiled code is kept.

Numba's own cache notices an edit of a kernel's file but not of a kernel it calls in another file.
So the cache folder's name holds a hash of every kernel source: any edit starts a fresh folder.

Compiling is kept from the main thread, where signals are handled: an exception that Ctrl-C raises just inside the
lock of LLVM's binding would leave that locked for good, and the next thread that compiles would wait for ever.
"""

from __future__ import annotations

import hashlib
import os
import threading
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


def _undisturbed(dispatcher: Any) -> Any:
    """Let a thread of its own compile, or load from the cache, what the main thread calls for the first time.

    Callees are compiled by the thread that compiles their callers.
    """
    compiled_by_caller = getattr(dispatcher, "_compile_for_args", None)
    if compiled_by_caller is None:  # NUMBA_DISABLE_JIT
        return dispatcher

    def compiled(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return compiled_by_caller(*arguments, **named)
        found: list[Any] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                found.append(compiled_by_caller(*arguments, **named))
            except BaseException as error:  # noqa: BLE001 (the caller raises it)
                errors.append(error)

        thread = threading.Thread(target=work, name="zfcore-compile")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the system has no thread left
            return compiled_by_caller(*arguments, **named)
        thread.join()
        if errors:
            raise errors[0]
        return found[0]

    dispatcher._compile_for_args = compiled
    return dispatcher


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
        return _undisturbed(numba.njit(cache=True, **options)(function))
    except (OSError, RuntimeError):
        return _undisturbed(numba.njit(**options)(function))
    finally:
        config.CACHE_DIR = before
