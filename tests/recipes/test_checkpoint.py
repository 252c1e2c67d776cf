"""The checkpoints of the default model's recipe: made at once, and of the same settings or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from wherein.errors import InputError

SETTINGS = {"seed": 0, "many": 8, "start": None, "objects": "3 cut-outs (ab)", "steps": 5}


@pytest.fixture
def checkpoint(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("checkpoint")


def test_what_was_saved_comes_back(checkpoint: ModuleType, tmp_path: Path) -> None:
    path, masters = tmp_path / "stage.pt", [torch.randn(3), torch.randn(2, 2)]
    assert checkpoint.restore(path, SETTINGS, "cpu") is None
    checkpoint.save(path, SETTINGS, 3, masters=masters, connector={"scale": torch.ones(())})
    found = checkpoint.restore(path, SETTINGS, "cpu")
    assert found["step"] == 3 and found["connector"] == {"scale": torch.ones(())}
    assert all(torch.equal(a, b) for a, b in zip(found["masters"], masters, strict=True))
    assert [file.name for file in tmp_path.iterdir()] == ["stage.pt"]


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 1), ("many", 1), ("start", "9f"), ("objects", "4 cut-outs (cd)"), ("steps", 6)]
)
def test_other_settings_are_refused_by_name(checkpoint: ModuleType, tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "stage.pt"
    checkpoint.save(path, SETTINGS, 5)
    with pytest.raises(InputError) as told:
        checkpoint.restore(path, {**SETTINGS, key: value}, "cpu")
    assert f"made with {key} {SETTINGS[key]}, not {value}:" in str(told.value)


def test_a_setting_that_one_of_both_lacks_is_told(checkpoint: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "stage.pt"
    checkpoint.save(path, SETTINGS, 5)
    with pytest.raises(InputError, match="word steps None, not 4"):
        checkpoint.restore(path, {**SETTINGS, "word steps": 4}, "cpu")
    with pytest.raises(InputError, match="many 8, not None"):
        checkpoint.restore(path, {key: value for key, value in SETTINGS.items() if key != "many"}, "cpu")


def test_a_file_without_settings_is_refused(checkpoint: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "stage.pt"
    torch.save({"step": 3, "masters": []}, path)  # as they were written once
    with pytest.raises(InputError, match="does not say"):
        checkpoint.restore(path, SETTINGS, "cpu")


def test_a_kill_while_saving_leaves_the_last_one(
    checkpoint: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stage.pt"
    checkpoint.save(path, SETTINGS, 3)

    def dies(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", dies)
        checkpoint.save(path, SETTINGS, 4)
    assert checkpoint.restore(path, SETTINGS, "cpu")["step"] == 3
    checkpoint.save(path, SETTINGS, 5)
    assert checkpoint.restore(path, SETTINGS, "cpu")["step"] == 5
