"""The papers' tables before they are run: their rows, whose adapters they take, and what tells answerers apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherein.errors import AdapterError, InputError
from wherein.evaluation.heads_tables import heads_table
from wherein.evaluation.papers import BEST, HEADS, HEADS_MAIN, called
from wherein.evaluation.parts import BUILT_IN, identity, prompt_of
from wherein.evaluation.pin_tables import pin_table
from wherein.methods import create
from wherein.methods.heads import HeadsConfig
from wherein.methods.heads.method import Heads
from wherein.methods.in_context import InContext, Random, composites
from wherein.segment import Refined


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
    with pytest.raises(InputError, match="is no transformer"):  # not how to train what it cannot have
        parts["vpt_encoder"].make()
    monkeypatch.setattr(default_name, "seams", replace(default_name.seams, patches=default_name.connector))
    with pytest.raises(AdapterError, match=r"wherein train vpt_encoder .*--steps .*recipes/reproduce_pin/run\.sh"):
        parts["vpt_encoder"].make()


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


def test_the_heads_main_tables_are_whole() -> None:
    """Ten models on eight splits; what the ablations print again of the best model, and k=3 of others, is the same."""
    for name, figure in (("rec", "p@0.5"), ("res", "ciou")):
        assert len(HEADS_MAIN[name]) == 10
        for sets in HEADS_MAIN[name].values():
            assert len(sets) == 8 and all(set(values) == {figure} for values in sets.values())
        ablated = HEADS["criteria"]["both, fixed"]["refcoco val"][figure]
        assert HEADS_MAIN[name][BEST]["refcoco val"][figure] == ablated
    third = (0.563, 0.598, 0.621, 0.625, 0.739, 0.735, 0.654, 0.742, 0.668, 0.761)
    assert tuple(sets["refcoco val"]["ciou"] for sets in HEADS_MAIN["res"].values()) == third
    assert HEADS_MAIN["res"]["DeepSeek-VL-7B"]["refcoco+ testa"] == {"ciou": 0.661}  # 67.1 in the paper's table 7
    assert HEADS_MAIN["rec"]["Yi-VL-6B"]["refcocog test"] == {"p@0.5": 0.809}
    assert HEADS_MAIN["reasonseg"]["LLaVA-1.5-7B"] == {
        "reasonseg val": {"ciou": 0.524},
        "reasonseg test": {"ciou": 0.487},
    }


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llava-hf/llava-1.5-7b-hf", "LLaVA-1.5-7B"),
        ("models/LLaVA_v1.5_13b", "LLaVA-1.5-13B"),
        ("liuhaotian/LLaVA-13b-v0", "LLaVA-13B"),
        ("deepseek-ai/deepseek-vl-1.3b-chat", "DeepSeek-VL-1.3B"),
        ("Lin-Chen/ShareGPT4V-7B", "ShareGPT4V-7B"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", BEST),
        ("default", BEST),
    ],
)
def test_whose_values_stand_beside_a_model_s(name: str, model: str) -> None:
    assert called(name, HEADS_MAIN["rec"]) == model
    assert called(name, HEADS_MAIN["reasonseg"]) == (model if "1.5" in model and "LLaVA" in model else BEST)


def test_of_two_names_the_longer_one_counts() -> None:
    assert called("my-llava-1.5-7b", ["LLaVA", "LLaVA-1.5-7B", "1.5"]) == "LLaVA-1.5-7B"


def test_published_boxes_stand_beside_the_heads_and_masks_beside_the_segmented_ones(
    tiny_vlm: Any, save_heads_for: Callable[..., Path]
) -> None:
    """The paper's masks are a segmenter's: the heads' own have none of its values beside them."""
    vlm, sam = type(tiny_vlm)(name="llava-hf/llava-1.5-7b-hf"), SimpleNamespace(kind="sam", name="a-sam")
    file = str(save_heads_for(vlm))
    for name, figure, row in (
        ("rec", "p@0.5", "heads"),
        ("res", "ciou", "heads+sam"),
        ("reasonseg", "ciou", "heads+sam"),
    ):
        bare, made = heads_table(name, vlm, file), heads_table(name, vlm, file, sam)  # type: ignore[arg-type]
        assert made.title == f"Localisation heads: {name} (published with LLaVA-1.5-7B)"
        assert bare.rows == ["centre", "text", "heads"] and made.rows == [*bare.rows, "heads+sam"]
        assert made.figures[0] == figure and made.published == {row: HEADS_MAIN[name]["LLaVA-1.5-7B"]}
        below = [f"{row} of {other}" for other in HEADS_MAIN[name]]
        assert list(made.besides) == [one for one in below if not one.endswith(" LLaVA-1.5-7B")]
        assert bare.published == ({row: HEADS_MAIN[name]["LLaVA-1.5-7B"]} if name == "rec" else {})
        assert list(bare.besides) == (list(made.besides) if name == "rec" else below)
    assert {row: part.adapters for part in made.parts for row in part.rows} == {
        "centre": {},
        "text": {},
        "heads": {"heads": file},
        "heads+sam": {"heads+sam": file},
    }
    with pytest.raises(InputError, match=r"'k' has no row with a segmenter: leave --segmenter out, or choose rec, res"):
        heads_table("k", vlm, file, sam)  # type: ignore[arg-type]


def test_the_model_s_known_heads_are_taken(tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.evaluation.heads_tables.known", lambda vlm, file: (HeadsConfig(heads=((0, 1),)), {}))
    (part,) = (part for part in heads_table("rec", tiny_vlm, None).parts if part.rows == ("heads",))
    assert part.adapters == {"heads": BUILT_IN} and part.make()[0][0].config.heads == ((0, 1),)  # type: ignore[attr-defined]


def test_identity_knows_settings_weights_and_examples(tiny_vlm: Any) -> None:
    assert identity(SimpleNamespace(config="a")) != identity(SimpleNamespace(config="b"))
    one, same, other = (InContext(tiny_vlm, composites(2, 64, seed)) for seed in (0, 0, 1))
    assert identity(one) == identity(same) != identity(other)
    boxes = composites(3, 64, 0)
    assert (
        identity(Random(tiny_vlm, boxes)) == identity(Random(tiny_vlm, boxes)) != identity(Random(tiny_vlm, boxes, 1))
    )


def test_identity_knows_the_segmenter(tiny_vlm: Any) -> None:
    """Of one kind, and so of one row's name: a base and a huge SAM."""
    heads = Heads(tiny_vlm, config=HeadsConfig(heads=((0, 1),)))
    base, same, huge = (Refined(heads, SimpleNamespace(kind="sam", name=name)) for name in ("base", "base", "huge"))  # type: ignore[arg-type]
    assert base.name == huge.name and identity(base) == identity(same) != identity(huge)
    assert identity(heads) != identity(base) and prompt_of(base) == heads.config.prompt
