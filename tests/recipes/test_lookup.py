"""The made-up images of the recipe's second stage: what they teach is to read, and nothing about where things are."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

COUNT = 12  # images of a batch


@pytest.fixture
def lookup(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("lookup")


@pytest.fixture
def made(lookup: ModuleType, default_vlm: Any) -> Any:
    return lookup.Lookup(default_vlm)


def test_a_batch_is_a_function_of_its_generator(lookup: ModuleType, made: Any) -> None:
    first, again, other = (made.batch(np.random.default_rng(seed), COUNT, 0.3) for seed in (3, 3, 4))
    assert first.made_up and first.images.shape == (COUNT, lookup.CELLS, 576) and first.images.dtype == made.vlm.dtype
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    cells = first.cells
    assert cells.shape == (COUNT, lookup.CELLS) and (cells.diff(dim=1) > 0).all() and cells.max() < 14 * 14
    assert len(first.rows) == COUNT and all(first.rows)


def test_no_word_of_place_is_ever_a_target(lookup: ModuleType, made: Any, default_vlm: Any) -> None:
    assert len(made.words) == len(set(made.words)) == 6000
    assert not [word for word in made.words if lookup.POSITION.fullmatch(word) or not re.fullmatch("[a-z]+", word)]
    assert {"left", "where", "near", "below", "seven"}.isdisjoint(made.words)
    every = [*(text for pair in default_vlm.classes for text in pair), *default_vlm.names]
    names = {word for name in every for word in name.split()}
    for seed in range(3):
        rows = made.batch(np.random.default_rng(seed), COUNT, 0.3).rows
        for answer in (default_vlm.tokenizer.decode(branch.target) for own in rows for branch in own):
            words = set(re.findall("[a-z]+", answer)) - names
            assert not [word for word in words if lookup.POSITION.fullmatch(word)], answer


def test_the_range_of_a_things_numbers_is_asked_by_its_name(lookup: ModuleType, made: Any, default_vlm: Any) -> None:
    branch = made._range("accordion", np.array([[4, 7], [2, 9], [3, 8]]))
    assert default_vlm.tokenizer.decode(branch.context) == " an accordion ranges"
    assert default_vlm.tokenizer.decode(branch.target) == " from2 and7 to4 and9."
    assert [weight == 1.0 for weight in branch.weights] == [True, True, False, True, False, True, False, True, False]


def test_where_a_cell_stands_says_nothing_of_its_numbers(lookup: ModuleType, made: Any) -> None:
    """Over many images, the numbers read off a token do not rise or fall along the sequence."""
    codes, found = torch.cat([made.first, made.second]), []
    for seed in range(12):
        tokens = made.batch(np.random.default_rng(seed), COUNT, 0.3).images
        read = (tokens.float() @ codes.T).unflatten(-1, (2, 10)).argmax(-1).float()
        place = torch.arange(lookup.CELLS, dtype=torch.float32)
        for numbers in read.unbind(0):
            found += [torch.corrcoef(torch.stack([place, column]))[0, 1] for column in numbers.unbind(-1)]
    assert abs(torch.stack(found).nanmean()) < 0.03


def test_no_two_things_of_an_image_answer_to_one_name(made: Any) -> None:
    by_kind = 0
    for seed in range(40):
        things = made._things(np.random.default_rng(seed), 6)
        called = [text for text, _ in things]
        assert len(set(called)) == 6
        for text, shown in things:
            answers = [made._answers_to(int(entry)) for entry in shown]
            assert all(text in each for each in answers)
            kinds = {kind for each in answers for kind in each[1:]}
            assert not kinds & (set(called) - {text})
            by_kind += text in kinds
    assert 40 < by_kind < 200


def test_a_thing_is_asked_for_by_its_name_and_answered_with_its_words(
    lookup: ModuleType, made: Any, default_vlm: Any
) -> None:
    """What a thing's cells hold beyond its name and the rest of the image leans towards the answer's words."""
    values = np.array([11, 2000, 4321])
    owner = np.array([0] * 6 + [-1] * 6)
    pairs = []
    for seed in range(8):
        tokens = made._cells(np.random.default_rng(seed), owner, {0: np.array([5])}, {0: values})
        pairs.append(made.values @ (tokens[:6].mean(0) - tokens[6:].mean(0)) / made.values.pow(2).sum(1))
    share = torch.stack(pairs).mean(0)
    assert share[values].min() > 2 * share.abs().median()
    branch = made._words(np.random.default_rng(1), "camel", values)
    assert " a camel" in default_vlm.tokenizer.decode(branch.context)
    learnt = [token for token, weight in zip(branch.target, branch.weights, strict=True) if weight]
    assert [default_vlm.tokenizer.decode([token]) for token in learnt] == [f" {made.words[value]}" for value in values]


def test_tokens_of_a_composite_are_sorted_by_what_the_connector_takes_them_for(
    recipe: Callable[[str], ModuleType], made: Any, default_vlm: Any
) -> None:
    """A cell that leans to a class is one of its thing; what leans nowhere is the rest."""
    names = [name for name, _ in default_vlm.classes]
    cat, camel = names.index("persian cat"), names.index("arabian camel")

    class Images:
        """Two things of four cells each on an empty background."""

        def prototype(self, rng: np.random.Generator) -> tuple[torch.Tensor, list[tuple[str, None]]]:
            weight = default_vlm.encoder.classifier.weight.float()
            x = torch.zeros(196, default_vlm.feature_dim)
            for cells, row in ((slice(20, 24), cat), (slice(60, 64), camel)):
                x[cells] += 30 * weight[row] / weight[row].square().sum()
            return x.to(torch.bfloat16), [("cat", None), ("camel", None)]

        unseen = prototype
        vlm = default_vlm

    (source,) = recipe("sources").Sources(Images()).draw(np.random.default_rng(0), 1)
    tokens = default_vlm.tokens(Images().prototype(np.random.default_rng(0))[0][None])[0].float()
    assert [name for name, _ in source.things] == ["cat", "camel"]
    torch.testing.assert_close(source.things[0][1], tokens[20:24])
    torch.testing.assert_close(source.things[1][1], tokens[60:64])
    assert len(source.rest) == 188
    scene = made._drawn(np.random.default_rng(0), np.array([0] * 3 + [1] * 2 + [-1] * 5), source)
    assert scene.called == {0: "cat", 1: "camel"}
    assert scene.absent not in {"persian cat", "cat", "arabian camel", "camel"}
    assert all((tokens[20:24] == cell).all(1).any() for cell in scene.x[:3])
    assert all((tokens[60:64] == cell).all(1).any() for cell in scene.x[3:5])


def test_a_layout_holds_every_thing_it_was_asked_for_at_most(lookup: ModuleType) -> None:
    for seed in range(20):
        owner = lookup.layout(np.random.default_rng(seed), 10, 10, things=6)
        assert owner.shape == (100,) and set(owner.tolist()) <= {-1, 0, 1, 2, 3, 4, 5}
        assert len(set(owner.tolist()) - {-1}) >= 1
