"""`wherein probe`, local and remote, from its options to its files; never twice, never without being told the price."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import probe as command
from wherein.errors import InputError

_spec = importlib.util.spec_from_file_location("fake_endpoint", Path(__file__).parents[1] / "fake_endpoint.py")
assert _spec is not None and _spec.loader is not None
fake_endpoint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_endpoint)
says, sends = fake_endpoint.says, fake_endpoint.sends

KEY = "sk-a-very-secret-key"
QUESTIONS = 6 * 3  # prompts, phrases


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with three phrases on two images of 200 x 100 pixels, each the left half."""
    (tmp_path / "images").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (100, 200, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    asked = [("0.png", "the cat"), ("0.png", "a dog"), ("1.png", "the dog")]
    pairs = [{"file_name": name, "phrase": phrase, "bbox": [0, 0, 100, 100]} for name, phrase in asked]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An endpoint that answers half of the picture as it is sent, 100 x 50 pixels."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with fake_endpoint.FakeEndpoint(lambda question: "[0, 0, 50, 50]") as server:
        yield server


def invoke(data: Path, *options: object) -> Any:
    app = typer.Typer()
    app.command()(command.probe)
    fixed = ["--data", data / "pairs.json", "--images", data / "images"]
    return CliRunner().invoke(app, list(map(str, [*fixed, *options])))


def remote(data: Path, server: Any, *options: object) -> Any:
    there = ["--endpoint", server.url, "--model", "some-model", "--side", 100, "--json", data / "out.json"]
    return invoke(data, *there, *options)


def test_a_remote_model_is_probed(data: Path, server: Any) -> None:
    done = remote(data, server)
    assert done.exit_code == 0, done.output
    results = json.loads((data / "out.json").read_text())
    assert (results["model"], results["n"], results["methods"]["box"]["miou"]) == ("some-model", 3, 1.0)
    assert results["prompts"]["box"]["verdicts"]["box"] == 3 and results["answers"][0]["box"] == [0, 0, 100, 100]
    assert results["coordinates"]["convention"] == "pixels" and "centre" in done.stdout
    assert f"{QUESTIONS} requests to {server.url}/chat/completions, with a key" in done.stderr
    assert len(server.asked) == QUESTIONS == len((data / "out.answers.jsonl").read_bytes().splitlines()[1:])


def test_a_stopped_probe_goes_on_and_asks_nothing_twice(data: Path, server: Any) -> None:
    server.script = [says("[0, 0, 50, 50]")] * 4 + [sends(400, '{"error": {"message": "No credit."}}')]
    stopped = remote(data, server)
    assert isinstance(stopped.exception, InputError)
    assert f"(400): No credit. 4 of {QUESTIONS} answers came; the same command goes on" in str(stopped.exception)
    assert not (data / "out.json").exists()
    done = remote(data, server)
    assert done.exit_code == 0 and "4 answers are there already." in done.stderr
    assert f"{QUESTIONS - 4} requests to" in done.stderr and len(server.asked) == QUESTIONS + 1
    again = remote(data, server, "--coordinates", "0-1000", "--prompt", "box")
    assert again.exit_code == 0 and len(server.asked) == QUESTIONS + 1  # read anew, not asked anew
    results = json.loads((data / "out.json").read_text())
    assert results["coordinates"] == {"convention": "0-1000", "decided": "the caller"}
    assert list(results["prompts"]) == ["box"] and results["methods"]["box"]["miou"] < 0.1
    assert remote(data, server, "--tokens", 9, "--prompt", "box").exit_code == 0  # another setting, other answers
    assert len(server.asked) == QUESTIONS + 1 + 3


def test_a_killed_probe_goes_on(data: Path, server: Any) -> None:
    """The process dies in the middle of a question."""
    server.script = [says("[0, 0, 50, 50]")] * 4 + [lambda handler: process.kill()]
    code = "import typer; from wherein.cli.probe import probe; app = typer.Typer(); app.command()(probe); app()"
    there = ["--endpoint", server.url, "--model", "some-model", "--side", "100", "--json", data / "out.json"]
    fixed = ["--data", data / "pairs.json", "--images", data / "images"]
    process = subprocess.Popen([sys.executable, "-c", code, *fixed, *there], stderr=subprocess.DEVNULL)
    assert process.wait(120) < 0 and not (data / "out.json").exists()
    assert remote(data, server).exit_code == 0
    assert len(server.asked) == QUESTIONS + 1


def test_the_key_is_in_no_file_and_no_message(data: Path, server: Any) -> None:
    body = json.dumps({"error": {"message": f"{KEY} has no credit"}})
    server.script = [says(f"Your key is {KEY}."), sends(400, body)]
    stopped = remote(data, server)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "*** has no credit" in str(stopped.exception)
    done = remote(data, server)
    assert done.exit_code == 0
    files = [path for path in data.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"out.json", "out.answers.jsonl"}
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in str(stopped.exception) + stopped.output + done.output


def test_the_price_is_told_before_anything_is_sent(data: Path, server: Any) -> None:
    dear = remote(data, server, "--price", 10000, 10000)
    assert isinstance(dear.exception, InputError) and "add --yes to go on" in str(dear.exception)
    assert "At these prices, about" in dear.stderr and server.asked == []
    assert remote(data, server, "--price", 10000, 10000, "--yes", "--prompt", "box").exit_code == 0
    assert remote(data, server, "--price", 1, 4).exit_code == 0
    assert remote(data, server, "--price", 10000, 10000).exit_code == 0  # nothing is left to pay for
    assert len(server.asked) == QUESTIONS
    assert isinstance(remote(data, server, "--tokens", 9, "--price", "nan", 1).exception, InputError)


def test_answers_that_were_cut_off_are_told(data: Path, server: Any) -> None:
    server.script = [says("```json [{", finish_reason="length")] * 3
    done = remote(data, server, "--tokens", 7)
    assert "3 answers were cut off: --tokens" in done.stderr


def test_bad_records_are_told_before_anything_is_sent(data: Path, server: Any) -> None:
    (data / "images" / "1.png").write_bytes(b"no image")
    stopped = remote(data, server)
    assert isinstance(stopped.exception, InputError) and "nothing was asked" in str(stopped.exception)
    assert server.asked == []
    done = remote(data, server, "--skip-bad")
    results = json.loads((data / "out.json").read_text())
    assert (done.exit_code, results["images"], len(results["complaints"])) == (0, 1, 1)


def test_a_bad_record_costs_a_local_model_its_image(data: Path, tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: tiny_vlm)
    picture = (data / "images" / "1.png").read_bytes()
    (data / "images" / "1.png").write_bytes(b"no image")
    options = ["--tokens", 4, "--prompt", "localise", "--json", data / "out.json"]
    done = invoke(data, *options)
    assert isinstance(done.exception, InputError) and "1 bad records, told above" in str(done.exception)
    (complaint,) = (line for line in done.stderr.splitlines() if "1.png" in line)
    assert "pairs.json, pair[2]" in complaint and "localise" in done.stdout
    results = json.loads((data / "out.json").read_text())
    assert (results["images"], results["n"], results["complaints"]) == (1, 2, [complaint])
    assert invoke(data, *options, "--skip-bad").exit_code == 0
    (data / "images" / "1.png").write_bytes(picture)
    encoded = tiny_vlm.encoded
    done = invoke(data, *options)  # what was mended is asked, and nothing else
    assert done.exit_code == 0 and tiny_vlm.encoded == encoded + 1
    assert json.loads((data / "out.json").read_text())["images"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "boxes"], "no prompt 'boxes': choose box, localise"),
        (["--coordinates", "percent"], "no coordinates 'percent': choose auto, pixels, 0-1"),
        (["--json", "{data}"], "is a folder"),
        (["--json", "{data}/nowhere/out.json"], "No file can be written"),
        (["--protocol", "flickr"], "no protocol 'flickr'"),
        (["--key", "SOME_KEY", "--side", "9"], "--key, --side: only for a remote model"),
        (["--endpoint", "{url}", "--model", "m"], "give --json FILE"),
        (["--endpoint", "{url}", "--json", "{data}/a.json"], "say which with --model"),
        (
            ["--endpoint", "{url}", "--model", "m", "--json", "{data}/a.json", "--dtype", "float16"],
            "--dtype: only for a",
        ),
        (["--endpoint", "{url}", "--model", "m", "--json", "{data}/a.json", "--key", "NOT_SET"], "NOT_SET with the"),
        (
            ["--endpoint", "{url}", "--model", "m", "--json", "{data}/a.json", "--key", KEY],
            "the NAME of an environment",
        ),
        (["--endpoint", "{url}", "--model", "m", "--json", "{data}/a.json", "--body", "[1]"], "must be a JSON object"),
        (["--endpoint", "{url}", "--model", "m", "--json", "{data}/a.json", "--body", '{"a": NaN}'], "a JSON object"),
        (["--endpoint", "localhost", "--model", "m", "--json", "{data}/a.json"], "no URL"),
    ],
)
def test_wrong_options_are_told(data: Path, server: Any, options: list[str], message: str) -> None:
    given = [option.replace("{data}", str(data)).replace("{url}", server.url) for option in options]
    done = invoke(data, *given)
    assert isinstance(done.exception, InputError) and message in str(done.exception), done.exception
    assert KEY not in str(done.exception) and server.asked == []


def test_a_local_model_is_probed(data: Path, tiny_vlm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: tiny_vlm)
    options = ["--tokens", 4, "--prompt", "localise"]
    done = invoke(data, *options, "--json", "-")
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert sum(results["prompts"]["localise"]["verdicts"].values()) == 3 and results["asked"]["tokens"] == 4
    assert "localise" in done.stderr and sorted(path.name for path in data.iterdir()) == ["images", "pairs.json"]
    encoded = tiny_vlm.encoded
    for _ in range(2):  # the second time from the file
        assert invoke(data, *options, "--json", data / "out.json").exit_code == 0
    assert tiny_vlm.encoded == encoded + 2
    assert (
        json.loads((data / "out.json").read_text())["methods"]["localise"]["miou"]
        == results["methods"]["localise"]["miou"]
    )
