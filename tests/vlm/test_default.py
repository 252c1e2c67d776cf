"""The built-in model in both dtypes: which it takes by itself, and that it is one model in either."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wherein import images
from wherein.checkpoints import fast_in
from wherein.errors import InputError
from wherein.methods import create
from wherein.vlm import load_vlm
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
