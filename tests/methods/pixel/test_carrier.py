"""Words that come along from cells to visual tokens."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel

from wherein.errors import InputError
from wherein.methods.pixel.carrier import Carrier
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.prompts import Prompts

CELLS = 25


@pytest.fixture
def connector() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(24, 32)


@pytest.fixture
def carrying(tiny: ModuleType, connector: nn.Linear) -> PixelLM:
    torch.manual_seed(0)
    config = tiny.tiny_config("decoder", sam_encodes=False, vision_trains=False, carries=True)
    return PixelLM(config, connector=connector).eval()


def visual(model: PixelLM, features: torch.Tensor) -> torch.Tensor:
    return model.visual([features], torch.arange(len(features)), Prompts.whole(torch.full((len(features), 2), 64.0)))


def test_a_token_that_looks_at_one_cell_gets_its_words() -> None:
    """Keys say only where a cell is, and each token asks for one place, loudly."""
    carrier, places, words = Carrier(6, 4, 6), torch.eye(6), torch.randn(2, 6, 5)
    with torch.no_grad():
        for layer in (carrier.query, carrier.image, carrier.place):
            layer.weight.zero_()
            layer.bias.zero_()
        carrier.query.weight[:6] = 40 * torch.eye(6)
        carrier.place.weight[:6] = 40 * torch.eye(6)
    asked = torch.eye(6)[[3, 0]].expand(2, -1, -1)
    carried = carrier(asked, torch.randn(2, 6, 4), places, words, torch.ones(2, 6))
    torch.testing.assert_close(carried, words[:, [3, 0]])


def test_an_untrained_carrier_brings_a_mean_of_what_is_there() -> None:
    torch.manual_seed(0)
    words = torch.ones(1, 7, 5) * torch.arange(5.0)
    carried = Carrier(6, 4, 3)(torch.randn(1, 2, 6), torch.randn(1, 7, 4), torch.randn(7, 3), words, torch.rand(1, 7))
    torch.testing.assert_close(carried[0], words[0, :2])


def test_an_untrained_carrier_looks_at_the_place_that_is_asked_about(carrying: PixelLM) -> None:
    """Of 25 cells, the words of the one in the box are most of what comes along."""
    carrying.connector = lambda x_v: torch.eye(CELLS, 32).expand(len(x_v), -1, -1)  # type: ignore[assignment]
    with torch.no_grad():
        carrying.to_words[1].weight.zero_()  # type: ignore[operator]
        features = torch.randn(1, CELLS, 24)
        box = Prompts(boxes=torch.tensor([[25.6, 12.8, 38.4, 25.6]]))  # of 64 pixels: column 2, row 1
        point = Prompts(points=torch.tensor([[[32.0, 19.2]]]))
        for place in (box, point):
            carried = carrying.visual([features], torch.tensor([0]), place)[0]
            assert (carried.argmax(-1) == 7).all() and (carried.amax(-1) > 0.4).all()


def test_visual_tokens_are_the_extractor_s_and_the_words(carrying: PixelLM, connector: nn.Linear) -> None:
    features = torch.randn(2, CELLS, 24)
    with torch.no_grad():
        before = visual(carrying, features)
        connector.bias.add_(3)
        torch.testing.assert_close(visual(carrying, features), before + 3)  # a mean of words rises as they all do


def test_the_connector_is_not_a_part_and_not_trained(carrying: PixelLM, connector: nn.Linear) -> None:
    assert {p.data_ptr() for p in connector.parameters()}.isdisjoint(p.data_ptr() for p in carrying.parameters())
    visual(carrying, torch.randn(2, CELLS, 24)).square().sum().backward()
    assert connector.weight.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in carrying.carrier.query.parameters())
    assert {"carrier/query/weight", "carrier/image/weight", "carrier/place/weight"} <= set(carrying.trained())


def test_words_need_a_connector(tiny: ModuleType) -> None:
    with pytest.raises(InputError, match="carries words from a connector: build it with one"):
        PixelLM(tiny.tiny_config("decoder", sam_encodes=False, carries=True))


@pytest.mark.parametrize("kind", [PixelLM, AutoModel])
def test_saved_and_loaded_with_its_connector(
    carrying: PixelLM, connector: nn.Linear, tmp_path: Path, kind: Any
) -> None:
    carrying.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, connector=connector).eval()
    features = torch.randn(2, CELLS, 24)
    torch.testing.assert_close(visual(loaded, features), visual(carrying, features))
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in carrying.state_dict().items())
    assert loaded.trained().keys() == carrying.trained().keys()
    with pytest.raises(InputError, match=r"load it with from_pretrained\(folder, connector=...\)"):
        kind.from_pretrained(tmp_path)


def test_words_are_of_one_encoder_s_cells(tiny: ModuleType, connector: nn.Linear) -> None:
    with pytest.raises(InputError, match="one vision encoder's cells"):
        PixelLM(tiny.tiny_config("decoder", carries=True), connector=connector)


def test_without_a_carrier_nothing_is_added(tiny: ModuleType) -> None:
    """The published model has none, and no parameters for one."""
    model = PixelLM(tiny.tiny_config("decoder", sam_encodes=False))
    assert model.connector is None and not any("carrier" in name for name, _ in model.named_parameters())
