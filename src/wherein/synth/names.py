"""Object names for a user's own domain: a text file or the category list of LVIS, and what is left out of it and why.

PIN's evaluation on COCO and VOC is zero-shot only if no training object belongs to one of their categories. A name is
left out by its synset where the list has one (LVIS), and by the name and every synonym (`wherein.synth.holdout`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherein.errors import InputError
from wherein.synth.holdout import category_of, may_be_held_out

LONGEST = 80  # characters of a name
_ALLOWED = " -'.,&+"  # beside letters, their marks and digits: a name is also a folder's name
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10))}

# The WordNet synsets of COCO's 80 categories, as LVIS maps them (lvis-api, data/coco_to_synset.json); "hot dog" is also
# read as LVIS's sausage. ".n.01" is not repeated.
_SYNSETS = """
    person bicycle car motorcycle airplane bus train truck boat traffic_light fireplug stop_sign parking_meter bench
    bird cat dog horse sheep beef elephant bear zebra giraffe backpack umbrella bag.n.04 necktie bag.n.06 frisbee ski
    snowboard ball.n.06 kite.n.03 baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wineglass cup
    fork knife spoon bowl.n.03 banana.n.02 apple sandwich orange broccoli carrot frank.n.02 sausage pizza doughnut.n.02
    cake.n.03 chair sofa pot.n.04 bed dining_table toilet.n.02 television_receiver laptop mouse.n.04 remote_control
    computer_keyboard cellular_telephone microwave.n.02 oven toaster.n.02 sink electric_refrigerator book clock vase
    scissors teddy hand_blower toothbrush
"""
HELD_OUT_SYNSETS = frozenset(word if ".n." in word else f"{word}.n.01" for word in _SYNSETS.split())
"""WordNet synsets of COCO's categories; VOC's 20 are among them."""


@dataclass(frozen=True)
class Names:
    """The names to make objects of, and what was left out: (name, why), both in the order of the file."""

    kept: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def read_names(path: Path, keep_held_out: bool = False) -> Names:
    """The names of a text file (one a line, `#` starts a comment) or of an LVIS annotation file (.json).

    Names become lower case, underscores spaces, and what is in parentheses is dropped; a name comes once. Those that
    belong to a category of COCO or VOC are left out, unless `keep_held_out`: whoever evaluates on a domain of their own
    holds out other things.

    Raises:
        InputError: the file cannot be read, a name is unusable, or no name is left.
    """
    listed = _of_lvis(path) if path.suffix.lower() == ".json" else _of_text(path)
    kept: dict[str, None] = {}
    left_out = []
    for name, synonyms, synset in listed:
        why = None if keep_held_out else _held_out(name, synonyms, synset)
        if name in kept:
            why = "listed already"
        if why is None:
            kept[name] = None
        else:
            left_out.append((name, why))
    if not kept:
        raise InputError(
            f"No name is left of the {len(listed)} in {path}"
            + (f" ({left_out[0][0]!r} is {left_out[0][1]}): see --keep-held-out." if listed else ": list one a line.")
        )
    return Names(tuple(kept), tuple(left_out))


def tidy(raw: str, where: str) -> str:
    """A name as the object bank has it. `where` names its place for the message. Raises InputError: no usable name."""
    name = _plain(raw)
    strange = [letter for letter in name if not (letter.isalnum() or _is_mark(letter) or letter in _ALLOWED)]
    if name.split(".")[0].strip() in _DEVICES:
        raise InputError(f"{where} is {raw[:LONGEST]!r}, which no folder can be called on Windows: use another word.")
    if not name or not name[0].isalnum() or strange or len(name) > LONGEST:
        raise InputError(
            f"{where} is {raw[:LONGEST]!r}, but a name is made of letters, digits, spaces and {_ALLOWED.strip()}, "
            f"starts with a letter or a digit, and has at most {LONGEST} characters."
        )
    return name


def _plain(raw: str) -> str:
    """Composed letters, whichever way they were typed; no full stop at the end, which Windows drops from a folder."""
    bare = re.sub(r"\([^)]*\)", " ", raw.replace("_", " ")).lower()
    return " ".join(unicodedata.normalize("NFC", bare).split()).rstrip(". ")


def _is_mark(letter: str) -> bool:
    """A part of a letter: the vowels of Devanagari, an accent that no composed letter has."""
    return unicodedata.category(letter).startswith("M")


def folder_of(name: str) -> str:
    """The folder's name of a tidy name: "tea pot" -> "tea_pot"."""
    return name.replace(" ", "_")


def _held_out(name: str, synonyms: list[str], synset: str | None) -> str | None:
    """Why a name is held out, None where it is not."""
    if synset in HELD_OUT_SYNSETS:
        return f"held out: its synset {synset} is a COCO category's"
    for word in (name, *synonyms):
        category = category_of(word)
        if category is not None:
            through = "" if word == name else f" through its synonym {word!r}"
            return f"held out: it belongs to COCO's or VOC's {category!r}{through}"
        if may_be_held_out(word):
            return "held out: it may say what is in a thing of COCO or VOC"
    return None


def _of_text(path: Path) -> list[tuple[str, list[str], str | None]]:
    lines = _read(path).splitlines()
    bare = [(number, line.split("#", 1)[0].strip()) for number, line in enumerate(lines, 1)]
    return [(tidy(line, f"Line {number} of {path}"), [], None) for number, line in bare if line]


def _of_lvis(path: Path) -> list[tuple[str, list[str], str | None]]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list):
        raise InputError(
            f"{path} has no list of categories: expected an LVIS annotation file, or a text file of names."
        )
    return [_category(entry, f"Category {number} of {path}") for number, entry in enumerate(categories, 1)]


def _category(entry: Any, where: str) -> tuple[str, list[str], str | None]:
    """Name, synonyms and synset of one category; COCO's own files have no synset and no synonyms."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    name, synonyms, synset = fields.get("name"), fields.get("synonyms", []), fields.get("synset")
    texts: list[Any] = [name, *synonyms] if isinstance(synonyms, list) else [None]
    if not all(isinstance(text, str) for text in texts) or not isinstance(synset, str | None):
        raise InputError(f"{where} is {str(entry)[:60]!r}, but must have a name, and texts as synonyms and synset.")
    return tidy(texts[0], where), [_plain(text) for text in texts[1:]], synset


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the names in {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The names in {path} are not UTF-8 text.") from error
