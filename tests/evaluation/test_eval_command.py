"""`wherein eval` from its options to its output, with methods that need no model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import wherein
from wherein.cli import eval as command
from wherein.errors import AdapterError, ImageError, InputError
from wherein.methods.base import REGISTRY

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
        return made.setdefault(name, FakeMethod(name, whole if name == "whole" else no_dogs))

    def check_phrase(phrase: str) -> None:
        if phrase == "<end>":
            raise InputError("The phrase '<end>' is a control token.")

    def check(name: str, model: str, adapter: str | None = None) -> None:
        if name == "whole" and model == "user/other":
            raise InputError("The method whole works on the built-in model alone.")
        if adapter and not Path(adapter).exists():
            raise AdapterError("There is no adapter.")

    def takes_adapter(name: str) -> bool:
        if name not in ("auto", "whole", "centre"):
            raise InputError(f"There is no method {name!r}.")
        return name != "centre"

    methods = ModuleType("wherein.methods")
    methods.__dict__.update(
        create=create,
        takes_adapter=takes_adapter,
        check=check,
    )
    monkeypatch.setitem(sys.modules, "wherein.methods", methods)
    monkeypatch.setattr(wherein, "methods", methods, raising=False)
    vlm = SimpleNamespace(name="fake", fingerprint="f", dtype="float32", check_phrase=check_phrase)
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: vlm)
    return made


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(command.evaluate)
    return made


def invoke(dataset: Path, *options: str, data: str = "annotations.json") -> Any:
    fixed = ["--data", str(dataset / data), "--images", str(dataset / "images")]
    return CliRunner().invoke(app(), [*fixed, *options], catch_exceptions=True)


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
    assert sorted(path.name for path in sheets.iterdir()) == ["centre.png", "whole.png"]
    assert (tmp_path / "out.records.jsonl").is_file()


def test_every_figure_can_be_read_in_a_file(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, which rich takes where there is no terminal, would cut them."""
    monkeypatch.setenv("COLUMNS", "80")
    said = invoke(dataset).stdout
    assert "…" not in said and re.search(r"^ *whole +0\.625 +\d\.\d{3}\.\.\d\.\d{3} .*\d\.\d{3} *$", said, re.MULTILINE)
    assert "Of fewer than 10 images" in said


def test_the_data_are_not_overwritten(dataset: Path) -> None:
    before = (dataset / "annotations.json").read_bytes()
    done = invoke(dataset, "--json", str(dataset / "images" / ".." / "annotations.json"))
    assert isinstance(done.exception, InputError) and "take the place of the data" in str(done.exception)
    assert (dataset / "annotations.json").read_bytes() == before


def test_results_of_any_name_keep_records_of_their_own(dataset: Path, tmp_path: Path) -> None:
    for name in ("run.1", "run.2"):
        assert invoke(dataset, "--json", str(tmp_path / name)).exit_code == 0
    assert {path.name for path in tmp_path.glob("run*records*")} == {"run.1.records.jsonl", "run.2.records.jsonl"}


def test_after_an_image_was_mended_only_that_is_asked(dataset: Path, tmp_path: Path, created: Any) -> None:
    out, image = str(tmp_path / "out.json"), dataset / "images" / "1.png"
    content = image.read_bytes()
    image.write_bytes(content[:20])
    assert invoke(dataset, "--skip-bad", "--json", out).exit_code == 0
    image.write_bytes(content)
    asked = len(created["whole"].asked)
    done = invoke(dataset, "--skip-bad", "--json", out)
    assert done.exit_code == 0 and "answers are there already" in done.stderr
    assert len(created["whole"].asked) == asked + 1


def test_pairs(dataset: Path) -> None:
    done = invoke(dataset, "--json", "-", data="pairs.json")
    results = json.loads(done.stdout)
    assert (results["protocol"], results["n"], results["methods"]["whole"]["miou"]) == ("phrases", 1, 0.5)
    assert (results["format"], results["expected_images"], results["complaints"]) == ("pairs", None, [])
    named = json.loads(invoke(dataset, "--protocol", "pairs", "--json", "-", data="pairs.json").stdout)
    assert (named["protocol"], named["n"], named["methods"]["whole"]["miou"]) == ("pairs", 1, 0.5)


