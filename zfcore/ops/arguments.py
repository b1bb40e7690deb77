"""Arrays of every operation are looked at in one place, before the operation itself.

What is no array of the backends (a list, None, another library's) is named with its operation and
argument; an operation's own checks may then ask any array for its dtype and shape.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import backends

OTHERS = ("input_shape", "output_shape", "size", "slope")  # positional arguments that are not (only) arrays


def array_names(operation: Callable[..., Any]) -> dict[str, bool]:
    """Names of an operation's arrays, in their order; True where None may stand for one."""
    return {name: each.default is None or each.annotation == "Any | None"
            for name, each in inspect.signature(operation).parameters.items()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)
            and each.annotation in ("Any", "Any | None") and name not in OTHERS}


def refusing_others(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, which raises TypeError in the house form for an array argument that is no array."""
    where, optional = operation.__name__, array_names(operation)
    positional = list(inspect.signature(operation).parameters)
    several = next(iter(optional), "") if inspect.getfullargspec(operation).varargs else None

    @functools.wraps(operation)
    def checked(*values: Any, **named: Any) -> Any:
        if several is not None:
            for place, value in enumerate(values):
                _check(where, f"{several}[{place}]", value, False)
        else:
            for name, value in zip(positional, values, strict=False):
                if name in optional:
                    _check(where, name, value, optional[name])
            for name, value in named.items():
                if name in optional:
                    _check(where, name, value, optional[name])
        return operation(*values, **named)

    return checked


def _check(where: str, name: str, value: Any, optional: bool) -> None:
    if backends.is_array(value) or (optional and value is None):
        return
    kind = type(value)
    shown = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = repr(value) if value is None or isinstance(value, (bool, int, float)) else f"of type {shown}"
    raise TypeError(f"{where}: {name} is {text}; allowed: numpy.ndarray" + (" or None" if optional else ""))
