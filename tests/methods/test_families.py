"""Every method on every family: the same answers from a saved adapter, off is the base, only the insert learns.

PIN as published: its parameter count and width, where it is inserted, what it is asked; a table that follows the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein import methods
from wherein.errors import AdapterError, InputError
from wherein.methods import adapter
from wherein.methods.base import REGISTRY
from wherein.methods.pin import Pin, PinConfig, PositionalInsert
from wherein.training.boxes import RECIPES, BoxTask
from wherein.training.store import FeatureStore, Labelled
from wherein.training.trainer import TrainConfig, fit
from wherein.vlm.hf import HFVLM

PHRASES = ["the dog", "a red mug"]
EVERYWHERE = [name for name in methods.names() if not REGISTRY[name].built_in_only]


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


@pytest.fixture
def save(vlm: HFVLM, tmp_path: Path) -> Callable[..., Path]:
    """Save an insert that is not zero for the family; returns its folder."""

    def made(**settings: Any) -> Path:
        config = PinConfig(*vlm.grid, vlm.feature_dim, **settings)
        torch.manual_seed(0)
        module = PositionalInsert(config)
        torch.nn.init.normal_(module.layers[-1].weight, std=0.1)
        return adapter.save(tmp_path / "pin", "pin", vlm, config.to_dict(), module.state_dict(), "# A PIN for tests\n")

    return made


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_method_answers_in_pixels_of_the_image(
    vlm: HFVLM, photo: NDArray[np.uint8], save_insert: Callable[..., Path], save_heads: Callable[..., Path], name: str
) -> None:
    if name == "in_context" and not vlm.interleaves:
        with pytest.raises(InputError, match="one image at a time"):
            methods.create(name, vlm)
        return
    saved = None
    if REGISTRY[name].takes_adapter:
        saved = save_heads(vlm) if name == "heads" else save_insert(name, vlm)
    method = methods.create(name, vlm, saved)
    groundings = method.ground(photo, PHRASES, absent=False)
    assert [grounding.phrase for grounding in groundings] == PHRASES
    for grounding in groundings:
        assert grounding.score_kind == method.score_kind and len(grounding.boxes) <= 1
        for x0, y0, x1, y1 in grounding.boxes:
            assert 0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 70
    assert [g.to_dict() for g in method.ground(photo, PHRASES, absent=False)] == [g.to_dict() for g in groundings]
    alone = method.ground(photo, PHRASES[1:], absent=False)[0]
    assert alone.answer == groundings[1].answer
    np.testing.assert_allclose(alone.boxes, groundings[1].boxes)


@pytest.mark.parametrize("code", ["1d", "2d"])
def test_outside_its_block_a_pin_is_not_there(
    vlm: HFVLM, photo: NDArray[np.uint8], save: Callable[..., Path], code: str
) -> None:
    """PIN-2: off is the base bit for bit; on, pi is the same whatever the image shows."""
    pin = Pin(vlm, save(code=code))
    pixels, frames = vlm.prepare([photo])
    x_v = vlm.features(pixels)
    with torch.inference_mode():
        base = vlm.prefix(x_v, frames).last
        with pin.install(frames[0]):
            assert not torch.equal(vlm.prefix(x_v, frames).last, base)
        assert torch.equal(vlm.prefix(x_v, frames).last, base)
    pi = pin.pi(frames[0])
    assert pi.shape == (x_v.shape[1], vlm.feature_dim)
    assert pin.pi().shape == (len(vlm.cells().boxes), vlm.feature_dim)


def test_a_2d_table_goes_by_the_place_and_a_1d_one_by_the_rank(vlm: HFVLM, save: Callable[..., Path]) -> None:
    """Rows of x_v with the same centre have the same 2-D code, in whatever order and view they come."""
    pin = Pin(vlm, save(code="2d"))
    cells, pi = vlm.cells(), pin.pi()
    centres = np.round((cells.boxes[:, :2] + cells.boxes[:, 2:]) / 2, 6)
    for centre in np.unique(centres, axis=0)[:5]:
        same = (centres == centre).all(1).nonzero()[0]
        assert (pi[same] == pi[same[0]]).all()
    assert len({tuple(row) for row in pi.tolist()}) == len(np.unique(centres, axis=0))
    ranked = Pin(vlm, save(code="1d")).pi()
    assert len({tuple(row) for row in ranked.tolist()}) == len(ranked)
    assert sorted(cells.order.tolist()) == list(range(len(ranked)))


def test_a_pin_is_trained_from_cached_features_and_the_model_stays_frozen(vlm: HFVLM, tmp_path: Path) -> None:
    """The published recipe, a few steps: the loss falls, a step needs no encoder, not a bit of the model moves."""

    def source(i: int) -> Labelled:
        """A bright square on grey, at one of a few places."""
        image = np.full((80, 80, 3), 90, np.uint8)
        x, y = 10 + 10 * (i % 4), 10 + 10 * (i // 4 % 4)
        image[y : y + 30, x : x + 30] = (250, 200, 40)
        return Labelled(image, (("square", np.array([x, y, x + 30, y + 30], float)),))

    store = FeatureStore(tmp_path, vlm, source, 16, {}).build()
    recipe = replace(RECIPES["paper"], batch=8)
    task = BoxTask(vlm, Pin.begin(vlm, "paper"), recipe, store, store, ("square", "circle"), 0)
    frozen = [p.clone() for p in vlm.parameters()]
    runs, blocks = [], vlm.model.get_submodule(vlm.blocks_path)
    real = type(blocks[0]).forward
    type(blocks[0]).forward = lambda *a, **k: (runs.append(1), real(*a, **k))[1]
    try:
        before = float(task.loss(9, 10).detach())
        fit(task, TrainConfig(8, 3e-3, warmup=1, evaluate_every=100, save_every=100), tmp_path / "run")
    finally:
        type(blocks[0]).forward = real
    assert not runs
    assert float(task.loss(9, 10).detach()) < before
    for p, was in zip(vlm.parameters(), frozen, strict=True):
        assert torch.equal(p, was) and not p.requires_grad and p.grad is None


def test_a_pin_behind_a_connector_that_mixes_cells_is_refused(vlm: HFVLM) -> None:
    with pytest.raises(InputError, match="preset paper"):
        Pin.begin(vlm)


def test_the_adapter_of_another_family_is_refused(vlm: HFVLM, save: Callable[..., Path], tiny_vlm: Any) -> None:
    with pytest.raises(AdapterError):
        Pin(tiny_vlm, save())
