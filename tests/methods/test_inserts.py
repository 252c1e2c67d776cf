"""What every insert must do, on the tiny model and on every family it goes into: off is the base, only it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein import methods
from wherein.errors import AdapterError, InputError
from wherein.methods import adapter
from wherein.methods.base import REGISTRY
from wherein.methods.coop import LearnedWords
from wherein.methods.insert import Inserted
from wherein.training.adapters import trainable
from wherein.training.boxes import RECIPES, BoxTask
from wherein.training.store import FeatureStore, Labelled
from wherein.vlm.hf import HFVLM

NAMES = trainable()
PHRASES = ["the dog", "a red mug"]


def source(i: int) -> Labelled:
    """A bright square on grey, at one of a few places."""
    image = np.full((80, 80, 3), 90, np.uint8)
    x, y = 10 + 10 * (i % 4), 10 + 10 * (i // 4 % 4)
    image[y : y + 30, x : x + 30] = (250, 200, 40)
    return Labelled(image, (("square", np.array([x, y, x + 30, y + 30], float)),))


def begin(name: str, vlm: Any) -> Any:
    torch.manual_seed(0)
    try:
        return REGISTRY[name].begin(vlm, "default" if vlm.keeps_cells else "paper")  # type: ignore[attr-defined]
    except InputError as refused:
        pytest.skip(str(refused))


def learns(name: str, vlm: Any, folder: Path) -> None:
    """Against the gradient the loss falls; it reaches the insert only, and the encoder's modules are what they were."""
    insert = begin(name, vlm)
    store = FeatureStore(folder, vlm, source, 4, {}).build()
    recipe = replace(RECIPES["default" if vlm.keeps_cells else "paper"], batch=4, cells=1.0)
    task = BoxTask(vlm, insert, recipe, store, store, ("square", "circle"), 0)
    every = [*vlm.parameters(), *vlm.encoder_blocks.parameters()]
    modules = [type(module) for module in vlm.encoder_blocks.modules()]
    before = task.loss(9, 10)
    before.backward()  # type: ignore[no-untyped-call]
    assert not any(p.requires_grad or p.grad is not None for p in every)
    assert [type(module) for module in vlm.encoder_blocks.modules()] == modules
    weights = dict(insert.named_parameters())
    reached = [p for p in weights.values() if p.grad is not None and p.grad.any()]
    # At its start half of LoRA is behind zeros, and LLaVA does not read the last block.
    assert len(reached) * 3 >= len(weights)
    length, start = sum(float(p.grad.norm() ** 2) for p in reached) ** 0.5, [p.detach().clone() for p in reached]
    losses = []
    with torch.no_grad():
        for step in (1.0, 0.3, 0.1, 0.03, 0.01):
            for p, was in zip(reached, start, strict=True):
                p.copy_(was - step * p.grad / length)
            losses.append(float(task.loss(9, 10)))
    assert min(losses) < float(before.detach())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_insert_learns(name: str, tiny_vlm: Any, tmp_path: Path) -> None:
    learns(name, tiny_vlm, tmp_path)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"pin"}))
def test_only_the_insert_learns_in_every_family(name: str, vlm: HFVLM, tmp_path: Path) -> None:
    learns(name, vlm, tmp_path)


def changes(method: Inserted, image: NDArray[np.uint8]) -> None:
    """Inside the block a question goes otherwise; outside it, also after an error, as without: bit for bit."""
    vlm: Any = method.vlm
    pixels, frames = vlm.prepare([image])

    def states(on: bool) -> torch.Tensor:
        x_v = method.insert.encode(vlm, pixels) if on else vlm.features(pixels)
        prompt = (method.insert.lead(vlm) if on else "") + " a cat"
        prefix = vlm.prefix(x_v, frames)
        return vlm.loss(prefix, [[Branch((), tuple(vlm.encode(prompt + " is")))]])[1][-1:]

    from wherein.vlm.branches import Branch

    with torch.inference_mode():
        base = states(on=False)
        with method.install(frames[0]):
            assert not torch.equal(states(on=True), base)
        with pytest.raises(KeyError), method.install(frames[0]):
            raise KeyError
        method.ground(image, PHRASES)
        assert torch.equal(states(on=False), base)


