"""The default model's connector against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from wherein.vlm.connector import ALONE, DOUBT, LOUD, NAME, NOTHING, SHARE, Connector, embed, likely

FEATURES, CLASSES, NAMES, WIDTH = 6, 5, 7, 4


@pytest.fixture
def words() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CLASSES, WIDTH, generator=generator), torch.randn(NAMES, WIDTH, generator=generator)


@pytest.fixture
def connector(words: tuple[Tensor, Tensor]) -> Connector:
    torch.manual_seed(0)
    return Connector(nn.Linear(FEATURES, CLASSES), *words)


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def test_keeps_the_order_and_number_of_tokens(connector: Connector) -> None:
    x = torch.randn(2, 3, FEATURES)
    out = connector(x)
    assert out.shape == (2, 3, WIDTH)
    torch.testing.assert_close(connector(x.flip(1)), out.flip(1))


def test_an_untrained_one_says_what_the_classifier_says(connector: Connector, words: tuple[Tensor, Tensor]) -> None:
    cell = torch.randn(FEATURES)
    logits = [float(connector.classifier_weight[c] @ cell + connector.classifier_bias[c]) for c in range(CLASSES)]
    expected = torch.tensor([*logits, *[NAME] * NAMES, NOTHING])
    torch.testing.assert_close(connector.evidence(cell[None, None])[0, 0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(connector.seen(cell[None, None])[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_what_is_learnt_is_added_to_it(connector: Connector, words: tuple[Tensor, Tensor]) -> None:
    """The learnt part is a vector that each word is compared with; nothing stays where it is."""
    x, every = torch.randn(1, 1, FEATURES), torch.cat(words)
    nn.init.normal_(connector.skip.weight)
    learnt = connector.skip.weight.detach() @ connector.norm(x)[0, 0].detach()
    seen = connector.seen(x)[0, 0].tolist()
    rises = [2.0 * float(learnt @ (word - every.mean(0))) for word in every] + [0.0]
    expected = torch.tensor([a + b for a, b in zip(seen, rises, strict=True)])
    torch.testing.assert_close(connector.evidence(x)[0, 0], expected, atol=1e-4, rtol=1e-4)


def test_a_token_is_the_mixture_of_the_words_with_their_weights(
    connector: Connector, words: tuple[Tensor, Tensor]
) -> None:
    x, every = torch.randn(1, 3, FEATURES), torch.cat(words)
    mean = every.mean(0)
    tokens, weights = connector(x)[0], connector.weights(x)[0].detach()
    for cell, token, own in zip(x[0], tokens, weights, strict=True):
        expected = mean + connector.style.weight.detach() @ connector.norm(cell).detach()
        for weight, word in zip(own, every, strict=True):
            expected = expected + weight * (word - mean)
        torch.testing.assert_close(token, expected, atol=1e-5, rtol=1e-5)


def aloud(evidence: list[list[float]], words: Tensor, best: int) -> Tensor:
    """Class activation by its formula: each word times its probability for the whole image, scaled by the strongest."""
    heard = [sum(sorted(column)[-best:]) / best / DOUBT for column in zip(*evidence, strict=True)]
    raw = torch.tensor([[p * max(z, 0.0) for p, z in zip(softmax(heard), row, strict=True)] for row in evidence])
    return raw * LOUD / (raw @ words).norm(dim=1).max()


def test_a_word_weighs_as_much_as_the_encoder_sees_of_it_and_the_connector_has_learnt(connector: Connector) -> None:
    """All cells speak for a class; for what is learnt, those with most evidence of it; and each cell for itself."""
    nn.init.normal_(connector.skip.weight)
    x = torch.randn(2, 20, FEATURES)
    got, seen, learnt = connector.weights(x), connector.seen(x)[..., :-1], connector.evidence(x)
    for own, encoder, both in zip(got.unbind(0), seen.tolist(), learnt.tolist(), strict=True):
        named = [row[:-1] for row in both]
        expected = aloud(encoder, connector.words, best=20) + aloud(named, connector.words, best=round(SHARE * 20))
        expected += ALONE * torch.tensor([softmax(row)[:-1] for row in both])
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)


def test_an_image_that_shows_nothing_has_no_words(connector: Connector) -> None:
    """No class is active anywhere, and each cell is sure of nothing: no division by zero."""
    connector.classifier_bias.fill_(-1e4)
    assert (connector.weights(torch.randn(1, 3, FEATURES)).abs() < 1e-3).all()


def test_what_is_likely_is_a_distribution() -> None:
    found = likely(torch.randn(2, 3, 5), 0.5)
    assert found.shape == (2, 5) and found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2))


def test_saves_only_what_is_its_own(connector: Connector) -> None:
    assert set(connector.state_dict()) == {name for name, _ in connector.named_parameters()}


def test_every_parameter_can_learn(connector: Connector) -> None:
    for layer in (connector.outer, connector.skip):
        nn.init.normal_(layer.weight)  # the last layers start at zero and would hide what lies before them
    x = torch.randn(1, 2, FEATURES)
    (connector(x).square().sum() + connector.evidence(x).square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in connector.parameters())


def test_a_name_is_the_mean_of_its_tokens() -> None:
    table = torch.randn(26, 3)
    got = embed([[0, 1], [2]], table)
    torch.testing.assert_close(got, torch.stack([(table[0] + table[1]) / 2, table[2]]))
