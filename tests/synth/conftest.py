import pytest

from wherein.synth import ObjectBank


@pytest.fixture(scope="session")
def bank() -> ObjectBank:
    return ObjectBank.load()
