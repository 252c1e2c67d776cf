"""The checks every untrusted annotation file goes through; each complaint is one sentence that names file and entry."""

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from wherein import geometry
from wherein.errors import InputError

T = TypeVar("T")


class Entry:
    """One JSON object of an annotation file, read field by field; every complaint names the file and the entry."""

    def __init__(self, value: Any, where: str) -> None:
        """`where` names the entry for messages, such as `annotations.json, annotation 7`.

        Raises:
            InputError: the value is no JSON object.
        """
        if not isinstance(value, Mapping):
            raise InputError(f"{where} is {shown(value)}, but must be a JSON object.")
        self._fields = value
        self.where = where

    def field(self, name: str) -> Any:
        """The value of a field that must be there.

        Raises:
            InputError: there is no such field.
        """
        if name not in self._fields:
            raise InputError(f"{self.where} has no {name!r}.")
        return self._fields[name]

    def get(self, name: str) -> Any:
        """The value of a field that need not be there, None when it is not."""
        return self._fields.get(name)

    def entries(self, name: str) -> list[Self]:
        """The objects of a list field.

        Raises:
            InputError: it is missing, no list, or something in it is no JSON object.
        """
        values = self.field(name)
        if not isinstance(values, list):
            raise InputError(f"{self.where} has {name} {shown(values)}, but it must be a list.")
        return [type(self)(value, f"{self.where}, {name}[{position}]") for position, value in enumerate(values)]

    def table(self, name: str) -> dict[int | str, Self]:
        """The objects of a list field by their `id`.

        Raises:
            InputError: as of `entries` and `key`, or two have the same id.
        """
        index: dict[int | str, Self] = {}
        for entry in self.entries(name):
            key = entry.key("id")
            if index.setdefault(key, entry) is not entry:
                raise InputError(f"{entry.where} repeats the id {shown(key)} of an earlier entry.")
        return index

    def target(self, name: str, table: Mapping[int | str, T], kind: str) -> T:
        """What the identifier in a field stands for in a table; `kind` is the word for it in the complaint.

        Raises:
            InputError: as of `key`, or the table does not have it.
        """
        key = self.key(name)
        if key not in table:
            raise InputError(f"{self.where} has {name} {shown(key)}, but no {kind} has this id.")
        return table[key]

    def key(self, name: str) -> int | str:
        """The value of an identifier field.

        Raises:
            InputError: it is missing, or neither an integer nor a text.
        """
        value = self.field(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be an integer or a text.")
        return value

    def text(self, name: str) -> str:
        """The value of a text field, without the white space around it.

        Raises:
            InputError: it is missing, not a text, or empty.
        """
        value = self.field(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be a text that is not empty.")
        return value.strip()

    def side(self, name: str) -> int | None:
        """The value of a width or height field in pixels, None when the entry does not state it.

        Raises:
            InputError: it is not a positive integer.
        """
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be a positive number of pixels.")
        return value

    def flag(self, name: str) -> bool:
        """The value of a 0 / 1 field, False when the entry does not state it.

        Raises:
            InputError: it is neither 0 nor 1.
        """
        value = self._fields.get(name, 0)
        if value not in (0, 1):
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be 0 or 1.")
        return bool(value)

    def image_name(self, name: str) -> str:
        """The image that a field names, as a path inside the images folder; nothing is opened.

        The check is lexical: a link that the user put into the folder may lead anywhere, the annotation may not.

        Raises:
            InputError: it is not a relative path that stays inside the folder.
        """
        value = self.text(name)
        windows, posix = PureWindowsPath(value), PurePosixPath(value)
        if windows.anchor or posix.anchor or ".." in windows.parts or "\0" in value or not posix.parts:
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must stay inside the images folder.")
        return str(posix)

    def box(self, name: str) -> NDArray[np.float64]:
        """The box of an `[x, y, width, height]` field, float64[4] xyxy in original pixels.

        A box without width or height is let through: real annotation files hold a few; they score 0.

        Raises:
            InputError: it is not four finite numbers with width >= 0 and height >= 0.
        """
        value = self.field(name)
        numbers = [number for number in value if _is_number(number)] if isinstance(value, list) else []
        if len(numbers) != 4 or len(value) != 4 or numbers[2] < 0 or numbers[3] < 0:
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be [x, y, width, height] in pixels.")
        corners: NDArray[np.float64] = geometry.from_xywh(np.array([numbers], dtype=np.float64))[0]
        return corners


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, or nested without end
        raise InputError(f"The annotation file {path} is not JSON: {error}.") from error


def shown(value: Any) -> str:
    """A short form of an untrusted value for a message, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(value: Any) -> bool:
    # An integer of thousands of digits is valid JSON, and not a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53
