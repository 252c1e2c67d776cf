"""`python -m pytest tests/golden --rewrite` writes the golden files anew, after a change that is meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what is found as the new golden results")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], Any]:
    """`golden(name, found)`: what the file `name`.json says; with --rewrite it says `found` from now on."""

    def known(name: str, found: Any) -> Any:
        path = Path(__file__).with_name(f"{name}.json")
        if request.config.getoption("--rewrite", False):  # not there when pytest runs all of tests/
            path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    return known
