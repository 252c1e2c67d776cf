"""Methods: ways to unlock localisation in a frozen VLM. Importing this package registers every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from wherein.errors import InputError
from wherein.methods import cam, centre, pin, text  # noqa: F401  (each registers itself)
from wherein.methods.base import REGISTRY, Method
from wherein.vlm.base import FrozenVLM

__all__ = ["Method", "create", "names", "takes_adapter"]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(REGISTRY)


def create(name: str, vlm: FrozenVLM, adapter: str | Path | None = None) -> Method:
    """Bind the method called `name` to `vlm`; "auto" is the one that measured best for that model.

    `adapter` is a folder, None the built-in adapter where there is one. Raises InputError for an unknown name, a method
    that has nothing to load and one that does not work on this model; AdapterError for an adapter that does not fit.
    """
    method: Any = _class(name, vlm)
    if method.takes_adapter:
        return cast(Method, method(vlm, adapter))
    if adapter is not None:
        raise InputError(
            f"The method {method.name} has nothing to load, but the adapter {str(adapter)!r} was given: leave it out."
        )
    return cast(Method, method(vlm))


def takes_adapter(name: str, vlm: FrozenVLM) -> bool:
    """Whether the method called `name` ("auto": the one it stands for on `vlm`) loads an adapter.

    Raises InputError for an unknown name.
    """
    return _class(name, vlm).takes_adapter


def _class(name: str, vlm: FrozenVLM) -> type[Method]:
    chosen = vlm.best_method if name == "auto" else name
    if chosen not in REGISTRY:
        raise InputError(f"There is no method {name!r}: choose auto, {', '.join(names())}.")
    return REGISTRY[chosen]
