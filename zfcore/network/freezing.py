"""Networks whose parameters are declared unchanging, so that kernels may keep filters in forms of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ..kernels.kept import Declaration

if TYPE_CHECKING:
    from .walk import Node

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Freezable:
    """What a network has for it."""

    name: str
    nodes: dict[str, Node]
    _declaration: Declaration | None = None
    _rounded: dict[str, tuple[str, Any, Any]] | None = None  # weights of 16 bits, see `storage`

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are not frozen, and bind their operations anew."""
        return {**self.__dict__, "_ops": None, "_declaration": None, "_rounded": None}

    def parameters(self) -> dict[str, Any]:
        """All parameters, by name."""
        raise NotImplementedError

    @property
    def frozen(self) -> bool:
        """Whether the parameters are declared unchanging, see `freeze`."""
        return self._declaration is not None

    def freeze(self) -> Self:
        """Declare that the parameters do not change any more. Returns the network.

        Kernels then keep filters in the forms that they read, which they else make in every call: that is up to
        a fifth of a pass over one image. Results are the same, bit for bit. NumPy refuses writes to the parameters,
        training and loading refuse the network, until `thaw`; views of the parameters' arrays that were taken
        before must not be written to either. Work of many passes that changes nothing (synthesis, occlusion,
        projections of many units) freezes by itself while it runs, see `while_frozen`.

        Memory: a form is kept once it has been used, for each direction that was walked: as many bytes as the
        filters have, or four times that for Winograd's algorithm. (ZFNet: 64 MB for forward passes, 64 for
        gradients, 26 for projections, beside 250 MB of parameters.) All forms together take an eighth of the
        machine's memory at most. Fully connected layers need none. Other backends keep nothing but, with a
        `storage` of 16 bits, the rounded weights, which takes half of the parameters' memory more. Copies and
        pickles of a frozen network are not frozen.
        """
        if self._declaration is None:
            self._declaration = Declaration(self.parameters().values())
            self._rounded = {}
        return self

    def thaw(self) -> Self:
        """Let the parameters be changed again, and forget what `freeze` made kernels keep. Returns the network."""
        if self._declaration is not None:
            self._declaration.end()
            self._declaration = self._rounded = None
        return self

    @contextlib.contextmanager
    def while_frozen(self, wanted: bool = True) -> Iterator[Self]:
        """A block during which the parameters do not change, as if it began with `freeze` and ended with `thaw`.

        Blocks may overlap, in several threads too, and with `freeze`; the arrays are as before when all have ended.

        Parameters
        ----------
        wanted : False: nothing is declared, as for a single pass, which would keep what nobody reads again
        """
        nodes = self.nodes.values() if wanted else ()
        declaration = Declaration(array for node in nodes for array in node.layer.parameters.values())
        try:
            yield self
        finally:
            declaration.end()

    def require_thawed(self, where: str) -> None:
        """ValueError if the network is frozen: for what changes parameters."""
        if self.frozen:
            raise ValueError(f"{where}: the network {self.name!r} is frozen; allowed: a network whose parameters may "
                             "change: call thaw() first")


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
