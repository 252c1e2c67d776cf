"""The packages of the npm and Debian registries that the bank is made of, downloaded and unpacked.

npm and apt-get compare what they download with the hashes in their registries' indices; none is written down here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NPM = ("@lobehub/fluent-emoji-3d@1.1.0",)
DEBIAN = (
    "openclipart-png",
    "tuxpaint-stamps-default",
    "gnome-backgrounds",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "ukui-wallpapers",
)


def download(packages: Path) -> None:
    """Fetch and unpack every package that is not unpacked yet."""
    packages.mkdir(parents=True, exist_ok=True)
    for name in NPM:
        if not (packages / "package").is_dir():
            unpack(fetched(["npm", "pack", "--silent", name], packages / "download"), packages / "package")
    for name in DEBIAN:
        if not (packages / name).is_dir():
            unpack(fetched(["apt-get", "download", name], packages / "download"), packages / name)
    shutil.rmtree(packages / "download", ignore_errors=True)


def fetched(command: Sequence[str], folder: Path) -> Path:
    """The one file that a command downloads into `folder`, which is emptied first: a killed call leaves half a file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(command, cwd=folder, check=True)
    (archive,) = folder.iterdir()
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """A Debian package, or the one folder in an npm package, as `folder`."""
    with whole(folder) as partial:
        partial.mkdir()
        tar = ["tar", "xzf", archive, "-C", partial, "--strip-components=1"]
        subprocess.run(["dpkg", "-x", archive, partial] if archive.suffix == ".deb" else tar, check=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that becomes `path` once all of it is there; a file takes an older one's place.

    What a killed call left there is removed.
    """
    partial = path.with_name(f"{path.name}.partial")
    if partial.is_dir():
        shutil.rmtree(partial)
    partial.unlink(missing_ok=True)
    yield partial
    partial.replace(path)
