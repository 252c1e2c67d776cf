"""Plain values out of a pickle, without running what is in it.

A pickle is a program for a small machine. That machine can only reach code through a global name (the instructions
GLOBAL, STACK_GLOBAL, INST and the extension registry), which `Unpickler.find_class` looks up, or through a persistent
identifier. Here the first raises for every name and the second is not supported, as Python's own default is: no class,
function or object can come onto the stack, so the instructions that call or fill one (REDUCE, NEWOBJ, BUILD) find
nothing but dicts, lists, tuples, sets, texts, bytes and numbers, and fail. What is built is little more than JSON could
hold; what a hostile file can still do is ask for much memory.
"""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from wherein.data.files import reading
from wherein.errors import InputError


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        """Called for whatever is no plain value: refuse it."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are read")


def read_pickle(path: Path) -> Any:
    """The value in a pickle of dicts, lists, tuples, sets, texts, bytes and numbers; nothing else is ever built.

    Raises:
        InputError: the file cannot be read, is no pickle, or holds anything else.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        return _Plain(io.BytesIO(content), encoding="utf-8").load()  # texts of Python 2 are bytes
    except Exception as error:  # on damaged bytes it raises nearly every type there is
        raise InputError(f"The annotation file {path} is not a pickle of plain values: {error}.") from error
