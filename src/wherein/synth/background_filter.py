"""Backgrounds that show none of the objects: an object in a background has no box, and would be learnt as absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wherein import images
from wherein.errors import ImageError, InputError
from wherein.synth.backgrounds import IMAGE_SUFFIXES
from wherein.synth.choosing import write_text
from wherein.synth.clip import Clip, description


def filter_backgrounds(folder: Path, names: Sequence[str], clip: Clip, out: Path, max_clip: float) -> dict[str, Any]:
    """Copy the pictures below a folder that CLIP sees none of the names in into another; returns the report.

    A picture goes where "a photo of {name}" scores `max_clip` or more for any name. report.json says of each what it
    looks most like, so that the bar can be chosen.

    Raises:
        InputError: there is no picture, or the folder cannot be written to. One unreadable picture is reported.
    """
    from rich.console import Console
    from rich.progress import track

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"No backgrounds in {folder}: expected .jpg, .png or .webp files.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {out}: {error.strerror or error}.") from error
    texts, rows = [description(name) for name in names], []
    for file in track(files, "looking at backgrounds", console=Console(stderr=True)):
        where = file.relative_to(folder).as_posix()
        try:
            scores = clip.scores([images.load(file)], texts)[0]
        except ImageError as error:
            rows.append({"file": where, "kept": False, "unusable": str(error)})
            continue
        best = int(np.argmax(scores))
        kept = bool(scores[best] < max_clip)
        rows.append({"file": where, "kept": kept, "most_like": names[best], "clip": float(scores[best])})
        if kept:
            _copy(file, out / where)
    report = {"schema": 1, "clip": clip.name, "max_clip": max_clip, "names": list(names), "pictures": rows}
    write_text(out / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return report


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
