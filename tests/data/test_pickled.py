"""Pickles: plain values come out, and nothing that could run."""

from __future__ import annotations

import collections
import copyreg
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherein.data.entry import Entry, shown
from wherein.data.pickled import read_pickle
from wherein.errors import InputError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(PLAIN, st.sampled_from(range(3, pickle.HIGHEST_PROTOCOL + 1)))
@settings(max_examples=60, deadline=None)
def test_plain_values_come_out(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.mktemp("pickle") / "a.p"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_as_python_2_wrote_them(tmp_path: Path, protocol: int) -> None:
    value = [{"sent": "left man", "ref_id": 3, "tokens": ["left", "man"], "box": [1.5, -2], "none": None}]
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(tmp_path / "a.p") == value
    (tmp_path / "a.p").write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsS'id'\np4\nL5L\nsa.")
    assert read_pickle(tmp_path / "a.p") == [{"sent": "café", "id": 5}]


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path, function: Any = os.mkdir) -> None:
        self._path, self._function = str(path), function

    def __reduce__(self) -> Any:
        return self._function, (self._path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_runs(tmp_path: Path, protocol: int) -> None:
    for trap in (Trap(tmp_path / "trapped"), [{"a": Trap(tmp_path / "trapped", eval)}]):
        (tmp_path / "a.p").write_bytes(pickle.dumps(trap, protocol))
        with pytest.raises(InputError, match=r"a.p is not a pickle of plain values: it names \w+\.\w+, and only plain"):
            read_pickle(tmp_path / "a.p")
    assert not (tmp_path / "trapped").exists()


HOSTILE = [
    b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL
    b"(S'true'\nios\nsystem\n.",  # INST
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
    b"(cos\nsystem\nS'true'\no.",  # OBJ
    b"cbuiltins\nobject\n)\x81.",  # NEWOBJ
    b"\x80\x02\x82\xf0.",  # EXT1, registered below
    b"S'print'\n(S'x'\ntR.",  # REDUCE of a text
    b"}S'__setstate__'\ncos\nsystem\nsb.",
    b"}}S'a'\nS'b'\nsb.",  # BUILD of a dict
    b"Pid\n.",  # PERSID
    b"\x80\x05\x97.",  # NEXT_BUFFER
    b"",
    b".",
    b"garbage",
    b"(lp0\n",
    b"\x80\x09].]]}s.",
    b"S'\xff\xfe'\n.",
    b"T\xff\xff\xff\x7f",
    b"\x8e" + b"\xff" * 7 + b"\x7f",  # 9 * 10**18 bytes
]


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_pickles_are_told(tmp_path: Path, content: bytes) -> None:
    copyreg.add_extension("collections", "OrderedDict", 0xF0)
    try:
        (tmp_path / "a.p").write_bytes(content)
        with pytest.raises(InputError, match="a.p is not a pickle of plain values"):
            read_pickle(tmp_path / "a.p")
    finally:
        copyreg.remove_extension("collections", "OrderedDict", 0xF0)
    with pytest.raises(InputError, match="it names collections.OrderedDict"):
        (tmp_path / "a.p").write_bytes(pickle.dumps(collections.OrderedDict(a=1)))
        read_pickle(tmp_path / "a.p")


def test_a_list_that_holds_itself_and_one_that_multiplies_can_be_shown(tmp_path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    laughs: Any = "ha"
    for _ in range(60):
        laughs = [laughs] * 10
    (tmp_path / "a.p").write_bytes(pickle.dumps([value, laughs, 10**5000]))
    for one in read_pickle(tmp_path / "a.p"):
        assert len(shown(one)) <= 60
        with pytest.raises(InputError, match="must be a JSON object"):
            Entry(one, "a.p, ref[0]")


def test_a_missing_pickle_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the annotation file .*a.p: No such file"):
        read_pickle(tmp_path / "a.p")
