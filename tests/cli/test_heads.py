"""`wherein heads` and what heads add to `wherein locate`, as a user types it."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wherein.cli import app
from wherein.errors import InputError
from wherein.evaluation.papers import HEADS

from ..forked import typed

PHOTO = str(files("wherein") / "examples" / "cat.jpg")


@pytest.mark.usefixtures("default_vlm")
def test_heads_locate_draw_and_say_so(tmp_path: Path) -> None:
    done = typed(
        tmp_path,
        *("locate", PHOTO, "the cat", "a ball", "--method", "heads", "--json", "--save", "h.png", "--heatmap"),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["method"] == "heads" and [g["phrase"] for g in answer["groundings"]] == ["the cat", "a ball"]
    cat = answer["groundings"][0]
    assert cat["score_kind"] == "attention_share" and 0 <= cat["absent_probability"] <= 1
    assert Image.open(tmp_path / "h.png").width > 400
    done = typed(tmp_path, "locate", PHOTO, "the cat", "--method", "heads", "--all", "--mask", "--save", "m.png")
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(tmp_path / "m.png").convert("RGB"))
    plain = np.asarray(Image.open(PHOTO).convert("RGB"))
    assert drawn.shape == plain.shape and (drawn != plain).mean() > 0.1  # a box alone changes far less


@pytest.fixture
def own(build: Any, tmp_path: Path) -> Path:
    """A model of the user's own, a tiny LLaVA of five layers: heads of the first two never count."""
    vlm, folder = build("llava"), tmp_path / "llava"
    config = deepcopy(vlm.model.config)
    config.text_config.num_hidden_layers = 5
    for part in (type(vlm.model)(config), vlm.processor):
        part.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("own")
def test_heads_are_found_tabled_and_used(tmp_path: Path) -> None:
    """The built-in model's are found in the examples of docs/heads.md, which are run as well (tests/test_docs.py)."""

    def run(*arguments: str) -> str:
        done = typed(tmp_path, *arguments, "--model", "llava")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "tau" in run("heads", "find", "--out", "heads.json", "--pool", "4", "--trials", "2")
    assert (tmp_path / "heads.png").exists()
    found = json.loads((tmp_path / "heads.json").read_text())
    assert len(found["config"]["heads"]) == 3 and found["found"]["data"].startswith("4 composites")
    Image.open(PHOTO).save(tmp_path / "cat.png")
    (tmp_path / "pairs.json").write_text(
        json.dumps([{"file_name": "cat.png", "phrase": "the cat", "bbox": [10, 5, 300, 250]}])
    )
    (tmp_path / "images").symlink_to(tmp_path)
    for table, rows in (("k", [f"k={k}" for k in range(1, 6)]), ("criteria", list(HEADS["criteria"]))):
        arguments = ["--table", table, "--data", "pairs.json", "--adapter", "heads.json", "--out", "tables"]
        run("reproduce", "heads", *arguments)
        results = json.loads((tmp_path / "tables" / f"heads-{table}" / "table.json").read_text())
        assert list(results["data"][0]["rows"]) == ["centre", *rows]
    answer = run("locate", PHOTO, "the cat", "--adapter", "heads.json", "--json")
    assert json.loads(answer)["method"] == "heads"
    run("heads", "find", "--out", "real.json", "--pairs", "pairs.json", "--images", ".", "--by", "agreement")
    assert "pairs.json" in json.loads((tmp_path / "real.json").read_text())["found"]["data"]


@pytest.fixture
def refcoco(tmp_path: Path) -> Path:
    """A folder as RefCOCO's: two images of noise, one in each split, two expressions each."""
    folder, splits = tmp_path / "refcoco", ("train", "val")
    (folder / "images").mkdir(parents=True)
    size, box = {"width": 90, "height": 60}, {"bbox": [10, 10, 40, 30], "category_id": 1}
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    instances = {
        "images": [{"id": i, "file_name": f"{i}.png", **size} for i in range(2)],
        "annotations": [{"id": i, "image_id": i, **box} for i in range(2)],
    }
    said = [{"sent": "left man"}, {"sent": "man with a hat"}]
    refs = [{"ref_id": i, "ann_id": i, "image_id": i, "split": splits[i], "sentences": said} for i in range(2)]
    (folder / "refs(unc).json").write_text(json.dumps(refs))
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


