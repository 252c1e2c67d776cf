"""The scripts of recipes/default_vlm as modules; a copy of the source without the recipes skips their tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "default_vlm"


@pytest.fixture(scope="session")
def recipe() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script by its name, as the scripts import each other."""
    if not RECIPE.is_dir():
        pytest.skip("the recipes are not part of this copy of the source")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPE))
        yield importlib.import_module