@pytest.mark.parametrize("name", NAMES)
def test_off_is_the_base(name: str, tiny_vlm: Any, save_insert: Callable[..., Path], image: NDArray[np.uint8]) -> None:
    changes(methods.create(name, tiny_vlm, save_insert(name, tiny_vlm)), image)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"pin"}))
def test_off_is_the_base_of_every_family(
    name: str, vlm: HFVLM, save_insert: Callable[..., Path], image: NDArray[np.uint8]
) -> None:
    changes(methods.create(name, vlm, save_insert(name, vlm)), image)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_answers_alike(
    name: str, tiny_vlm: Any, tmp_path: Path, image: NDArray[np.uint8], save_insert: Callable[..., Path]
) -> None:
    first: Any = methods.create(name, tiny_vlm, save_insert(name, tiny_vlm))
    again = adapter.save(tmp_path / "b", name, tiny_vlm, first.config.to_dict(), first.insert.state_dict(), "# b\n")
    second = methods.create("auto", tiny_vlm, again)
    assert second.name == name
    assert [g.to_dict() for g in second.ground(image, PHRASES)] == [g.to_dict() for g in first.ground(image, PHRASES)]


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_another_kind_are_refused(name: str, tiny_vlm: Any, save_insert: Callable[..., Path]) -> None:
    folder = save_insert(name, tiny_vlm)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"codec"', '"kodec"'))
    with pytest.raises(AdapterError, match="kodec"):
        methods.create(name, tiny_vlm, folder)


WHOLE = {"coop": "tokens", "vpt": "tokens", "vpt_encoder": "tokens", "lora": "rank", "pin": "rows"}


@pytest.mark.parametrize("name", NAMES)
def test_damaged_numbers_are_refused(name: str, tiny_vlm: Any, save_insert: Callable[..., Path]) -> None:
    """16.0 rows are no number of rows, and what is absent with a scale of NaN is no probability."""
    config = save_insert(name, tiny_vlm) / "adapter_config.json"
    about = json.loads(config.read_text())
    whole = about["config"][WHOLE[name]]
    for changed, sentence in (
        ({WHOLE[name]: float(whole)}, f"^{WHOLE[name]} is a whole number of at least 1; got {whole}.0.$"),
        ({WHOLE[name]: True}, "whole number of at least 1; got True"),
        ({"beams": 2.5}, "^beams is a whole number"),
        ({"beams": 0}, "^beams is a whole number"),
        ({"beams": "3"}, "^beams is a whole number"),
        ({"absent_scale": math.nan}, "absent_scale and absent_shift are finite numbers"),
        ({"absent_shift": -math.inf}, "absent_scale and absent_shift are finite numbers"),
        ({"absent_shift": 10**400}, "absent_scale and absent_shift are finite numbers"),
        ({"absent_scale": True}, "absent_scale and absent_shift are finite numbers"),
    ):
        config.write_text(json.dumps({**about, "config": {**about["config"], **changed}}))
        with pytest.raises(AdapterError, match=sentence):
            methods.create(name, tiny_vlm, config.parent)
    config.write_text(json.dumps({**about, "config": {**about["config"], "absent_scale": 2}}))
    methods.create(name, tiny_vlm, config.parent)


@pytest.mark.parametrize("name", ["coop", "vpt"])
def test_another_width_is_refused(name: str, tiny_vlm: Any, save_insert: Callable[..., Path]) -> None:
    folder = save_insert(name, tiny_vlm)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"width": ', '"width": 1'))
    with pytest.raises(AdapterError, match="width|fit"):
        methods.create(name, tiny_vlm, folder)


