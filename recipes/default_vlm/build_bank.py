"""Rebuild the object bank and the backgrounds from the packages of the npm and Debian registries.

    python build_bank.py --work DIR        downloads the packages into DIR/packages, then writes
        src/wherein/synth/bank/objects.zip      Fluent emoji 3D (MIT) and Open Clip Art (public domain)
        src/wherein/synth/bank/backgrounds.zip  crops of the wallpapers under CC0 or CC-BY
        DIR/extra_bank                          Tux Paint stamps (GPL-2): for training here, not shipped
        DIR/backgrounds                         all usable wallpapers: for training here, not shipped

Which picture gets which name is written by hand in names/*.txt; a picture that is not listed there is not used.
A call after one that was killed goes on with the packages that are unpacked, and writes the rest anew.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packages import download, whole
from PIL import Image

HERE = Path(__file__).resolve().parent
BANK = HERE.parents[1] / "src/wherein/synth/bank"
OBJECT_SIDE = 192  # longer side of a shipped cut-out, pixels
EXTRA_SIDE = 384
WALLPAPER_SIDE = 1024
CROP_SIDE = 320
CROPS = 10  # of each shipped wallpaper
SHIPPED_LICENCES = ("CC0-1.0", "CC-BY-4.0")
SMALLEST = 40  # longer side of a usable source picture, pixels
LARGEST = 30_000_000  # pixels; a few drawings were rendered at 160 megapixels
THINNEST = 8  # shorter side of a usable cut-out, pixels
EMPTIEST = 0.1  # share of its box that an object covers at least
FULLEST = 0.97  # share of its box that an object with a transparent background covers at most
SOLID = 128  # alpha from which a pixel counts as the object


@dataclass(frozen=True)
class Collection:
    """One source of cut-outs: its name table, where its pictures lie below the unpacked packages, and its licence."""

    table: str
    root: str
    suffix: str
    title: str
    licence: str


FLUENT = Collection("fluent.txt", "package/assets", ".webp", "Fluent emoji 3D", "MIT")
CLIPART = Collection(
    "openclipart.txt",
    "openclipart-png/usr/share/openclipart/png",
    ".png",
    "Open Clip Art",
    "public domain",
)
STAMPS = Collection(
    "tuxpaint.txt", "tuxpaint-stamps-default/usr/share/tuxpaint/stamps", ".png", "Tux Paint stamps", "GPL-2"
)


def main() -> None:
    """Download what is missing, then write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and for what is not shipped")
    work = parser.parse_args().work.resolve()
    Image.MAX_IMAGE_PIXELS = None  # the packages are trusted, and LARGEST is checked before decoding
    packages = work / "packages"
    download(packages)
    BANK.mkdir(parents=True, exist_ok=True)
    shipped = distinct([*cutouts(packages, FLUENT, OBJECT_SIDE), *cutouts(packages, CLIPART, OBJECT_SIDE)])
    write_zip(BANK / "objects.zip", shipped)
    write_folder(work / "extra_bank", distinct(cutouts(packages, STAMPS, EXTRA_SIDE)))
    write_backgrounds(packages, work / "backgrounds")


