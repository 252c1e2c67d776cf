"""Checkpoints of a stage of training: replaced at once, and gone on with by a run of the same settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wherein.errors import InputError

SAVE_AFTER = 60  # seconds between checkpoints


def save(path: Path, settings: Mapping[str, Any], step: int, **states: Any) -> None:
    """Write what `restore` returns: `states` (tensors, lists and dicts of them) after `step` steps.

    A process that is killed meanwhile leaves what was there before.
    """
    temporary = path.with_suffix(".tmp")
    torch.save({"settings": dict(settings), "step": step, **states}, temporary)
    temporary.replace(path)


def restore(path: Path, settings: Mapping[str, Any], device: str | torch.device) -> dict[str, Any] | None:
    """What `save` wrote, its tensors on `device`: the step and the states by their names. None: nothing is there.

    Raises InputError: it was made with other settings, or holds none.
    """
    if not path.exists():
        return None
    saved: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    made = saved.get("settings")
    if made is None:
        raise InputError(f"{path} does not say with which settings it was made: move it away, or take another --work.")
    for key in {**settings, **made}:
        if made.get(key) != settings.get(key):
            raise InputError(
                f"{path} was made with {key} {made.get(key)}, not {settings.get(key)}: repeat the options it was made "
                "with, or take another --work."
            )
    return saved
