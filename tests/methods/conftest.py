"""A PIN for the tiny model, and an image that is neither square nor of the model's size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.methods import adapter
from wherein.methods.base import REGISTRY
from wherein.methods.heads import HeadsConfig
from wherein.methods.pin import PinConfig, PositionalInsert


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """uint8[90, 70, 3]: noise with a bright patch."""
    pixels = np.random.default_rng(3).integers(0, 120, (90, 70, 3), np.uint8)
    pixels[10:40, 30:60] = (250, 200, 40)
    return pixels


@pytest.fixture
def save_heads(tmp_path: Path) -> Callable[..., Path]:
    """Write a file that names heads of a model, with any settings; returns its path."""

    def save(vlm: Any, **settings: Any) -> Path:
        config = HeadsConfig(**{"heads": ((0, 1), (1, 2)), **settings})
        return adapter.save_file_only(tmp_path / "heads.json", "heads", vlm, config.to_dict(), {})

    return save


@pytest.fixture
def save_pixel(tmp_path: Path) -> Callable[..., Path]:
    """Save a small untrained pixel-aligned model on the default VLM; returns its folder."""

    def save(vlm: Any) -> Path:
        from wherein.methods.pixel import method

        torch.manual_seed(0)
        reader = method.begin(vlm, tokens=4, extractor_dim=32, extractor_out=32, point_dim=16, lora_rank=2)
        return method.save(tmp_path / "pixel", reader.model, vlm, "# For tests\n")

    return save


@pytest.fixture
def save_insert(tmp_path: Path) -> Callable[..., Path]:
    """Save what training a method of a model starts from, its weights moved; returns the folder.

    A model that the insert does not go into: the test is skipped, with the sentence that says so.
    """

    def save(name: str, vlm: Any) -> Path:
        torch.manual_seed(0)
        try:
            insert = REGISTRY[name].begin(vlm, "default" if vlm.keeps_cells else "paper")
        except InputError as refused:
            pytest.skip(str(refused))
        with torch.no_grad():
            for weight in insert.parameters():
                weight += 0.3 * torch.randn_like(weight)
        return adapter.save(tmp_path / name, name, vlm, insert.config.to_dict(), insert.state_dict(), "# For tests\n")

    return save


@pytest.fixture
def save_pin(tiny_vlm: Any, tmp_path: Path) -> Callable[..., Path]:
    """Save an insert that is not zero for the tiny model, with any settings; returns its folder."""

    def save(**settings: Any) -> Path:
        config = PinConfig(*tiny_vlm.grid, tiny_vlm.feature_dim, **settings)
        torch.manual_seed(0)
        module = PositionalInsert(config)
        torch.nn.init.normal_(module.layers[-1].weight, std=0.1)
        folder = tmp_path / "pin"
        return adapter.save(folder, "pin", tiny_vlm, config.to_dict(), module.state_dict(), "# A PIN for tests\n")

    return save
