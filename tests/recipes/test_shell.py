"""The shell scripts of all recipes are at least sentences of the shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no shell here")
@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/run.sh")), ids=lambda script: script.parent.name)
def test_a_script_is_read_by_the_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes are not part of this copy of the source")
def test_weights_enter_the_package_behind_their_figures() -> None:
    lines = (RECIPES / "default_vlm/run.sh").read_text().splitlines()
    train, measure, copy = (
        next(i for i, line in enumerate(lines) if text in line) for text in ('train.py"', 'measure.py"', "vlm/weights")
    )
    assert train < measure < copy and "set -eu" in lines
