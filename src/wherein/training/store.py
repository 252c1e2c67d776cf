"""Encoded composites on disk: the frozen encoder runs once an image, a training step reads features only.

A store is a folder of shards named by what made them (seed, composition, model), so that a store is never mistaken for
another; a shard is written in one step, so an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from wherein.geometry import Frame
from wherein.journal import replacing
from wherein.vlm.base import FrozenVLM

SHARD, CHUNK = 128, 16


@dataclass(frozen=True)
class Labelled:
    """An image uint8[H, W, 3], its objects: (phrase, box float64[4] in pixels of the image), and a phrase of nothing
    in it, where the source knows one (other sources know every name in the image)."""

    image: NDArray[np.uint8]
    objects: tuple[tuple[str, NDArray[np.float64]], ...]
    absent: str | None = None


Source = Callable[[int], Labelled]


class FeatureStore:
    """`count` labelled images from `source(i)`, encoded by `vlm` at its own size; boxes are kept in pixels of that."""

    def __init__(self, folder: Path, vlm: FrozenVLM, source: Source, count: int, settings: dict[str, Any]) -> None:
        made_by = {**settings, "model": vlm.fingerprint, "shard": SHARD}  # a fingerprint knows the model's size
        key = json.dumps(made_by, sort_keys=True, default=str)
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:12]
        self.vlm, self.source, self.count = vlm, source, count
        self.objects: list[list[tuple[str, NDArray[np.float64]]]] = []
        self.absent: list[str | None] = []
        self._shards: list[Any] = []

    def build(self) -> FeatureStore:
        """Encode what is missing (progress bar on stderr) and open every shard. Raises InputError where the disk is
        full; what was written before stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shards = [range(i, min(i + SHARD, self.count)) for i in range(0, self.count, SHARD)]
        missing = [shard for shard in shards if not self._path(shard).exists()]
        for indices in track(missing, "encoding composites", console=Console(stderr=True), disable=not missing):
            self._write(self._path(indices), indices)
        for indices in shards:
            shard = safe_open(self._path(indices), framework="pt")
            facts = json.loads(shard.metadata()["objects"])  # type: ignore[no-untyped-call]
            self.objects += [[(name, np.array(box)) for name, box in image] for image in facts]
            self.absent += json.loads(shard.metadata().get("absent", "[]")) or [None] * len(facts)  # type: ignore[no-untyped-call]
            self._shards.append(shard.get_slice("x_v"))  # type: ignore[no-untyped-call]
        return self

    def features(self, indices: list[int]) -> Tensor:
        """x_v bfloat16[B, N, D_v] of some images."""
        return torch.stack([self._shards[i // SHARD][i % SHARD] for i in indices])

    def images(self, indices: list[int]) -> list[NDArray[np.uint8]]:
        """Some images uint8[H, W, 3] at the model's size, as they were encoded."""
        return [_squash(made.image, self.vlm.size) for made in self._labelled(indices)]

    def _labelled(self, indices: Sequence[int]) -> list[Labelled]:
        """Some of the images, several at a time: Pillow and numpy leave Python's lock to others while they work."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.source, indices))

    def _path(self, indices: range) -> Path:
        """A shard is named by what it holds, so that a small store's short last one never stands for a full one."""
        return self.folder / f"{indices.start:07d}-{indices.stop:07d}.safetensors"

    def _write(self, path: Path, indices: range) -> None:
        tensors, facts, absent = [], [], []
        for start in range(indices.start, indices.stop, CHUNK):
            images = self._labelled(range(start, min(start + CHUNK, indices.stop)))
            frames = [Frame.identity(*image.image.shape[1::-1]).resize(*self.vlm.size) for image in images]
            pixels, _ = self.vlm.prepare([_squash(image.image, self.vlm.size) for image in images])
            tensors.append(self.vlm.features(pixels).to(torch.bfloat16).cpu())
            for image, frame in zip(images, frames, strict=True):
                facts.append([(name, frame.to_model(box[None])[0].tolist()) for name, box in image.objects])
                absent.append(image.absent)
        about = {"objects": json.dumps(facts), "absent": json.dumps(absent)}
        with replacing(path) as part:  # another run may write the same shard
            save_file({"x_v": torch.cat(tensors)}, part, metadata=about)


def _squash(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8[H, W, 3] at (width, height) `size`, each side on its own, so that no model crops or tiles it."""
    if image.shape[1::-1] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
