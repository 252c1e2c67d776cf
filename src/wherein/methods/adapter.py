"""Adapters on disk: adapter_config.json + adapter_model.safetensors + README.md, written at once or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wherein.errors import AdapterError
from wherein.vlm.base import FrozenVLM

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


def save(
    folder: str | Path, method: str, vlm: FrozenVLM, config: Mapping[str, Any], weights: Mapping[str, Tensor], card: str
) -> Path:
    """Write an adapter into `folder` (made if need be), first beside the files that are there, then in their place.

    An earlier adapter's configuration goes first and the new one comes last: a save that fails in between leaves an
    adapter that `load` refuses, never new weights under old settings.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    about = {
        "wherein": 1,
        "method": method,
        "base_model": vlm.name,
        "fingerprint": vlm.fingerprint,
        "config": dict(config),
    }
    with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as temporary:
        place = Path(temporary)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, place / WEIGHTS)
        (place / CARD).write_text(card, encoding="utf-8")
        (place / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (target / CONFIG).unlink(missing_ok=True)
        for name in (WEIGHTS, CARD, CONFIG):
            os.replace(place / name, target / name)
    return target


def load(folder: str | Path, method: str, vlm: FrozenVLM) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and weights of an adapter for `method` on `vlm`.

    Raises AdapterError when a file is missing or damaged, or the adapter was made for another method or model.
    """
    place = Path(folder)
    if not place.is_dir():
        raise AdapterError(f"No adapter at {place}: expected a folder with {CONFIG} and {WEIGHTS}.")
    try:
        about = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        found = (about["method"], about["base_model"], about["fingerprint"])
        config = about["config"]
        if not isinstance(config, dict):
            raise TypeError("config is not an object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{place / CONFIG} is not an adapter's configuration: {error!r}; save the adapter again."
        ) from error
    wanted = (method, vlm.name, vlm.fingerprint)
    for label, theirs, ours in zip(("method", "model", "model fingerprint"), found, wanted, strict=True):
        if theirs != ours:
            raise AdapterError(f"The adapter {place} was made for {label} {theirs!r}, but here it is {ours!r}.")
    try:
        return config, load_file(place / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{place / WEIGHTS} cannot be read ({error}); it is damaged or incomplete.") from error


def fill(module: Any, weights: Mapping[str, Tensor], folder: str | Path) -> None:
    """Load `weights` into `module`, every key used. Raises AdapterError where they do not fit."""
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise AdapterError(
            f"The weights in {folder} do not fit their configuration: {str(error).splitlines()[-1].strip()}."
        ) from error
