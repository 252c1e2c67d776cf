"""The user guide: examples marked for execution run, links lead somewhere, the JSON tables name every key.

A fence opened with "bash run" or "python run" is executed; readers see it as any other. The blocks of a page run in
order, in one folder that holds `photo.jpg`, the folder `photos` and the repository's `src`; Python blocks share their
names up to the next shell block.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from wherein.grounding import Grounding
from wherein.locator import Answer
from wherein.methods.pixel.captions import Caption, PlacedWord, Region

from .forked import environment, python

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(page for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if page.exists())
MARKED = re.compile(r"^```(bash|python) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_EXAMPLES = [page for page in PAGES if MARKED.search(page.read_text())]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the examples find around them."""
    examples = ROOT / "src" / "wherein" / "examples"
    shutil.copy(examples / "coffee.jpg", tmp_path / "photo.jpg")
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copy(examples / name, tmp_path / "photos")
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_the_examples_run(page: Path, folder: Path) -> None:
    """With the true model, as a reader types them."""
    for language, blocks in groupby(MARKED.findall(page.read_text()), key=lambda block: block[0]):
        script = "\n".join(text for _, text in blocks)
        command = python(script) if language == "python" else ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_the_json_page_names_every_key() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "json.md").read_text(), re.M | re.S))
    grounding = Grounding("a cat", np.empty((0, 4)), np.empty(0), "token", True, 0.9)
    answer = Answer("a.jpg", 8, 6, "tiny", "pin", None, [grounding], np.zeros((6, 8, 3), np.uint8)).to_dict()
    word = PlacedWord("cat", 0, 3, np.zeros(2), np.zeros(4))
    caption = Caption("cat", [word], 0.5, True)
    said = {
        "trace": caption.to_dict(),
        "words": word.to_dict(),
        "regions": Region(caption, point=np.zeros(2)).to_dict(),
    }
    for section, document in [("locate", answer), ("groundings", answer["groundings"][0]), *said.items()]:
        assert re.findall(r"^\| `(\w+)`", sections[section], re.M) == list(document)
