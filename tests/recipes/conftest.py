"""The scripts of recipes as modules; a copy of the source without the recipes skips their tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def scripts(folder: str) -> Iterator[Callable[[str], ModuleType]]:
    """Import scripts of a recipe by their names, as they import each other."""
    if not RECIPES.is_dir():
        pytest.skip("the recipes are not part of this copy of the source")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES / folder))
        yield importlib.import_module


@pytest.fixture(scope="session")
def recipe() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of the default model's recipe."""
    yield from scripts("default_vlm")


@pytest.fixture  # of a test alone: recipes have scripts of one name
def small() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of the small pixel-aligned model's recipe."""
    yield from scripts("pixel_small")
