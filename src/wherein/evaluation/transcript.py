"""Answers in words, kept: what a model was asked about which image, and what it said.

Not a `records.Journal`, which holds the judged answers of one run and begins anew when that is finished: words cost
money, and hold for good however they are read later. So every line says itself what it answers, and whoever asks the
same of the same image again, in this run or a later one, with more prompts or fewer images, is given the line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from wherein.errors import InputError


@dataclass(frozen=True)
class Reply:
    """What a model said: its text, how long that took, and whether it was cut off at the most tokens allowed.

    tokens: (read, written) as counted by whoever served the model; None where nobody says.
    """

    text: str
    seconds: float
    cut: bool = False
    tokens: tuple[int, int] | None = None


_START = b'{"who": '  # of every line


class Transcript:
    """Replies by image and question, streamed to a JSON-lines file, a line each; without a path nothing is written.

    `settings` are whatever must be the same for a reply to hold, JSON-ready: model, limits. Lines of other settings
    stay in the file and are not used. `found` is how many replies of these settings were there already.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Raises InputError if the file cannot be read or written, or holds something else."""
        self._who = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._replies: dict[tuple[str, str], Reply] = {}
        self._file: BinaryIO | None = None
        if path is not None:
            try:
                self._file = path.open("r+b" if path.exists() else "w+b")
            except OSError as error:
                raise InputError(f"Cannot keep the answers in {path}: {error.strerror or error}.") from error
            self._resume(self._file)
        self.found = len(self._replies)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, image: Path, question: str) -> Reply | None:
        """The reply to a question about an image, known by what is in its file; None if there is none yet."""
        return self._replies.get((_content(image), question))

    def add(self, image: Path, question: str, reply: Reply) -> None:
        """Write a reply down; once this returns, a killed process does not lose it.

        Raises InputError if the file cannot be written.
        """
        asked = {"who": self._who, "image": _content(image), "file": image.name, "question": question}
        self._replies[asked["image"], question] = reply
        if self._file is not None:
            try:
                self._file.write(json.dumps({**asked, **asdict(reply)}).encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise InputError(f"Cannot keep the answers in {self._file.name}: {error.strerror or error}.") from error

    def _resume(self, file: BinaryIO) -> None:
        """Take over what is there, but for a last line during which a run was killed, and go on behind it."""
        kept = 0
        for line in file:
            if not line.endswith(b"\n") and _START.startswith(line[: len(_START)]):
                break
            try:
                entry = json.loads(line)
                who, image, question = (str(entry[name]) for name in ("who", "image", "question"))
                tokens = entry["tokens"] and (int(entry["tokens"][0]), int(entry["tokens"][1]))
                reply = Reply(str(entry["text"]), float(entry["seconds"]), bool(entry["cut"]), tokens)
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                file.close()
                raise InputError(f"{file.name} holds a line that is no answer of a probe: move it away.") from error
            if who == self._who:
                self._replies[image, question] = reply
            kept += len(line)
        file.seek(kept)
        file.truncate()


@lru_cache(maxsize=4096)
def _content(image: Path) -> str:
    """Hash of a file's bytes."""
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
