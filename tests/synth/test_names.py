"""Names of a user's domain: what is read, what is left out, and PIN-7: nothing of COCO or VOC is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.errors import InputError
from wherein.synth.holdout import COCO, VOC, is_held_out
from wherein.synth.names import HELD_OUT_SYNSETS, folder_of, read_names, tidy


def lvis(path: Path, *categories: tuple[str, str, list[str]]) -> Path:
    entries = [{"id": i, "name": n, "synset": s, "synonyms": o} for i, (n, s, o) in enumerate(categories, 1)]
    path.write_text(json.dumps({"categories": entries, "annotations": [], "images": []}))
    return path


def test_a_text_file_has_one_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("# my parts\nhex_bolt\n\n  Tea Pot  # for the kitchen\nbow_(weapon)\nbow\n", "utf-8")
    names = read_names(file)
    assert names.kept == ("hex bolt", "tea pot", "bow")
    assert names.left_out == (("bow", "listed already"),)


def test_what_belongs_to_coco_or_voc_is_left_out_by_name_synonym_and_synset(tmp_path: Path) -> None:
    file = lvis(
        tmp_path / "lvis.json",
        ("aerosol_can", "aerosol.n.02", ["aerosol_can", "spray_can"]),
        ("car_(automobile)", "car.n.01", ["car_(automobile)", "auto_(automobile)", "automobile"]),
        ("settle", "sofa.n.01", ["settle"]),  # by its synset alone
        ("sedan_chaise", "chaise.n.09", ["sedan_chaise", "settee"]),  # by a synonym alone
        ("teapot", "teapot.n.01", ["teapot", "tea/pot", "(of all kinds)"]),  # only a name must make a folder
        ("fireplug", "fireplug.n.01", ["fireplug", "fire_hydrant", "hydrant"]),
    )
    names = read_names(file)
    assert names.kept == ("aerosol can", "teapot")
    reasons = dict(names.left_out)
    assert list(reasons) == ["car", "settle", "sedan chaise", "fireplug"]
    assert "sofa.n.01" in reasons["settle"] and "'settee'" in reasons["sedan chaise"]
    assert read_names(file, keep_held_out=True).kept[1:3] == ("car", "settle")


def test_a_name_that_may_say_what_is_in_a_thing_of_coco_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("glass of milk\nstack of wood\n", "utf-8")
    names = read_names(file)
    assert names.kept == ("stack of wood",)
    assert names.left_out == (("glass of milk", "held out: it may say what is in a thing of COCO or VOC"),)


@pytest.mark.parametrize("category", sorted({*COCO, *VOC}))
def test_no_category_of_coco_or_voc_is_kept_under_any_of_its_forms(category: str, tmp_path: Path) -> None:
    """PIN-7."""
    word = category.replace(" ", "_")
    forms = [(word, "x.n.09", []), (f"{word}_(thing)", "x.n.09", []), ("gizmo", "x.n.09", [word.upper()])]
    names = read_names(lvis(tmp_path / "lvis.json", ("teapot", "teapot.n.01", []), *forms))
    assert names.kept == ("teapot",) and len(names.left_out) == 3


def test_there_is_a_synset_for_each_category() -> None:
    assert len(HELD_OUT_SYNSETS) == len(COCO) + 1  # hot dog: frank.n.02, and LVIS's sausage
    assert {"person.n.01", "bag.n.04", "bowl.n.03", "toothbrush.n.01", "beef.n.01"} < HELD_OUT_SYNSETS


@given(st.text(max_size=40))
def test_a_tidy_name_is_tidy_and_makes_a_folder_of_its_own(raw: str) -> None:
    try:
        name = tidy(raw, "It")
    except InputError:
        return
    assert tidy(name, "It") == name == tidy(folder_of(name), "It")
    assert Path(folder_of(name)).name == folder_of(name) not in ("", ".", "..") and not set("/\\\0_ ") & set(name) - {
        " "
    }


def test_a_name_is_the_same_however_its_letters_are_typed() -> None:
    assert tidy("Cafe\u0301", "It") == tidy("caf\u00e9", "It") == "caf\u00e9"
    assert tidy("\u0915\u093f\u0924\u093e\u092c", "It") == "\u0915\u093f\u0924\u093e\u092c"  # a book, in Hindi
    assert tidy("Main St.", "It") == "main st"
    with pytest.raises(InputError, match="letters"):
        tidy("\u0301a", "It")


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "aux.", "prn.txt", "con .x"])
def test_what_no_folder_is_called_on_windows_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match="Windows"):
        tidy(name, "It")
    assert tidy(f"{name[0]}-{name}".rstrip("."), "It")


@given(st.lists(st.sampled_from(["teapot", "Tea_pot", "cars", "lamp", "red mountain bike"]), min_size=1))
def test_kept_and_left_out_are_all_there_is(tmp_path_factory: pytest.TempPathFactory, given_names: list[str]) -> None:
    file = tmp_path_factory.mktemp("names") / "names.txt"
    file.write_text("\n".join(["anvil", *given_names]))
    names = read_names(file)
    assert len(names.kept) + len(names.left_out) == len(given_names) + 1
    assert not any(is_held_out(name) for name in names.kept) and len(set(names.kept)) == len(names.kept)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("names.txt", b"teapot\n../etc\n", "Line 2 of"),
        ("names.txt", b"a/b", "Line 1 of"),
        ("names.txt", b"(all)", "Line 1 of"),
        ("names.txt", b"x" * 81, "at most 80"),
        ("names.txt", b"# nothing", "list one a line"),
        ("names.txt", b"cat\ndog", "--keep-held-out"),
        ("names.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("names.json", b"[1, 2]", "no list of categories"),
        ("names.json", b"{", "not JSON"),
        ("names.json", b'{"categories": [3]}', "Category 1"),
        ("names.json", b'{"categories": [{"name": "lamp", "synonyms": "lamp"}]}', "Category 1"),
    ],
)
def test_an_unusable_file_is_one_sentence(file: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_names(tmp_path / file)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the names"):
        read_names(tmp_path / "none.txt")


def test_cocos_own_file_has_no_synsets(tmp_path: Path) -> None:
    content: dict[str, Any] = {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "anvil"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert read_names(tmp_path / "c.json").kept == ("anvil",)
