"""Methods: ways to unlock localisation in a frozen VLM. Importing this package registers every one of them."""

from __future__ import annotations

from pathlib import Path

from wherein.errors import InputError
from wherein.methods import cam, centre, pin, text  # noqa: F401  (each registers itself)
from wherein.methods.base import REGISTRY, Method
from wherein.vlm.base import FrozenVLM

__all__ = ["Method", "create", "names"]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(REGISTRY)


def create(name: str, vlm: FrozenVLM, adapter: str | Path | None = None) -> Method:
    """Bind the method called `name` to `vlm`; "auto" is the one that measured best for that model.

    Raises InputError for an unknown name, AdapterError for an adapter that does not fit.
    """
    chosen = vlm.best_method if name == "auto" else name
    if chosen not in REGISTRY:
        raise InputError(f"There is no method {name!r}: choose auto, {', '.join(names())}.")
    return REGISTRY[chosen](vlm, adapter)
