"""`wherein caption`: one image, a folder, standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import ImageError

EXAMPLES = Path(str(files("wherein"))) / "examples"


def test_one_caption_is_one_line(loads: list[Any], photos: Path) -> None:
    result = CliRunner().invoke(app, ["caption", str(photos / "a.jpg")])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a cat on a mat\n", "")


def test_json(loads: list[Any], photos: Path) -> None:
    content = (photos / "a.jpg").read_bytes()
    result = CliRunner().invoke(app, ["caption", "-", "--json"], input=content)
    assert json.loads(result.stdout) == {
        "schema": 1,
        "image": "-",
        "width": 80,
        "height": 60,
        "model": "tiny",
        "caption": "a cat\non a mat",
    }


def test_a_folder_names_each_image_and_goes_on(loads: list[Any], photos: Path) -> None:
    result = CliRunner().invoke(app, ["caption", str(photos)])
    assert result.stdout.splitlines() == [f"{photos / name}: a cat on a mat" for name in ("a.jpg", "c.webp", "d.png")]
    assert isinstance(result.exception, ImageError) and "b.jpg" in result.stderr
    result = CliRunner().invoke(app, ["caption", "--json", str(photos)])
    assert ["error" in json.loads(line) for line in result.stdout.splitlines()] == [False, True, False, False]
    assert len(loads) == 2  # once a command


def test_the_default_model_speaks() -> None:
    """As a user types it, with the true model."""
    command = [sys.executable, "-m", "wherein", "caption", EXAMPLES / "cat.jpg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.strip()
