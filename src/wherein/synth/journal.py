"""What a long job has done, a line of JSON each: a killed job loses none of it and does none of it twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wherein.errors import ImageError, InputError


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


class Journal:
    """The rows of one job, in the order they were done. Opened again with the same settings, it goes on.

    rows: what is done so far. The first line of the file holds the settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises InputError: the file cannot be read or written, is damaged, or belongs to other settings."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        wanted = json.loads(json.dumps(dict(settings)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]  # the process may have died in the midst of the last line
            lines = whole.splitlines()
            header, *self.rows = [self._parse(line, number) for number, line in enumerate(lines, 1)] or [wanted]
            self._check(header, wanted)
            with path.open("ab") as file:
                file.truncate(len(whole))
        except OSError as error:
            raise InputError(f"Cannot write to {path}: {error.strerror or error}.") from error
        if not lines:
            self._append(wanted)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row down; once this returns, a killed process does not lose it. Raises InputError: it cannot."""
        self._append(row)
        self.rows.append(row)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What fails on a row within raises InputError: the row is not of the job's."""
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path} is damaged, as a line of it is none of this job's: remove it, or give another folder."
            ) from error

    def _append(self, row: dict[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise InputError(f"Cannot write to {self.path}: {error.strerror or error}.") from error

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{self.path} is damaged in line {number}: remove that line, or give another folder.")
        return row

    def _check(self, header: dict[str, Any], wanted: dict[str, Any]) -> None:
        for key in {**wanted, **header}:
            if header.get(key) != wanted.get(key):
                raise InputError(
                    f"{self.path} was made with {key} {header.get(key)}, not {wanted.get(key)}: repeat the options it "
                    "was made with, or give another folder."
                )
