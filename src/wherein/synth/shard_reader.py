"""Composites read from shards: any of them by its index, as they were composed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wherein import images
from wherein.errors import InputError
from wherein.synth.compose import Composite, Placed
from wherein.synth.scene import Scene
from wherein.synth.shards import SHARD_INDEX, Shard, file_of, read_rows

OPEN = 2
"""Shards kept in memory; indices are best asked for in order."""


class Shards:
    """The scenes in a folder that `wherein compose` wrote: `shards[i]` is composite `i`, its image as it was saved.

    Threads may share it: a shard is read once, however many of them ask for it.
    names: of all objects that may be on them.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError: the folder has no index, or the index is damaged or not finished."""
        self.folder = folder
        path = folder / SHARD_INDEX
        try:
            header, *rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            self._count, self._per_shard, self._image = header["count"], header["per_shard"], header["image"]
            self.names = tuple(header["names"])
            if not isinstance(self._per_shard, int) or self._per_shard < 1:
                raise ValueError("no size of the shards")
        except OSError as error:
            raise InputError(
                f"{folder} holds no composites: {path} cannot be read, {error.strerror or error}."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not an index of shards: give a folder that `wherein compose` wrote."
            ) from error
        self._shards = {shard.file: shard for shard in read_rows(rows, path)}
        found = sum(shard.composites for shard in self._shards.values())
        if found != self._count:
            raise InputError(f"{folder} holds {found} of {self._count} composites: run `wherein compose` again first.")
        self._members, self._reading = lru_cache(OPEN)(self._read), threading.Lock()

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, index: int) -> Scene:
        """Raises IndexError: there is no such composite; InputError: its shard is gone or damaged."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self._reading:
            members = self._members(file_of(index // self._per_shard))
        facts = json.loads(members[f"{index:09d}.json"])
        image = images.load(members[f"{index:09d}.{self._image}"])
        objects = [_placed(row) for row in facts["objects"]]
        return Scene(
            Composite(image, objects), tuple(tuple(row["phrases"]) for row in facts["objects"]), facts["absent"]
        )

    def _read(self, file: str) -> dict[str, bytes]:
        """All members of a shard, whose checksum is checked first."""
        path, shard = self.folder / file, self._shards.get(file)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
        if shard is None or not _is_right(content, shard):
            raise InputError(f"{path} is not what the index says: remove it, and run `wherein compose` again.")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            return {member.name: content[member.offset_data : member.offset_data + member.size] for member in archive}


def _is_right(content: bytes, shard: Shard) -> bool:
    return hashlib.sha256(content).hexdigest() == shard.sha256


def _placed(row: dict[str, Any]) -> Placed:
    box = np.array(row["box"], np.float64)
    return Placed(row["name"], box, row["cutout"], row["visible"], tuple(row["hides"]))
