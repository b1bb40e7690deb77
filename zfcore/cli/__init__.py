"""The `zfcore` command: look inside convolutional networks from a shell.

Commands live in modules of this package and import what they need when they run, so that
`zfcore --help` is quick. An error that a user can mend is one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__
from . import (
    ablate,
    architecture,
    atlas,
    convert,
    correspondence,
    demo,
    embed,
    evaluate,
    evolution,
    explain,
    info,
    invariance,
    occlusion,
    project,
    report,
    train,
    transfer,
)
from .common import one_line

__all__ = ["app", "main"]

EPILOG = """Try first: `zfcore demo --out zfcore-demo`, then
`zfcore info zfcore-demo/model.safetensors`.

MODEL is a .safetensors or .onnx file, or a built-in name such as zfnet (random weights); weights of
torchvision or timm alone need --architecture.
IMAGES is a folder, a picture, a CSV, an .npz, or a text such as cifar10:FOLDER:train (docs/data.md).
Environment: ZFCORE_NUM_THREADS, ZFCORE_BACKEND."""

# What a user can mend; anything else is a mistake of zfcore's and keeps its traceback.
MENDABLE = (ValueError, LookupError, OSError, MemoryError, ImportError, FloatingPointError, NotImplementedError)

app = typer.Typer(
    name="zfcore",
    help="See inside convolutional networks: what each feature map responds to, projected to pixels.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zfcore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                          help="Print the version and stop.")] = False,
) -> None:
    """See inside convolutional networks: what each feature map responds to, projected to pixels."""


for _name, _command in (("demo", demo.demo), ("info", info.info), ("train", train.train),
                        ("evaluate", evaluate.evaluate), ("atlas", atlas.atlas), ("project", project.project),
                        ("merge", atlas.merge), ("convert", convert.convert),
                        ("explain", explain.explain), ("embed", embed.embed),
                        ("occlusion", occlusion.occlusion), ("correspondence", correspondence.correspondence),
                        ("invariance", invariance.invariance), ("evolution", evolution.evolution),
                        ("architecture", architecture.architecture), ("ablate", ablate.ablate),
                        ("transfer", transfer.transfer), ("report", report.report)):
    app.command(_name)(_command)


def _stop(message: str, code: int) -> NoReturn:
    print(f"zfcore: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def _end(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _not_lost(ignored: Any) -> None:
    """Send a signal again whose exception fell into a finalizer (of recycled memory, say): Python drops it there."""
    if isinstance(ignored.exc_value, SystemExit) and ignored.exc_value.code in (130, 143):
        main_thread, number = threading.main_thread().ident, ignored.exc_value.code - 128
        again = threading.Timer(0.05, signal.pthread_kill, (main_thread, number))
        again.daemon = True
        again.start()
    elif not (isinstance(ignored.exc_value, AttributeError) and "tqdm" in str(ignored.object)):
        # A progress bar that was interrupted while it was made complains when it goes.
        sys.__unraisablehook__(ignored)


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let Ctrl-C and kill end the command by way of every clean-up, with the shell's exit codes.

    Not by KeyboardInterrupt: where that passes through code which was compiled from a string, as the
    kernels' compiler makes it, CPython ends by the signal even though it was caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    usual, sys.unraisablehook = sys.unraisablehook, _not_lost
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 something to mend, 130 interrupted, 143 terminated.

    Parameters
    ----------
    arguments : the words after `zfcore`; None: the process's
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ending_cleanly():
            code: Any = app(args=arguments, prog_name="zfcore", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        if end.code in (130, 143):
            _stop("interrupted; nothing half written was left behind", end.code)
        raise
    except BrokenPipeError:  # whoever read the output has left; what is buffered must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("ZFCORE_DEBUG"):
            raise
        if isinstance(error, typer.Abort) and isinstance(error.__cause__, EOFError):  # typer takes it for Ctrl-D
            _stop(str(error.__cause__) or "something that was read ended too early", 2)
        if hasattr(error, "format_message"):  # a usage error, from whichever parser typer brings
            _stop(error.format_message(), 2)
        if isinstance(error, MENDABLE) or (isinstance(error, TypeError) and "; allowed: " in str(error)):
            _stop(str(error) or type(error).__name__, 2)
        raise
    sys.exit(code if isinstance(code, int) else 0)
