"""What a long job has done, a line of JSON each: a killed job loses none of it and does none of it twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from wherein.errors import ImageError, InputError


class Journal:
    """The rows of one job, in the order they were done. Opened again with the same settings, it goes on.

    rows: what was done when it was opened. The first line of the file holds the settings. Without a path, nothing is
    there and nothing is written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Raises InputError: the file cannot be read or written, is damaged, or belongs to other settings. It then
        stays as it is."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._end = 0  # of the file, as this journal left it
        if path is None:
            return
        wanted = json.loads(json.dumps(dict(settings)))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            *lines, begun = content.split(b"\n")  # the process may have died in the midst of the last line
            if not lines and not line_of(wanted).startswith(begun):
                raise self._damaged(1)
            header, *self.rows = [self._parse(line, number) for number, line in enumerate(lines, 1)] or [wanted]
            self._check(header, wanted)
            self._end = len(content) - len(begun)
            with path.open("ab") as file:
                file.truncate(self._end)
        if not lines:
            self.add(wanted)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row down; once this returns, a killed process does not lose it.

        Raises InputError: it cannot be written, or the file is not as this journal left it: two jobs that write to one
        would mix their rows.
        """
        if self.path is None:
            return
        line = line_of(row)
        with writing(self.path), self.path.open("ab") as file:
            if file.tell() != self._end:
                raise InputError(f"Another process writes to {self.path}, too: let one of the two write elsewhere.")
            file.write(line)
        self._end += len(line)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What fails on a row within raises InputError: the row is not of the job's."""
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path} is damaged, as a line of it is none of this job's: move it away, or write elsewhere."
            ) from error

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise self._damaged(number)
        return row

    def _damaged(self, number: int) -> InputError:
        return InputError(
            f"{self.path} is damaged in line {number}: remove that line, move the file away, or write elsewhere."
        )

    def _check(self, header: dict[str, Any], wanted: dict[str, Any]) -> None:
        for key in {**wanted, **header}:
            if header.get(key) != wanted.get(key):
                raise InputError(
                    f"{self.path} was made with {key} {header.get(key)}, not {wanted.get(key)}: repeat the options it "
                    "was made with, or write elsewhere."
                )


def line_of(row: Mapping[str, Any]) -> bytes:
    """A row as it stands in the file, and nowhere within it a line break."""
    return json.dumps(row).encode() + b"\n"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses within, to us or to safetensors, raises InputError, which names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot write to {path}: {getattr(error, 'strerror', None) or error}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file of this process beside `path`, to be written within, that then takes its place at once, or is removed.

    Raises:
        InputError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file at once: whoever reads it finds the old content or the new one, never a part.

    A byte of a file's name that is not UTF-8 (a lone surrogate) is written as an escape, which JSON reads back.

    Raises:
        InputError: it cannot be written.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes to `folder`, which is made, meanwhile; a killed process leaves no lock behind.

    Raises:
        InputError: another process does, or the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"Another process writes to {folder}: wait for it, or give another folder.") from error
    except OSError as error:
        raise InputError(f"Cannot write to the folder {folder}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        lock.release()


def stamp_of(file: Path) -> str:
    """What changes when a file does. Raises ImageError: it cannot be read."""
    try:
        facts = file.stat()
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror or error}.") from error
    return f"{facts.st_size}-{facts.st_mtime_ns}"
