"""The papers' tables before they are run: their rows, whose adapters they take, and what tells answerers apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherein.errors import AdapterError, InputError
from wherein.evaluation.papers import HEADS
from wherein.evaluation.parts import heads_table, identity, pin_table, prompt_of
from wherein.methods import create
from wherein.methods.in_context import InContext, Random, composites


@pytest.fixture
def default_name(tiny_vlm: Any) -> Any:
    """A model that is called as the built-in one."""
    return type(tiny_vlm)(name="default")


def test_an_adapter_that_a_folder_lacks_is_the_built_in_one(
    default_name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the package has one; the table says so."""
    (tmp_path / "vpt").mkdir()
    bound: dict[str, Any] = {}
    monkeypatch.setattr("wherein.methods.create", lambda name, _, place=None: bound.setdefault(name, place) or name)
    parts = {part.rows[0]: part for part in pin_table(1, default_name, tmp_path, 0).parts}
    for row in ("pin", "vpt", "centre"):
        parts[row].make()
    assert bound == {"pin": None, "vpt": tmp_path / "vpt", "centre": None}
    assert parts["pin"].adapters == {"pin": f"built in, as {tmp_path} holds no pin"}
    assert parts["vpt"].adapters == {"vpt": str(tmp_path / "vpt")} and parts["centre"].adapters == {}
    with pytest.raises(AdapterError, match=r"wherein train lora .*--steps .*recipes/reproduce_pin/run\.sh"):
        parts["lora"].make()


def test_what_pin_s_tables_are_about(tiny_vlm: Any) -> None:
    first, second, third = (pin_table(number, tiny_vlm, None, 0) for number in (1, 2, 3))
    assert [made.figures[0] for made in (first, second, third)] == ["miou", "miou", "p@0.3"]
    assert "on RefCOCO testA" in third.title and "with RefCOCO" not in third.title
    assert first.besides["pin at 448 pixels"]["voc"]["miou_l"] == 0.65
    assert second.besides["pin at 364 pixels"]["coco"]["miou"] == 0.37


def test_the_prompt_of_every_kind_of_row(tiny_vlm: Any) -> None:
    plain = tiny_vlm.shared_prompt + tiny_vlm.locate_prompt
    boxes = composites(3, 64, 0)
    assert prompt_of(create("text", tiny_vlm)) == prompt_of(InContext(tiny_vlm, boxes)) == plain
    assert prompt_of(Random(tiny_vlm, boxes)) is prompt_of(create("centre", tiny_vlm)) is None


def test_tables_that_there_are_not(tiny_vlm: Any, save_heads_for: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="no table 4"):
        pin_table(4, tiny_vlm, None, 0)
    with pytest.raises(InputError, match="no table 'x'"):
        heads_table("x", tiny_vlm, str(save_heads_for(tiny_vlm)))


def test_heads_tables_have_the_published_rows(tiny_vlm: Any, save_heads_for: Callable[..., Path]) -> None:
    made = heads_table("sigma", tiny_vlm, str(save_heads_for(tiny_vlm)))
    assert set(made.parts[0].rows) == {"centre", *HEADS["sigma"]}


def test_identity_knows_settings_weights_and_examples(tiny_vlm: Any) -> None:
    assert identity(SimpleNamespace(config="a")) != identity(SimpleNamespace(config="b"))
    one, same, other = (InContext(tiny_vlm, composites(2, 64, seed)) for seed in (0, 0, 1))
    assert identity(one) == identity(same) != identity(other)
    boxes = composites(3, 64, 0)
    assert (
        identity(Random(tiny_vlm, boxes)) == identity(Random(tiny_vlm, boxes)) != identity(Random(tiny_vlm, boxes, 1))
    )
