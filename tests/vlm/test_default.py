"""The built-in model: which dtype it takes by itself, that it is one model in either, and what its texts end with."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from wherein import images
from wherein.checkpoints import fast_in
from wherein.errors import InputError
from wherein.methods import create
from wherein.vlm import default, load_vlm
from wherein.vlm.base import FrozenVLM

BOTH = (torch.float32, torch.bfloat16)


@pytest.fixture(scope="module")
def other(default_vlm: FrozenVLM) -> FrozenVLM:
    """The built-in model in the dtype that it does not take here."""
    (dtype,) = {*BOTH} - {default_vlm.dtype}
    return load_vlm("default", str(default_vlm.device), dtype=str(dtype).removeprefix("torch."))


def test_by_itself_it_takes_what_the_device_is_fast_in(default_vlm: FrozenVLM) -> None:
    assert default_vlm.dtype == BOTH[fast_in(torch.bfloat16, default_vlm.device)]


def test_it_is_one_model_in_either_dtype(default_vlm: FrozenVLM, other: FrozenVLM) -> None:
    """The same weights, and so the same adapters; answers differ by rounding."""
    assert other.dtype != default_vlm.dtype and other.fingerprint == default_vlm.fingerprint
    pairs = zip(default_vlm.named_parameters(), other.named_parameters(), strict=True)
    assert all(torch.equal(one.float(), two.float()) for (_, one), (_, two) in pairs)
    photo = images.load(Path(str(files("wherein"))) / "examples" / "coffee.jpg")
    for method in ("cam", "pin"):
        ((one,), (two,)) = (create(method, vlm).ground(photo, ["the cup"]) for vlm in (default_vlm, other))
        assert np.abs(one.boxes - two.boxes).max() < 16 and abs(one.scores[0] - two.scores[0]) < 0.06, method
        assert one.absent == two.absent


@pytest.mark.parametrize("given", [{"dtype": "float16"}, {"dtype": "float8"}, {"bits": 4}, {"size": 224}])
def test_what_it_does_not_do_is_a_sentence(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="^The default model runs in float32 or bfloat16, at 448 pixels: "):
        load_vlm("default", "cpu", **given)


def test_a_text_ends_with_the_end_of_a_turn_whatever_the_file_says(
    default_vlm: FrozenVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_vlm.tokenizer.save_pretrained(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "<|im_start|>"}))
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 1
    monkeypatch.setattr(default.parts, "converted", lambda *given: tmp_path)
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", lambda *given, **more: None)
    assert default._language_model()[1].eos_token_id == default_vlm.tokenizer.eos_token_id == 2
