"""`wherein eval` from its options to its output, with methods that need no model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import wherein
from wherein.cli import eval as command
from wherein.errors import AdapterError, InputError

from .conftest import FakeMethod, no_dogs, whole

KEYS = {"miou", "miou_m", "miou_l", "miou_best", "p@0.3", "p@0.5", "invalid", "ci95"}


@pytest.fixture(autouse=True)
def created(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeMethod]:
    """Methods `whole`, `centre` and `auto` (which is `whole`), and a model that refuses one phrase."""
    made: dict[str, FakeMethod] = {}

    def create(name: str, vlm: Any, adapter: str | None = None) -> FakeMethod:
        name = "whole" if name == "auto" else name
        if adapter and name == "centre":
            raise InputError("The method centre has nothing to load.")
        if adapter and not Path(adapter).exists():
            raise AdapterError("There is no adapter.")
        return made.setdefault(name, FakeMethod(name, whole if name == "whole" else no_dogs))

    def check_phrase(phrase: str) -> None:
        if phrase == "<end>":
            raise InputError("The phrase '<end>' is a control token.")

    methods = ModuleType("wherein.methods")
    methods.__dict__.update(
        names=lambda: ["whole", "centre"], create=create, takes_adapter=lambda name, vlm: name != "centre"
    )
    monkeypatch.setitem(sys.modules, "wherein.methods", methods)
    monkeypatch.setattr(wherein, "methods", methods, raising=False)
    vlm = SimpleNamespace(name="fake", fingerprint="f", check_phrase=check_phrase)
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: vlm)
    return made


def invoke(dataset: Path, *options: str, data: str = "annotations.json") -> Any:
    app = typer.Typer()
    app.command()(command.evaluate)
    fixed = ["--data", str(dataset / data), "--images", str(dataset / "images")]
    return CliRunner().invoke(app, [*fixed, *options], catch_exceptions=True)


def test_json_on_stdout_is_its_only_line(dataset: Path) -> None:
    done = invoke(dataset, "--method", "whole", "--method", "centre", "--json", "-")
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert (results["schema"], results["protocol"], results["n"]) == (1, "pin", 4)
    assert set(results["methods"]) == {"whole", "centre"} and set(results["methods"]["whole"]) >= KEYS
    assert set(results["paired"]) == {"whole - centre"}
    assert "mIoU" in done.stderr


def test_a_table_for_people(dataset: Path) -> None:
    done = invoke(dataset)
    assert done.exit_code == 0 and "whole" in done.stdout and "0.625" in done.stdout
    assert sorted(path.name for path in dataset.iterdir()) == ["annotations.json", "images", "pairs.json"]


def test_files(dataset: Path, tmp_path: Path) -> None:
    out, sheets = tmp_path / "out.json", tmp_path / "sheets"
    options = ["--method", "whole", "--json", str(out), "--gallery", str(sheets), "--limit", "1", "--seed", "7"]
    done = invoke(dataset, *options)
    assert done.exit_code == 0, done.output
    results = json.loads(out.read_text())
    assert (results["images"], results["n"], results["seed"]) == (1, 3, 7)
    assert [path.name for path in sheets.iterdir()] == ["whole.png"]
    assert (tmp_path / "out.records.jsonl").is_file()


def test_pairs(dataset: Path) -> None:
    done = invoke(dataset, "--protocol", "pairs", "--json", "-", data="pairs.json")
    results = json.loads(done.stdout)
    assert (results["protocol"], results["n"], results["methods"]["whole"]["miou"]) == ("pairs", 1, 0.5)


def test_the_same_method_by_two_names_runs_once(dataset: Path, created: dict[str, FakeMethod]) -> None:
    done = invoke(dataset, "--method", "auto", "--method", "whole", "--method", "whole", "--json", "-")
    assert list(json.loads(done.stdout)["methods"]) == ["whole"]
    assert len(created["whole"].asked) == 2


def test_an_interrupted_command_continues(dataset: Path, tmp_path: Path, created: dict[str, FakeMethod]) -> None:
    out = tmp_path / "out.json"
    second = dataset / "images" / "1.png"
    picture = second.read_bytes()
    second.write_bytes(b"")
    assert isinstance(invoke(dataset, "--json", str(out)).exception, InputError)
    assert not out.exists()
    second.write_bytes(picture)
    done = invoke(dataset, "--json", str(out))
    assert done.exit_code == 0 and "Continuing the records" in done.stderr
    assert len(created["whole"].asked) == 2  # once for each image, over both runs
    assert json.loads(out.read_text())["images"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "pinn"], "no method 'pinn': choose auto, whole, centre"),
        (["--protocol", "flickr"], "no protocol 'flickr'"),
        (["--protocol", "pairs"], "is it in COCO format?"),
        (["--limit", "0"], "limit is 0"),
        (["--json", "{folder}"], "is a folder"),
        (["--json", "{folder}/nowhere/out.json"], "No file can be written in the folder"),
        (["--gallery", "{folder}/nowhere/sheets"], "No file can be written in the folder"),
        (["--gallery", "{folder}/pairs.json"], "No file can be written in the folder"),
    ],
)
def test_wrong_options_are_told(dataset: Path, options: list[str], message: str) -> None:
    done = invoke(dataset, *(option.format(folder=dataset) for option in options))
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_a_phrase_that_the_model_refuses_is_told(dataset: Path) -> None:
    pairs = [{"file_name": "1.png", "phrase": "<end>", "bbox": [0, 0, 1, 1]}]
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    done = invoke(dataset, "--protocol", "pairs", data="pairs.json")
    assert isinstance(done.exception, InputError) and "control token" in str(done.exception)


def test_an_adapter_is_for_the_methods_that_load_one(dataset: Path, tmp_path: Path) -> None:
    adapter, out = tmp_path / "adapter", tmp_path / "out.json"
    adapter.mkdir()
    options = ["--adapter", str(adapter), "--json", str(out)]
    assert invoke(dataset, "--method", "whole", "--method", "centre", *options).exit_code == 0
    assert set(json.loads(out.read_text())["methods"]) == {"whole", "centre"}
    alone = invoke(dataset, "--method", "centre", *options)
    assert isinstance(alone.exception, InputError) and "None of the methods centre loads" in str(alone.exception)
    adapter.rmdir()
    assert isinstance(invoke(dataset, "--method", "whole", *options).exception, AdapterError)


def test_another_adapter_is_another_setting(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"one")
    first = command.fingerprint(str(folder))
    assert command.fingerprint("someone/an-adapter") == "someone/an-adapter"
    (folder / "adapter_model.safetensors").write_bytes(b"two")
    assert command.fingerprint(str(folder)) != first
