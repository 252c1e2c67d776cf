"""Questions that continue from one prefix are answered exactly as in separate passes, and never see each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wherein.vlm.branches import Branch, lay_out
from wherein.vlm.prefix import Continuation

# Two images, asked three things and one: branches of different lengths, so that rows are padded.
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
    return vlm.loss(vlm.prefix(x_v), batch)[1]


def alone(vlm: Any, x_v: Tensor, branch: Branch) -> Tensor:
    """The losses of one branch about one image, from an ordinary causal pass over an ordinary sequence."""
    text = [*vlm.encode(vlm.shared_prompt), *branch.context, *branch.target]
    embeds = torch.cat([vlm.tokens(x_v[None]), vlm.language_model.get_input_embeddings()(torch.tensor([text]))], dim=1)
    likely = vlm.language_model(inputs_embeds=embeds).logits[0].log_softmax(-1)
    first = embeds.shape[1] - len(branch.target)
    return torch.stack([-likely[first + i - 1, token] for i, token in enumerate(branch.target)])


def test_losses_are_those_of_separate_passes(tiny_vlm: Any, x_v: Tensor) -> None:
    separate = [alone(tiny_vlm, x_v[i], branch) for i, branches in enumerate(BATCH) for branch in branches]
    torch.testing.assert_close(losses(tiny_vlm, x_v, BATCH), torch.cat(separate), atol=1e-5, rtol=1e-5)


def test_the_mean_weighs_each_token(tiny_vlm: Any, x_v: Tensor) -> None:
    weighted = Branch((7, 8), (9, 10), (3.0, 0.5))
    mean, _ = tiny_vlm.loss(tiny_vlm.prefix(x_v[:1]), [[weighted, BATCH[1][0]]])
    a, b = alone(tiny_vlm, x_v[0], weighted), alone(tiny_vlm, x_v[0], BATCH[1][0])
    expected = (3 * a[0] + 0.5 * a[1] + b.sum()) / (3 + 0.5 + 2)
    torch.testing.assert_close(mean, expected, atol=1e-5, rtol=1e-5)


def test_a_branch_never_sees_another(tiny_vlm: Any, x_v: Tensor) -> None:
    first, second, third = BATCH[0]
    before = losses(tiny_vlm, x_v, BATCH)
    after = losses(tiny_vlm, x_v, ((first, Branch((40,), (41,)), third), BATCH[1]))
    kept = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(before[kept], after[kept], atol=1e-6, rtol=1e-6)
    assert before[3] != after[3]


def test_a_token_sees_no_later_one(tiny_vlm: Any, x_v: Tensor) -> None:
    longer = Branch((7, 8), (9, 10, 12))
    before, after = losses(tiny_vlm, x_v[:1], [[BATCH[0][0]]]), losses(tiny_vlm, x_v[:1], [[longer]])
    assert torch.equal(before[:2], after[:2]) and before[2] != after[2]


def test_only_answer_tokens_count() -> None:
    """PIN-4: a prompt's tokens are in no label and have no weight."""
    flat = [branch for branches in BATCH for branch in branches]
    chunks, labels, weights = lay_out(flat)
    assert labels[labels >= 0].tolist() == [token for branch in flat for token in branch.target]
    assert (weights[labels < 0] == 0).all() and (weights[labels >= 0] == 1).all()
    assert chunks == [[*branch.context, *branch.target[:-1]] for branch in flat]


def test_a_branch_without_context_starts_behind_the_shared_text(tiny_vlm: Any, x_v: Tensor) -> None:
    rows = [Branch((), (20, 21), (0.5, 1.0)), Branch((), (30,)), Branch((7,), (9,))]
    separate = [alone(tiny_vlm, x_v[0], branch) for branch in rows]
    torch.testing.assert_close(losses(tiny_vlm, x_v[:1], [rows]), torch.cat(separate), atol=1e-5, rtol=1e-5)
    single = [[Branch((), (30,))]]
    torch.testing.assert_close(losses(tiny_vlm, x_v[:1], single), separate[1], atol=1e-5, rtol=1e-5)


def test_a_prefix_is_left_as_it_was(tiny_vlm: Any, x_v: Tensor) -> None:
    with torch.inference_mode():
        prefix = tiny_vlm.prefix(x_v)
        fresh = Continuation(prefix, [0, 1]).feed([[5, 6], [7]])
        other = Continuation(prefix, [1, 0, 1])
        other.feed([[9], [10, 11], []])
        assert torch.equal(Continuation(prefix, [0, 1]).feed([[5, 6], [7]]), fresh)
        assert prefix.cache.get_seq_length() == prefix.length


def test_a_prefix_goes_on_where_a_continuation_came(tiny_vlm: Any, x_v: Tensor) -> None:
    with torch.inference_mode():
        steps = Continuation(tiny_vlm.prefix(x_v), [0, 1])
        steps.feed([[5, 6], [7, 8]])
        further = Continuation(steps.reached(), [1, 0]).feed([[9], [10]])
        whole = Continuation(tiny_vlm.prefix(x_v), [1, 0]).feed([[7, 8, 9], [5, 6, 10]])
        torch.testing.assert_close(further, whole, atol=1e-5, rtol=1e-5)
