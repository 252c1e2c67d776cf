"""What an evaluation writes down: a record per labelled box, and the journal that lets an interrupted run continue."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from wherein import journal

if TYPE_CHECKING:
    from wherein.data import Sample
    from wherein.vlm.base import FrozenVLM

Corners = tuple[float, float, float, float]
"""A box as plain numbers: x0, y0, x1, y1 in original pixels."""
_FINISHED = {"finished": True}
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
class NoTarget:
    """What a method that may answer absent said of a phrase that means nothing in the image."""

    phrase: str
    absent: bool
    absent_probability: float | None


@dataclass(frozen=True)
class Outcome:
    """All records of one method on one image of `width` x `height` original pixels, asked in one call of `seconds`.

    `no_target`: of phrases that mean nothing in it, asked in another call.
    """

    image: str
    width: int
    height: int
    method: str
    seconds: float
    records: tuple[Record, ...]
    no_target: tuple[NoTarget, ...] = ()

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The outcome that `dataclasses.asdict` made these fields of.

        Raises:
            TypeError, KeyError: the fields are not those of an outcome.
        """
        records = tuple(_record(record) for record in fields.get("records", ()))
        no_target = tuple(NoTarget(**one) for one in fields.get("no_target", ()))
        return cls(**{**fields, "records": records, "no_target": no_target})


def origin(vlm: "FrozenVLM") -> dict[str, Any]:
    """What answers depend on besides the data and the methods, JSON-ready: this package and its code, and the model."""
    return {"wherein": version("wherein"), "code": code(), "model": [vlm.name, vlm.fingerprint, str(vlm.dtype)]}


@cache
def code() -> str:
    """Digest of the package that runs: answers that other code made are not taken for its own."""
    return digest_of(Path(__file__).parents[1])


def digest_of(folder: Path) -> str:
    """SHA-256, 16 hexadecimal digits, of the names and the content of all code (.py) and tables (.json) in a folder."""
    whole = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".json")):
        whole.update(sha256(path.relative_to(folder).as_posix().encode()).digest())
        whole.update(sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def folders(samples: "Iterable[Sample]") -> list[str]:
    """Where the images lie, JSON-ready: the same annotations about another folder of images have other answers.

    What is in the files does not count, so that a damaged image can be mended and the rest of the answers kept.
    """
    return sorted({one.path.resolve().as_posix().removesuffix(one.name) for one in samples})


class Journal:
    """Outcomes streamed to a JSON-lines file: a header with the settings, a line per outcome, a line when finished.

    Opening the journal of an interrupted run with the same settings continues it: `done` holds what is there, by image
    and method. A finished journal is kept aside, unless it is to `keep`, and all is begun anew. One of other settings
    waits aside until a run of its own settings takes it back. `note` is what to tell the user of what was found, or
    None. Without a path nothing is written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], keep: bool = False) -> None:
        """Settings are whatever must not change between the parts of a run; they must be JSON-ready.

        Raises:
            InputError: the file cannot be read or written, or is damaged.
        """
        self.done: dict[tuple[str, str], Outcome] = {}
        header = {"schema": SCHEMA, "settings": settings}
        self.note = None if path is None else _make_room(path, header, keep)
        self._lines = journal.Journal(path, header)
        rows = [row for row in self._lines.rows if row != _FINISHED]
        with self._lines.reading():
            for row in rows:
                self._take(row)
        self._finished, self._open = self._lines.rows[-1:] == [_FINISHED], False
        if rows:
            here = f"Continuing the records in {path}: {len(rows)} answers are there already."
            self.note = here if self.note is None else f"{self.note}\n{here}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._finished and not self._open:
            self._lines.add(_FINISHED)

    def leave_open(self) -> None:
        """Do not finish it: answers are missing, and the same command will ask for them alone."""
        self._open = True

    def add(self, outcome: Outcome) -> None:
        """Write an outcome down; once this returns, a killed process does not lose it. Raises InputError: it cannot."""
        self._take_down(outcome)
        self.done[outcome.image, outcome.method] = outcome

    def _take(self, fields: dict[str, Any]) -> None:
        """Take over a line that an earlier run wrote; TypeError or KeyError for one that is no such line."""
        outcome = Outcome.from_dict(fields)
        self.done[outcome.image, outcome.method] = outcome

    def _take_down(self, answer: Any) -> None:
        """Write the fields of a dataclass."""
        self._lines.add(asdict(answer))
        self._finished = False


def _make_room(path: Path, header: Mapping[str, Any], keep: bool) -> str | None:
    """Move a finished journal and one of other settings aside, and take back one of these settings; returns what to
    tell of the one of others."""
    own, note = journal.line_of(header), None
    with journal.writing(path):
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and lines[-1] == journal.line_of(_FINISHED) and not keep:
            os.replace(path, path.with_name(f"{path.name}.old"))
        elif lines and lines[0] != own:
            aside = _aside(path, lines[0])
            os.replace(path, aside)
            note = f"The records in {path} have other settings: they are now in {aside}, until a run of theirs."
        if _aside(path, own).exists() and not path.exists():
            os.replace(_aside(path, own), path)
    return note


def _aside(path: Path, header: bytes) -> Path:
    """Where a journal with this first line waits while one of other settings is written to `path`."""
    return path.with_name(f"{path.name}.{sha256(header).hexdigest()[:8]}")


def _record(fields: dict[str, Any]) -> Record:
    plain: dict[str, Any] = {  # what was a tuple is a list in JSON
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Record(**plain)
