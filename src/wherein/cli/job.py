"""The images of one command: found before the work starts, then read and answered one at a time."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from wherein import images, pictures
from wherein.errors import ImageError, InputError

STDIN = "-"
MAX_STDIN = 2**29  # bytes; an endless stream must not fill the memory
PATIENCE = 2.0  # seconds before a progress bar appears
SHOWN = 5  # files that are passed over, by name
LONGEST_NAME = 255  # bytes of a file's name

Pixels = NDArray[np.uint8]
T = TypeVar("T")


class Job:
    """The images that IMAGE arguments stand for: files, folders of images, or - for standard input.

    Attributes:
        names: every image's path, or "-", in order.
        many: a folder or several arguments were given, so one bad image does not end the job.
        unread: pictures in the folders that are passed over, as their format is not read.

    Raises:
        ImageError: a folder holds no image.
        InputError: standard input is asked for twice.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.many = len(arguments) > 1 or os.path.isdir(arguments[0])
        self.names: list[str] = []
        self.unread: list[Path] = []
        for argument in arguments:
            if os.path.isdir(argument):
                self.names += [str(path) for path in images.list_images(Path(argument))]
                self.unread += images.list_unread(Path(argument))
            else:
                self.names.append(argument)
        if self.names.count(STDIN) > 1:
            raise InputError("Standard input can be read once: give - for one image only.")

    def drawings(self, save: Path) -> dict[str, Path]:
        """Which file each image is drawn to; in a folder, a drawing keeps the name of its image, if it is not too long.

        Raises InputError where it cannot be written, or would take the place of an image or of another drawing.
        """
        if not self.many:
            pictures.check_file(save)
            drawings = {self.names[0]: save}
        else:
            if save.suffix.lower() in pictures.FORMATS:
                raise InputError(f"{save} is one picture, but there are many images: give --save a folder.")
            pictures.check_name(save)
            pictures.check_folder(save if os.path.lexists(save) else save.parent)
            drawings = {name: save / _drawing_name(name) for name in self.names}
        given, taken = {os.path.realpath(name) for name in self.names}, set()
        for name, path in drawings.items():
            if os.path.realpath(path) in given:
                raise InputError(f"The drawing {path} would take the place of an image: give --save another path.")
            if path in taken:
                raise InputError(f"Two images would be drawn to {path}: rename {name}, or give it a run of its own.")
            taken.add(path)
        return drawings

    def answers(self, start: Callable[[], Callable[[Pixels], T]]) -> Iterator[tuple[str, T | ImageError]]:
        """Ask for each image; yields its name and the answer, or what is wrong with it after saying so on stderr.

        `start` loads the model; it is called once, after the first image could be read, so that a wrong image fails at
        once. A bad image is raised if it is the only one; otherwise the job goes on and its end is an ImageError.
        What is passed over is said first.
        """
        from rich.console import Console
        from rich.progress import Progress

        if self.unread:
            typer.echo(f"wherein: {printable(_passed_over(self.unread))}", err=True)
        console = Console(stderr=True)
        bar = Progress(
            console=console,
            transient=True,
            redirect_stdout=False,  # to the bar's stderr: the answers belong on stdout
            redirect_stderr=False,
            disable=not (sys.stderr.isatty() and console.is_interactive),
        )
        task, begun, failed, ask = bar.add_task("images", total=len(self.names)), time.monotonic(), 0, None
        for name in self.names:
            if time.monotonic() - begun > PATIENCE:
                bar.start()
            outcome: T | ImageError
            try:
                pixels = images.load(_read_stdin() if name == STDIN else name)
                ask = ask or start()
                outcome = ask(pixels)
            except ImageError as error:
                if not self.many:
                    raise
                failed, outcome = failed + 1, error
            finally:
                bar.advance(task)
                bar.stop()  # whatever is printed now must not run into the bar
            if isinstance(outcome, ImageError):
                typer.echo(f"wherein: {printable(str(outcome))}", err=True)
            yield name, outcome
        if failed:
            raise ImageError(f"{failed} of {len(self.names)} images could not be used.")


def _drawing_name(name: str) -> str:
    if name == STDIN:
        return "stdin.png"
    path = Path(name)
    if path.suffix.lower() in pictures.FORMATS:
        return path.name
    kept = path.name
    while len(os.fsencode(f"{kept}.png")) > LONGEST_NAME:
        kept = kept[:-1]
    return f"{kept}.png"


def _passed_over(unread: Sequence[Path]) -> str:
    count = "a file" if len(unread) == 1 else f"{len(unread):,} files"
    names = ", ".join([path.name for path in unread[:SHOWN]] + ["..."] * (len(unread) > SHOWN))
    return f"passed over {count} whose format is not read: {names}"


def _read_stdin() -> bytes:
    if sys.stdin is None:  # as Python has it where the descriptor was closed
        raise ImageError("Standard input is closed: pipe the bytes of an image into it, or give a file.")
    if sys.stdin.isatty():
        raise ImageError("Standard input is a terminal: pipe the bytes of an image into it, or give a file.")
    content = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(content) > MAX_STDIN:
        raise ImageError(f"Standard input holds more than {MAX_STDIN} bytes: give one image.")
    return content


def printable(text: str) -> str:
    """`text` in one line that cannot steer a terminal: a file's name or a model's words may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on one line of stdout, at once, so that a reader of a long job need not wait."""
    typer.echo(json.dumps(document, allow_nan=False))
    sys.stdout.flush()
