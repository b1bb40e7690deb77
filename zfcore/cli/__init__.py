"""The `zfcore` command: look inside convolutional networks from a shell.

Commands live in modules of this package and import what they need when they run, so that
`zfcore --help` is quick. An error that a user can mend is one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__
from . import atlas, demo, embed, explain, info, project
from .common import one_line

__all__ = ["app", "main"]

EPILOG = """Try first: `zfcore demo --out zfcore-demo`, then
`zfcore info zfcore-demo/model.safetensors`.

MODEL is a .safetensors file that zfcore saved, or a built-in name such as zfnet (random weights).
IMAGES is a folder, a picture, or a packed .npz. Environment: ZFCORE_NUM_THREADS, ZFCORE_BACKEND."""

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


for _name, _command in (("demo", demo.demo), ("info", info.info), ("atlas", atlas.atlas),
                        ("project", project.project), ("explain", explain.explain), ("embed", embed.embed),
                        ("merge", atlas.merge)):
    app.command(_name)(_command)


def _stop(message: str, code: int) -> NoReturn:
    print(f"zfcore: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def _terminate(number: int, _frame: Any) -> NoReturn:
    """End by way of every clean-up, so that a killed command leaves nothing half written."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 something to mend, 130 interrupted, 143 terminated.

    Parameters
    ----------
    arguments : the words after `zfcore`; None: the process's
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code: Any = app(args=arguments, prog_name="zfcore", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has left; what is buffered must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if os.environ.get("ZFCORE_DEBUG"):
            raise
        if hasattr(error, "format_message"):  # a usage error, from whichever parser typer brings
            _stop(error.format_message(), 2)
        if isinstance(error, (ValueError, LookupError, OSError, MemoryError)):
            _stop(str(error) or type(error).__name__, 2)
        raise
    if code == 130:
        _stop("interrupted; nothing half written was left behind", 130)
    sys.exit(code if isinstance(code, int) else 0)
