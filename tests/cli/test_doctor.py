"""`wherein doctor`: the report of a given state, and the command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wherein.cli import doctor
from wherein.vlm import parts

COMMAND = [str(Path(sys.executable).with_name("wherein")), "doctor"]


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every base part is cached and torchvision is absent."""
    monkeypatch.setattr(parts, "cached", lambda part: Path(part.file))
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)


def test_an_empty_cache_is_named_and_exits_1(tmp_path: Path) -> None:
    done = run("--json", WHEREIN_CACHE=str(tmp_path / "empty"))
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 1 and found["ok"] is False
    assert found["cache"]["folder"] == str(tmp_path / "empty") and found["cache"]["bytes"] == 0
    assert [part["state"] for part in found["cache"]["parts"]] == ["missing", "missing"]
    assert any("SmolLM2" in problem for problem in found["problems"])
    assert found["versions"]["torch"] and found["versions"]["python"]
    assert found["devices"]["cpu_threads"] >= 1
    assert found["hub"] is None
    licences = found["licences"]
    assert {"Apache-2.0", "MIT", "public domain"} <= set(licences.values())
    for named in ("CC BY 4.0", "LICENSES.md"):  # backgrounds and photographs in the package have authors, too
        assert any(named in licence for licence in licences.values())
    assert not (tmp_path / "empty").exists()  # looking leaves no trace


def test_tables_name_cache_and_problems(tmp_path: Path) -> None:
    done = run(WHEREIN_CACHE=str(tmp_path), COLUMNS="200")
    assert done.returncode == 1 and done.stderr == ""
    for word in ("Versions", "transformers", str(tmp_path), "missing", "Extras", "Apache-2.0"):
        assert word in done.stdout


def test_a_damaged_part_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREIN_CACHE", str(tmp_path))
    (tmp_path / parts.ENCODER.file).write_bytes(b"half")
    assert [part["state"] for part in doctor.report()["cache"]["parts"]] == ["damaged", "missing"]


def test_an_extra_that_is_not_installed_comes_with_its_command(monkeypatch: pytest.MonkeyPatch, healthy: None) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else "99")
    assert doctor.report()["extras"]["train"] == {"missing": ["peft"], "install": 'pip install "wherein[train]"'}


def test_a_core_package_out_of_range_is_a_problem(monkeypatch: pytest.MonkeyPatch, healthy: None) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "4.0" if name == "transformers" else "99")
    (problem,) = [one for one in doctor.report()["problems"] if "transformers" in one]
    assert "but 4.0 is installed" in problem and "pip install" in problem


def test_trained_weights_of_something_else_are_not_those_of_the_default_model(
    monkeypatch: pytest.MonkeyPatch, healthy: None, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "files", lambda package: tmp_path)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "adapter_model.safetensors").touch()
    assert any("no trained weights" in problem for problem in doctor.report()["problems"])
    (tmp_path / "vlm" / "weights").mkdir(parents=True)
    (tmp_path / "vlm" / "weights" / "default.safetensors").touch()
    assert not any("no trained weights" in problem for problem in doctor.report()["problems"])


def test_a_torchvision_that_cannot_be_imported_is_found(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    found = json.loads(run("--json", PYTHONPATH=str(tmp_path)).stdout)
    (problem,) = [one for one in found["problems"] if one.startswith("torchvision")]
    assert "nms does not exist" in problem and "pip uninstall torchvision" in problem


def test_a_torchvision_that_works_is_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("")
    found = json.loads(run("--json", PYTHONPATH=str(tmp_path)).stdout)
    assert not any(one.startswith("torchvision") for one in found["problems"])


def test_nothing_to_mend_exits_0(monkeypatch: pytest.MonkeyPatch, healthy: None) -> None:
    monkeypatch.setattr(doctor, "_weight_problems", lambda cache: [])
    monkeypatch.setattr(doctor, "_package_problems", lambda core: [])
    app = typer.Typer()
    app.command()(doctor.doctor)
    done = CliRunner().invoke(app)
    assert done.exit_code == 0 and "runs offline" in done.stdout


def test_the_hub_is_asked_only_on_request(monkeypatch: pytest.MonkeyPatch, healthy: None) -> None:
    def answer(request: object, timeout: float) -> object:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", answer)
    assert doctor.report()["hub"] is None
    assert doctor.report(hub=True)["hub"] is False