def test_phrases_without_a_target_are_asked(doubtful: Path, created: dict[str, FakeMethod]) -> None:
    created["whole"] = FakeMethod("whole", whole, gone=["zebra"])
    done = CliRunner().invoke(app(), ["--data", str(doubtful), "--split", "val", "--json", "-"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert (results["protocol"], results["n"], results["images"]) == ("phrases", 4, 2)
    figures = results["methods"]["whole"]
    assert (figures["n_acc"], figures["t_acc"], figures["n_no_target"]) == (0.5, 1, 4)
    pairs = ["--data", str(doubtful), "--split", "val", "--protocol", "pairs", "--json", "-"]
    assert json.loads(CliRunner().invoke(app(), pairs).stdout)["methods"]["whole"]["n_no_target"] == 4
    assert results["methods"]["centre"]["n_acc"] == 0
    (doubtful / "images" / "1.png").write_bytes(b"no image")
    (doubtful / "images" / "2.png").write_bytes(b"no image")
    done = CliRunner().invoke(app(), ["--data", str(doubtful), "--split", "val"])
    assert isinstance(done.exception, InputError) and "could be asked about" in str(done.exception)


def test_a_folder_is_enough(dataset: Path) -> None:
    done = CliRunner().invoke(app(), ["--data", str(dataset), "--json", "-"])
    results = json.loads(done.stdout)
    assert (results["protocol"], results["format"], results["n"]) == ("pin", "coco", 4)


def test_the_published_number_of_images_is_told(dataset: Path) -> None:
    (dataset / "annotations").mkdir()
    (dataset / "annotations.json").rename(dataset / "annotations" / "instances_val2017.json")
    (dataset / "images").rename(dataset / "val2017")
    done = CliRunner().invoke(app(), ["--data", str(dataset), "--json", "-"])
    assert "val2017: 2 images with one to three objects; the paper of PIN has 2,062." in done.stderr
    assert json.loads(done.stdout)["expected_images"] == 2062
    done = CliRunner().invoke(app(), ["--data", str(dataset), "--limit", "1", "--json", "-"])
    assert "the paper" not in done.stderr and json.loads(done.stdout)["expected_images"] is None


@pytest.fixture
def spoilt(dataset: Path) -> Path:
    """The data set with two more images: one with a box outside it, and one that is no image."""
    content = json.loads((dataset / "annotations.json").read_text())
    for name, box in (("4.png", [0, 0, 102, 50]), ("5.png", [0, 0, 9, 9])):
        (dataset / "images" / name).write_bytes(
            (dataset / "images" / "0.png").read_bytes() if name == "4.png" else b"no"
        )
        content["images"].append({"id": name, "file_name": name, "width": 100, "height": 50})
        content["annotations"].append({"id": name, "image_id": name, "category_id": 1, "bbox": box, "iscrowd": 0})
    (dataset / "annotations.json").write_text(json.dumps(content))
    return dataset


def test_bad_records_cost_their_images_and_the_status(
    spoilt: Path, tmp_path: Path, created: dict[str, FakeMethod]
) -> None:
    out = tmp_path / "out.json"
    done = invoke(spoilt, "--json", str(out))
    assert isinstance(done.exception, InputError) and "2 bad records, told above" in str(done.exception)
    results = json.loads(out.read_text())
    assert (results["images"], results["n"]) == (2, 4) and "0.625" in done.stdout
    outside, damaged = results["complaints"]
    assert "annotations.json, annotations[13] has the box [0.0, 0.0, 102.0, 50.0]" in outside
    assert "annotations.json, images[5]: image" in damaged and "5.png is not an image" in damaged
    assert [line for line in done.stderr.splitlines() if "5.png" in line] == [damaged]
    assert len(created["whole"].asked) == 2
    (spoilt / "images" / "5.png").write_bytes((spoilt / "images" / "0.png").read_bytes())
    done = invoke(spoilt, "--json", str(out), "--skip-bad")  # what was mended is asked, and nothing else
    assert done.exit_code == 0 and "Continuing the records" in done.stderr and len(created["whole"].asked) == 3
    results = json.loads(out.read_text())
    assert results["images"] == 3 and results["complaints"] == [outside]


def test_many_bad_records_are_counted(dataset: Path, tmp_path: Path) -> None:
    pair = {"file_name": "1.png", "phrase": "the dog", "bbox": [50, 0, 50, 50]}
    (dataset / "pairs.json").write_text(json.dumps([pair, *({**pair, "file_name": f"{n}.jpg"} for n in range(1200))]))
    done = invoke(dataset, "--json", str(tmp_path / "out.json"), "--skip-bad", data="pairs.json")
    assert done.exit_code == 0
    lines = [line for line in done.stderr.splitlines() if "there is no image" in line]
    assert len(lines) == 20 and "... and 1,180 more complaints" in done.stderr
    assert len(json.loads((tmp_path / "out.json").read_text())["complaints"]) == 1200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "whole", "--model", "user/other"], "built-in model alone"),
        (["--method", "whole", "--adapter", "{folder}/none"], "no adapter"),
        (["--method", "centre", "--adapter", "{folder}/none"], "None of the methods centre loads"),
        (["--method", "pinn"], "no method 'pinn'"),
        (["--segmenter", "nobody/nothing"], "configuration of 'nobody/nothing'"),
    ],
)
def test_what_is_wrong_without_the_model_is_told_before_it_is_loaded(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    done = invoke(dataset, *(option.format(folder=dataset) for option in options))
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_an_image_that_a_model_cannot_take_is_left_out_and_counted(
    dataset: Path, tmp_path: Path, created: dict[str, FakeMethod]
) -> None:
    def thin(image: Any, phrase: str) -> list[list[float]]:
        if phrase == "cat":  # of the first image
            raise ImageError("An image of 3000 x 10 pixels is too long and thin.")
        return whole(image, phrase)

    out, created["whole"] = tmp_path / "out.json", FakeMethod("whole", thin)
    done = invoke(dataset, "--json", str(out))
    assert isinstance(done.exception, InputError) and "1 bad records, told above" in str(done.exception)
    results = json.loads(out.read_text())
    (complaint,) = results["complaints"]
    assert "annotations.json, images[0], image '0.png': An image of 3000 x 10" in complaint
    assert results["images"] == 1 and results["methods"]["centre"]["miou"] == 0  # of the other image
    assert invoke(dataset, "--json", str(out), "--skip-bad").exit_code == 0
    assert len(created["whole"].asked) == 1 + 1 + 1  # the other image is not asked about again


def test_the_same_method_by_two_names_runs_once(dataset: Path, created: dict[str, FakeMethod]) -> None:
    done = invoke(dataset, "--method", "auto", "--method", "whole", "--method", "whole", "--json", "-")
    assert list(json.loads(done.stdout)["methods"]) == ["whole", "centre"]
    assert len(created["whole"].asked) == 2


def test_an_interrupted_command_continues(dataset: Path, tmp_path: Path, created: dict[str, FakeMethod]) -> None:
    out = tmp_path / "out.json"
    fails = FakeMethod("whole", lambda image, phrase: whole(image, phrase) if len(fails.asked) < 2 else 1 / 0)  # type: ignore[return-value]
    created["whole"] = fails
    assert isinstance(invoke(dataset, "--json", str(out)).exception, ZeroDivisionError)
    assert not out.exists()
    created["whole"] = FakeMethod("whole", whole)
    done = invoke(dataset, "--json", str(out))
    assert done.exit_code == 0 and "Continuing the records" in done.stderr
    assert len(created["whole"].asked) == 1  # about the second image
    assert json.loads(out.read_text())["images"] == 2


def test_the_constant_box_is_in_every_table(dataset: Path) -> None:
    results = json.loads(invoke(dataset, "--json", "-").stdout)
    assert list(results["methods"]) == ["whole", "centre"] and set(results["paired"]) == {"whole - centre"}
    named = json.loads(invoke(dataset, "--method", "centre", "--method", "whole", "--json", "-").stdout)
    assert list(named["methods"]) == ["centre", "whole"]  # where the user put it


def test_answers_of_other_code_are_not_continued(
    dataset: Path, tmp_path: Path, created: dict[str, FakeMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    fails = FakeMethod("whole", lambda image, phrase: whole(image, phrase) if len(fails.asked) < 2 else 1 / 0)  # type: ignore[return-value]
    created["whole"] = fails
    invoke(dataset, "--json", str(out))
    monkeypatch.setattr("wherein.evaluation.records.code", lambda: "other")
    created["whole"] = FakeMethod("whole", whole)
    done = invoke(dataset, "--json", str(out))
    assert "have other settings" in done.stderr and len(created["whole"].asked) == 2


def test_the_help_names_every_method() -> None:
    import typer.main

    (option,) = (one for one in typer.main.get_command(app()).params if one.name == "method")
    assert set(REGISTRY) <= set(re.findall(r"\w+", option.help))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "pinn"], "no method 'pinn'"),
        (["--protocol", "flickr"], "no protocol 'flickr'; choose one of auto, pin, phrases, pairs"),
        (["--format", "pairs"], "is not recognised as a data set; this was looked for: pairs ("),
        (["--format", "tar"], "no format 'tar': choose auto, coco, lvis"),
        (["--split", "val"], "annotations.json has no splits, but the split 'val' was chosen"),
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
    pairs = [
        {"file_name": f"{n}.png", "phrase": phrase, "bbox": [0, 0, 1, 1]} for n, phrase in enumerate(["<end>", "it"])
    ]
    (dataset / "pairs.json").write_text(json.dumps(pairs[:1]))
    done = invoke(dataset, data="pairs.json")
    assert isinstance(done.exception, InputError) and "No image of" in str(done.exception)
    assert "pairs.json, pair[0]: The phrase '<end>' is a control token" in done.stderr
    (dataset / "pairs.json").write_text(json.dumps(pairs))
    done = invoke(dataset, "--skip-bad", "--json", "-", data="pairs.json")
    assert done.exit_code == 0 and json.loads(done.stdout)["images"] == 1 and "control token" in done.stderr


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
    (folder / "cache").mkdir()
    for beside in ("cache/features.npy", "journal.jsonl"):
        (folder / beside).write_bytes(b"what training leaves beside it")
    assert command.fingerprint(str(folder)) == first
    (folder / "adapter_model.safetensors").write_bytes(b"two")
    assert command.fingerprint(str(folder)) != first


def test_heads_of_another_file_are_another_setting(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text("one")
    first = command.fingerprint(str(path))
    path.write_text("two")
    assert command.fingerprint(str(path)) != first
