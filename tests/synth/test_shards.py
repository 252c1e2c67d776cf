"""Shards: the same bytes whoever writes them, whole or not there, resumed without a duplicate or a gap."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein.errors import InputError
from wherein.synth import Plan, Shards, shards
from wherein.synth.shards import SHARD_INDEX, Shard, file_of, write_shards
from wherein.synth.workers import on_this_machine

PLAN = Plan(count=50, side=32, per_shard=20)
# As a process of its own, which can be killed or kept from writing.
PROGRAM = """
import sys
from pathlib import Path
from wherein.errors import InputError
from wherein.synth import Plan
from wherein.synth.shards import write_shards
from wherein.synth.workers import on_this_machine
try:
    for done in write_shards(Plan(count={count}, side=32, per_shard=20), Path(sys.argv[1]), on_this_machine, {workers}):
        print(done, flush=True)
except InputError as error:
    sys.exit(str(error))
"""


def write(plan: Plan, folder: Path, workers: int = 1) -> list[int]:
    return list(write_shards(plan, folder, on_this_machine, workers))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert write(PLAN, folder) == [0, 20, 20, 10]
    return folder


def test_four_workers_write_what_one_writes(written: Path, tmp_path: Path) -> None:
    write(PLAN, tmp_path, workers=4)
    assert files(tmp_path) == files(written)


def test_the_index_has_a_checksum_of_each_shard(written: Path) -> None:
    header, *rows = [json.loads(line) for line in (written / SHARD_INDEX).read_text().splitlines()]
    assert header["count"] == 50 and header["preset"] == "paper"
    assert [(row["file"], row["composites"]) for row in rows] == [
        ("shard-000000.tar", 20),
        ("shard-000001.tar", 20),
        ("shard-000002.tar", 10),
    ]
    for row in rows:
        content = (written / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest() and row["bytes"] == len(content)


def test_nothing_but_the_samples_is_in_a_shard(written: Path) -> None:
    with tarfile.open(written / "shard-000001.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:3]] == ["000000020.jpg", "000000020.json", "000000021.jpg"]
    assert len(members) == 40
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o444)}


def test_webdataset_reads_them(written: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(written.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("__key__", "jpg", "json"))
    assert [key for key, *_ in samples] == [f"{index:09d}" for index in range(50)]
    for index, (_, image, facts) in enumerate(samples):
        assert image.shape == (32, 32, 3) and facts["index"] == index
        assert all(len(thing["box"]) == 4 and thing["name"] for thing in facts["objects"])


@pytest.mark.parametrize("image", ["jpg", "webp"])
def test_what_is_read_is_what_was_composed(image: str, tmp_path: Path) -> None:
    plan = Plan(count=12, preset="referral", side=64, seed=5, per_shard=5, image=image)
    write(plan, tmp_path)
    stored, scenes = Shards(tmp_path), plan.open()
    assert len(stored) == 12
    for index in (11, 0, 5, 4):
        read, made = stored[index], scenes[index]
        assert read.phrases == made.phrases and read.absent == made.absent
        difference = np.abs(read.composite.image.astype(int) - made.composite.image)
        assert read.composite.image.shape == (64, 64, 3) and difference.mean() < 8
        for there, here in zip(read.composite.objects, made.composite.objects, strict=True):
            assert (there.box == here.box).all() and there.name == here.name and there.hides == here.hides
    with pytest.raises(IndexError):
        stored[12]


def test_a_finished_folder_is_left_as_it_is_and_a_lost_shard_made_again(written: Path, tmp_path: Path) -> None:
    write(PLAN, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert write(PLAN, tmp_path) == [50]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")} == before
    (tmp_path / "shard-000001.tar").unlink()
    (tmp_path / "shard-000002.tar").write_bytes(b"cut")
    (tmp_path / ".shard-000002.tar.99.part").write_bytes(b"left behind")
    assert write(PLAN, tmp_path) == [20, 20, 10]
    assert files(tmp_path) == files(written)


def start(folder: Path, count: int, workers: int) -> subprocess.Popen[str]:
    program = PROGRAM.format(count=count, workers=workers)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_ends_as_if_never_killed(workers: int, tmp_path: Path) -> None:
    count, killed = 400, 0
    for shards_there in (1, 7):
        process = start(tmp_path / "killed", count, workers)
        while process.poll() is None and len(list((tmp_path / "killed").glob("*.tar"))) < shards_there:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.communicate()  # ends when no worker holds the pipe: none outlives its parent
        for path in (tmp_path / "killed").glob("*.tar"):
            with tarfile.open(path) as archive:
                assert len(archive.getmembers()) == 40  # whatever has its name is whole
    assert killed
    process = start(tmp_path / "killed", count, workers)
    output, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert sum(map(int, output.split())) == count
    write(Plan(count=count, side=32, per_shard=20), tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_takes_no_more(workers: int, tmp_path: Path) -> None:
    """The limit is on the size of a file, which no shard keeps; so the first write fails as on a full disk."""
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))" + PROGRAM.format(
        count=50, workers=workers
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Cannot write ") and done.stderr.count("\n") == 1, done.stderr
    assert set(files(tmp_path)) == {SHARD_INDEX}


def test_a_disk_that_fills_up_keeps_what_is_finished(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = shards._add

    def full(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        if name.startswith("000000033"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(archive, name, content)

    monkeypatch.setattr(shards, "_add", full)
    with pytest.raises(InputError, match="shard-000001.tar: No space left on device; finished shards are kept"):
        write(PLAN, tmp_path)
    assert sorted(files(tmp_path)) == [SHARD_INDEX, "shard-000000.tar"]
    monkeypatch.undo()
    assert write(PLAN, tmp_path) == [20, 20, 10]
    assert files(tmp_path) == files(written)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_finished_after_a_shard_that_failed_is_kept(workers: int, written: Path, tmp_path: Path) -> None:
    """Shard 1 is on disk without a line, and so is 2, but cut short."""
    header = (written / SHARD_INDEX).read_bytes().splitlines(keepends=True)[0]
    (tmp_path / SHARD_INDEX).write_bytes(header)
    (tmp_path / "shard-000001.tar").write_bytes((written / "shard-000001.tar").read_bytes())
    (tmp_path / "shard-000002.tar").write_bytes((written / "shard-000002.tar").read_bytes()[:9000])
    before = (tmp_path / "shard-000001.tar").stat().st_ino
    assert write(PLAN, tmp_path, workers) == [0, 20, 20, 10]
    assert (tmp_path / "shard-000001.tar").stat().st_ino == before
    assert files(tmp_path) == files(written)


def test_shards_that_no_index_tells_of_are_neither_taken_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "shard-000002.tar").write_bytes(b"the user's")
    with pytest.raises(InputError, match=r"shard-000002.tar is there, but no index.jsonl tells of it"):
        write(PLAN, tmp_path)
    assert files(tmp_path) == {"shard-000002.tar": b"the user's"}


def test_no_shard_waits_where_ctrl_c_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[Future[Shard]]()

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, *_: object) -> None:
            super().__init__(workers)

        def submit(self, function: Callable[..., Shard], number: int) -> Future[Shard]:  # type: ignore[override]
            assert sum(not future.done() for future in begun) < 2
            begun.append(super().submit(function, number))
            return begun[-1]

    monkeypatch.setattr("wherein.synth.workers.ProcessPoolExecutor", Pool)
    assert [shard.file for shard in on_this_machine(PLAN, tmp_path, range(3), 2)] == [file_of(n) for n in range(3)]
    assert len(begun) == 3


def test_another_plan_or_another_process_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was made with seed 0, not 1"):
        write(Plan(count=50, side=32, per_shard=20, seed=1), written)
    running: Iterator[int] = write_shards(PLAN, tmp_path, on_this_machine, 1)
    next(running)
    with pytest.raises(InputError, match="Another process"):
        write(PLAN, tmp_path)
    running.close()  # type: ignore[attr-defined]
    assert write(PLAN, tmp_path) == [0, 20, 20, 10]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="Cannot make the folder"):
            write(PLAN, out)


def save(path: Path, alpha: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (30, 20), (200, 10, 10, alpha)).save(path)


def own(tmp_path: Path) -> Plan:
    for name in ("tent", "red tent", "anvil"):
        save(tmp_path / "objects" / name / "1.png")
    save(tmp_path / "grounds" / "sky.png")
    return Plan(count=30, side=32, per_shard=20, objects=tmp_path / "objects", backgrounds=tmp_path / "grounds")


def test_cut_outs_and_backgrounds_of_one_s_own(tmp_path: Path) -> None:
    plan = own(tmp_path)
    write(plan, tmp_path / "out")
    stored = Shards(tmp_path / "out")
    names = {thing.name for index in range(30) for thing in stored[index].composite.objects}
    assert names == set(stored.names) == {"tent", "red tent", "anvil"}
    save(tmp_path / "objects" / "tent" / "2.png")
    with pytest.raises(InputError, match="was made with objects"):
        write(plan, tmp_path / "out")


@pytest.mark.parametrize("changed", ["objects/tent/1.png", "grounds/sky.png"])
def test_a_picture_of_other_pixels_is_another_plan(changed: str, tmp_path: Path) -> None:
    plan, path = own(tmp_path), tmp_path / changed
    write(plan, tmp_path / "out")
    size = path.stat().st_size
    Image.new("RGBA", (30, 20), (10, 200, 10, 255)).save(path)
    assert path.stat().st_size == size
    with pytest.raises(InputError, match=f"was made with {'objects' if 'tent' in changed else 'backgrounds'}"):
        write(plan, tmp_path / "out")


@pytest.mark.parametrize("library", ["PIL", "numpy"])
def test_another_version_of_what_makes_the_pixels_is_another_plan(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Plan(count=2, side=32), tmp_path)
    monkeypatch.setattr(f"{library}.__version__", "0")
    with pytest.raises(InputError, match="was made with (pillow|numpy) .*, not 0: "):
        write(Plan(count=2, side=32), tmp_path)


@pytest.mark.parametrize("name", [os.fsdecode(b"b\xff"), "a\x1bb", "-"])
def test_a_name_that_is_no_text(name: str, tmp_path: Path) -> None:
    plan = own(tmp_path)
    (tmp_path / "objects" / "anvil").rename(tmp_path / "objects" / name)
    with pytest.raises(InputError) as found:
        write(plan, tmp_path / "out")
    assert "\n" not in str(found.value) and repr(name) in str(found.value)


@pytest.mark.parametrize("kind", ["broken", "cut short", "transparent", "shadow", "background"])
def test_a_picture_that_cannot_be_used_is_found_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    plan, bad = own(tmp_path), tmp_path / "objects" / "anvil" / "bad.png"
    if kind == "broken":
        bad.write_bytes(b"nothing")
    elif kind == "cut short":
        stream = io.BytesIO()
        Image.effect_noise((99, 99), 90).convert("RGBA").save(stream, "PNG")
        bad.write_bytes(stream.getvalue()[:3000])
    elif kind == "transparent":
        save(bad, alpha=20)
    elif kind == "shadow":
        shadow = Image.new("RGBA", (99, 99), (0, 0, 0, 20))
        shadow.paste((9, 9, 9, 255), (50, 50, 60, 60))
        shadow.save(bad)
    else:
        bad = tmp_path / "grounds" / "bad.png"
        bad.write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"^1 of 5 pictures cannot be used, remove them; the first: .*bad.png"
    ) as found:
        write(plan, tmp_path / "out", workers=2)
    assert "\n" not in str(found.value)
    assert files(tmp_path / "out") == {}


def test_what_no_composite_can_be_made_of(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "objects" / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no .png or .webp file"):
        write(Plan(count=1, side=32, objects=tmp_path / "objects"), tmp_path / "out")
    save(tmp_path / "dogs" / "dog" / "1.png")
    with pytest.raises(InputError, match="--keep-held-out"):
        write(Plan(count=1, side=32, objects=tmp_path / "dogs"), tmp_path / "out")
    assert write(Plan(count=1, side=32, objects=tmp_path / "dogs", keep_held_out=True), tmp_path / "dogs out") == [0, 1]
    with pytest.raises(InputError, match="no 16 whole cells"):
        write(Plan(count=1, side=30, preset="grid"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"preset": "best"}, "choose paper"),
        ({"image": "gif"}, "choose jpg or webp"),
        ({"side": 0}, "1 or more"),
        ({"soft": -1.0}, "soft from 0"),
        ({"soft": float("nan")}, "soft from 0"),
        ({"jitter": 1.5}, "jitter from 0 to 1"),
    ],
)
def test_plans_that_are_none(options: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Plan(count=1, **options)  # type: ignore[arg-type]


def test_soft_and_jitter_stand_in_for_those_of_the_preset(written: Path, tmp_path: Path) -> None:
    assert Plan(1, "augmented").made.config.jitter == 0.3
    asked = Plan(1, "augmented", soft=2.0, jitter=0.0).made.config
    assert (asked.soft, asked.jitter, asked.flip) == (2.0, 0.0, True)
    for options in ({"soft": 1.0}, {"jitter": 0.5}):
        plan = Plan(count=50, side=32, per_shard=20, **options)  # type: ignore[arg-type]
        write(plan, tmp_path / str(options))
        assert (tmp_path / str(options) / "shard-000000.tar").read_bytes() != (
            written / "shard-000000.tar"
        ).read_bytes()
        with pytest.raises(InputError, match=f"made with {next(iter(options))} None, not"):
            write(plan, written)


def test_a_damaged_folder_is_not_read(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no composites"):
        Shards(tmp_path)
    for name, content in files(written).items():
        (tmp_path / name).write_bytes(content)
    damaged = bytearray((tmp_path / "shard-000001.tar").read_bytes())
    damaged[3000] ^= 1
    (tmp_path / "shard-000001.tar").write_bytes(damaged)
    stored = Shards(tmp_path)
    assert stored[0].composite.objects
    with pytest.raises(InputError, match="shard-000001.tar is not what the index says"):
        stored[20]
    lines = (tmp_path / SHARD_INDEX).read_text().splitlines(keepends=True)
    (tmp_path / SHARD_INDEX).write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="40 of 50 composites"):
        Shards(tmp_path)
    strange = '{"file": ["x"], "composites": 50, "bytes": 1, "sha256": "a"}\n'
    sizeless = lines[0].replace('"per_shard": 20', '"per_shard": 0') + "".join(lines[1:])
    for text in ("[]\n", "{}\n", "no json\n", lines[0] + '{"file": 3}\n', lines[0] + strange, sizeless):
        (tmp_path / SHARD_INDEX).write_text(text)
        with pytest.raises(InputError, match="not an index of shards"):
            Shards(tmp_path)
