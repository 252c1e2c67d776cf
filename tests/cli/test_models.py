"""`wherein models` in a real process, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

from wherein.vlm.families import FAMILIES

from ..forked import typed

KEYS = ["family", "checkpoint", "image", "seams", "methods", "native_boxes", "licence"]
NAMES = ["default", *(family.family for family in FAMILIES)]


def test_every_family_and_its_checkpoint_on_80_columns(tmp_path: Path) -> None:
    done = typed(tmp_path, "models", COLUMNS="")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [line.split()[:2] for line in lines]
    for family in FAMILIES:
        assert [family.family, family.checkpoint] in starts  # in one piece, to be copied
    assert "default" in [start[0] for start in starts if start]
    assert "Methods, on every family: centre, heads, pin, text." in lines and "Further: cam, on default." in lines


def test_json_has_every_family_and_key(tmp_path: Path) -> None:
    done = typed(tmp_path, "models", "--json")
    assert done.returncode == 0 and done.stderr == ""
    rows = json.loads(done.stdout)
    assert [row["family"] for row in rows] == NAMES
    for row in rows:
        assert list(row) == KEYS
        assert all(isinstance(row[key], list if key in ("seams", "methods") else str) and row[key] for key in KEYS)