def read_table(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The lines "name: file file ..." of a name table."""
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, keys = line.split(":", 1)
            yield name.strip(), keys.split()


def cutouts(packages: Path, collection: Collection, side: int) -> Iterator[tuple[dict[str, object], bytes]]:
    """The usable pictures of a collection: index row without the file name, and WebP bytes."""
    root = packages / collection.root
    for name, keys in read_table(HERE / "names" / collection.table):
        for key in keys:
            picture = trimmed(root / f"{key}{collection.suffix}", side)
            if picture is not None:
                yield (
                    {
                        "name": name,
                        "source": f"{collection.title}: {key}{collection.suffix}",
                        "licence": collection.licence,
                        "photographic": collection is STAMPS and "cartoon" not in key.split("/"),
                    },
                    encoded(picture),
                )


def trimmed(file: Path, side: int) -> Image.Image | None:
    """The object of a picture, cut to its box and at most `side` pixels long; None if it is unusable as a cut-out."""
    with Image.open(file) as source:
        if source.width * source.height > LARGEST:
            return None
        image = source.convert("RGBA")
    image.thumbnail((1024, 1024), reducing_gap=2.0)
    box = solid_box(image)
    if box is None or max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    image = image.crop(box)
    scale = min(1.0, side / max(image.size))
    image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.LANCZOS)
    image = image.crop(solid_box(image))  # thin ends may have faded away
    covered = float((np.asarray(image)[..., 3] >= SOLID).mean())
    return image if min(image.size) >= THINNEST and EMPTIEST <= covered <= FULLEST else None


def solid_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The tight box of the pixels that count as the object."""
    return image.getchannel("A").point(lambda alpha: 255 * (alpha >= SOLID)).getbbox()


def encoded(image: Image.Image) -> bytes:
    """WebP bytes; colours under transparent pixels are not kept."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=55, method=4)
    return stream.getvalue()


def distinct(rows: Iterable[tuple[dict[str, object], bytes]]) -> list[tuple[dict[str, object], bytes]]:
    """Rows sorted by name with a file name each; the same picture is kept once."""
    seen: set[bytes] = set()
    kept = []
    for row, data in sorted(rows, key=lambda item: str(item[0]["name"])):
        if data not in seen:
            seen.add(data)
            kept.append(({"file": f"{len(kept):04d}.webp", **row}, data))
    return kept


def write_zip(path: Path, rows: list[tuple[dict[str, object], bytes]]) -> None:
    """index.json and the pictures, byte for byte the same on every run."""
    with whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file, data in [("index.json", index_of(rows)), *((str(row["file"]), data) for row, data in rows)]:
            entry = zipfile.ZipInfo(file)
            entry.compress_type = zipfile.ZIP_DEFLATED if file == "index.json" else zipfile.ZIP_STORED
            archive.writestr(entry, data)
    print(f"{path}: {len(rows)} pictures, {path.stat().st_size} bytes")


def write_folder(folder: Path, rows: list[tuple[dict[str, object], bytes]]) -> None:
    """The same as write_zip, as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in [*((str(row["file"]), data) for row, data in rows), ("index.json", index_of(rows))]:
        with whole(folder / file) as partial:
            partial.write_bytes(data)
    print(f"{folder}: {len(rows)} pictures")


def index_of(rows: list[tuple[dict[str, object], bytes]]) -> bytes:
    """index.json: one line per picture."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row, _ in rows) + "\n]\n").encode()


def write_backgrounds(packages: Path, folder: Path) -> None:
    """All listed wallpapers into `folder`; crops of those whose licence allows it into the package."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    crops: list[tuple[dict[str, object], bytes]] = []
    for line in (HERE / "names/wallpapers.txt").read_text("utf-8").splitlines()[1:]:
        path, author, licence = (field.strip() for field in line.split("|"))
        with Image.open(packages / path) as source:
            image = source.convert("RGB")
        wallpaper = image.copy()
        wallpaper.thumbnail((WALLPAPER_SIDE, WALLPAPER_SIDE), reducing_gap=2.0)
        with whole(folder / f"{path.removesuffix(Path(path).suffix).replace('/', '_')}.jpg") as partial:
            wallpaper.save(partial, "JPEG", quality=92)
        for _ in range(CROPS if licence in SHIPPED_LICENCES else 0):
            row: dict[str, object] = {"file": f"{len(crops):02d}.webp", "source": path, "author": author}
            crops.append(({**row, "licence": licence}, encoded(square(image, rng))))
    write_zip(BANK / "backgrounds.zip", crops)


def square(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random square of 30 to 100 % of the picture's shorter side, at most CROP_SIDE pixels."""
    side = round(min(image.size) * rng.uniform(0.3, 1.0))
    left, top = (int(rng.integers(length - side + 1)) for length in image.size)
    box = (left, top, left + side, top + side)
    return image.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.LANCZOS, box, reducing_gap=2.0)


if __name__ == "__main__":
    main()