def test_learned_words_stand_before_the_question_only(tiny_vlm: Any) -> None:
    """What the language model reads: the words where the placeholders were, everything else as it was."""
    insert: LearnedWords = begin("coop", tiny_vlm)
    seen: list[torch.Tensor] = []
    prompt = tiny_vlm.encode(insert.lead(tiny_vlm) + " a cat")
    other = tiny_vlm.encode(" a much longer question that has none of them at its front")
    rows = [prompt + [0] * (len(other) - len(prompt)), other]
    embed = tiny_vlm.language_model.get_input_embeddings()
    plain = embed(torch.tensor(rows))
    with insert.installed(tiny_vlm), tiny_vlm.seam("prompt_tokens", lambda x: seen.append(x)):
        embed(torch.tensor(rows))
        embed(torch.tensor([[tiny_vlm.tokenizer.eos_token_id]]))
    filled, alone = seen
    count = insert.config.tokens
    assert torch.equal(filled[0, :count], insert.tokens)
    assert torch.equal(filled[0, count:], plain[0, count:]) and torch.equal(filled[1], plain[1])
    assert torch.equal(alone, embed(torch.tensor([[tiny_vlm.tokenizer.eos_token_id]])))


def test_parameters_of_the_published_sizes() -> None:
    """SPEC 1.6: 16 words of width 2048, 100 rows of width 1024."""
    from wherein.methods.coop import CoopConfig
    from wherein.methods.vpt.method import FurtherRows, VptConfig

    assert sum(p.numel() for p in LearnedWords(CoopConfig(2048)).parameters()) == 32_768
    assert sum(p.numel() for p in FurtherRows(VptConfig(1024)).parameters()) == 102_400


def test_lora_on_every_linear_layer_of_a_clip_vit_l() -> None:
    """q, k, v, out, fc1 and fc2 of 24 blocks, rank 16: 7,077,888, and 6,291,456 where q, k and v are one layer."""
    from torch import nn

    from wherein.methods.lora.method import LoraConfig, LowRank

    def block(fused: bool) -> nn.Module:
        attention = [nn.Linear(1024, 3072)] if fused else [nn.Linear(1024, 1024) for _ in range(3)]
        return nn.Sequential(*attention, nn.Linear(1024, 1024), nn.Linear(1024, 4096), nn.Linear(4096, 1024))

    for fused, count in ((True, 6_291_456), (False, 7_077_888)):
        with torch.device("meta"):
            blocks = block(fused)
        assert 24 * sum(p.numel() for p in LowRank(LoraConfig(), blocks).parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_two_threads_with_two_inserts_on_one_model_take_turns(
    name: str, tiny_vlm: Any, tmp_path: Path, save_insert: Callable[..., Path], image: NDArray[np.uint8]
) -> None:
    """Each answers as if it were alone, the untouched model's `text` and caption among them."""
    one: Any = methods.create(name, tiny_vlm, save_insert(name, tiny_vlm))
    weights = {key: value + 0.1 for key, value in one.insert.state_dict().items()}
    other = adapter.save(tmp_path / "other", name, tiny_vlm, one.config.to_dict(), weights, "# b\n")
    every = [one, methods.create(name, tiny_vlm, other), methods.create("text", tiny_vlm)]
    wrong: list[int] = []

    def said(i: int) -> list[Any]:
        if i == len(every):
            return tiny_vlm.caption([image], 8)  # type: ignore[no-any-return]
        return [grounding.to_dict() for grounding in every[i].ground(image, PHRASES)]

    alone = [said(i) for i in range(len(every) + 1)]

    def ask(i: int) -> None:
        for _ in range(8):
            if said(i) != alone[i]:
                wrong.append(i)

    threads = [Thread(target=ask, args=(i,)) for i in range(len(alone))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_baselines_of_the_released_sizes(tiny_vlm: Any) -> None:
    """SPEC 1.10: 20 image tokens, rank 8."""
    from wherein.methods.lora.method import Lora
    from wherein.methods.vpt.method import Vpt

    sizes = {"paper": (100, 16), "released": (20, 8)}
    for preset, (tokens, rank) in sizes.items():
        assert Lora.begin(tiny_vlm, preset).config.rank == rank
        if tiny_vlm.takes_rows:
            assert Vpt.begin(tiny_vlm, preset).config.tokens == tokens
