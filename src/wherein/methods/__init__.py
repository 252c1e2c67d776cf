"""Methods: ways to unlock localisation in a frozen VLM. Importing this package registers every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from wherein.errors import AdapterError, InputError
from wherein.methods import cam, centre, coop, heads, in_context, lora, pin, pixel, text, vpt  # noqa: F401  (each registers itself)
from wherein.methods.adapter import method_of
from wherein.methods.base import REGISTRY, Method
from wherein.vlm.base import FrozenVLM

__all__ = ["Method", "check_model", "create", "names", "takes_adapter"]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(REGISTRY)


def check_model(name: str, model: str) -> None:
    """Raise InputError where the method called `name` reads a part that only the built-in model has and `model`, as
    `load_vlm` takes it, is another: before that is loaded."""
    if model != "default" and name in REGISTRY and REGISTRY[name].built_in_only:
        raise InputError(f"The method {name} works on the built-in model alone, not on {model!r}: leave the model out.")


def create(name: str, vlm: FrozenVLM, adapter: str | Path | None = None) -> Method:
    """Bind the method called `name` to `vlm`; "auto" is the one `adapter` is for, else what measured best on the model.

    `adapter` is a folder or a Hub id, None the built-in adapter where there is one. Raises InputError for an unknown
    name, a method that has nothing to load and one that does not work on this model; AdapterError for an adapter that
    does not fit.
    """
    method: Any = _class(name, vlm) if name != "auto" or adapter is None else _class_for(adapter)
    if method.takes_adapter:
        return cast(Method, method(vlm, adapter))
    if adapter is not None:
        raise InputError(
            f"The method {method.name} has nothing to load, but the adapter {str(adapter)!r} was given: leave it out."
        )
    return cast(Method, method(vlm))


def takes_adapter(name: str, vlm: FrozenVLM) -> bool:
    """Whether the method called `name` loads an adapter; "auto" does, since it is then what the adapter is for.

    Raises InputError for an unknown name.
    """
    return name == "auto" or _class(name, vlm).takes_adapter


def _class(name: str, vlm: FrozenVLM) -> type[Method]:
    chosen = vlm.best_method if name == "auto" else name
    if chosen not in REGISTRY:
        raise InputError(f"There is no method {name!r}: choose auto, {', '.join(names())}.")
    return REGISTRY[chosen]


def _class_for(adapter: str | Path) -> type[Method]:
    """The method that an adapter says it is for."""
    name = method_of(adapter)
    if name not in REGISTRY or not REGISTRY[name].takes_adapter:
        raise AdapterError(f"The adapter {adapter} is for {name!r}, which loads no adapter in this version of wherein.")
    return REGISTRY[name]
