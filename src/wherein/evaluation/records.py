"""What an evaluation writes down: a record per labelled box, and the journal that lets an interrupted run continue."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wherein.errors import InputError

Corners = tuple[float, float, float, float]
"""A box as plain numbers: x0, y0, x1, y1 in original pixels."""
SCHEMA = 2
"""Of journals. Those of 1 have no overlaps, so to continue one would leave the figures of masks with gaps."""


@dataclass(frozen=True)
class Record:
    """One labelled box and what a method answered for its phrase; an invalid answer has no prediction and IoU 0.

    `overlap` is the intersection and the union of the predicted mask and the true one, in original pixels; None where
    the data has no true mask. To an invalid answer belongs a mask without any pixel.
    """

    phrase: str
    truth: Corners
    prediction: Corners | None
    score: float | None
    absent_probability: float | None
    iou: float
    overlap: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """All records of one method on one image of `width` x `height` original pixels, asked in one call of `seconds`."""

    image: str
    width: int
    height: int
    method: str
    seconds: float
    records: tuple[Record, ...]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The outcome that `dataclasses.asdict` made these fields of.

        Raises:
            TypeError, KeyError: the fields are not those of an outcome.
        """
        return cls(**{**fields, "records": tuple(_record(record) for record in fields.get("records", ()))})


class Journal:
    """Outcomes streamed to a JSON-lines file: a header with the settings, a line per outcome, a line when finished.

    Opening the journal of an interrupted run with the same settings continues it: `done` holds what is there, by image
    and method. A finished journal is begun anew, unless it is to `keep`, and so is one of other settings, which is kept
    aside. `note` is a sentence for the user about what was found, or None. Without a path nothing is written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], keep: bool = False) -> None:
        """Settings are whatever must not change between the parts of a run; they must be JSON-ready.

        Raises:
            InputError: the file cannot be read or written.
        """
        self.done: dict[tuple[str, str], Outcome] = {}
        self.note: str | None = None
        self._keep, self._file = keep, None
        if path is None:
            return
        header = _line({"schema": SCHEMA, "settings": settings})
        try:
            kept = self._resume(path, header) if path.exists() else 0
            self._file = path.open("r+b" if kept else "wb")
            self._file.truncate(kept)
            self._file.seek(kept)
            self._write(b"" if kept else header)
        except OSError as error:
            raise InputError(f"Cannot write the records to {path}: {error.strerror or error}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if kind is None:
            self._write(_line({"finished": True}))
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Write an outcome down; once this returns, a killed process does not lose it."""
        self.done[outcome.image, outcome.method] = outcome
        self._write(_line(asdict(outcome)))

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line)
            self._file.flush()

    def _resume(self, path: Path, header: bytes) -> int:
        """Take over what an earlier run wrote; returns how many bytes of the file are of use."""
        lines = path.read_bytes().splitlines(keepends=True)
        if not lines or (lines[-1] == _line({"finished": True}) and not self._keep):
            return 0
        if lines[0] != header:
            aside = path.with_name(path.name + ".old")
            os.replace(path, aside)
            self.note = (
                f"The unfinished records in {path} have other settings: they are now in {aside}; starting afresh."
            )
            return 0
        kept, count = len(header), 0
        for line in lines[1:]:
            if not line.endswith(b"\n"):
                break
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):  # the line during which the run was killed
                break
            kept, count = kept + len(line), count + 1
        self.note = f"Continuing the records in {path}: {count} answers are there already."
        return kept

    def _take(self, fields: dict[str, Any]) -> None:
        """Take over a line that an earlier run wrote; TypeError or KeyError for one that is no such line."""
        outcome = Outcome.from_dict(fields)
        self.done[outcome.image, outcome.method] = outcome


def _record(fields: dict[str, Any]) -> Record:
    plain: dict[str, Any] = {  # what was a tuple is a list in JSON
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Record(**plain)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
