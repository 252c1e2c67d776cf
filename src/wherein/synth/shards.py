"""Composites on disk: WebDataset shards, written whole or not at all, the same bytes whoever writes them.

Notable choices:
- plain tar files by the standard library: WebDataset reads them, and nothing but the samples is in their bytes
- a shard is a function of the plan and its number, so workers share nothing, and one that is lost is written again
- a shard is done when the index has its line; what was written without one is written again, in its place
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from wherein import pictures
from wherein.errors import InputError
from wherein.synth.journal import Journal
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


Engine = Callable[[Plan, Path, Sequence[int], int], Iterator[Shard]]
"""Writes the shards of these numbers into a folder with so many workers; yields each in this order once it is there."""


def write_shards(plan: Plan, folder: Path, engine: Engine, workers: int) -> Iterator[int]:
    """Write the shards that `folder` lacks and their index; yields the composites that are done, at the start as well.

    Called again after a kill it goes on, and the bytes are those of a run that was never killed.

    Raises:
        InputError: the plan cannot be carried out, the folder belongs to another plan or is in use, or writing failed.
            Finished shards stay.
    """
    _scenes.cache_clear()  # files may have changed since another call
    scenes = _scenes(plan)
    scenes[0]  # what no composite can be made of is found here, before anything is written
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error
    pictures.check_folder(folder)
    with _locked(folder):
        for partial in folder.glob(".shard-*.part"):
            partial.unlink()
        if not (folder / SHARD_INDEX).exists():
            plan.check(scenes, workers)
        journal = Journal(folder / SHARD_INDEX, plan.settings(scenes))
        known = set(read_rows(journal.rows, journal.path))
        done = {shard.file: shard for shard in known if _is_whole(folder, shard)}
        yield sum(shard.composites for shard in done.values())
        missing = [number for number in range(plan.shards) if file_of(number) not in done]
        for shard in engine(plan, folder, missing, workers):
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
        with partial.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else writes here meanwhile; a killed process leaves no lock behind."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"Another process writes composites to {folder}: wait for it, or give another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


@lru_cache(maxsize=1)
def _scenes(plan: Plan) -> Scenes:
    """Opened once in a process, not for each shard."""
    return plan.open()


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
