"""From names to pictures, and from pictures to cut-outs: two jobs that go on where they were killed, at every picture.

A picture is in the journal once its file is whole, and a file that no journal knows is made anew and the same, so
there are neither gaps nor duplicates, whenever the process dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wherein import images, pictures
from wherein.errors import ImageError, InputError
from wherein.journal import Journal
from wherein.synth.cutting import Cut, Cutter, cropped
from wherein.synth.diffusion import prompt_for, seed_of
from wherein.synth.names import folder_of
from wherein.synth.placement import SOLID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherein.synth.diffusion import Diffusion

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A picture that holds one object.

    Attributes:
        name: of the object.
        key: of the picture within its job; the cut-out is called after it.
        path: of the file; None where the text-to-image model's safety checker refused the picture.
        stamp: changes when the file does.
        source, licence, seed: what a cut-out of it carries; only a picture that was made has a seed.
    """

    name: str
    key: str
    path: Path | None
    stamp: str
    source: str
    licence: str
    seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a picture: a cut-out, or in a few words why there is none.

    Attributes:
        item: the picture · file: the cut-out, relative to the job's folder · why: there is none.
        segmenter: whose mask it is, "alpha" where the picture was transparent around the object already.
        area: share of the picture that the object covers · score: of CLIP, against "a photo of {name}".
        complaint: a sentence for the user, where the picture was unusable.
    """

    item: Item
    file: str | None = None
    why: str | None = None
    segmenter: str | None = None
    area: float | None = None
    score: float | None = None
    complaint: str | None = None


def draw_pictures(
    names: Sequence[str],
    out: Path,
    load: Callable[[], Diffusion],
    *,
    per_name: int,
    seed: int,
    batch: int,
    settings: Mapping[str, Any],
    licence: str,
) -> list[Item]:
    """`per_name` pictures of each name in `out`/pictures, in batches; those that are there stay.

    `load` is called where a picture is missing; `settings` (the model's name among them, as `diffusion`) and `seed`
    must be those of an earlier run in the same folder, more names or pictures may be asked for.

    Raises:
        InputError: the folder holds pictures of other settings or a damaged journal, or cannot be written to.
    """
    journal = Journal(out / "pictures.jsonl", {**settings, "seed": seed})
    model_name = settings["diffusion"]
    with journal.reading():
        rows = [row for row in journal.rows if _there(row, out)]
        made = {(row["name"], row["index"]): _item(row, out, model_name, licence) for row in rows}
    wanted = [(name, index) for name in names for index in range(per_name)]
    missing = [one for one in wanted if one not in made]
    model = load() if missing else None
    for some in _progress([missing[i : i + batch] for i in range(0, len(missing), batch)], "making pictures"):
        assert model is not None
        seeds = [seed_of(seed, name, index) for name, index in some]
        drawn = model.draw([prompt_for(name) for name, _ in some], seeds)
        for (name, index), own, picture in zip(some, seeds, drawn, strict=True):
            file = None if picture is None else f"pictures/{folder_of(name)}/{index:04d}.png"
            if file is not None and picture is not None:
                _write(out / file, picture)
            row = {"name": name, "index": index, "seed": own, "file": file}
            journal.add(row)
            made[name, index] = _item(row, out, model_name, licence)
    return [made[one] for one in wanted]


def cut_pictures(
    items: Sequence[Item], out: Path, load: Callable[[], Cutter | None], *, settings: dict[str, Any]
) -> list[Outcome]:
    """The object of each picture, in `out`/cutouts; those that were cut by the same `settings` before stay.

    A picture that is transparent around its object is taken as it is, cropped. `load` is called where another one is to
    be cut out; None from it says that there is no segmenter. An unusable picture ends nothing: its outcome complains,
    and it is looked at again the next time.

    Raises:
        InputError: the folder cannot be written to, or its journal is damaged.
    """
    journal = Journal(out / "cutouts.jsonl", {"schema": 1})
    asked = {item.key: item for item in items}
    with journal.reading():
        last = {row["key"]: row for row in journal.rows}  # an earlier row's file has been written over since
        done = {
            key: Outcome(asked[key], **row["outcome"])
            for key, row in last.items()
            if key in asked
            and row["stamp"] == asked[key].stamp
            and (row["by"] == settings or row["outcome"]["segmenter"] == "alpha")
            and _there(row["outcome"], out)
        }
    missing = [item for item in items if item.key not in done]
    cutter = cache(load)
    for item in _progress(missing, "cutting out"):
        try:
            found = _cut(item, cutter)
        except ImageError as error:
            done[item.key] = Outcome(item, why="unusable", complaint=str(error))
            continue
        outcome = _refused(found) if isinstance(found, str) else _saved(found, item, out)
        journal.add({"key": item.key, "stamp": item.stamp, "by": settings, "outcome": outcome})
        done[item.key] = Outcome(item, **outcome)
    return [done[item.key] for item in items]


def cutout_file(key: str) -> str:
    """The file of the cut-out of a picture's `key`, relative to the job's folder."""
    return f"cutouts/{key}" if key.lower().endswith(".png") else f"cutouts/{key}.png"


def _cut(item: Item, cutter: Callable[[], Cutter | None]) -> Cut | str:
    """The cut-out of a picture, or why there is none. Raises ImageError: the picture is unusable."""
    if item.path is None:
        return "refused by the safety checker"
    rgba = images.load(item.path, alpha=True)
    solid = rgba[..., 3] >= SOLID
    if not solid.any():
        raise ImageError(f"{item.path} is transparent everywhere: there is no object in it.")
    if not solid.all():
        return Cut(cropped(rgba), "alpha", float(solid.mean()), None)
    chosen = cutter()
    if chosen is None:
        raise ImageError(f"{item.path} has no transparent background: give --segmenter clipseg=MODEL to cut it out.")
    return chosen.cut(rgba[..., :3], item.name)


def _there(row: Mapping[str, Any], out: Path) -> bool:
    """What a journal says was done still holds: its file, if it has one, is there."""
    return row["file"] is None or (out / row["file"]).is_file()


def _refused(why: str) -> dict[str, Any]:
    """The fields of the outcome of a picture without a cut-out."""
    return {"file": None, "why": why, "segmenter": None, "area": None, "score": None}


def _saved(cut: Cut, item: Item, out: Path) -> dict[str, Any]:
    """Write a cut-out; the fields of its outcome."""
    file = cutout_file(item.key)
    _write(out / file, cut.rgba)
    return {"file": file, "why": None, "segmenter": cut.segmenter, "area": cut.area, "score": cut.score}


def _item(row: Mapping[str, Any], out: Path, model: str, licence: str) -> Item:
    key = f"{folder_of(row['name'])}/{row['index']:04d}.png"
    source = f"{model}: {prompt_for(row['name'])!r}, seed {row['seed']}"
    path = None if row["file"] is None else out / row["file"]
    return Item(row["name"], key, path, str(row["seed"]), source, licence, row["seed"])


def _write(path: Path, pixels: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {path.parent}: {error.strerror or error}.") from error
    pictures.write(path, pixels)


def _progress(sequence: Sequence[T], title: str) -> Iterable[T]:
    """The same, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import track

    return track(sequence, title, console=Console(stderr=True), disable=not sequence)
