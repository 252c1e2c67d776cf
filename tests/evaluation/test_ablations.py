"""Tables of localisation heads: each row asks and reads as its name says (SPEC 2.8: LH-12)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.evaluation import ablations
from wherein.methods.heads import Heads, HeadsConfig
from wherein.methods.heads.criteria import attention_sum, spatial_entropy

HEADS = ((2, 1), (3, 0))
CONFIG = HeadsConfig(HEADS, prompt=" In the image is {noun}")
FACTS: dict[str, Any] = {
    "by": "criteria",
    "tau": 0.3,
    "heads": [{"layer": layer, "head": head} for layer, head in ((2, 1), (3, 0), (3, 2), (2, 0), (3, 3), (2, 2))],
    "sum only": [[3, 1], [2, 3], [2, 2]],
    "entropy only": [[2, 2], [3, 3], [2, 0]],
}
PHRASES = ["the dog", "a red mug"]


@pytest.fixture
def deep(tiny_vlm: Any) -> Any:
    return type(tiny_vlm)(name="deep", layers=4)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)


def rows(name: str, vlm: Any) -> dict[str, ablations.Variant]:
    return {variant.name: variant for variant in ablations.table(name, vlm, CONFIG, FACTS)}


@pytest.mark.parametrize("name", ablations.TABLES)
def test_every_row_answers_every_phrase(name: str, deep: Any, image: NDArray[np.uint8]) -> None:
    made = rows(name, deep)
    assert len(made) >= 5
    for variant in made.values():
        groundings = variant.ground(image, PHRASES, absent=False)
        assert [g.phrase for g in groundings] == PHRASES and all(len(g.boxes) == 1 for g in groundings)


@pytest.mark.parametrize("name", ablations.TABLES)
def test_a_row_is_the_method_with_its_settings(name: str, deep: Any, image: NDArray[np.uint8]) -> None:
    """Reading heads off the maps of all changes nothing."""
    for variant in rows(name, deep).values():
        if variant.choose is None:
            plain = Heads(deep, config=variant.method.config).ground(image, PHRASES)
            for one, two in zip(variant.ground(image, PHRASES), plain, strict=True):
                np.testing.assert_allclose(one.heatmap, two.heatmap, atol=1e-5, rtol=1e-4, err_msg=variant.name)


def test_six_rows_of_criteria(deep: Any, image: NDArray[np.uint8]) -> None:
    made = rows("criteria", deep)
    assert list(made) == [
        f"{what}, {how}" for what in ("sum only", "entropy only", "both") for how in ("greedy", "fixed")
    ]
    assert made["sum only, fixed"].method.config.heads == ((3, 1), (2, 3))
    assert made["entropy only, fixed"].method.config.heads == ((2, 2), (3, 3))
    asked = made["both, greedy"].shared.ask(image, PHRASES)
    maps, seen = asked.maps[0], asked.seen[0]
    for name, figures in (
        ("sum only, greedy", -attention_sum(maps)),
        ("entropy only, greedy", spatial_entropy(seen)),
        ("both, greedy", np.where(attention_sum(maps) >= 0.3, spatial_entropy(seen), np.inf)),
    ):
        choose = made[name].choose
        assert choose is not None
        chosen = choose(maps, seen)
        assert len(chosen) == 2 and all(layer >= 2 for layer, _ in chosen)
        others = [float(figures[h]) for h in np.ndindex(*figures.shape) if h[0] >= 2 and h not in chosen]
        assert max(float(figures[h]) for h in chosen) <= min(others)


def test_one_to_five_heads_in_their_order(deep: Any) -> None:
    made = rows("k", deep)
    assert [len(variant.method.config.heads) for variant in made.values()] == [1, 2, 3, 4, 5]
    assert made["k=5"].method.config.heads == ((2, 1), (3, 0), (3, 2), (2, 0), (3, 3))
    few = ablations.table("k", deep, CONFIG, {})
    assert [variant.method.config.heads for variant in few] == [HEADS[:1], HEADS]


def test_rows_that_ask_alike_share_one_run(deep: Any, image: NDArray[np.uint8]) -> None:
    before = deep.encoded
    for variant in rows("sigma", deep).values():
        variant.ground(image, PHRASES)
    assert deep.encoded == before + 1
    for variant in rows("reading", deep).values():
        variant.ground(image, PHRASES)
    assert deep.encoded == before + 7  # plain, with neutral phrases, mirrored (two), in one sentence, a word later


def test_another_image_or_other_phrases_are_asked_anew(deep: Any, image: NDArray[np.uint8]) -> None:
    variant = rows("k", deep)["k=2"]
    first = variant.ground(image, PHRASES)[0]
    other = variant.ground(255 - image, PHRASES)[0]
    turned = variant.ground(image, PHRASES[::-1])
    assert first.heatmap is not None and other.heatmap is not None
    assert not np.allclose(first.heatmap, other.heatmap)
    np.testing.assert_allclose(turned[1].heatmap, first.heatmap, atol=1e-6)


def test_what_a_table_needs(deep: Any) -> None:
    with pytest.raises(InputError, match="no table 'colour'"):
        ablations.table("colour", deep, CONFIG, FACTS)
    with pytest.raises(InputError, match="heads find"):
        ablations.table("criteria", deep, CONFIG, {})
    with pytest.raises(InputError, match="know the boxes"):
        ablations.table("criteria", deep, CONFIG, {**FACTS, "by": "agreement"})
    with pytest.raises(InputError, match="lists 1 heads of 'sum only', and it has 2"):
        ablations.table("criteria", deep, CONFIG, {**FACTS, "sum only": FACTS["sum only"][:1]})


def test_a_head_that_does_not_look_at_the_image_never_wins(deep: Any) -> None:
    """Bug L-5: too few heads reach tau. Then those that look most, and never one of the first layers (LH-5)."""
    maps = np.full((4, 4, 2, 2), 0.01, np.float32)
    maps[:2] = 0.2
    maps[3, 1], maps[2, 2] = [[0.2, 0.0], [0.0, 0.0]], 0.02
    choose = ablations.table("criteria", deep, CONFIG, {**FACTS, "tau": 0.15})[4].choose
    assert choose is not None and choose(maps, maps) == [(3, 1), (2, 2)]
    none = ablations.table("criteria", deep, CONFIG, {**FACTS, "tau": 0.9})[4].choose
    assert none is not None and none(maps, maps) == [(3, 1), (2, 2)]
