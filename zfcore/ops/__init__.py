"""The public operations: each checks its arguments, allocates the outputs and calls the backend.

Activations are NHWC, filters KRSC (filters, height, width, channels), float32 or float64; where the backend has
kernels of 16 bits (cuda) also float16 and bfloat16: see `Bfloat16`, and `precision` of `convolution`.
The functions here choose the backend by their first array's type; `bind(name)` returns the same
functions with the backend chosen once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import backends
from ..backends.bfloat16 import Bfloat16
from . import activation as _activation
from . import arrange as _arrange
from . import chains as _chains
from . import convolution as _convolution
from . import crop as _crop
from . import elementwise as _elementwise
from . import linear as _linear
from . import loss as _loss
from . import normalization as _normalization
from . import pooling as _pooling
from . import update as _update
from .arguments import refusing_others as _refusing_others

__all__ = ["OPERATIONS", "Bfloat16", "Ops", "bind"]

_MODULES: tuple[Any, ...] = (
    _activation,
    _arrange,
    _chains,
    _convolution,
    _crop,
    _elementwise,
    _linear,
    _loss,
    _normalization,
    _pooling,
    _update,
)

OPERATIONS: dict[str, Callable[..., Any]] = {
    name: _refusing_others(getattr(module, name)) for module in _MODULES for name in module.__all__
}
globals().update(OPERATIONS)
for _module in _MODULES:  # whichever way a user imports an operation, its arrays are checked
    vars(_module).update({_name: OPERATIONS[_name] for _name in _module.__all__})
__all__ += list(OPERATIONS)


def __getattr__(name: str) -> Any:
    """Names that are no operations; the operations' own names are there since this module was run."""
    raise AttributeError(f"module 'zfcore.ops' has no attribute {name!r}")


class Ops:
    """All operations, bound to one backend; what layers receive as `ops`."""

    def __init__(self, backend: str | None = None) -> None:
        self.backend = backends.get(backend or backends.default())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in OPERATIONS:
            raise AttributeError(f"no operation called {name!r}")
        bound = functools.partial(OPERATIONS[name], backend=self.backend)
        setattr(self, name, bound)
        return bound


def bind(backend: str | None = None) -> Ops:
    """Bind every operation to the backend called `backend` (default: ZFCORE_BACKEND, else numba)."""
    return Ops(backend)
