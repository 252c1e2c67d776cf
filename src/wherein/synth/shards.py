"""Composites on disk: WebDataset shards, written whole or not at all, the same bytes whoever writes them.

Notable choices:
- plain tar files by the standard library: WebDataset reads them, and nothing but the samples is in their bytes
- a shard is a function of the plan and its number, so workers share nothing, and one that is lost is written again
- a shard is done when the index has its line; one that is whole without a line gets it when the job goes on
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from wherein import pictures
from wherein.errors import InputError
from wherein.journal import Journal, locked
from wherein.synth.plan import Plan
from wherein.synth.scene import Scene, Scenes

SHARD_INDEX = "index.jsonl"
_SAVED = {"jpg": ("JPEG", {"quality": 95}), "webp": ("WEBP", {"quality": 90, "method": 0})}


@dataclass(frozen=True)
class Shard:
    """A finished shard, as the index has it: its file, how many composites it holds, its size, its SHA-256."""

    file: str
    composites: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raises TypeError: a value is of another type, as it may be in a damaged index."""
        if [type(value) for value in astuple(self)] != [str, int, int, str]:
            raise TypeError(f"{self} is no shard")


Engine = Callable[[Plan, Path, Sequence[int], int], Iterator[Shard]]
"""Writes the shards of these numbers into a folder with so many workers; yields each in this order once it is there."""


def write_shards(plan: Plan, folder: Path, engine: Engine, workers: int) -> Iterator[int]:
    """Write the shards that `folder` lacks and their index; yields the composites that are done, at the start as well.

    Called again after a kill it goes on, and the bytes are those of a run that was never killed.

    Raises:
        InputError: the plan cannot be carried out, the folder belongs to another plan, is in use or holds shards
            without an index, or writing failed. Finished shards stay.
    """
    _scenes.cache_clear()  # files may have changed since another call
    scenes = _scenes(plan)
    scenes[0]  # what no composite can be made of is found here, before anything is written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error
    pictures.check_folder(folder)
    with locked(folder):
        for partial in folder.glob(".shard-*.part"):
            partial.unlink()
        if not (folder / SHARD_INDEX).exists():
            _refuse_strangers(folder)
            plan.check(scenes, workers)
        journal = Journal(folder / SHARD_INDEX, plan.settings(scenes))
        known = set(read_rows(journal.rows, folder / SHARD_INDEX))
        done = {shard.file: shard for shard in known if _is_whole(folder, shard)}
        yield sum(shard.composites for shard in done.values())
        missing = [number for number in range(plan.shards) if file_of(number) not in done]
        listed = {shard.file for shard in known}
        unlisted = {n: shard for n in missing if file_of(n) not in listed and (shard := _read_back(plan, folder, n))}
        written = engine(plan, folder, [number for number in missing if number not in unlisted], workers)
        for number in missing:  # lines in the order of the shards, as of a run that was never killed
            shard = unlisted.get(number) or next(written)
            if shard not in known:
                journal.add(asdict(shard))
            yield shard.composites


def write_shard(plan: Plan, folder: Path, number: int) -> Shard:
    """Write one shard in a single step. Raises InputError: a picture cannot be used, or the file cannot be written."""
    path, scenes, indices = folder / file_of(number), _scenes(plan), plan.indices(number)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in indices:
                for suffix, content in _members(scenes[index], index, plan).items():
                    _add(archive, f"{index:09d}.{suffix}", content)
        size, digest = _measure(partial)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}; finished shards are kept.") from error
    finally:
        partial.unlink(missing_ok=True)
    return Shard(path.name, len(indices), size, digest)


def read_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> list[Shard]:
    """The rows of an index. Raises InputError: one is not a shard's."""
    try:
        return [Shard(**row) for row in rows]
    except TypeError as error:
        raise InputError(f"{path} is not an index of shards: give a folder that `wherein compose` wrote.") from error


def file_of(number: int) -> str:
    """The name of a shard's file."""
    return f"shard-{number:06d}.tar"


@lru_cache(maxsize=1)
def _scenes(plan: Plan) -> Scenes:
    """Opened once in a process, not for each shard."""
    return plan.open()


def _refuse_strangers(folder: Path) -> None:
    """Shards that no index tells of may be another plan's, or the user's own: neither replaced nor taken for ours."""
    for path in sorted(folder.glob("shard-*.tar")):
        if path.is_file():
            raise InputError(
                f"{path} is there, but no {SHARD_INDEX} tells of it: move it away, or give another folder."
            )


def _read_back(plan: Plan, folder: Path, number: int) -> Shard | None:
    """A shard that a run finished but did not come to list, as another one before it was not finished; else None."""
    path, indices = folder / file_of(number), plan.indices(number)
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getnames()
        if members == [f"{index:09d}.{suffix}" for index in indices for suffix in (plan.image, "json")]:
            return Shard(path.name, len(indices), *_measure(path))
    except (OSError, tarfile.TarError):
        return None  # missing, or damaged: to be written
    return None


def _measure(path: Path) -> tuple[int, str]:
    """A file's size in bytes and its SHA-256."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def _is_whole(folder: Path, shard: Shard) -> bool:
    path = folder / shard.file
    return path.is_file() and path.stat().st_size == shard.bytes


def _members(scene: Scene, index: int, plan: Plan) -> dict[str, bytes]:
    """The files of one sample: its image and its JSON."""
    stream = io.BytesIO()
    name, options = _SAVED[plan.image]
    Image.fromarray(scene.composite.image).save(stream, name, **options)
    objects = [
        {
            "name": thing.name,
            "box": thing.box.tolist(),
            "cutout": thing.cutout,
            "visible": round(thing.visible, 4),
            "hides": thing.hides,
            "phrases": phrases,
        }
        for thing, phrases in zip(scene.composite.objects, scene.phrases, strict=True)
    ]
    facts = {"seed": plan.seed, "index": index, "side": plan.side, "objects": objects, "absent": scene.absent}
    return {plan.image: stream.getvalue(), "json": json.dumps(facts, ensure_ascii=False).encode()}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without a date or an owner: the same sample is the same bytes."""
    member = tarfile.TarInfo(name)  # its defaults: date 0, owner 0
    member.size, member.mode = len(content), 0o444
    archive.addfile(member, io.BytesIO(content))
