"""Downloads and archives of the recipe's bank: what a kill left is done anew, what is there is whole."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def packages(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("packages")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An npm package of one picture, 100 kB that do not compress."""
    path = tmp_path / "emoji-1.0.tgz"
    with tarfile.open(path, "w:gz") as file:
        entry = tarfile.TarInfo("package/assets/cat.webp")
        data = b"".join(i.to_bytes(4, "big") + bytes([i * i % 251]) for i in range(20_000))
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
    return path


def test_a_killed_unpacking_is_done_anew(packages: ModuleType, archive: Path, tmp_path: Path) -> None:
    folder, half = tmp_path / "package", tmp_path / "half.tgz"
    half.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(subprocess.CalledProcessError):
        packages.unpack(half, folder)
    assert not folder.exists() and (tmp_path / "package.partial").is_dir()  # so the next call unpacks it again
    (tmp_path / "package.partial" / "junk").touch()
    packages.unpack(archive, folder)
    assert [str(file.relative_to(folder)) for file in folder.rglob("*.*")] == ["assets/cat.webp"]
    assert (folder / "assets/cat.webp").stat().st_size == 100_000 and not (tmp_path / "package.partial").exists()


def test_a_killed_download_is_begun_anew(packages: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "download"
    folder.mkdir()
    (folder / "cat_1.deb").write_bytes(b"half")
    command = [sys.executable, "-c", "open('cat_2.deb', 'w').write('whole')"]
    assert packages.fetched(command, folder) == folder / "cat_2.deb"
    assert [file.name for file in folder.iterdir()] == ["cat_2.deb"]


def test_what_is_unpacked_is_not_fetched_again(
    packages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("package", *packages.DEBIAN):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(packages, "fetched", None)
    packages.download(tmp_path)


def test_an_archive_is_replaced_once_it_is_whole(recipe: Callable[[str], ModuleType], tmp_path: Path) -> None:
    build_bank, path = recipe("build_bank"), tmp_path / "objects.zip"
    rows = [({"file": "0000.webp", "name": "cat"}, b"picture")]
    build_bank.write_zip(path, rows)
    first = path.read_bytes()
    with pytest.raises(KeyError):
        build_bank.write_zip(path, [*rows, ({"name": "no file"}, b"picture")])  # dies in the midst
    assert path.read_bytes() == first
    build_bank.write_zip(path, rows)
    assert path.read_bytes() == first and [file.name for file in tmp_path.iterdir()] == ["objects.zip"]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["index.json", "0000.webp"] and archive.testzip() is None
