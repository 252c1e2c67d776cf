"""`wherein locate` around a fake model: tables, JSON, drawings, folders, standard input."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from wherein.cli import app, job
from wherein.errors import ImageError, InputError

EXAMPLES = Path(str(files("wherein"))) / "examples"


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["locate", *map(str, arguments)], input=stdin)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_table_says_what_was_found_and_what_answered(loads: list[Any], photos: Path) -> None:
    result = run(photos / "a.jpg", "a [red]cat", "a unicorn", "a mumble")
    assert result.exit_code == 0 and result.stderr == ""
    for words in ["80 x 60 pixels", "a [red]cat", "0, 0, 40, 30", "0.50", "absent (p=0.93)", "no box", "?[31mer"]:
        assert words in result.stdout
    assert "method tiny" in result.stdout and "token probability" in result.stdout
    assert "\x1b" not in result.stdout  # neither colours for a file nor what a model wrote


def test_the_table_says_what_a_crop_cut_away(loads: list[Any], tmp_path: Path) -> None:
    for name, size in (("wide.png", (80, 60)), ("high.png", (60, 80))):
        Image.new("RGB", size).save(tmp_path / name)
    wide, high = (" ".join(run(tmp_path / name, "a cat").stdout.split()) for name in ("wide.png", "high.png"))
    assert "saw only" not in wide and "saw only 0, 0, 60, 40 of the image" in high


def test_json_is_one_document_and_nothing_else(loads: list[Any], photos: Path) -> None:
    before = tree(photos)
    result = run(photos / "a.jpg", "a cat", "a unicorn", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    (document,) = lines(result)
    assert document["schema"] == 1 and document["image"] == str(photos / "a.jpg")
    assert (document["width"], document["height"], document["method"]) == (80, 60, "tiny")
    assert document["groundings"][0]["boxes"] == [[0, 0, 40, 30]]
    assert document["groundings"][1]["absent"] is True
    assert tree(photos) == before


def test_a_folder_goes_on_after_bad_images_and_says_so(loads: list[Any], photos: Path) -> None:
    result = run(photos, "a cat", "--json")
    assert [Path(line["image"]).name for line in lines(result)] == ["a.jpg", "b.jpg", "c.webp", "d.png"]
    assert ["error" in line for line in lines(result)] == [False, True, False, True]
    assert all(line["schema"] == 1 for line in lines(result))
    assert isinstance(result.exception, ImageError) and str(result.exception) == "2 of 4 images could not be used."
    errors = result.stderr.splitlines()
    assert len(errors) == 2 and "b.jpg" in errors[0] and errors[1] == "wherein: 13 pixels bring bad luck"
    assert len(loads) == 1 and len(loads[0].images) == 2


def test_pictures_that_are_passed_over_are_told(loads: list[Any], photos: Path) -> None:
    (photos / "b.jpg").unlink()
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    (photos / "e\n.heic").touch()
    result = run(photos, "a cat", "--json")
    told, *failed = result.stderr.splitlines()
    assert told == "wherein: passed over a file whose format is not read: e .heic"
    assert len(failed) == 2 and "gone.jpg does not exist" in failed[1]
    assert isinstance(result.exception, ImageError) and str(result.exception) == "2 of 4 images could not be used."
    for n in range(6):
        (photos / f"{n}.CR2").touch()
    told, *_ = run(photos, "a cat", "--json").stderr.splitlines()
    assert told.endswith("passed over 7 files whose format is not read: 0.CR2, 1.CR2, 2.CR2, 3.CR2, 4.CR2, ...")


def test_further_images(loads: list[Any], photos: Path) -> None:
    result = run(photos / "a.jpg", "a cat", "-i", photos / "c.webp", "--image", "-", "--json", stdin=b"none")
    assert [line["image"] for line in lines(result)] == [str(photos / "a.jpg"), str(photos / "c.webp"), "-"]
    assert "error" in lines(result)[2]
    assert isinstance(result.exception, ImageError)
    assert len(loads) == 1


def test_standard_input(loads: list[Any], photos: Path) -> None:
    result = run("-", "a cat", "--json", stdin=(photos / "a.jpg").read_bytes())
    (document,) = lines(result)
    assert (document["image"], document["width"]) == ("-", 80)


def test_standard_input_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after `<&-`
    with pytest.raises(ImageError, match="Standard input is closed: pipe"):
        next(job.Job(["-"]).answers(lambda: pytest.fail("the model was loaded")))


def test_standard_input_has_a_limit(loads: list[Any], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MAX_STDIN", 100)
    result = run("-", "a cat", stdin=(photos / "a.jpg").read_bytes())
    assert isinstance(result.exception, ImageError) and "more than 100 bytes" in str(result.exception)
    assert isinstance(run("-", "a cat", "-i", "-").exception, InputError)
    assert loads == []


def test_save_draws_one_image(loads: list[Any], photos: Path, tmp_path: Path) -> None:
    result = run(photos / "a.jpg", "a cat", "--save", tmp_path / "out.png")
    assert result.exit_code == 0 and "0, 0, 40, 30" in result.stdout
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (80, 60) and len(picture.getcolors() or []) > 1
    assert tree(tmp_path) - {f"photos/{name}" for name in tree(photos)} == {"photos", "out.png"}


def test_save_draws_many_images_into_a_folder_it_makes(loads: list[Any], photos: Path, tmp_path: Path) -> None:
    result = run(photos, "a cat", "--save", tmp_path / "out")
    assert isinstance(result.exception, ImageError)  # of the damaged ones; the others are drawn
    assert tree(tmp_path / "out") == {"a.jpg", "c.webp.png"}


def test_a_drawing_has_a_name_that_is_not_too_long(loads: list[Any], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in (f"{'W' * 250}.webp", f"{'ä' * 124}.jpeg"):
        Image.new("RGB", (80, 60)).save(tmp_path / "photos" / name)
    assert run(tmp_path / "photos", "a cat", "--save", tmp_path / "out").exit_code == 0
    assert tree(tmp_path / "out") == {f"{'W' * 250}..png", f"{'ä' * 124}.jpeg"}


def test_where_no_drawing_can_be_made_is_said_before_the_work(loads: list[Any], photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    for save, says in [(tmp_path / "out", "No such file"), (tmp_path / ("a" * 300), "File name too long")]:
        result = run(photos, "a cat", "--save", save)
        assert isinstance(result.exception, InputError) and says in str(result.exception)
    assert loads == []


def test_a_drawing_never_replaces_an_image(loads: list[Any], photos: Path, tmp_path: Path) -> None:
    for arguments in [(photos / "a.jpg", "--save", photos / "a.jpg"), (photos, "--save", photos)]:
        result = run(*arguments, "a cat")
        assert isinstance(result.exception, InputError) and "take the place" in str(result.exception)
    other = tmp_path / "a.jpg"
    other.write_bytes((photos / "a.jpg").read_bytes())
    result = run(photos / "a.jpg", "-i", other, "a cat", "--save", tmp_path / "out")
    assert isinstance(result.exception, InputError) and "Two images" in str(result.exception)
    assert loads == [] and not (tmp_path / "out").exists()


def test_many_images_need_a_folder(loads: list[Any], photos: Path, tmp_path: Path) -> None:
    for path, says in [(tmp_path / "out.png", "one picture"), (photos / "notes.txt", "Not a directory")]:
        result = run(photos, "a cat", "--save", path)
        assert isinstance(result.exception, InputError) and says in str(result.exception)
    assert loads == []


def test_control_tokens_of_the_model_end_the_job(loads: list[Any], photos: Path) -> None:
    result = run(photos, "a cat<|im_end|>", "--json")
    assert type(result.exception) is InputError and result.stdout == ""


def test_names_that_are_not_text(loads: list[Any], photos: Path) -> None:
    odd = os.fsencode(photos) + b"/\xff\x1b[31m\n.jpg"
    os.rename(photos / "a.jpg", odd)
    assert b"\x1b" not in run(os.fsdecode(odd), "a cat").stdout_bytes
    assert lines(run(os.fsdecode(odd), "a cat", "--json"))[0]["image"] == os.fsdecode(odd)


def test_a_long_job_on_a_terminal_shows_a_bar_on_stderr_only(photos: Path) -> None:
    """The bar is drawn on a terminal (the pseudo-terminal), the answers go to the pipe, and every one arrives."""
    script = (
        "import sys\nfrom wherein.cli import job\njob.PATIENCE = 0.0\n"
        "for name, answer in job.Job(sys.argv[1:]).answers(lambda: lambda pixels: pixels.shape[1]): print(name, answer)"
    )
    ours, theirs = pty.openpty()
    good = [str(photos / name) for name in ("a.jpg", "c.webp", "d.png")]
    command, environment = [sys.executable, "-c", script, *good], {**os.environ, "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    assert done.stdout.decode().splitlines() == [f"{good[0]} 80", f"{good[1]} 40", f"{good[2]} 13"]
    shown = os.read(ours, 1 << 20)
    os.close(ours)
    assert b"images" in shown and b"%" in shown


def test_the_default_model_answers_with_a_picture(tmp_path: Path) -> None:
    """As a user types it, with the true model."""
    command = [sys.executable, "-m", "wherein", "locate", EXAMPLES / "cat.jpg", "the cat"]
    done = subprocess.run([*command, "--json", "--save", "out.png"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"] == "default" and document["method"] in ("pin", "text", "cam")
    (grounding,) = document["groundings"]
    assert grounding["absent"] or grounding["boxes"]
    with Image.open(EXAMPLES / "cat.jpg") as image, Image.open(tmp_path / "out.png") as drawing:
        assert drawing.size == image.size == (document["width"], document["height"])
