"""Whatever is given for an array, the error names the operation, the argument and what is allowed."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

from zfcore import ops
from zfcore.ops.arguments import array_names

ARRAY_OPERATIONS = {name: names for name, operation in ops.OPERATIONS.items()
                    if (names := array_names(operation))}


class Foreign:
    """Another library's array: it has a dtype and a shape, and its dtype is not NumPy's."""

    dtype, shape, ndim, size = "library.float32", (2, 3, 3, 2), 4, 36


def filled(name: str, **given: Any) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of an operation: arrays for the arrays, 1 for what else it needs, and the given ones."""
    values, named = [], {}
    for each in inspect.signature(ops.OPERATIONS[name]).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            values += [np.ones((2, 3), np.float32), given.get(each.name, np.ones((2, 3), np.float32))]
        elif each.name in given:
            values.append(given[each.name])
        elif each.name in ARRAY_OPERATIONS[name]:
            values.append(np.ones((2, 3, 3, 2), np.float32))
        elif each.default is each.empty:
            if each.kind is each.KEYWORD_ONLY:
                named[each.name] = 1
            else:
                values.append(1)
    return values, named


def test_every_operation_with_a_kernel_is_looked_at() -> None:
    assert set(ops.OPERATIONS) - set(ARRAY_OPERATIONS) == {"resize_taps"}
    assert array_names(ops.OPERATIONS["convolution"]) == {"x": False, "weight": False, "bias": True}


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name, names in ARRAY_OPERATIONS.items()
                                                for argument in names])
def test_what_is_no_array_is_named(name: str, argument: str) -> None:
    optional = ARRAY_OPERATIONS[name][argument]
    for value, text in (([1.0], "of type list"), (3, "3"), (None, "None"), ("text", "of type str"),
                        (Foreign(), "of type .*Foreign")):
        if value is None and optional:
            continue
        values, named = filled(name, **{argument: value})
        allowed = "numpy.ndarray" + (" or None" if optional else "")
        pattern = rf"{name}: {argument}(\[1\])? is {text}; allowed: {allowed}"
        for operation in (getattr(ops, name), getattr(ops.bind(), name)):
            with pytest.raises(TypeError) as caught:
                operation(*values, **named)
            assert re.fullmatch(pattern, str(caught.value)), caught.value


def test_the_families_own_functions_are_checked_too() -> None:
    from zfcore.ops.pooling import max_pool

    with pytest.raises(TypeError, match="max_pool: x is of type list"):
        max_pool([[1.0]], window=2)
    with pytest.raises(TypeError, match="max_pool: x is of type list"):
        max_pool(x=[[1.0]], window=2)
