"""Ctrl-C and `kill` while a run is under way: noted, and acted upon between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["Signals"]


class Signals:
    """While it is entered, SIGINT and SIGTERM are noted; a second one does what the first would have done.

    Attributes
    ----------
    number : of the signal that came; None: none did
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: Any) -> None:
        if self.number is not None:
            self.__exit__()
            signal.raise_signal(number)
        self.number = number

    def __exit__(self, *_ended: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
