"""docs/families.md: its table is what the families and methods are, and its example is a family that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wherein import methods, overview
from wherein.errors import InputError
from wherein.methods.base import REGISTRY
from wherein.vlm.base import FrozenVLM
from wherein.vlm.flamingo import PUBLISHED
from wherein.vlm.hf import HFVLM

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"


def row(family: str) -> dict[str, Any]:
    (found,) = (row for row in overview.overview() if row["family"] == family)
    return found


def check(vlm: FrozenVLM, said: dict[str, Any]) -> None:
    assert set(said["seams"]) == set(vlm.seams.names)
    own = {name for name in methods.names() if not REGISTRY[name].baseline}
    adapted = {name for name in own if REGISTRY[name].takes_adapter}
    general = {name for name in adapted if not REGISTRY[name].built_in_only}
    assert general <= set(said["methods"]) <= own  # tests/methods asks those with an adapter on every family
    for name in own - general:
        if name in said["methods"]:
            assert name in adapted or methods.create(name, vlm).name == name
        else:
            with pytest.raises(InputError):
                methods.create(name, vlm)


def test_the_table_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert overview.refreshed(text) == text, "make it anew: python -m wherein.overview docs/families.md"


def test_a_table_that_is_out_of_date_is_made_anew_between_its_markers() -> None:
    made = overview.refreshed(f"above\n{overview.BEGIN}\n| old |\n{overview.END}\nbelow\n")
    assert overview.page() in made and "old" not in made
    assert made.startswith("above\n") and made.endswith("\nbelow\n")
    with pytest.raises(InputError, match="no place for the table"):
        overview.refreshed("a page without markers")


def test_every_line_of_the_table_has_every_column() -> None:
    lines = overview.page().splitlines()
    assert len(lines) == 2 + len(overview.overview())
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(overview.HEADINGS) + 1}


def test_the_table_says_what_a_family_does(vlm: HFVLM) -> None:
    check(vlm, row(vlm.family))


def test_the_table_says_what_the_built_in_model_does(default_vlm: FrozenVLM) -> None:
    check(default_vlm, row("default"))


def test_a_view_function_of_its_own_is_all_that_a_family_adds() -> None:
    def halves(processor: Any, width: int, height: int) -> Any:
        """Two halves: the left one and the right one."""

    class Other(overview.FAMILIES[0]):  # type: ignore[name-defined]
        views = staticmethod(halves)

    assert overview._row(Other, [])["image"] == "two halves"


def test_the_page_names_every_openflamingo() -> None:
    named = re.search(r"^The names are (.*?)\.", PAGE.read_text(), re.M | re.S)
    assert named is not None
    whole = re.findall(r"`(OpenFlamingo\S+)`", named[1])
    assert set(PUBLISHED) == {*whole, *(f"{name}-langinstruct" for name in whole[:2])}


def test_the_example_is_a_family_that_works(build: Any) -> None:
    """Its file and its row, as they stand on the page."""
    shown, made = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    space: dict[str, Any] = {}
    exec(compile(shown, str(PAGE), "exec"), space)
    helpers = {**build.__globals__, "family": lambda function: function}
    exec(compile(made, str(PAGE), "exec"), helpers)
    torch.manual_seed(0)
    vlm = space["VipLlava"](*helpers["vipllava"](), "vipllava")
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    pixels, (frame,) = vlm.prepare([image])
    x_v = vlm.features(pixels)
    assert x_v.shape == (1, 16, vlm.feature_dim) and vlm.image_tokens(frame).grid == vlm.grid == (4, 4)
    with torch.no_grad():
        plain = vlm.model(**pixels).logits
        with vlm._replay.give(x_v):
            assert torch.equal(vlm.model(**vlm._stack([vlm._processed(90, 70)])).logits, plain)
    said = overview._row(space["VipLlava"], row("llava")["methods"])
    assert len(overview._cells(said)) == len(overview.HEADINGS)
    check(vlm, said)
