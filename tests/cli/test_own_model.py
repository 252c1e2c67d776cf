"""The verbs on a model of the user's own: a folder as save_pretrained leaves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import ImageError, InputError


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module", params=["llava", "blip2", "qwen2_5_vl"])
def model(request: pytest.FixtureRequest, build: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    vlm, folder = build(request.param), tmp_path_factory.mktemp("model")
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return path


def test_train_then_locate_then_eval(model: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "pin"
    trained = run("train", "pin", "--model", model, "--out", out, "--steps", 2, "--images", 64)
    assert trained.exit_code == 0, trained.output
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["config"]["codec"] == "grid16" and config["config"]["seam"] == "features"
    found = run("locate", photo, "a cat", "a dog", "--model", model, "--adapter", out, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["method"] == "pin" and answer["model"] == str(model) and answer["adapter"] == str(out)
    for grounding in answer["groundings"]:
        ((x0, y0, x1, y1),) = grounding["boxes"]  # it was never taught what is absent: nothing is
        assert 0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 60 and 0 < grounding["scores"][0] <= 1
        assert grounding["absent_probability"] is None
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"file_name": photo.name, "phrase": "a cat", "bbox": [10, 10, 40, 30]}]))
    measured = run(
        *("eval", "--data", pairs, "--images", tmp_path, "--model", model, "--adapter", out),
        *("--method", "pin", "--method", "text", "--method", "centre", "--json", tmp_path / "figures.json"),
    )
    assert measured.exit_code == 0, measured.output
    assert set(json.loads((tmp_path / "figures.json").read_text())["methods"]) == {"pin", "text", "centre"}


def test_it_can_be_taught_what_is_absent_in_steps_of_several_batches(model: Path, photo: Path, tmp_path: Path) -> None:
    out, several = tmp_path / "pin", ("--absent", "--batch", 4, "--at-once", 2)
    trained = run("train", "pin", "--model", model, "--out", out, "--steps", 2, "--images", 64, *several)
    assert trained.exit_code == 0, trained.output
    found = run("locate", photo, "a cat", "--model", model, "--adapter", out, "--json")
    (grounding,) = json.loads(found.stdout)["groundings"]
    assert 0 <= grounding["absent_probability"] <= 1
    assert grounding["absent"] == (grounding["absent_probability"] >= 0.5)
    other = run("train", "pin", "--model", model, "--out", tmp_path / "other", "--batch", 4, "--at-once", 3)
    assert isinstance(other.exception, InputError) and "parts of 3" in str(other.exception)
    assert not (tmp_path / "other").exists()


def test_without_an_adapter_the_model_is_asked_as_it_is(model: Path, photo: Path) -> None:
    found = run("locate", photo, "a cat", "--model", model, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["method"] == "text"


def test_an_image_that_the_model_cannot_take_costs_itself(build: Any, photo: Path, tmp_path: Path) -> None:
    """A banner between photographs, on a model that refuses images above a ratio of 200."""
    vlm, model = build("qwen2_5_vl"), tmp_path / "model"
    vlm.model.save_pretrained(model)
    vlm.processor.save_pretrained(model)
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "c.png"):
        (images / name).write_bytes(photo.read_bytes())
    Image.new("RGB", (3000, 10)).save(images / "b.png")
    found = run("locate", images, "a cat", "--model", model, "--json")
    assert ["error" in json.loads(line) for line in found.stdout.splitlines()] == [False, True, False]
    assert isinstance(found.exception, ImageError) and "3000 x 10 pixels is too long and thin" in found.stderr
    pairs, out = tmp_path / "pairs.json", tmp_path / "out.json"
    pairs.write_text(json.dumps([{"file_name": f"{n}.png", "phrase": "a cat", "bbox": [1, 1, 8, 8]} for n in "abc"]))
    for verb in ("eval", "probe"):
        data = ("--data", pairs, "--images", images, "--model", model, "--json", out)
        measured = run(verb, *data, *(("--prompt", "box", "--tokens", 4) if verb == "probe" else ()))
        assert isinstance(measured.exception, InputError) and "1 bad records" in str(measured.exception)
        results = json.loads(out.read_text())
        assert results["images"] == 2 and "pair[1]" in measured.stderr
        assert "pixels is too long and thin" in measured.stderr


def test_a_size_is_taken_where_a_family_has_one(model: Path, photo: Path) -> None:
    found = run("locate", photo, "a cat", "--model", model, "--json", "--size", 84)
    if json.loads((model / "config.json").read_text())["model_type"] == "blip-2":
        assert found.exit_code == 0, found.output
        assert isinstance(run("locate", photo, "a cat", "--model", model, "--size", 85).exception, InputError)
    else:
        assert isinstance(found.exception, InputError) and "leave size out" in str(found.exception)


def test_baselines_then_the_paper_s_table(build: Any, photo: Path, tmp_path: Path) -> None:
    """PIN's table 2 on a BLIP-2: what was trained is run, what was not is told with the command that trains it."""
    vlm, model = build("blip2"), tmp_path / "model"
    vlm.model.save_pretrained(model)
    vlm.processor.save_pretrained(model)
    cache = tmp_path / "cache"
    for method in ("vpt", "vpt_encoder", "lora"):
        out = tmp_path / "trained" / method
        options = ("--out", out, "--steps", 1, "--images", 16, "--cache", cache)
        trained = run("train", method, "--model", model, *options)
        assert trained.exit_code == 0, trained.output
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"file_name": photo.name, "phrase": "a cat", "bbox": [10, 10, 40, 30]}]))
    (tmp_path / "images").symlink_to(tmp_path)
    made = run(
        *("reproduce", "pin", "--table", 2, "--data", pairs, "--model", model, "--adapters", tmp_path / "trained"),
        *("--out", tmp_path / "tables"),
    )
    assert made.exit_code == 0, made.output
    results = json.loads((tmp_path / "tables" / "pin-2" / "table.json").read_text())
    (found,) = results["data"]
    assert set(found["rows"]) == {"centre", "text", "vpt", "vpt_encoder"}
    assert f"wherein train pin --model {model} --out" in found["not run"]["pin"]
    assert results["made"]["seed"] == 0 and results["made"]["prompt"] == " In the image is {phrase} located at"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "centre", "--out", "x"), "choose coop, lora, pin"),
        (("reproduce", "pin", "--data", "none"), "none"),
        (("reproduce", "heads", "--table", "x", "--data", "none"), "choose rec, res, reasonseg, k, criteria"),
        (("reproduce", "pin", "--table", "9", "--data", "none"), "no table 9"),
        (("reproduce", "pin", "--baseline", "best", "--data", "none"), "no row 'best'"),
    ],
)
def test_what_there_is_not(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    made = run(*arguments, *(() if arguments[0] == "train" else ("--out", tmp_path / "out")))
    assert isinstance(made.exception, InputError) and said in str(made.exception)


def test_eval_says_what_there_is_without_loading_a_model(tmp_path: Path) -> None:
    for options, said in (
        (("--method", "pinn"), "no method 'pinn': choose auto, cam, centre"),
        (("--method", "pin", "--adapter", tmp_path / "none"), "No adapter at"),
        (("--method", "pin", "--model", "nobody/nothing"), "No pin is built in for nobody/nothing"),
    ):
        made = run("eval", "--data", tmp_path, *options)
        assert isinstance(made.exception, InputError) and said in str(made.exception)
