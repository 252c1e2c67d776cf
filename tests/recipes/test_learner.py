"""The LoRA's trainer on a Llama of two layers: a killed stage goes on, and weights that are written come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wherein.errors import InputError
from wherein.vlm.branches import Branch

STEPS, STYLE, SETTINGS = 6, 0.06, {"seed": 0}


@pytest.fixture
def learner(recipe: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("peft")
    module = recipe("learner")
    monkeypatch.setattr(module, "workers", lambda: 0)
    monkeypatch.setattr(module.checkpoint, "SAVE_AFTER", -1)
    return module


@pytest.fixture
def fresh(learner: ModuleType, tiny_vlm: Any) -> Callable[[int], Any]:
    """Make a learner whose first weights depend on the seed; the style path is the connector's last layer."""

    def made(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        vlm = type(tiny_vlm)()
        vlm.connector.add_module("style", nn.Linear(32, 32, bias=False))
        vlm.connector.requires_grad_(True)
        return learner.Learner(vlm)

    return made


def asking(learner: ModuleType, dies_at: float = float("inf")) -> Callable[[int], Any]:
    """A question about two images in each step, every third of made-up tokens; the step `dies_at` is not asked."""

    def make(step: int) -> Any:
        if step >= dies_at:
            raise KeyboardInterrupt
        generator, made_up = torch.Generator().manual_seed(step), step % 3 == 2
        images = torch.randn(2, 4, 32 if made_up else 8, generator=generator)
        rows = [[Branch((5, 6 + step), (9, 10 + row))] for row in range(2)]
        return learner.Asked(images, torch.tensor([[0, 2, 5, 7]] * 2), rows, made_up)

    return make


def never(step: int) -> Any:
    raise AssertionError("nothing is to be asked")


def test_a_stage_goes_on_where_it_was_killed(learner: ModuleType, fresh: Callable[..., Any], tmp_path: Path) -> None:
    straight, killed, resumed, again = (fresh() for _ in range(4))
    begun = [m.detach().clone() for m in straight.masters]
    straight.fit(asking(learner), STEPS, 1e-2, STYLE, tmp_path / "straight.pt", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(asking(learner, dies_at=4), STEPS, 1e-2, STYLE, tmp_path / "killed.pt", SETTINGS)
    resumed.fit(asking(learner), STEPS, 1e-2, STYLE, tmp_path / "killed.pt", SETTINGS)
    again.fit(never, STEPS, 1e-2, STYLE, tmp_path / "straight.pt", SETTINGS)  # it was finished
    for other in (resumed, again):
        assert same(straight.masters, other.masters) and same(straight.lora, other.lora)
        assert same(straight.vlm.connector.parameters(), other.vlm.connector.parameters())
    assert not same(straight.masters, begun)
    assert (tmp_path / "killed.log").read_text().startswith("killed 0/6 loss ")


def test_a_stage_of_other_settings_is_refused(learner: ModuleType, fresh: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "lookup.pt"
    fresh().fit(asking(learner), 2, 1e-2, 0, path, SETTINGS)
    with pytest.raises(InputError, match="seed 0, not 1"):
        fresh().fit(never, 2, 1e-2, 0, path, {"seed": 1})
    with pytest.raises(InputError, match="steps 2, not 3"):
        fresh().fit(never, 3, 1e-2, 0, path, SETTINGS)


def test_a_stage_of_no_steps_reads_and_writes_nothing(
    learner: ModuleType, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    fresh().fit(never, 0, 1e-2, STYLE, tmp_path / "captions.pt", SETTINGS)
    assert not [*tmp_path.iterdir()]
    fresh().fit(asking(learner), 2, 1e-2, STYLE, tmp_path / "captions.pt", SETTINGS)
    left = fresh()
    left.fit(never, 0, 1e-2, STYLE, tmp_path / "captions.pt", {"seed": 1})
    assert same(left.masters, fresh().masters)


def test_weights_that_were_written_come_back(learner: ModuleType, fresh: Callable[..., Any], tmp_path: Path) -> None:
    trained, other = fresh(), fresh(1)
    trained.fit(asking(learner), 3, 1e-2, STYLE, tmp_path / "captions.pt", SETTINGS)
    trained.export(tmp_path / "one.safetensors")
    assert not same(trained.masters, other.masters)
    other.load(tmp_path / "one.safetensors")
    assert same([m.bfloat16().float() for m in trained.masters], other.masters)
    connector = trained.vlm.connector.state_dict().values()
    assert same([value.bfloat16().float() for value in connector], other.vlm.connector.state_dict().values())
    other.export(tmp_path / "two.safetensors")
    one, two = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two  # a run goes on from weights by their SHA-256


def test_the_written_factors_are_what_the_lora_adds(
    learner: ModuleType, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    """B A, as the file has them, added to the weights gives what the model with its LoRA says."""
    trained = fresh()
    trained.fit(asking(learner), 3, 1e-2, STYLE, tmp_path / "captions.pt", SETTINGS)
    trained.export(tmp_path / "one.safetensors")
    state, ids = load_file(tmp_path / "one.safetensors"), torch.tensor([[1, 2, 3, 4]])
    plain = type(trained.vlm)().language_model
    with torch.no_grad():
        before = plain(ids).logits
        for key in (key.removesuffix(".A") for key in state if key.endswith(".A")):
            plain.get_parameter(key).add_(state[f"{key}.B"].float() @ state[f"{key}.A"].float())
        after, wanted = plain(ids).logits, trained.vlm.language_model(ids).logits
    torch.testing.assert_close(after, wanted, atol=0.02 * float((wanted - before).abs().max()), rtol=0)


def same(some: Any, others: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
