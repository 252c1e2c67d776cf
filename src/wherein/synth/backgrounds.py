"""Backgrounds for composites: random crops of pictures, or procedural textures."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from wherein import images
from wherein.errors import InputError
from wherein.synth.fingerprint import fingerprint
from wherein.synth.picture_cache import PictureCache

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TEXTURE = 128  # side at which a procedural texture is made, pixels
SMALLEST_CROP = 0.4  # of the shorter side of the picture


class Backgrounds:
    """A source of square backgrounds: `sample(rng, size)` gives uint8[size, size, 3].

    sources: the pictures behind it, files or their bytes; none where backgrounds are made up.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator, int], Image.Image],
        sources: Sequence[Path] | Sequence[bytes] = (),
    ) -> None:
        self._draw = draw
        self.sources: tuple[Path | bytes, ...] = tuple(sources)

    @property
    def count(self) -> int:
        """Pictures behind it, 0 when they are made up."""
        return len(self.sources)

    @property
    def fingerprint(self) -> str:
        """Of every picture, in order; reads them all. Raises ImageError for one that is gone."""
        return fingerprint(("", source) for source in self.sources)

    def complaints(self, threads: int) -> list[str]:
        """What is wrong with each picture that cannot be used: all are read once, not to fail on one days later."""

        def complaint(source: Path | bytes) -> str | None:
            """What is wrong with this one."""
            try:
                images.load(source)
            except InputError as error:
                return str(error)
            return None

        console, what = Console(stderr=True), "looking through backgrounds"
        with ThreadPoolExecutor(threads) as pool:
            looked = pool.map(complaint, self.sources)
            shown = track(looked, what, self.count, console=console, transient=True, disable=not console.is_terminal)
            return [text for text in shown if text]

    @classmethod
    def load(cls) -> Backgrounds:
        """The pictures in the package (index.json in bank/backgrounds.zip states author and licence of each)."""
        with (
            files("wherein.synth").joinpath("bank/backgrounds.zip").open("rb") as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            return cls._of([archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".webp")])

    @classmethod
    def from_folder(cls, path: str | Path) -> Backgrounds:
        """All pictures below a folder, without hidden ones. Raises InputError if there is none; sample then raises
        ImageError for one that cannot be read."""
        known = (file for file in Path(path).rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        pictures = sorted(file for file in known if not file.name.startswith(".") and not file.is_dir())
        if not pictures:
            raise InputError(f"No backgrounds in {path}: expected .jpg, .png or .webp files.")
        return cls._of(pictures)

    @classmethod
    def procedural(cls) -> Backgrounds:
        """Gradients with noise of several grain sizes: no data needed."""
        return cls(_texture)

    @classmethod
    def _of(cls, sources: Sequence[Path] | Sequence[bytes]) -> Backgrounds:
        cache = PictureCache()

        def draw(rng: np.random.Generator, size: int) -> Image.Image:
            """A crop of one of the sources."""
            index = int(rng.integers(len(sources)))
            picture = cache.get(index, lambda: Image.fromarray(images.load(sources[index])))
            return _crop(picture, rng, size)

        return cls(draw, sources)

    def sample(self, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """A background uint8[size, size, 3], mirrored half of the time."""
        image = self._draw(rng, size)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)


def _crop(picture: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """A random square of the picture, resized to size x size."""
    shorter = min(picture.size)
    side = max(1, round(shorter * rng.uniform(SMALLEST_CROP, 1)))
    left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0)


def _texture(rng: np.random.Generator, size: int) -> Image.Image:
    """Random colours that vary smoothly, plus noise of finer grains and random strength."""
    total = np.full((TEXTURE, TEXTURE, 3), rng.uniform(40, 215, 3), np.float32)
    for grain, strength in ((2, 1.0), (6, 0.5), (32, 0.25), (TEXTURE, 0.12)):
        noise = rng.integers(0, 256, (grain, grain, 3), np.uint8)
        if rng.random() < 0.5:  # grey noise: shading rather than colours
            noise[..., 1:] = noise[..., :1]
        layer = Image.fromarray(noise).resize((TEXTURE, TEXTURE), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float32) - 127.5) * rng.uniform(0, strength)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
