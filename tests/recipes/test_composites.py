"""The composites of the recipe: a function of the seed and the index, a fixed share of them of photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wherein.errors import InputError
from wherein.synth import Backgrounds, ObjectBank
from wherein.synth.objects import Cutout

SIDE, COUNT = 64, 60


@pytest.fixture
def composites(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("composites")


def cutout(name: str, photographic: bool) -> Cutout:
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 20, 4), (200, 30, 30, 255), np.uint8)).save(stream, "PNG")
    return Cutout(name, stream.getvalue(), "made here", "CC0", photographic)


def pasted(composites: ModuleType, *names: tuple[str, bool]) -> Any:
    bank = ObjectBank(cutout(name, photographic) for name, photographic in names)
    return composites.Pasted(bank, Backgrounds.procedural(), SIDE, COUNT, seed=3)


def test_a_composite_is_a_function_of_seed_and_index(composites: ModuleType) -> None:
    first, again = (pasted(composites, ("mug", True), ("tent", False)) for _ in range(2))
    (image, things), (other, others) = first[7], again[7]
    assert image.shape == (SIDE, SIDE, 3) and (image == other).all() and things == others
    assert not (image == first[8][0]).all()
    assert {colour for _, colour in things} == {"red"}


def test_photographs_are_pasted_alone_in_their_share_of_the_images(composites: ModuleType) -> None:
    drawn = pasted(composites, *((f"drawing {i}", False) for i in range(40)), ("photograph", True))
    alone = sum({name for name, _ in drawn[i][1]} == {"photograph"} for i in range(COUNT))
    assert abs(alone / COUNT - composites.PHOTOGRAPHS) < 0.2


def test_a_bank_without_photographs_serves_as_well(composites: ModuleType) -> None:
    drawn = pasted(composites, ("drawing", False))
    assert all(name == "drawing" for i in range(10) for name, _ in drawn[i][1])


def test_a_batch_keeps_images_and_what_is_on_them_together(composites: ModuleType) -> None:
    drawn = pasted(composites, ("mug", True), ("tent", False))
    images, things = composites._together([drawn[0], drawn[1]])
    assert images.dtype == torch.uint8 and (images[1].numpy() == drawn[1][0]).all()
    assert things == [drawn[0][1], drawn[1][1]]


def encoder(batches: float = float("inf")) -> Any:
    """Stands for the model: a feature of four cells is their mean colour. It dies after so many batches."""
    done = 0

    def features(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal done
        done += 1
        if done > batches:
            raise KeyboardInterrupt
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)
        return cells.to(torch.bfloat16)

    return SimpleNamespace(grid=(2, 2), feature_dim=3, device=torch.device("cpu"), features=features)


def test_encoding_goes_on_where_it_was_killed(
    composites: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composites, "workers", lambda: 0)
    drawn, settings = pasted(composites, ("mug", True), ("tent", False)), {"seed": 3}
    whole = composites._encode(encoder(), drawn, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        composites._encode(encoder(batches=2), drawn, settings, tmp_path / "killed")
    assert (
        composites._encode(encoder(batches=2), drawn, settings, tmp_path / "killed") == whole
    )  # two of four were left
    first, again = (np.load(tmp_path / f"{name}.npy") for name in ("whole", "killed"))
    assert first.shape == (COUNT, 4, 3) and first.any() and (first == again).all()
    assert composites._encode(encoder(batches=0), drawn, settings, tmp_path / "whole") == whole
    with pytest.raises(InputError, match="seed"):
        composites._encode(encoder(), drawn, {"seed": 4}, tmp_path / "whole")
    (tmp_path / "whole.npy").unlink()
    with pytest.raises(InputError, match="whole.npy is gone"):
        composites._encode(encoder(), drawn, settings, tmp_path / "whole")


@pytest.mark.parametrize("words", [True, False])
def test_what_comes_behind_the_words_is_learnt_on_images_they_have_not_seen(
    composites: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bool
) -> None:
    monkeypatch.setattr(composites, "workers", lambda: 0)
    monkeypatch.setattr(composites, "PLAIN", composites.BATCH)
    vlm = encoder()
    vlm.size, vlm.encoder = (SIDE, SIDE), SimpleNamespace(classifier=torch.nn.Linear(3, 2))
    vlm.prepare = lambda images: (torch.zeros(len(images), 3, SIDE, SIDE), None)
    bank = ObjectBank([cutout("mug", True), cutout("tent", False)])
    made = composites.Composites(vlm, bank, Backgrounds.procedural(), COUNT, 3, tmp_path, words)
    assert made.known == range(50 if words else 0)
    drawn, rng = set(), np.random.default_rng(0)
    monkeypatch.setattr(made, "pasted", lambda index: drawn.add(index))
    for _ in range(1000):
        made.unseen(rng)
    assert drawn == set(range(COUNT)) - set(made.known)


def test_half_of_an_image_is_shown_and_not_always_the_same(composites: ModuleType) -> None:
    rng = np.random.default_rng(0)
    first, second = (composites.shown(rng, 8).tolist() for _ in range(2))
    assert first == sorted(set(first)) and len(first) == 4 and set(first) <= set(range(8)) and first != second


def test_the_processes_are_an_odd_number(composites: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for cores in (None, 1, 2, 3, 4, 5, 8, 15, 16):
        monkeypatch.setattr(composites.os, "cpu_count", lambda cores=cores: cores)
        counts.append(composites.workers())
    assert counts == [0, 0, 0, 1, 1, 3, 5, 13, 13]
