"""Filters kept in the forms that kernels read, for weights that are declared unchanging.

Kernels do not read filters as they are stored: they pack them into panels, or transform them first (Winograd's
forms hold up to four times as many numbers). A launcher does that in every call, because weights may have
changed since the last one. Whoever knows that they do not declares them; then a form is made once and kept for as
long as the declaration lasts.

Declared arrays are marked read-only, so that NumPy itself refuses writes, and are known by their memory, which
belongs to them while they live. Being read-only is no declaration: such an array may be a view of a writeable one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np

from .memory import share_of_memory

limit = share_of_memory()  # most bytes of all kept forms; what does not fit is made in every call, as without

_lock = threading.RLock()  # reentrant: a collection of garbage in here may end a declaration
_declared: dict[Hashable, _Declared] = {}  # by id, while the array lives
_by_place: dict[Hashable, _Declared] = {}  # by `_place`; of aliases the one that was declared first
_bytes = 0


def _forget_lock() -> None:
    """A forked child may have copied a held lock; what it guards is whole between any two statements."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


class _Declared:
    """One declared array: how often it is declared, whether it could be written to before, and its kept forms."""

    def __init__(self, array: np.ndarray) -> None:
        self.count = 0
        self.writeable = bool(array.flags.writeable)
        self.forms: dict[Hashable, Any] = {}
        self.number, self.place = id(array), _place(array)
        self.array = weakref.ref(array, lambda _: self.drop())

    def drop(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Forget the array and its forms, but not at the interpreter's end, when modules lose their contents."""
        global _bytes
        if finalizing():
            return
        with _lock:
            for table, key in ((_declared, self.number), (_by_place, self.place)):
                if table.get(key) is self:
                    del table[key]
            _bytes -= sum(_size(form) for form in self.forms.values())
            self.forms = {}


def _place(array: np.ndarray) -> Hashable:
    """What a C-contiguous array shares with its aliases alone, of all arrays that live at the same time."""
    return array.__array_interface__["data"][0], array.shape, array.dtype.str


def _size(form: Any) -> int:
    return int(getattr(form, "nbytes", 0))


class Declaration:
    """That arrays will not change until `end`, or until this object dies. Declarations may overlap.

    Parameters
    ----------
    arrays : NumPy's; read-only from now on. Arrays of other kinds are left alone
    """

    def __init__(self, arrays: Iterable[Any]) -> None:
        self._declared: list[_Declared] = []
        for array in arrays:
            if not isinstance(array, np.ndarray):
                continue
            with _lock:
                declared = _declared.setdefault(id(array), _Declared(array))
                declared.count += 1
                if array.flags.c_contiguous and array.size:  # launchers get copies of others
                    _by_place.setdefault(declared.place, declared)
                array.flags.writeable = False
            self._declared.append(declared)

    def end(self) -> None:
        """Let the arrays be changed again, unless another declaration holds them, and forget their forms."""
        while self._declared:
            declared = self._declared.pop()
            with _lock:
                declared.count -= 1
                if declared.count:
                    continue
                array = declared.array()
                declared.drop()
                if array is not None and declared.writeable:
                    with contextlib.suppress(ValueError):  # what it is a view of was made read-only meanwhile
                        array.flags.writeable = True

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not finalizing():
            self.end()


def kept(weight: np.ndarray, key: Hashable, build: Callable[[], Any]) -> Any:
    """What `build` makes of a weight: made once where that is declared unchanging, else in every call.

    Parameters
    ----------
    weight : C-contiguous
    key : tells this form of the weight from its others; all that `build` looks at beside the weight
    build : returns an array, or a number; nobody writes to it afterwards. Two threads may call it at once

    Returns
    -------
    The form
    """
    global _bytes
    declared = _by_place.get(_place(weight)) if _by_place else None
    if declared is None:
        return build()
    form = declared.forms.get(key)
    array = declared.array()
    if form is not None and array is not None and not array.flags.writeable:
        return form
    form = build()
    with _lock:
        array = declared.array()
        if declared.count and array is not None and key not in declared.forms and _bytes + _size(form) <= limit:
            if array.flags.writeable:  # someone has taken the mark away: nothing is certain any more
                return form
            declared.forms[key] = form
            _bytes += _size(form)
    return form


def kept_bytes() -> int:
    """Bytes of all kept forms."""
    return _bytes
