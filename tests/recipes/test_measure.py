"""What the recipe's figures count, and the model card they are written on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from wherein.errors import InputError

FIGURES = {
    "images": 4,
    "seed": 7,
    "sha256": "ab12",
    "backgrounds": "9 pictures (cd)",
    "options": "--images 4 --seed 7 --backgrounds WORK/backgrounds",
    **{f"captions_{group}": 0.5 for group in ("trained", "coco_voc")},
    **{f"captions_{group}_ci95": [0.25, 0.75] for group in ("trained", "coco_voc")},
    **{f"pointing_{group}": 0.6 for group in ("trained", "coco_voc")},
    "pointing_numbers_trained": [0.1, 0.2, 0.3, 0.4],
    "pointing_numbers_coco_voc": [0.5, 0.6, 0.7, 0.8],
    "lookup": 0.75,
}


@pytest.fixture
def measure(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("measure")


@pytest.fixture
def record(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("record")


@pytest.mark.parametrize(
    ("name", "caption", "found"),
    [
        ("tabby cat", " a tabby cat and a mug.", True),
        ("tabby cat", " A CAT.", True),
        ("tabby cat", " a tabby.", False),  # the head noun is missing
        ("cat", " a caterpillar.", False),
        ("t-shirt", " a red t-shirt.", True),
        ("cat", "", False),
    ],
)
def test_a_thing_is_named_by_its_name_or_head_noun(measure: ModuleType, name: str, caption: str, found: bool) -> None:
    assert measure.named(name, caption) is found


def test_the_best_head_is_chosen_on_one_half_and_measured_on_the_other(measure: ModuleType) -> None:
    hits = np.zeros((8, 2, 3), bool)
    hits[::2, 1, 2] = True  # best where it is chosen, and right once of four elsewhere
    hits[1, 1, 2] = True
    hits[1::2, 0, 0] = True  # best where it is measured alone
    assert measure.best_head(hits) == 0.25


def test_captions_have_the_share_of_all_objects_and_an_interval_over_images(measure: ModuleType) -> None:
    made = [images("cat", "mug"), images("tent"), images("duck")]
    share, (low, high) = measure.caption_figures(made, [" a cat and a mug.", " a tent.", " a cow."], seed=0)
    assert share == 0.75 and low == 0 and high == 1
    assert measure.caption_figures(made, [" a cat.", " a tent.", " a duck."], seed=0)[0] == 0.75
    assert measure.caption_figures(made, [" a cat, a mug.", " a tent.", " a duck."], seed=0) == (1, [1, 1])


def test_the_loss_of_look_ups_is_the_mean_of_its_batches(
    measure: ModuleType, default_vlm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LOOKUPS", 6)
    monkeypatch.setattr(measure, "AT_ONCE", 3)
    rng, lookup = np.random.default_rng(1), measure.Lookup(default_vlm)
    with torch.inference_mode():
        each = [float(measure.loss(default_vlm, lookup.batch(rng, 3, 0.0))[0]) for _ in range(2)]
    assert each[0] != each[1]
    assert measure.looked_up(default_vlm, seed=1) == pytest.approx(np.mean(each), abs=1e-3)
    assert max(each) < 1.5  # ten digits drawn blindly cost 2.3 each


def images(*names: str) -> Any:
    return SimpleNamespace(objects=[SimpleNamespace(name=name) for name in names])


def made(start: str | None = None, resumed: bool = False) -> dict[str, Any]:
    settings = {"seed": 0, "images": 20, "start": start, "objects": "5 cut-outs (ef)", "backgrounds": "2 pictures (01)"}
    return {"settings": settings, "licences": "3 MIT, 2 GPL-2", "device": "cpu", "resumed": resumed, "minutes": 12.5}


def test_the_card_says_what_made_the_weights(measure: ModuleType) -> None:
    card = measure.card(FIGURES, made())
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    for told in ("ab12", "SmolLM2", "EfficientNet", "Apache-2.0", "3 MIT, 2 GPL-2", "12.5 minutes on cpu, one call"):
        assert told in text
    assert "measure.py --images 4 --seed 7 --backgrounds WORK/backgrounds`" in text
    assert "| 0.500 (0.250 to 0.750) | 0.500 (0.250 to 0.750) |" in text
    assert "number 3 of a box comes next | 0.300 | 0.700 |" in text and "went on" not in text
    assert "a loss of 0.750 nats" in text
    assert all(len(line.split(" | ")) == 3 for line in text.splitlines() if line.startswith("| "))


def test_the_card_says_what_it_does_not_know(measure: ModuleType) -> None:
    assert "whose own training is not told here" in measure.card(FIGURES, made(start="77aa"))
    assert "the last call alone" in measure.card(FIGURES, made(resumed=True))
    assert "`recipes/default_vlm/README.md` tells" in measure.card(FIGURES, None)


def test_a_record_belongs_to_its_weights(record: ModuleType, tmp_path: Path) -> None:
    weights = tmp_path / "default.safetensors"
    weights.write_bytes(b"weights")
    assert record.read(weights) is None
    record.write(weights, made())
    assert record.read(weights) == {**made(), "sha256": record.digest(weights)}
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match="other weights"):
        record.read(weights)
    with pytest.raises(InputError, match="cannot be read"):
        record.digest(tmp_path / "none.safetensors")
