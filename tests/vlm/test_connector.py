"""The default model's connector against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from wherein.vlm.connector import Connector, embed

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


def test_an_untrained_one_asks_what_the_classifier_says(connector: Connector, words: tuple[Tensor, Tensor]) -> None:
    cell = torch.randn(FEATURES)
    logits = [float(connector.classifier_weight[c] @ cell + connector.classifier_bias[c]) for c in range(CLASSES)]
    expected = torch.zeros(WIDTH)
    for p, word in zip(softmax([value / math.exp(0.7) for value in logits]), words[0], strict=True):
        expected = expected + 2.0 * (p - 1 / CLASSES) * word
    torch.testing.assert_close(connector.query(cell[None, None])[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_a_token_is_the_mixture_of_the_names_it_chooses(connector: Connector, words: tuple[Tensor, Tensor]) -> None:
    x = torch.randn(1, 1, FEATURES)
    query, names = connector.query(x)[0, 0].detach(), words[1]
    mean = names.mean(0)
    chosen = softmax([2.0 * float(query @ (name - mean)) for name in names] + [4.0])
    style = connector.style.weight.detach() @ connector.norm(x)[0, 0].detach()
    expected = mean + style
    for p, name in zip(chosen, names, strict=False):
        expected = expected + p * (name - mean)
    torch.testing.assert_close(connector(x)[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_choices_are_probabilities(connector: Connector) -> None:
    chosen = connector.choices(connector.query(torch.randn(2, 3, FEATURES)))
    assert chosen.shape == (2, 3, NAMES + 1) and chosen.dtype == torch.float32
    torch.testing.assert_close(chosen.exp().sum(-1), torch.ones(2, 3))


def test_saves_only_what_is_its_own(connector: Connector) -> None:
    assert set(connector.state_dict()) == {name for name, _ in connector.named_parameters()}


def test_every_parameter_can_learn(connector: Connector) -> None:
    for layer in (connector.outer, connector.skip):
        nn.init.normal_(layer.weight)  # the last layers start at zero and would hide what lies before them
    connector(torch.randn(1, 2, FEATURES)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in connector.parameters())


def test_a_name_is_the_mean_of_its_tokens() -> None:
    table = torch.randn(26, 3)
    got = embed(["ab", "c"], lambda text: [ord(letter) - ord("a") for letter in text[1:]], table)
    torch.testing.assert_close(got, torch.stack([(table[0] + table[1]) / 2, table[2]]))
