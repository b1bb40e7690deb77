"""A run's log: a JSON object a line, for every few steps and every epoch; TensorBoard's events if asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..files import naming

__all__ = ["TIMES", "Board", "Log", "rows"]

# What differs between the records of two runs of the same training.
TIMES = ("seconds", "training_seconds", "images_per_second")


class Log:
    """An append-only file of JSON lines that can be cut back to where a checkpoint was.

    Parameters
    ----------
    path : the file
    length : bytes of it that count; what stands after them is cut off

    Attributes
    ----------
    missing : bytes that should have been there and are not
    """

    def __init__(self, path: str | os.PathLike[str], length: int) -> None:
        self._path = Path(path)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        left = min(self._file.tell(), length)
        if left < length:  # what is left ends within a line
            left = self._path.read_bytes().rfind(b"\n") + 1
        self.missing = length - left
        self._file.truncate(left)
        self._file.seek(0, os.SEEK_END)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record.

        Parameters
        ----------
        record : JSON values
        """
        rest = memoryview(json.dumps(record, allow_nan=False).encode() + b"\n")
        with naming(self._path):
            while rest:
                rest = rest[self._file.write(rest):]

    def sync(self) -> int:
        """Make what was written durable; return its length in bytes."""
        with naming(self._path):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def rows(path: str | os.PathLike[str], kind: str) -> list[dict[str, Any]]:
    """The records of one kind, "step" or "epoch"; half a line at the end and damaged ones are left out.

    Parameters
    ----------
    path : a log
    kind : what their "kind" is
    """
    return [record for record in _records(Path(path)) if record.get("kind") == kind]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


class Board:
    """TensorBoard's event file of a run.

    Parameters
    ----------
    folder : where the events go
    first_step : what an earlier session wrote from here on does not count
    """

    def __init__(self, folder: str | os.PathLike[str], first_step: int) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise ImportError("--tensorboard needs the package tensorboard; pip install tensorboard brings it"
                              ) from None
        self._event, self._summary = event_pb2, summary_pb2
        self._writer = EventFileWriter(os.fspath(folder))
        if first_step > 1:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.add_event(event_pb2.Event(step=first_step, session_log=start))

    def write(self, step: int, time: float, values: Mapping[str, float | None]) -> None:
        """Add scalars.

        Parameters
        ----------
        step : steps taken
        time : seconds since 1970
        values : by tag; None is left out
        """
        scalars = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()
                   if value is not None]
        self._writer.add_event(self._event.Event(wall_time=time, step=step,
                                                 summary=self._summary.Summary(value=scalars)))

    def close(self) -> None:
        """Write what is waiting, and close."""
        self._writer.close()
