"""What is served, as a table: made from the families and the methods themselves, so that it says what they do.

`python -m wherein.overview docs/families.md` makes the table of that page anew; without a page it is printed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from wherein.errors import InputError
from wherein.methods import names
from wherein.methods.base import REGISTRY
from wherein.vlm.families import FAMILIES
from wherein.vlm.hf import HFVLM
from wherein.vlm.views import ViewsOf, squash

SEAMS = ["features", "connector_tokens", "encoder_tokens", "prompt_tokens", "hidden", "attention"]
HEADINGS = {
    "family": "family",
    "checkpoint": "usual checkpoint",
    "image": "the image",
    "seams": "seams",
    "methods": "methods",
    "native_boxes": "boxes it writes by itself",
    "licence": "licence of the checkpoint",
}
BEGIN = "<!-- made by: python -m wherein.overview docs/families.md -->"
END = "<!-- end of what was made -->"


def overview() -> list[dict[str, Any]]:
    """One row a family: name, usual checkpoint, what happens to an image, seams, methods, own box format, licence.

    Without PIN's baselines: into which model one goes depends on more than its family, and is said when it begins.
    """
    listed = [name for name in names() if not REGISTRY[name].baseline]
    built_in = {
        "family": "default",
        "checkpoint": "default (in the package)",
        "image": _image(squash),
        "seams": [seam for seam in SEAMS if seam != "encoder_tokens"],
        "methods": listed,
        "native_boxes": "none",
        "licence": "Apache-2.0",
    }
    general = [name for name in listed if not REGISTRY[name].built_in_only]
    return [built_in, *(_row(family, general) for family in FAMILIES)]


def page() -> str:
    """The same as a table in Markdown, for docs/families.md."""
    lines = [list(HEADINGS.values()), ["---"] * len(HEADINGS), *(_cells(row) for row in overview())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def refreshed(text: str) -> str:
    """A page in Markdown with the table between its two markers made anew.

    Raises InputError where the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"The page has no place for the table: expected the lines {BEGIN} and {END}.")
    return f"{before}{begin}\n\n{page()}\n{end}{after}"


def _row(family: type[HFVLM], methods: list[str]) -> dict[str, Any]:
    return {
        "family": family.family,
        "checkpoint": family.checkpoint,
        "image": _image(family.views),
        "seams": SEAMS,
        "methods": methods,
        "native_boxes": family.native or "none",
        "licence": family.licence,
    }


def _image(view: ViewsOf) -> str:
    """What a view function does to an image: the words with which its docstring begins."""
    words = (view.__doc__ or "").partition(":")[0].strip()
    return words[:1].lower() + words[1:]


def _cells(row: dict[str, Any]) -> list[str]:
    """A row for the page: seams by what is missing, and nothing that Markdown would read as its own."""
    missing = [f"`{seam}`" for seam in SEAMS if seam not in row["seams"]]
    shown = {
        **row,
        "family": f"`{row['family']}`",
        "seams": f"all but {', '.join(missing)}" if missing else "all",
        "methods": ", ".join(f"`{name}`" for name in row["methods"]),
        "native_boxes": "none" if row["native_boxes"] == "none" else f"`{row['native_boxes']}`",
    }
    return [str(shown[name]).replace("|", "\\|") for name in HEADINGS]


if __name__ == "__main__":
    if not sys.argv[1:]:
        print(page(), end="")
    for name in sys.argv[1:]:
        Path(name).write_text(refreshed(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
