"""Adapters on disk: what goes in comes out, and what does not belong is refused in one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wherein.errors import AdapterError
from wherein.methods import adapter

CARD = "# A card\n"


def save(folder: Path, vlm: Any, value: float = 1.0) -> Path:
    weights = {"weight": torch.full((2, 3), value), "bias": torch.zeros(2)}
    return adapter.save(folder, "pin", vlm, {"value": value}, weights, CARD)


def refused(folder: Path, vlm: Any, method: str = "pin") -> str:
    """The sentence with which an adapter is refused."""
    with pytest.raises(AdapterError) as caught:
        adapter.load(folder, method, vlm)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / adapter.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_round_trip(tiny_vlm: Any, tmp_path: Path) -> None:
    weights = {"weight": torch.randn(2, 3), "bias": torch.randn(4, 2).T}  # the second is not contiguous
    config = {"rows": 3, "text": "é", "scale": 0.1}
    folder = adapter.save(tmp_path / "deep" / "pin", "pin", tiny_vlm, config, weights, CARD)
    assert sorted(path.name for path in folder.iterdir()) == [adapter.CARD, adapter.CONFIG, adapter.WEIGHTS]
    settings, tensors = adapter.load(folder, "pin", tiny_vlm)
    assert settings == config
    assert all(torch.equal(tensors[name], weights[name]) for name in weights) and len(tensors) == len(weights)
    assert (folder / adapter.CARD).read_text() == CARD


def test_a_later_save_replaces_an_earlier_one(tiny_vlm: Any, tmp_path: Path) -> None:
    save(tmp_path, tiny_vlm, 1.0)
    save(tmp_path, tiny_vlm, 2.0)
    settings, tensors = adapter.load(tmp_path, "pin", tiny_vlm)
    assert settings == {"value": 2.0} and (tensors["weight"] == 2).all()


def test_another_method_or_model(tiny_vlm: Any, tmp_path: Path) -> None:
    save(tmp_path, tiny_vlm)
    assert "'pin'" in (sentence := refused(tmp_path, tiny_vlm, "lora")) and "'lora'" in sentence
    assert "'tiny'" in (sentence := refused(tmp_path, type(tiny_vlm)(name="other"))) and "'other'" in sentence
    assert "fingerprint" in refused(tmp_path, type(tiny_vlm)(grid=(2, 2)))


@pytest.mark.parametrize("text", ["", "{", "[]", '"pin"', "null", "{}", '{"method": "pin"}', "\udcff"])
def test_damaged_settings(tiny_vlm: Any, tmp_path: Path, text: str) -> None:
    save(tmp_path, tiny_vlm)
    (tmp_path / adapter.CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert adapter.CONFIG in refused(tmp_path, tiny_vlm)


@pytest.mark.parametrize("key", ["method", "base_model", "fingerprint", "config"])
def test_a_missing_setting_is_named(tiny_vlm: Any, tmp_path: Path, key: str) -> None:
    save(tmp_path, tiny_vlm)
    about = json.loads((tmp_path / adapter.CONFIG).read_text())
    del about[key]
    (tmp_path / adapter.CONFIG).write_text(json.dumps(about))
    assert key in refused(tmp_path, tiny_vlm)


def test_settings_that_are_no_object(tiny_vlm: Any, tmp_path: Path) -> None:
    assert "object" in refused(edit(save(tmp_path, tiny_vlm), config=[1, 2]), tiny_vlm)


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_damaged_weights(tiny_vlm: Any, tmp_path: Path, kept: int) -> None:
    path = save(tmp_path, tiny_vlm) / adapter.WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert adapter.WEIGHTS in refused(tmp_path, tiny_vlm)


def test_missing_files(tiny_vlm: Any, tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path / "nowhere", tiny_vlm)
    assert adapter.CONFIG in refused(tmp_path, tiny_vlm)
    (save(tmp_path, tiny_vlm) / adapter.WEIGHTS).unlink()
    assert adapter.WEIGHTS in refused(tmp_path, tiny_vlm)


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(2, 3)},
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)},
        {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)},
    ],
)
def test_weights_that_do_not_fit(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(AdapterError, match="do not fit") as caught:
        adapter.fill(nn.Linear(3, 2), weights, "there")
    assert "\n" not in str(caught.value)


def failing_after(times: int) -> Callable[[Any, Any], None]:
    """`os.replace` that works `times` times and then finds the disk full."""
    real, left = os.replace, [times]

    def replace(source: Any, target: Any) -> None:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        real(source, target)

    return replace


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("over_another", [False, True])
def test_a_save_that_fails_leaves_nothing_half_written(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, over_another: bool
) -> None:
    """What is there after it is refused, or it is whole: never new weights under old settings."""
    if over_another:
        save(tmp_path, tiny_vlm, 1.0)
    monkeypatch.setattr(os, "replace", failing_after(times))
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, tiny_vlm, 2.0)
    monkeypatch.undo()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    refused(tmp_path, tiny_vlm)
    save(tmp_path, tiny_vlm, 3.0)  # and the next save heals it
    assert adapter.load(tmp_path, "pin", tiny_vlm)[0] == {"value": 3.0}


def test_a_save_that_cannot_write_leaves_the_old_adapter(
    tiny_vlm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, tiny_vlm, 1.0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapter, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, tiny_vlm, 2.0)
    assert adapter.load(tmp_path, "pin", tiny_vlm)[0] == {"value": 1.0}
