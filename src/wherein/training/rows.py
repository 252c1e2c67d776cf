"""Arrays appended to one file as they are made: a measurement over many images that a crash does not undo."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError


class Rows:
    """Arrays of one run, in order. Opened again with the same settings it holds what is there; what was measured with
    other settings is kept aside.

    done: the arrays so far · note: a sentence for the user about what was found, or None. The file is numpy's own
    format, array behind array, the settings first; nothing is pickled.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises InputError where the file cannot be read or written."""
        self.path = path
        self.done: list[NDArray[Any]] = []
        self.note: str | None = None
        header = np.frombuffer(json.dumps(settings, sort_keys=True).encode(), np.uint8)
        try:
            kept = self._resume(header) if path.exists() else 0
            self._file = path.open("r+b" if kept else "w+b")
            self._file.seek(kept)
            self._file.truncate()
            if not kept:
                self._append(header)
        except OSError as error:
            raise InputError(f"Cannot write to {path}: {error.strerror or error}.") from error

    def add(self, array: NDArray[Any]) -> None:
        """Write an array down; once this returns, a killed process does not lose it."""
        self.done.append(array)
        self._append(array)

    def finish(self) -> None:
        """The run is over, and what came of it is elsewhere: remove the file."""
        self._file.close()
        self.path.unlink()

    def _append(self, array: NDArray[Any]) -> None:
        np.save(self._file, array, allow_pickle=False)
        self._file.flush()

    def _resume(self, header: NDArray[np.uint8]) -> int:
        """Read what an interrupted run left; how many bytes of the file are of use."""
        with self.path.open("rb") as file:
            first, kept = _load(file), file.tell()
            if first is not None and np.array_equal(first, header):
                while (array := _load(file)) is not None:
                    self.done.append(array)
                    kept = file.tell()
                self.note = f"Continuing {self.path}: {len(self.done)} images are measured already."
                return kept
        aside = self.path.with_name(f"{self.path.name}.old")
        os.replace(self.path, aside)
        self.note = f"The unfinished {self.path} has other settings or data: it is now {aside}; starting afresh."
        return 0


def _load(file: BinaryIO) -> NDArray[Any] | None:
    """The next array; None at the end, and at the one during which the run was killed."""
    try:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (EOFError, ValueError):
        return None
    return array
