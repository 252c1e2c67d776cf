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
from typing import Any

from wherein.journal import Journal


@dataclass(frozen=True)
class Reply:
    """What a model said: its text, how long that took, and whether it was cut off at the most tokens allowed.

    tokens: (read, written) as counted by whoever served the model; None where nobody says.
    """

    text: str
    seconds: float
    cut: bool = False
    tokens: tuple[int, int] | None = None


class Transcript:
    """Replies by image and question, streamed to a JSON-lines file, a line each; without a path nothing is written.

    `settings` are whatever must be the same for a reply to hold, JSON-ready: model, limits. Lines of other settings
    stay in the file and are not used. `found` is how many replies of these settings were there already.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Raises InputError if the file cannot be read or written, or holds something else."""
        self._who = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._journal = Journal(path, {"schema": 1})
        with self._journal.reading():
            replies = [(row["who"], row["image"], row["question"], _reply(row)) for row in self._journal.rows]
        self._replies = {(image, question): reply for who, image, question, reply in replies if who == self._who}
        self.found = len(self._replies)

    def get(self, image: Path, question: str) -> Reply | None:
        """The reply to a question about an image, known by what is in its file; None if there is none yet."""
        return self._replies.get((_content(image), question))

    def add(self, image: Path, question: str, reply: Reply) -> None:
        """Write a reply down; once this returns, a killed process does not lose it.

        Raises InputError if the file cannot be written.
        """
        asked = {"who": self._who, "image": _content(image), "file": image.name, "question": question}
        self._journal.add({**asked, **asdict(reply)})
        self._replies[asked["image"], question] = reply


def _reply(row: Mapping[str, Any]) -> Reply:
    """The reply of a line; TypeError, LookupError or ValueError for a line that has none."""
    tokens = row["tokens"] and (int(row["tokens"][0]), int(row["tokens"][1]))
    return Reply(str(row["text"]), float(row["seconds"]), bool(row["cut"]), tokens)


@lru_cache(maxsize=4096)
def _content(image: Path) -> str:
    """Hash of a file's bytes."""
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
