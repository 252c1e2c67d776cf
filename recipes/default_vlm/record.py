"""What made a file of weights, as JSON beside it: train.py writes it, measure.py puts it on the model card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from wherein.errors import InputError
from wherein.journal import write_text


def digest(weights: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits. Raises InputError: it cannot be read."""
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The weights {weights} cannot be read: {error.strerror or error}.") from error


def write(weights: Path, facts: dict[str, Any]) -> None:
    """Write `facts`, and of which weights they are, beside the weights. Raises InputError: that is not possible."""
    write_text(weights.with_suffix(".json"), json.dumps({"sha256": digest(weights), **facts}, indent=1) + "\n")


def read(weights: Path) -> dict[str, Any] | None:
    """What `write` wrote beside these weights; None where there is no such file.

    Raises InputError: it tells of other weights.
    """
    file = weights.with_suffix(".json")
    if not file.exists():
        return None
    facts: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if facts.get("sha256") != digest(weights):
        raise InputError(f"{file} tells of other weights than {weights.name}: repeat train.py's command, or remove it.")
    return facts
