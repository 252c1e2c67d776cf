"""Where the figures of a command go: a file that is named before the work, and a table for people."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wherein import pictures
from wherein.cli.job import STDIN
from wherein.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

STDOUT = STDIN  # as a file's name, both are -
WIDEST = 10_000  # characters; no table is as wide


def result_file(output: str | None, example: str = "results.json") -> Path | None:
    """The file of `--json`; None where nothing is to be written, or to standard output.

    Raises InputError: it is a folder, or cannot be written.
    """
    if output in (None, STDOUT):
        return None
    path = Path(str(output))
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give the name of a file in it, such as {path / example}.")
    pictures.check_folder(path.parent)
    return path


def beside(path: Path | None, ending: str) -> Path | None:
    """The file of the answers behind the figures in `path`: out.json -> out`ending`."""
    return path and path.with_name(path.name.removesuffix(".json") + ending)


def spare(written: Iterable[Path | None], read: Iterable[Path]) -> None:
    """Raise InputError if a file that is written would take the place of one that is read."""
    given = {os.path.realpath(path) for path in read}
    for path in written:
        if path is not None and os.path.realpath(path) in given:
            raise InputError(f"The results in {path} would take the place of the data: write them to another file.")


def show(table: Table, stderr: bool = False) -> None:
    """Print a table; where no terminal says how wide a line may be, in lines of any width."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDEST)).maximum)
    console.print(table)
