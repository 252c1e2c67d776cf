"""Arrays appended to one file as they are made: a measurement over many images that a crash does not undo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError


class Rows:
    """Arrays of one run, in order. Opened again with the same settings it holds what is there; with others it is empty.

    done: the arrays so far. The file is numpy's own format, array behind array, the settings first; nothing is pickled.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises InputError where the file cannot be read or written."""
        self.path = path
        self.done: list[NDArray[Any]] = []
        header = np.frombuffer(json.dumps(settings, sort_keys=True).encode(), np.uint8)
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
            kept = self._resume(header)
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
        first = _load(self._file)
        if first is None or not np.array_equal(first, header):
            return 0
        kept = self._file.tell()
        while (array := _load(self._file)) is not None:
            self.done.append(array)
            kept = self._file.tell()
        return kept


def _load(file: BinaryIO) -> NDArray[Any] | None:
    """The next array; None at the end, and at the one during which the run was killed."""
    try:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (EOFError, ValueError, OSError):
        return None
    return array
