"""`wherein compose`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wherein.synth import Shards

from ..forked import typed


def test_shards_and_a_picture_of_them(tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    options = ["--out", out, "--count", 30, "--side", 48, "--per-shard", 16, "--preset", "referral", "--workers", 2]
    done = typed(tmp_path, "compose", *options, "--preview", sheet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{sheet}: 12 composites", f"{out}: 30 composites in 2 shards"]
    assert len(Shards(out)) == 30
    assert Image.open(sheet).width > 1000
    again = typed(tmp_path, "compose", *options)
    assert again.returncode == 0 and again.stdout == f"{out}: 30 composites in 2 shards\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--out DIR"),
        (("--out", "out"), "--count N"),
        (("--out", "out", "--count", "9", "--preset", "best"), "choose paper"),
        (("--out", "out", "--count", "9", "--engine", "steam"), "choose local or ray"),
        (("--out", "out", "--count", "9", "--image", "gif"), "choose jpg or webp"),
        (("--out", "out", "--count", "9", "--objects", "nowhere"), "nowhere is not a folder"),
        (("--out", "out", "--count", "9", "--objects", "empty"), "No cut-outs in empty"),
        (("--out", "out", "--count", "9", "--objects", "broken"), "bad.png"),
        (("--out", "out", "--count", "9", "--backgrounds", "empty"), "No backgrounds in empty"),
        (("--out", "file", "--count", "9"), "Cannot make the folder"),
        (("--preview", "sheet.gif"), "must end in"),
    ],
)
def test_wrong_input_is_one_sentence(arguments: tuple[str, ...], word: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "broken" / "tent").mkdir(parents=True)
    (tmp_path / "broken" / "tent" / "bad.png").write_bytes(b"nothing")
    done = typed(tmp_path, "compose", *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("wherein: ") and done.stderr.count("\n") == 1 and word in done.stderr
    assert not list((tmp_path / "out").glob("*")) and not (tmp_path / "sheet.gif").exists()