@pytest.mark.usefixtures("own", "refcoco")
def test_the_papers_run_from_the_search_to_fixed_against_greedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/heads.md for LLaVA-1.5-7B (LH-13, LH-14), on a tiny one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        done = CliRunner().invoke(app, [*arguments, "--model", "llava"])
        assert done.exit_code == 0, done.output

    where = ["--pairs", "refcoco", "--images", "refcoco/images", "--split", "train"]
    run("heads", "find", *where, "--preset", "paper", "--pool", "3000", "--out", "heads.json")
    found = json.loads(Path("heads.json").read_text())
    assert found["found"]["data"].endswith("1 images") and found["found"]["by"] == "criteria"
    run(
        "eval",
        "--data",
        "refcoco",
        "--split",
        "val",
        "--method",
        "heads",
        "--adapter",
        "heads.json",
        "--json",
        "val.json",
    )
    assert json.loads(Path("val.json").read_text())["n"] == 2
    run("reproduce", "heads", "--table", "criteria", "--data", "refcoco", "--split", "val", "--adapter", "heads.json")
    rows = json.loads(Path("reproduced/heads-criteria/table.json").read_text())["data"][0]["rows"]
    assert {"both, greedy", "both, fixed"} < set(rows)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["locate", PHOTO, "a cat", "--mask"], "--save"),
        (["locate", PHOTO, "a cat", "--heatmap", "--mask", "--save", "x.png"], "choose"),
        (["heads", "find", "--out", "none/heads.json"], "none"),
        (["heads", "find", "--out", "."], "is a folder"),
        (["heads", "find", "--out", "heads.png"], "does not end in .json"),
        (["heads", "find", "--out", "h.json", "--pairs", "p.json"], "--images"),
        (["heads", "find", "--out", "h.json", "--split", "train"], "--pairs"),
        (["heads", "find", "--out", "h.json", "--preset", "mine"], "mine"),
        (["heads", "find", "--out", "h.json", "--by", "luck"], "luck"),
        (["reproduce", "heads", "--table", "colour", "--data", "p.json"], "colour"),
        (["reproduce", "heads", "--table", "k", "--data", "p.json"], "p.json"),
    ],
)
def test_wrong_calls_fail_before_the_model_is_loaded(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wherein.vlm.load_vlm", lambda *_: pytest.fail("the model was loaded"))
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError) and word in str(result.exception)


@pytest.mark.usefixtures("default_vlm")
def test_what_a_method_does_not_give_is_refused_before_any_answer(tmp_path: Path) -> None:
    done = typed(tmp_path, "locate", PHOTO, "the cat", "--method", "cam", "--mask", "--save", "m.png")
    assert done.returncode == 2 and "cam gives no mask" in done.stderr and not done.stdout
    assert not (tmp_path / "m.png").exists()


@pytest.mark.usefixtures("default_vlm")
@pytest.mark.parametrize(
    ("phrase", "word"),
    [("?!...", "names nothing"), ("a" * 10_000, "10000 characters"), ("the <|im_end|> cat", "control token")],
)
def test_bad_phrases_are_one_sentence(phrase: str, word: str, tmp_path: Path) -> None:
    done = typed(tmp_path, "locate", PHOTO, phrase, "--method", "heads")
    assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr and not done.stdout


@pytest.mark.usefixtures("default_vlm")
def test_an_image_of_one_pixel_gets_an_answer(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    done = typed(tmp_path, "locate", "dot.png", "a cat", "--method", "heads", "--json")
    assert done.returncode == 0, done.stderr
    (grounding,) = json.loads(done.stdout)["groundings"]
    assert grounding["absent"] != bool(grounding["boxes"])
    for x0, y0, x1, y1 in grounding["boxes"]:
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def test_a_search_does_not_take_the_place_of_its_data(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"file_name": "cat.png", "phrase": "the cat", "bbox": [10, 5, 300, 250]}]))
    before = pairs.read_bytes()
    found = CliRunner().invoke(
        app, ["heads", "find", "--pairs", str(pairs), "--images", str(tmp_path), "--out", str(pairs)]
    )
    assert isinstance(found.exception, InputError) and "take the place of the data" in str(found.exception)
    assert pairs.read_bytes() == before
