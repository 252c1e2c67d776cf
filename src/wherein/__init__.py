"""Wherein asks a frozen vision-language model *where*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wherein.grounding import Grounding
    from wherein.locator import Answer, Locator
    from wherein.vlm import load_vlm
    from wherein.vlm.base import FrozenVLM

__version__ = "0.1.0"
__all__ = ["Answer", "FrozenVLM", "Grounding", "Locator", "load_vlm"]

_HOMES = {
    "Answer": "wherein.locator",
    "FrozenVLM": "wherein.vlm.base",
    "Grounding": "wherein.grounding",
    "Locator": "wherein.locator",
    "load_vlm": "wherein.vlm",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: `import wherein` itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wherein' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
