"""`wherein vqa` from its options to its output, with a tiny model and a random insert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import vqa as command
from wherein.errors import AdapterError, InputError
from wherein.evaluation import vqa as evaluation
from wherein.methods import adapter
from wherein.methods.pin import PinConfig, PositionalInsert


@pytest.fixture
def folder(tmp_path: Path, tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """questions.json, annotations.json, images/ and an adapter; the model is the tiny one."""
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: tiny_vlm)
    (tmp_path / "images").mkdir()
    questions, answers = [], []
    for number in range(2):
        Image.new("RGB", (60, 40), (90 * number, 20, 200)).save(tmp_path / "images" / f"{number}.png")
        questions.append({"question_id": number, "image_id": f"{number}.png", "question": "What is this?"})
        answers.append({"question_id": number, "answer_type": "other", "answers": [{"answer": "cat"}] * 10})
    (tmp_path / "questions.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": answers}))
    config = PinConfig(*tiny_vlm.grid, tiny_vlm.feature_dim, codec="00-99")
    insert = PositionalInsert(config)
    torch.nn.init.normal_(insert.layers[-1].weight, std=0.5)
    adapter.save(tmp_path / "pin", "pin", tiny_vlm, config.to_dict(), insert.state_dict(), "")
    return tmp_path


def invoke(folder: Path, *options: str) -> Any:
    app = typer.Typer()
    app.command()(command.vqa)
    fixed = [f"--{name}={folder / f'{name}.json'}" for name in ("questions", "annotations")]
    fixed += ["--images", str(folder / "images"), "--adapter", str(folder / "pin")]
    return CliRunner().invoke(app, [*fixed, *options])


def test_a_table_for_people(folder: Path) -> None:
    done = invoke(folder)
    assert done.exit_code == 0, done.output
    for piece in ("2 questions about 2 images", "pin off", "pin on", "on - off:", "untouched model, bit for bit"):
        assert piece in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["annotations.json", "images", "pin", "questions.json"]


def test_json_on_stdout_is_its_only_line(folder: Path) -> None:
    done = invoke(folder, "--json", "-", "--limit", "1", "--seed", "4")
    results = json.loads(done.stdout)
    assert (results["n"], results["images"], results["seed"], results["method"]) == (1, 1, 4, "pin")
    assert results["off_is_base"] is True and results["max_new_tokens"] == 5 and "pin on" in done.stderr


def test_an_interrupted_command_continues(folder: Path) -> None:
    out, second = folder / "out.json", folder / "images" / "1.png"
    picture = second.read_bytes()
    second.write_bytes(b"")
    stopped = invoke(folder, "--json", str(out))
    assert isinstance(stopped.exception, InputError) and "1 bad records, told above" in str(stopped.exception)
    results = json.loads(out.read_text())
    (complaint,) = results["complaints"]
    assert results["images"] == 1 and "1 questions about 1 images" in stopped.stdout
    assert "questions.json, questions[1]: " in complaint and "1.png is empty" in complaint
    assert complaint in stopped.stderr.splitlines()
    second.write_bytes(picture)
    (folder / "images" / "0.png").write_bytes(picture)  # another picture: it is not looked at again
    done = invoke(folder, "--json", str(out))
    assert done.exit_code == 0 and "1 answers are there already" in done.stderr
    assert json.loads(out.read_text())["images"] == 2


def test_a_killed_command_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = folder / "out.json", []
    answers = evaluation._answers

    def killed(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 3:  # off, of the second image
            raise KeyboardInterrupt
        return answers(*arguments)

    monkeypatch.setattr(evaluation, "_answers", killed)
    assert invoke(folder, "--json", str(out)).exit_code != 0 and not out.exists()
    assert invoke(folder, "--json", str(out)).exit_code == 0 and len(asked) == 3 + 2
    assert json.loads(out.read_text())["images"] == 2


def test_bad_records_cost_their_images_and_the_status(folder: Path) -> None:
    out, path = folder / "out.json", folder / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["answers"].pop()
    path.write_text(json.dumps(content))
    done = invoke(folder, "--json", str(out))
    assert isinstance(done.exception, InputError) and "1 bad records, told above" in str(done.exception)
    results = json.loads(out.read_text())
    assert results["images"] == 1 and "annotations.json, annotations[0] has 9 answers" in results["complaints"][0]
    content["annotations"][0]["answers"] *= 2
    content["annotations"][0]["answers"] = content["annotations"][0]["answers"][:10]
    path.write_text(json.dumps(content))
    (folder / "images" / "1.png").unlink()  # is not asked about again, but is not there
    done = invoke(folder, "--json", str(out), "--skip-bad")
    assert done.exit_code == 0 and "1 answers are there already" in done.stderr
    (missing,) = json.loads(out.read_text())["complaints"]
    assert "questions.json, questions[1]: there is no image" in missing and missing in done.stderr.splitlines()


@pytest.mark.parametrize("change", ["dtype", "images"])
def test_other_settings_start_afresh(folder: Path, tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """As the precision of the model, or the folder of the images."""
    out = folder / "out.json"
    (folder / "images" / "1.png").write_bytes(b"")
    invoke(folder, "--json", str(out))  # not finished
    if change == "dtype":
        monkeypatch.setattr(type(tiny_vlm), "dtype", torch.bfloat16)
        monkeypatch.setattr(evaluation, "run", lambda *_: iter(()))
        done = invoke(folder, "--json", str(out))
    else:
        (folder / "images").rename(folder / "others")
        done = invoke(folder, "--json", str(out), "--images", str(folder / "others"))
    assert "have other settings" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "limit is 0"),
        (["--json", "{folder}"], "is a folder"),
        (["--json", "{folder}/nowhere/out.json"], "No file can be written"),
        (["--questions", "{folder}/annotations.json"], "questions"),
        (["--annotations", "{folder}/questions.json"], "annotations"),
        (["--images", "{folder}"], "questions.json could be asked about"),
    ],
)
def test_wrong_options_are_told(folder: Path, options: list[str], message: str) -> None:
    done = invoke(folder, *(option.format(folder=folder) for option in options))
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_a_question_that_the_model_refuses_is_told(folder: Path, tiny_vlm: Any) -> None:
    path = folder / "questions.json"
    path.write_text(path.read_text().replace("What is this?", f"What is {tiny_vlm.tokenizer.eos_token}?", 1))
    done = invoke(folder)
    assert isinstance(done.exception, InputError) and "1 bad records" in str(done.exception)
    assert any("questions[0]: " in line and "control token" in line for line in done.stderr.splitlines())
    assert "1 questions about 1 images" in done.stdout
    assert invoke(folder, "--skip-bad").exit_code == 0


def test_an_adapter_that_inserts_nothing_has_no_cost(
    folder: Path, tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    heads = adapter.save_file_only(folder / "heads.json", "heads", tiny_vlm, {"heads": [[0, 1]]}, {})
    done = invoke(folder, "--adapter", str(heads))
    assert isinstance(done.exception, InputError) and "inserts nothing" in str(done.exception)
    done = invoke(folder, "--adapter", str(folder / "nothing"))
    assert isinstance(done.exception, AdapterError)
