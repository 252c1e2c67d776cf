"""The shipped example photographs: every one has a licence, and a phrase with a box inside the picture."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(str(files("wherein"))) / "examples"
TRUTH = json.loads((EXAMPLES / "truth.json").read_text())


def test_truth_and_licences_cover_exactly_the_pictures() -> None:
    pictures = {path.name for path in EXAMPLES.glob("*.jpg")}
    licences = (EXAMPLES / "LICENSES.md").read_text()
    assert len(pictures) == 5
    assert set(TRUTH) == pictures
    assert all(f"| `{name}` |" in licences for name in pictures)


@pytest.mark.parametrize("name", TRUTH)
def test_box_lies_inside_a_small_picture(name: str) -> None:
    assert (EXAMPLES / name).stat().st_size <= 200_000
    with Image.open(EXAMPLES / name) as picture:
        width, height = picture.size
    x0, y0, x1, y1 = TRUTH[name]["box"]
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert TRUTH[name]["phrase"].startswith("the ")
