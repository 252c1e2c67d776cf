"""From a folder to a model, and one sentence where that does not work. Every family goes through a saved folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wherein.errors import InputError
from wherein.vlm import load_vlm, loading
from wherein.vlm.hf import HFVLM

ROUND_TRIPS = ("llava", "qwen2_5_vl", "blip2", "idefics3", "smolvlm", "paligemma", "internvl")


@pytest.fixture(scope="module")
def saved(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`saved(name)`: the folder of a tiny model, as save_pretrained leaves it."""

    def save(name: str) -> tuple[HFVLM, Path]:
        vlm, folder = build(name), tmp_path_factory.mktemp(name)
        vlm.model.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)
        return vlm, folder

    return save


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_saved_model_is_loaded_as_it_was(saved: Any, name: str) -> None:
    vlm, folder = saved(name)
    again = load_vlm(str(folder), "cpu")
    assert type(again) is type(vlm) and again.size == vlm.size and again.name == str(folder)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    prepared = [each.prepare([image]) for each in (vlm, again)]
    with torch.no_grad():
        one, two = (v.prefix(v.features(p), frames) for v, (p, frames) in zip((vlm, again), prepared, strict=True))
    assert torch.equal(one.last, two.last)
    assert all(not p.requires_grad for p in again.parameters())


def test_a_dtype_is_kept(saved: Any) -> None:
    _, folder = saved("llava")
    assert load_vlm(str(folder), "cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert load_vlm(str(folder), "cpu").dtype == torch.float32
    with pytest.raises(InputError, match=r"'float8'.*bfloat16"):
        load_vlm(str(folder), "cpu", dtype="float8")
    with pytest.raises(InputError, match="4 or 8"):
        load_vlm(str(folder), "cpu", bits=3)


def test_a_short_dtype_is_left_on_a_cpu_that_is_slow_in_it_where_there_is_room(
    saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved("llava")
    short = load_vlm(str(folder), "cpu", dtype="bfloat16")
    short.model.save_pretrained(folder)
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "fast_in", lambda *_, fast=fast: fast)
        assert load_vlm(str(folder), "cpu").dtype == dtype
    assert load_vlm(str(folder), "cpu", dtype="bfloat16").dtype == torch.bfloat16
    monkeypatch.setattr(loading, "_free", lambda _: 3.0 * sum(p.numel() for p in short.model.parameters()))
    assert load_vlm(str(folder), "cpu").dtype == torch.bfloat16


def test_a_missing_checkpoint_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"configuration of 'nobody/nothing'.*HF_HUB_OFFLINE"):
        load_vlm("nobody/nothing", "cpu")
    monkeypatch.setattr("wherein.vlm.loading.HEADROOM", 0)
    with pytest.raises(InputError, match=r"weights of 'openflamingo/OpenFlamingo-3B-vitl-mpt1b'.*HF_HUB_OFFLINE"):
        load_vlm("openflamingo/OpenFlamingo-3B-vitl-mpt1b", "cpu")


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="configuration of .*model_type"):
        load_vlm(str(tmp_path), "cpu")


def test_text_only_and_unknown_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match="text only"):
        load_vlm(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "florence2"}))
    with pytest.raises(InputError, match=r"florence2.*families\.md"):
        load_vlm(str(tmp_path), "cpu")


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = saved("llava")
    monkeypatch.setattr("wherein.vlm.loading._size", lambda *_: 10**13)
    with pytest.raises(InputError, match=r"needs about \d+\.\d GiB.*--bits 4"):
        load_vlm(str(folder), "cpu")


def test_an_openflamingo_that_does_not_fit_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.vlm.loading.HEADROOM", 1e4)
    for dtype, needed in (("auto", 2558e6 * 4e4), ("bfloat16", 2558e6 * 2e4)):
        with pytest.raises(InputError, match=rf"needs about {needed / 2**30:.1f} GiB.*or --dtype bfloat16\.$"):
            load_vlm("openflamingo/OpenFlamingo-3B-vitl-mpt1b", "cpu", dtype=dtype)


def test_damaged_weights_are_one_sentence(saved: Any) -> None:
    _, folder = saved("llava")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="weights"):
        load_vlm(str(folder), "cpu")


def test_pickled_weights_are_not_read(saved: Any) -> None:
    vlm, folder = saved("llava")
    (folder / "model.safetensors").unlink()
    torch.save(vlm.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights"):
        load_vlm(str(folder), "cpu")
