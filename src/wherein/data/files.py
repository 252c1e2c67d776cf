"""Opening annotation files: JSON and JSON lines, and a look at how a file begins."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import Entry
from wherein.errors import InputError

_HEAD = 2**20  # characters of a file that tell its format; an entry of Visual Genome has some ten thousand


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what keeps an annotation file from being read into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error


def read_json(path: Path, encoding: str = "utf-8-sig") -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        with reading(path):
            return json.loads(path.read_text(encoding))
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, or nested without end
        raise InputError(f"The annotation file {path} is not JSON: {error}.") from error


def read_lines(path: Path, complain: Complain = refuse) -> Iterator[Entry]:
    """The objects in a file of JSON lines, one after the other; a line that is none is complained of.

    Raises:
        InputError: the file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                if line.strip():
                    yield Entry(json.loads(line), where)
            except InputError as error:
                complain(error)
            except (ValueError, RecursionError) as error:
                complain(InputError(f"{where} is not JSON: {error}."))


def first(path: Path) -> Mapping[str, Any] | None:
    """The first object of a JSON list, to tell its format; empty for another list, None for what is no list.

    Raises:
        InputError: the file cannot be read.
    """
    with reading(path), path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.read(_HEAD).lstrip()
    if not head.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(head[1:].lstrip())
    except (ValueError, RecursionError):  # what is wrong with it, its reader says
        return {}
    return value if isinstance(value, dict) else {}
