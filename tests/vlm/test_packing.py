"""A packed sequence gives exactly what separate passes would, and a branch never sees another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from wherein.vlm.packing import Branch, pack

SHARED = (5, 6)
# Two images, asked three things and one: branches of different lengths, so that the second row is padded.
BATCH = (
    (Branch((7, 8), (9, 10, 11)), Branch((12,), (13,)), Branch((14, 15, 16), (17, 18))),
    (Branch((20, 21), (22, 23)),),
)


@pytest.fixture
def x_v(tiny_vlm: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rows, columns = tiny_vlm.grid
    return torch.randn(2, rows * columns, tiny_vlm.feature_dim, generator=generator)


def losses(vlm: Any, x_v: Tensor, batch: Any) -> Tensor:
    return vlm.loss(x_v, pack(x_v.shape[1], SHARED, batch))[1]


def alone(vlm: Any, x_v: Tensor, branch: Branch) -> Tensor:
    """The losses of one branch about one image, from an ordinary causal pass over an ordinary sequence."""
    text = [*SHARED, *branch.context, *branch.target]
    embeds = torch.cat([vlm.tokens(x_v[None]), vlm.language_model.get_input_embeddings()(torch.tensor([text]))], dim=1)
    likely = vlm.language_model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    first = embeds.shape[1] - len(branch.target)
    return torch.stack([-likely[first + i - 1, token] for i, token in enumerate(branch.target)])


def test_packed_losses_are_those_of_separate_passes(tiny_vlm: Any, x_v: Tensor) -> None:
    separate = [alone(tiny_vlm, x_v[i], branch) for i, branches in enumerate(BATCH) for branch in branches]
    torch.testing.assert_close(losses(tiny_vlm, x_v, BATCH), torch.cat(separate), atol=1e-5, rtol=1e-5)


def test_the_mean_weighs_each_token(tiny_vlm: Any, x_v: Tensor) -> None:
    weighted = Branch((7, 8), (9, 10), (3.0, 0.5))
    mean, _ = tiny_vlm.loss(x_v[:1], pack(x_v.shape[1], SHARED, [[weighted, BATCH[1][0]]]))
    a, b = alone(tiny_vlm, x_v[0], weighted), alone(tiny_vlm, x_v[0], BATCH[1][0])
    expected = (3 * a[0] + 0.5 * a[1] + b.sum()) / (3 + 0.5 + 2)
    torch.testing.assert_close(mean, expected, atol=1e-5, rtol=1e-5)


def test_a_branch_never_sees_another(tiny_vlm: Any, x_v: Tensor) -> None:
    first, second, third = BATCH[0]
    before = losses(tiny_vlm, x_v, BATCH)
    after = losses(tiny_vlm, x_v, ((first, Branch((40,), (41,)), third), BATCH[1]))
    assert torch.equal(before[[0, 1, 2, 4, 5, 6, 7]], after[[0, 1, 2, 4, 5, 6, 7]])
    assert before[3] != after[3]


def test_a_token_sees_no_later_one(tiny_vlm: Any, x_v: Tensor) -> None:
    longer = Branch((7, 8), (9, 10, 12))
    before, after = losses(tiny_vlm, x_v[:1], [[BATCH[0][0]]]), losses(tiny_vlm, x_v[:1], [[longer]])
    assert torch.equal(before[:2], after[:2]) and before[2] != after[2]


def test_only_answer_tokens_count(tiny_vlm: Any, x_v: Tensor) -> None:
    """PIN-4: whatever a prompt's tokens are labelled or weighed with, only the answer's tokens are in the loss."""
    packed = pack(x_v.shape[1], SHARED, BATCH)
    answers = [list(branch.target) for branches in BATCH for branch in branches]
    assert packed.labels[packed.labels >= 0].tolist() == sum(answers, [])
    before, tokens = tiny_vlm.loss(x_v, packed)
    assert len(tokens) == sum(map(len, answers))
    prompt = packed.labels < 0
    for labels, weights in ((-1, 0.0), (-100, 7.0), (-7, 1.0)):
        changed = replace(
            packed,
            labels=packed.labels.masked_fill(prompt, labels),
            weights=packed.weights.masked_fill(prompt, weights),
        )
        assert torch.equal(tiny_vlm.loss(x_v, changed)[0], before)


def test_the_layout_of_a_row() -> None:
    packed = pack(2, (5,), [[Branch((7, 8), (9,), (0.5,)), Branch((10,), (11, 12))]])
    assert packed.ids.tolist() == [[5, 7, 8, 9, 10, 11, 12]]
    assert packed.labels.tolist() == [[-100, -100, 9, -100, 11, 12, -100]]
    assert packed.weights.tolist() == [[0, 0, 0.5, 0, 1, 1, 0]]
    assert packed.branch.tolist() == [[0, 1, 1, 1, 2, 2, 2]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4, 5]]  # each branch goes on behind the shared text
    seen = [[int(key) for key in row.nonzero()] for row in packed.mask[0, 0]]
    shared = [0, 1, 2]
    assert seen[:3] == [[0], [0, 1], shared]
    assert seen[3:6] == [[*shared, 3], [*shared, 3, 4], [*shared, 3, 4, 5]]
    assert seen[6:] == [[*shared, 6], [*shared, 6, 7], [*shared, 6, 7, 8]]


def test_padding_is_neither_seen_nor_learnt() -> None:
    packed = pack(2, SHARED, BATCH)
    padding = packed.branch[1] < 0
    assert padding.sum() == packed.ids.shape[1] - len(SHARED) - 4
    assert (packed.labels[1][padding] == -100).all()
    columns = torch.cat([torch.zeros(2, dtype=torch.bool), padding])
    seen = packed.mask[1, 0][:, columns]
    assert seen.sum() == columns.sum()  # only by itself: a row that sees nothing would be undefined


def test_a_branch_without_context_starts_behind_the_shared_text(tiny_vlm: Any, x_v: Tensor) -> None:
    start, other = Branch((), (20, 21), (0.5, 1.0)), Branch((7,), (9,))
    separate = [alone(tiny_vlm, x_v[0], branch) for branch in (start, other)]
    torch.testing.assert_close(losses(tiny_vlm, x_v[:1], [[start, other]]), torch.cat(separate), atol=1e-5, rtol=1e-5)
    assert pack(2, (5,), [[start, other]]).weights.tolist() == [[0.5, 1, 0, 1, 0]]


@pytest.mark.parametrize(("shared", "branches"), [((), 1), (SHARED, 2)])
def test_an_answer_needs_something_of_its_own_before_it(shared: tuple[int, ...], branches: int) -> None:
    with pytest.raises(ValueError, match="without context"):
        pack(2, shared, [[Branch((), (1, 2))] * branches])
