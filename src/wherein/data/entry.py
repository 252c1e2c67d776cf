"""The checks every untrusted record goes through; each complaint is one sentence that names the file and the record."""

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from reprlib import Repr
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wherein.data.complaint import Complain, refuse
from wherein.errors import InputError

T = TypeVar("T")
_EXACT = 2**53
_short = Repr()
_short.maxlevel = 3  # a pickle can hold one list a billion times in a few lines
_short.maxstring = _short.maxlong = _short.maxother = 60


class Entry:
    """One JSON object of an annotation file, read field by field; every complaint names the file and the entry."""

    __slots__ = ("_fields", "where")  # a file has one of them for each of its objects

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

    def values(self, name: str) -> list[Any]:
        """The value of a list field.

        Raises:
            InputError: it is missing, or no list.
        """
        values = self.field(name)
        if not isinstance(values, list):
            raise InputError(f"{self.where} has {name} {shown(values)}, but it must be a list.")
        return values

    def entries(self, name: str, complain: Complain = refuse) -> Iterator["Entry"]:
        """The objects of a list field; what is no JSON object is complained of.

        Raises:
            InputError: it is missing, or no list.
        """
        return objects(self.values(name), f"{self.where}, {name}", complain)

    def table(self, name: str, complain: Complain = refuse) -> dict[int | str, "Entry"]:
        """The objects of a list field by their `id`; those that have none, or the same one, are complained of.

        Raises:
            InputError: as of `entries`.
        """
        index: dict[int | str, Entry] = {}
        repeated: set[int | str] = set()
        for entry in self.entries(name, complain):
            try:
                key = entry.key("id")
                if index.setdefault(key, entry) is not entry:
                    repeated.add(key)
                    raise InputError(f"{entry.where} repeats the id {shown(key)} of an earlier entry.")
            except InputError as error:
                complain(error)
        return {key: entry for key, entry in index.items() if key not in repeated}

    def target(self, name: str, table: Mapping[int | str, T], kind: str) -> T:
        """What the identifier in a field stands for in a table; `kind` is the word for it in the complaint.

        Raises:
            InputError: as of `reference`.
        """
        return table[self.reference(name, table, kind)]

    def reference(self, name: str, table: Container[int | str], kind: str) -> int | str:
        """The value of an identifier field that a table must have.

        Raises:
            InputError: as of `key`, or the table does not have it.
        """
        key = self.key(name)
        if key not in table:
            raise InputError(f"{self.where} has {name} {shown(key)}, but no {kind} has this id.")
        return key

    def key(self, name: str) -> int | str:
        """The value of an identifier field.

        Raises:
            InputError: it is missing, or neither an integer nor a text.
        """
        value = self.field(name)
        if type(value) is int or type(value) is str:
            return value
        raise InputError(f"{self.where} has {name} {shown(value)}, but it must be an integer or a text.")

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
        if isinstance(value, float) and value.is_integer():  # as pandas writes it
            value = int(value)
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
        if not stays_inside(value):
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must stay inside the images folder.")
        return str(PurePosixPath(value))

    def number(self, name: str) -> float:
        """The value of a number field.

        Raises:
            InputError: it is missing, or no finite number.
        """
        value = self.field(name)
        if not is_number(value):
            raise InputError(f"{self.where} has {name} {shown(value)}, but it must be a finite number.")
        return float(value)

    def box(self, name: str) -> NDArray[np.float64]:
        """The box of an `[x, y, width, height]` field, float64[4] xyxy in original pixels.

        A box without width or height is let through: real annotation files hold a few; they score 0.

        Raises:
            InputError: it is not four finite numbers with width >= 0 and height >= 0.
        """
        value = self.field(name)
        if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
            x, y, width, height = map(float, value)
            if width >= 0 and height >= 0:
                return np.array([x, y, x + width, y + height])
        raise InputError(f"{self.where} has {name} {shown(value)}, but it must be [x, y, width, height] in pixels.")

    def spanned(self, name: str) -> NDArray[np.float64]:
        """The box of an `[x0, y0, x1, y1]` field, float64[4] xyxy in original pixels.

        Raises:
            InputError: it is not four finite numbers with x1 >= x0 and y1 >= y0.
        """
        value = self.field(name)
        if isinstance(value, list) and len(value) == 4 and all(map(is_number, value)):
            box = np.array(value, dtype=np.float64)
            if (box[2:] >= box[:2]).all():
                return box
        raise InputError(f"{self.where} has {name} {shown(value)}, but it must be [x0, y0, x1, y1] in pixels.")

    def corners(self, x0: str, y0: str, x1: str, y1: str) -> NDArray[np.float64]:
        """The box whose corners are in four fields of these names, float64[4] xyxy in their unit.

        Raises:
            InputError: one of them is missing or no finite number, or the second corner is not right of and below the
                first.
        """
        box = np.array([self.number(name) for name in (x0, y0, x1, y1)])
        if (box[2:] < box[:2]).any():
            raise InputError(
                f"{self.where} has the corners {shown(box.tolist())}, "
                f"but {x1} must not be less than {x0}, nor {y1} than {y0}."
            )
        return box


def objects(values: Iterable[Any], where: str, complain: Complain = refuse) -> Iterator[Entry]:
    """An entry for each value, called `where[position]`; what is no JSON object is complained of."""
    for position, value in enumerate(values):
        try:
            yield Entry(value, f"{where}[{position}]")
        except InputError as error:
            complain(error)


def parse(text: str) -> float | str:
    """The number that a text stands for; the text itself where it stands for none, so that a complaint can show it."""
    try:
        return float(text)
    except ValueError:
        return text


def shown(value: Any) -> str:
    """A short form of an untrusted value for a message, at most 60 characters."""
    try:
        text = _short.repr(value)
    except ValueError:  # Python refuses to write thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def stays_inside(path: str) -> bool:
    """Whether a path names something inside the folder it is relative to, on every system; nothing is opened."""
    windows, posix = PureWindowsPath(path), PurePosixPath(path)
    return not (windows.anchor or posix.anchor or ".." in windows.parts or "\0" in path or not posix.parts)


def is_number(value: Any) -> bool:
    """Whether this is a number, and of a size up to which a float64 holds every integer."""
    # By comparison: an integer of thousands of digits is valid JSON, and not a float. NaN is neither less nor more.
    return type(value) in (int, float) and -_EXACT < value < _EXACT
