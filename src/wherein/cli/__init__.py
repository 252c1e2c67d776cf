"""The command line `wherein`: one verb a file.

Notable choices:
- an error of ours is one sentence on stderr and exit status 2, as a wrong option is; anything else is a defect and
  keeps its traceback
- so is a standard output that cannot be written; of a reader that went away (`| head`) nothing is said
- verbs import what is heavy inside their functions, so `wherein --help` answers at once
- torch and transformers make a million objects that stay: going through them for garbage, as often as Python does by
  itself and once more at exit, was a fifth of the time of locating one phrase
"""

import atexit
import gc
import io
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer

from wherein.cli import caption, compose, doctor, eval, heads, locate, models, objects, probe, reproduce, train, vqa
from wherein.cli.output import telling
from wherein.errors import InputError, WhereinError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("locate")(locate.locate)
app.command("caption")(caption.caption)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)
app.command("eval")(eval.evaluate)
app.command("compose")(compose.compose)
app.command("train")(train.train)
app.command("probe")(probe.probe)
app.command("vqa")(vqa.vqa)
app.add_typer(heads.app, name="heads")
app.add_typer(objects.app, name="objects")
app.add_typer(reproduce.app, name="reproduce")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"wherein {version('wherein')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask a frozen vision-language model where things are in a picture."""


def main() -> None:
    """Run the command line and exit: 0, 1 (`doctor` found something), 2 (wrong input) or 130 (interrupted)."""
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a phrase may hold what this terminal cannot show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = telling(sys.stdout)
    try:
        if sys.stdout is None:  # as Python has it where the descriptor was closed
            raise InputError("Standard output is closed: send it to a file, or to /dev/null.")
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a reader that went away (`| head`) can still be caught
    except WhereinError as error:
        typer.echo(f"wherein: {' '.join(str(error).split())}", err=True)  # one line, whatever a file is called
        _drop_output()
        sys.exit(2)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)


def _drop_output() -> None:
    """What could not be printed goes nowhere, or Python complains of it once more at exit."""
    if sys.stdout is not None:
        with suppress(io.UnsupportedOperation):  # a stream that somebody who calls `main` put there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
