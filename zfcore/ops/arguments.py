"""Arrays of every operation are looked at in one place, before the operation itself.

What is no array of the backends (a list, None) is named with its operation and argument; an operation's
own checks may then ask any array for its dtype and shape. Arrays of other libraries are taken over by
DLPack, and results go back as the caller's kind of array.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import backends
from ..backends import outside

OTHERS = ("input_shape", "output_shape", "size", "slope")  # positional arguments that are not (only) arrays
INTEGERS = ("labels",)  # arrays that may be of any type of integers
# How many of its first arrays an operation changes.
IN_PLACE = {"adam_step": 3, "clear_outside": 1, "renormalize_filters": 1, "sgd_filters": 2, "sgd_step": 2}


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
        arrays: dict[int | str, Any] = {}  # by place or name
        if several is not None:
            for place, value in enumerate(values):
                _check(where, f"{several}[{place}]", value, False)
                arrays[place] = value
        else:
            for place, (name, value) in enumerate(zip(positional, values, strict=False)):
                if name in optional:
                    _check(where, name, value, optional[name])
                    arrays[place] = value
            for name, value in named.items():
                if name in optional:
                    _check(where, name, value, optional[name])
                    arrays[name] = value
        backend = named.get("backend")
        kinds = {backends.kind(value) for value in arrays.values() if value is not None}
        native = kinds in ({"numpy"}, {"cupy"}) if backend is None else kinds == {backend.ARRAYS}
        if native or not kinds:
            return operation(*values, **named)
        return _elsewhere(operation, values, named, arrays, several or positional)

    return checked


def _elsewhere(operation: Callable[..., Any], values: tuple[Any, ...], named: dict[str, Any],
               arrays: dict[int | str, Any], names: Any) -> Any:
    """Call an operation whose arrays are another library's, or not where its backend works."""
    where, changed = operation.__name__, IN_PLACE.get(operation.__name__, 0)
    labels = {key: key if isinstance(key, str) else f"{names}[{key}]" if isinstance(names, str) else names[key]
              for key in arrays}
    like = next((value for value in arrays.values() if backends.kind(value) == "outside"), None)
    taken = {key: outside.take(where, labels[key], value, place < changed)
             if backends.kind(value) == "outside" else value
             for place, (key, value) in enumerate(arrays.items())}
    kinds = {labels[key]: backends.kind(value) for key, value in taken.items() if value is not None}
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{name} on the {'CPU' if kind == 'numpy' else 'GPU'}" for name, kind in kinds.items())
        raise TypeError(f"{where}: arrays are in several places ({found}); allowed: all on the CPU or all on the GPU")
    backend = named.get("backend") or backends.of(next(value for value in taken.values() if value is not None))
    moved = set(kinds.values()) != {backend.ARRAYS}
    if moved:
        if backend.ARRAYS == "numpy" or changed:
            raise TypeError(f"{where}: arrays are of {next(iter(kinds.values()))}; allowed: of {backend.ARRAYS}, "
                            f"where the backend {backend.name!r} works")
        taken = {key: None if value is None else backend.asarray(value) for key, value in taken.items()}
    result = operation(*(taken.get(place, value) for place, value in enumerate(values)),
                       **{name: taken.get(name, value) for name, value in named.items()} | {"backend": backend})
    if moved:
        result = tuple(map(backend.to_numpy, result)) if isinstance(result, tuple) else backend.to_numpy(result)
    if like is None:
        return result
    if changed:
        return like if result is not None else None
    return outside.hand_back(result, like)


def _check(where: str, name: str, value: Any, optional: bool) -> None:
    kind_of = backends.kind(value)
    if kind_of in ("numpy", "cupy") and value.dtype.char == "H" and name not in INTEGERS:
        raise TypeError(f"{where}: {name}.dtype is uint16; allowed: another type, or ops.Bfloat16({name}) where these "
                        "are the bits of bfloat16")
    if kind_of is not None or (optional and value is None):
        return
    kind = type(value)
    shown = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    text = repr(value) if value is None or isinstance(value, (bool, int, float)) else f"of type {shown}"
    raise TypeError(f"{where}: {name} is {text}; allowed: numpy.ndarray" + (" or None" if optional else ""))
