"""For work that walks through a network again and again and never changes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def unchanging(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Hold a function's first argument, a network, frozen while it runs; see `Network.while_frozen`.

    For functions of many passes over few images: a single pass would keep what nobody reads again.
    """

    @wraps(function)
    def held(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        network = arguments[0] if arguments else keywords.get("network")
        if not hasattr(network, "while_frozen"):
            return function(*arguments, **keywords)  # which says what it wants
        with network.while_frozen():
            return function(*arguments, **keywords)

    return held
