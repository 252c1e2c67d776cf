"""Opening annotation files: JSON and JSON lines, and a look at how a file begins."""

import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import Entry
from wherein.errors import InputError

_HEAD = 2**20  # characters of a file that tell its format; an entry of Visual Genome has some ten thousand
_IMAGES = re.compile(rb'"images"\s*:\s*\[')


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what keeps an annotation file from being read into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error


def read_json(path: Path, encoding: str = "utf-8-sig", keep: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON file; `keep` is given each object of it as it is read and returns what takes its place.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        with reading(path):
            return json.loads(path.read_text(encoding), object_hook=keep)
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


def first_image(path: Path) -> Mapping[str, Any]:
    """The first object of the list `images` in a file of COCO's shape, to tell its format; empty where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        if not path.stat().st_size:  # which cannot be mapped
            return {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _IMAGES.search(content)  # other tools than COCO's write long lists before this one
            head = content[found.end() : found.end() + _HEAD] if found else b""
    try:
        value, _ = json.JSONDecoder().raw_decode(head.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):  # what is wrong with it, its reader says
        return {}
    return value if isinstance(value, dict) else {}
