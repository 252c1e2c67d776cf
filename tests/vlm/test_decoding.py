"""Constrained answers: always readable, the same alone and in company, and what plain greedy decoding would write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wherein.boxtext import CODECS, BoxGrammar, Grammar, TokenConstraint
from wherein.vlm.decoding import Written, write_freely
from wherein.vlm.prefix import Continuation

PROMPTS = (" a cat located at", " a very old red tractor located at", " x", " an apple that is green located at")
ROWS = (0, 1, 1, 0)
REFUSAL = " nowhere"


@pytest.fixture
def x_v(tiny_vlm: Any) -> Tensor:
    rows, columns = tiny_vlm.grid
    return torch.randn(2, rows * columns, tiny_vlm.feature_dim, generator=torch.Generator().manual_seed(4))


def grammar(vlm: Any, codec: str = "00-99") -> Grammar:
    return CODECS[codec].grammar(*vlm.size, lead=" ")


def ask(vlm: Any, x_v: Tensor, codec: str = "00-99") -> list[Written]:
    return vlm.answer(vlm.prefix(x_v), ROWS, PROMPTS, grammar(vlm, codec), REFUSAL)


@pytest.mark.parametrize("codec", CODECS)
def test_an_answer_always_decodes(tiny_vlm: Any, x_v: Tensor, codec: str) -> None:
    for written in ask(tiny_vlm, x_v, codec):
        assert grammar(tiny_vlm, codec).full(written.text)
        box = CODECS[codec].decode(written.text, *tiny_vlm.size)
        assert box is not None and (box[2:] > box[:2]).all()


@pytest.mark.parametrize("codec", ["00-99", "pixels"])  # in pixels, answers have different lengths
def test_in_company_as_alone(tiny_vlm: Any, x_v: Tensor, codec: str) -> None:
    together = ask(tiny_vlm, x_v, codec)
    for row, prompt, one in zip(ROWS, PROMPTS, together, strict=True):
        prefix = tiny_vlm.prefix(x_v[row : row + 1])
        (alone,) = tiny_vlm.answer(prefix, [0], [prompt], grammar(tiny_vlm, codec), REFUSAL)
        assert one.text == alone.text
        assert one.refusal == pytest.approx(alone.refusal, abs=1e-4)
        for a, b in zip(one.steps, alone.steps, strict=True):
            assert (a.start, a.texts, a.chosen) == (b.start, b.texts, b.chosen)
            np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-4)


def test_rows_that_do_not_fit_into_memory_together_run_in_parts(
    tiny_vlm: Any, x_v: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, together = tiny_vlm.prefix(x_v), ask(tiny_vlm, x_v)
    assert len(prefix.parts(4)) == 1
    said = tiny_vlm.say(prefix, ROWS, PROMPTS, 4)
    row = sum(layer.keys.nbytes + layer.values.nbytes for layer in prefix.cache.layers) // 2
    monkeypatch.setattr("wherein.vlm.prefix.ROOM", 3 * row)
    assert [len(range(4)[part]) for part in prefix.parts(4)] == [3, 1]
    assert [written.text for written in ask(tiny_vlm, x_v)] == [written.text for written in together]
    assert tiny_vlm.say(prefix, ROWS, PROMPTS, 4) == said
    monkeypatch.setattr("wherein.vlm.prefix.ROOM", 0)
    assert len(prefix.parts(4)) == 4  # one at least


def test_what_was_cut_off_is_told(tiny_vlm: Any, x_v: Tensor) -> None:
    prefix, asked = tiny_vlm.prefix(x_v), [tiny_vlm.encode(PROMPTS[0])]
    ((ids, ended),) = write_freely(prefix, [0], asked, 6, [])
    assert len(ids) == 6 and not ended
    last = ids[5]  # as an end, it comes behind all that stands before its first place
    assert write_freely(prefix, [0], asked, 5, [last]) == [(ids[: ids.index(last)], True)]
    assert [said.ended for said in tiny_vlm.say(prefix, [0], PROMPTS[:1], 6)] == [False]


def test_one_prefix_serves_again_and_again(tiny_vlm: Any, x_v: Tensor) -> None:
    prefix = tiny_vlm.prefix(x_v)
    texts = [[w.text for w in tiny_vlm.answer(prefix, ROWS, PROMPTS, grammar(tiny_vlm))] for _ in range(2)]
    assert texts[0] == texts[1]


def test_answers_depend_on_image_and_prompt(tiny_vlm: Any, x_v: Tensor) -> None:
    """Else the tests above would prove little."""
    answers = ask(tiny_vlm, x_v)
    first = [tuple(written.steps[1].probabilities.round(6)) for written in answers]
    assert len(set(first)) == len(first)


def test_probabilities(tiny_vlm: Any, x_v: Tensor) -> None:
    for written in ask(tiny_vlm, x_v):
        assert written.refusal is not None and 0 <= written.refusal <= 1
        for step in written.steps:
            assert step.probabilities.sum() == pytest.approx(1)
            assert len(step.texts) == len(step.probabilities) > step.chosen
            assert step.probability == step.probabilities.max()


def test_the_refusal_is_told_only_when_it_is_named(tiny_vlm: Any, x_v: Tensor) -> None:
    answers = tiny_vlm.answer(tiny_vlm.prefix(x_v), ROWS, PROMPTS, grammar(tiny_vlm))
    assert all(written.refusal is None for written in answers)


def test_equals_greedy_decoding_without_a_cache(tiny_vlm: Any, x_v: Tensor) -> None:
    for row, prompt, written in zip(ROWS, PROMPTS, ask(tiny_vlm, x_v), strict=True):
        text, choices, refusal = naive(tiny_vlm, x_v[row : row + 1], prompt)
        assert written.text == text
        assert written.refusal == pytest.approx(refusal, abs=1e-4)
        assert [step.probability for step in written.steps] == pytest.approx(choices, abs=1e-4)


@torch.inference_mode()
def naive(vlm: Any, x_v: Tensor, prompt: str) -> tuple[str, list[float], float]:
    """(text, probability of each choice, probability of the refusal): the whole sequence anew for every token."""
    rules, text, choices, refusal = grammar(vlm), "", [], None
    ids = vlm.encode(vlm.shared_prompt) + vlm.encode(prompt)
    pieces = [vlm.tokenizer.decode([token]) for token in range(len(vlm.tokenizer))]
    while not rules.full(text):
        embeds = torch.cat([vlm.tokens(x_v), vlm.language_model.get_input_embeddings()(torch.tensor([ids]))], dim=1)
        logits = vlm.language_model(inputs_embeds=embeds, use_cache=False).logits[0, -1].double()
        if refusal is None:  # the opening is no choice: the model says whether it would rather have refused
            (opening,) = vlm.encode(" [")
            refusal = float(logits[[vlm.encode(REFUSAL)[0], opening]].softmax(0)[0])
            ids, text = [*ids, opening], " ["
            continue
        allowed = [token for token, piece in enumerate(pieces) if piece and rules.prefix(text + piece)]
        likely = logits[allowed].softmax(0)
        if len(allowed) > 1:
            choices.append(float(likely.max()))
        ids.append(allowed[int(likely.argmax())])
        text += pieces[ids[-1]]
    assert refusal is not None
    return text, choices, refusal


def every_answer(vlm: Any, prefix: Any, prompt: list[int], rules: BoxGrammar) -> dict[str, float]:
    """Each answer that the grammar allows and its log-probability, by trying all of them."""
    constraint = TokenConstraint(vlm.tokenizer, rules)
    found: dict[str, float] = {}

    def go(text: str, ids: list[int], score: float) -> None:
        if rules.full(text):
            found[text] = score
            return
        logits = Continuation(prefix, [0]).feed([[*prompt, *ids]])[0]
        allowed = constraint.allowed(text)
        shares = logits[allowed].double().log_softmax(0)
        for token, share in zip(allowed, shares.tolist(), strict=True):
            forced = constraint.forced(text + constraint.piece(token))
            go(text + constraint.piece(token) + forced, [*ids, token, *constraint.spell(forced)], score + share)

    opening = constraint.forced("")
    go(opening, constraint.spell(opening), 0.0)
    return found


@torch.inference_mode()
def test_a_wide_beam_finds_the_likeliest_of_all_answers(tiny_vlm: Any, x_v: Tensor) -> None:
    rules = BoxGrammar("123", "123", ["[", ",", ",", ",", "]"], lead=" ")
    prefix, prompt = tiny_vlm.prefix(x_v[:1]), tiny_vlm.encode(" a cat")
    scores = every_answer(tiny_vlm, prefix, prompt, rules)
    assert len(scores) == 9
    widths = {beams: tiny_vlm.answer(prefix, [0], [" a cat"], rules, REFUSAL, beams)[0] for beams in (1, 2, 3, 9)}
    assert widths[9].text == max(scores, key=lambda text: scores[text])
    for answer in widths.values():
        assert answer.refusal == widths[1].refusal
        chosen = sum(np.log(step.probability) for step in answer.steps)
        assert chosen == pytest.approx(scores[answer.text], abs=1e-4)
    assert scores[widths[1].text] <= scores[widths[9].text]


@torch.inference_mode()
def test_a_beam_answers_each_question_by_itself(tiny_vlm: Any, x_v: Tensor) -> None:
    prefix, rules = tiny_vlm.prefix(x_v), grammar(tiny_vlm)
    together = tiny_vlm.answer(prefix, ROWS, PROMPTS, rules, None, 3)
    for row, prompt, answer in zip(ROWS, PROMPTS, together, strict=True):
        assert tiny_vlm.answer(prefix, [row], [prompt], rules, None, 3)[0].text == answer.text
