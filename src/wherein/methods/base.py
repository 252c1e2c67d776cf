"""Method: one way to unlock localisation in a frozen VLM, and the registry of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.grounding import Grounding
from wherein.vlm.base import FrozenVLM

REGISTRY: dict[str, type[Method]] = {}


class Method(ABC):
    """A method bound to one VLM. It returns one box a phrase unless its docstring says otherwise."""

    name: ClassVar[str]
    score_kind: ClassVar[str]

    @abstractmethod
    def __init__(self, vlm: FrozenVLM, adapter: str | Path | None = None) -> None:
        """Bind to `vlm`; `adapter` is a folder, None the built-in adapter where there is one.

        Raises AdapterError for an adapter that is missing, corrupted or made for another model, and InputError where
        the method does not work on this model.
        """

    @abstractmethod
    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """Where each phrase is on image uint8[H, W, 3], one Grounding a phrase, boxes in pixels of that image.

        With `absent=False` a phrase is never answered absent: the best box is given (what PIN's protocol needs).
        """


def register(cls: type[Method]) -> type[Method]:
    """Class decorator: make a method known by its name."""
    REGISTRY[cls.name] = cls
    return cls


def refuse_adapter(name: str, adapter: str | Path | None) -> None:
    """Raise InputError when an adapter is given to a method that has none."""
    if adapter is not None:
        raise InputError(
            f"The method {name} has nothing to load, but the adapter {str(adapter)!r} was given: leave it out."
        )
