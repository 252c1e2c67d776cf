"""Methods: ways to unlock localisation in a frozen VLM. Importing this package registers every one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from wherein.errors import AdapterError, InputError
from wherein.methods import cam, centre, coop, heads, in_context, lora, pin, pixel, text, vpt  # noqa: F401  (each registers itself)
from wherein.methods.adapter import check as check_adapter
from wherein.methods.adapter import method_of
from wherein.methods.base import REGISTRY, Method
from wherein.methods.insert import Inserted
from wherein.vlm import best_method
from wherein.vlm.base import FrozenVLM

__all__ = ["Method", "check", "create", "names", "takes_adapter"]


def names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(REGISTRY)


def check(name: str, model: str, adapter: str | Path | None = None) -> type[Method]:
    """What `create` would bind to the model called `model`, as by `load_vlm`: for what can be told of a method and an
    adapter without a model to be told before one is loaded.

    Raises InputError and AdapterError as `create` does, except that an adapter for another model is not told from one
    for this; and InputError where "auto" is to be the best on a model that there is not.
    """
    method = _class(name, adapter, lambda: best_method(model))
    if method.built_in_only and model != "default":
        raise InputError(
            f"The method {method.name} works on the built-in model alone, not on {model!r}: leave the model out."
        )
    if adapter is None and issubclass(method, Inserted):
        method.shipped(model)
    if adapter is not None and (made_for := check_adapter(adapter)) != method.name:
        raise AdapterError(
            f"The adapter {adapter} was made for the method {made_for!r}, but here it is {method.name!r}."
        )
    return method


def create(name: str, vlm: FrozenVLM, adapter: str | Path | None = None) -> Method:
    """Bind the method called `name` to `vlm`; "auto" is the one `adapter` is for, else what measured best on the model.

    `adapter` is a folder or a Hub id, None the built-in adapter where there is one. Raises InputError for an unknown
    name, a method that has nothing to load and one that does not work on this model; AdapterError for an adapter that
    does not fit.
    """
    method: Any = _class(name, adapter, lambda: vlm.best_method)
    return cast(Method, method(vlm, adapter) if method.takes_adapter else method(vlm))


def giving(what: str, model: str) -> list[str]:
    """The names of the methods that give `what`, "heatmap" or "mask", and work on the model called `model`, sorted."""
    known = [REGISTRY[name] for name in names()]
    return [one.name for one in known if what in one.gives and (model == "default" or not one.built_in_only)]


def takes_adapter(name: str) -> bool:
    """Whether the method called `name` loads an adapter; "auto" does, since it is then what the adapter is for.

    Raises InputError for an unknown name.
    """
    return name == "auto" or _known(name).takes_adapter


def _class(name: str, adapter: str | Path | None, best: Callable[[], str]) -> type[Method]:
    """The method called `name`; "auto" is the one `adapter` is for, else the `best`."""
    if name == "auto" and adapter is not None:
        return _class_for(adapter)
    method = _known(best() if name == "auto" else name)
    if adapter is not None and not method.takes_adapter:
        raise InputError(
            f"The method {method.name} has nothing to load, but the adapter {str(adapter)!r} was given: leave it out."
        )
    return method


def _known(name: str) -> type[Method]:
    if name not in REGISTRY:
        raise InputError(f"There is no method {name!r}: choose auto, {', '.join(names())}.")
    return REGISTRY[name]


def _class_for(adapter: str | Path) -> type[Method]:
    """The method that an adapter says it is for."""
    name = method_of(adapter)
    if name not in REGISTRY or not REGISTRY[name].takes_adapter:
        raise AdapterError(f"The adapter {adapter} is for {name!r}, which loads no adapter in this version of wherein.")
    return REGISTRY[name]
