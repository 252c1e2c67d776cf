"""Backgrounds that show none of the objects: an object in a background has no box, and would be learnt as absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wherein import images
from wherein.errors import ImageError, InputError
from wherein.journal import Journal, stamp_of, write_text
from wherein.synth.backgrounds import IMAGE_SUFFIXES
from wherein.synth.clip import Clip, description

_SCORES = "scores.jsonl"


def filter_backgrounds(folder: Path, names: Sequence[str], clip: Clip, out: Path, max_clip: float) -> dict[str, Any]:
    """Copy the pictures below a folder that CLIP sees none of the names in into another; returns the report.

    A picture goes where "a photo of {name}" scores `max_clip` or more for any name. report.json says of each what it
    looks most like, so that the bar can be chosen. What was scored before is not scored again, and what another bar
    kept before is removed, so `out` must be this job's own.

    Raises:
        InputError: there is no picture, or `out` lies in the folder, holds something else or cannot be written to. One
            unreadable picture is reported.
    """
    from rich.console import Console
    from rich.progress import track

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"No backgrounds in {folder}: expected .jpg, .png or .webp files.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{out} lies in {folder}, so what is kept would be looked at again: give a folder outside it.")
    if not (out / _SCORES).exists() and out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} holds other files, which could be lost: give a new or an empty folder.")
    journal = Journal(out / _SCORES, {"schema": 1})
    by = [clip.name, hashlib.sha256("\n".join(names).encode()).hexdigest()]
    with journal.reading():
        mine = [row for row in journal.rows if row["by"] == by]
        done = {(row["file"], row["stamp"]): (str(row["seen"][0]), float(row["seen"][1])) for row in mine}
    texts, rows = [description(name) for name in names], []
    for file in track(files, "looking at backgrounds", console=Console(stderr=True)):
        where = file.relative_to(folder).as_posix()
        row: dict[str, Any] = {"file": where, "kept": False}
        try:
            stamp = stamp_of(file)
            if (where, stamp) not in done:
                scores = clip.scores([images.load(file)], texts)[0]
                best = int(np.argmax(scores))
                done[where, stamp] = names[best], float(scores[best])
                journal.add({"file": where, "stamp": stamp, "by": by, "seen": done[where, stamp]})
            like, score = done[where, stamp]
            row |= {"kept": score < max_clip, "most_like": like, "clip": score}
        except ImageError as error:
            row["unusable"] = str(error)
        rows.append(row)
        if row["kept"]:
            _copy(file, out / where)
        else:
            _remove(out / where)
    for where in {row["file"] for row in journal.rows} - {row["file"] for row in rows}:
        _remove(out / where)  # it has left the folder
    report = {"schema": 1, "clip": clip.name, "max_clip": max_clip, "names": list(names), "pictures": rows}
    write_text(out / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return report


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot remove {file}: {error.strerror or error}.") from error


def _copy(file: Path, to: Path) -> None:
    """Copy a file whole or not at all."""
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, part)
        os.replace(part, to)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"Cannot copy {file} to {to}: {error.strerror or error}.") from error
