"""What every test shares: an offline, quiet environment, the default model loaded once, and the real photographs."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports torch or transformers. A Hub name without this costs 46 s of retries where there is no Hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest  # noqa: E402 - after the environment is set

if TYPE_CHECKING:
    from wherein.vlm.base import FrozenVLM


def _beside(name: str) -> Any:
    """A module of helpers beside this file; pytest's importlib mode has no packages of tests."""
    spec = importlib.util.spec_from_file_location(f"wherein_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAMILIES = _beside("tiny_families")


@pytest.fixture(scope="session")
def default_vlm() -> FrozenVLM:
    """The built-in model. Its base parts come from the package index on the first use, from the cache after that."""
    import wherein

    weights = Path(wherein.__file__).parent / "vlm" / "weights" / "default.safetensors"
    if not weights.is_file():
        pytest.skip(f"the built-in model's own weights are not in the package yet: no {weights.name}")
    return wherein.load_vlm("default")


@pytest.fixture(scope="session")
def tiny_vlm() -> FrozenVLM:
    """A random VLM of a few thousand parameters (tests/tiny.py). Shared and frozen: a test leaves it as it was."""
    return _beside("tiny").TinyVLM()


@pytest.fixture(scope="session")
def build() -> Any:
    """`build(name)`: the tiny model of one family of transformers models (tests/tiny_families.py)."""
    return FAMILIES.build


@pytest.fixture(scope="session", params=list(FAMILIES.MADE))
def vlm(request: pytest.FixtureRequest) -> Any:
    """Every family in turn. Shared by all tests and frozen: a test leaves it as it was."""
    return _built(request.param)


@cache
def _built(name: str) -> Any:
    return FAMILIES.build(name)


@pytest.fixture(scope="session")
def evalset() -> Path:
    """The folder of real photographs with human boxes: WHEREIN_EVALSET, or `shared/evalset` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "evalset"
    folder = Path(os.environ.get("WHEREIN_EVALSET", beside))
    if not folder.is_dir():
        pytest.skip(f"no photographs with human boxes at {folder}; set WHEREIN_EVALSET to their folder")
    return folder
