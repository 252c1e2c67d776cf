"""The figures of a run worked out by hand, and the ways they are written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from wherein.errors import InputError
from wherein.evaluation import Journal, Outcome, Record, run, select, summarise, to_markdown, to_table, write_json

from .conftest import FakeMethod, no_dogs, whole


@pytest.fixture
def results(dataset: Path) -> dict[str, Any]:
    return figures(dataset, "no dogs", "centre", "other")


def printed(results: dict[str, Any]) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(to_table(results))
    return console.export_text()


def figures(dataset: Path, *names: str) -> dict[str, Any]:
    methods = [FakeMethod(name, no_dogs if name == "no dogs" else whole) for name in names]
    samples = select("pin", dataset / "annotations.json", dataset / "images")
    outcomes = [outcome for some in run(samples, methods, Journal(None, {})) for outcome in some]
    return summarise(outcomes, protocol="pin", model="fake", seed=1, command="wherein eval")


def test_figures(results: dict[str, Any]) -> None:
    assert (results["schema"], results["protocol"], results["model"]) == (1, "pin", "fake")
    assert (results["n"], results["images"], results["seed"], results["command"]) == (4, 2, 1, "wherein eval")
    centre = results["methods"]["centre"]  # IoU 1, .5, .5 on the first image, .5 on the second
    assert centre["miou"] == 0.625 and centre["p@0.5"] == 1.0 and centre["p@0.3"] == 1.0 and centre["invalid"] == 0.0
    assert centre["miou_best"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert (centre["n_m"], centre["n_l"], centre["miou_m"], centre["miou_l"]) == (0, 4, None, 0.625)
    assert centre["ci95"][0] <= 0.625 <= centre["ci95"][1]
    assert centre["per_category"]["cat"] == {"n": 2, "miou": 0.75, "p@0.5": 1.0}
    assert results["methods"]["no dogs"]["invalid"] == 0.5
    assert results["methods"]["no dogs"]["miou"] == pytest.approx((0.5 + 0 + 1 + 0) / 4)


@pytest.fixture
def of_masks(masked: Path) -> dict[str, Any]:
    """A method with a mask for `top` and `dot` and no answer for `left`, beside one with boxes only."""
    half = np.zeros((4, 10), dtype=bool)
    half[0, :5] = True  # of the ten pixels of `top`; none of `dot`

    def no_left(image: NDArray[np.uint8], phrase: str) -> list[list[float]]:
        return [] if phrase == "left" else whole(image, phrase)

    methods = [FakeMethod("masks", no_left, lambda image, phrase: half), FakeMethod("boxes", whole)]
    samples = select("phrases", masked / "refs.json", masked / "images", split="val")
    outcomes = [outcome for some in run(samples, methods, Journal(None, {})) for outcome in some]
    return summarise(outcomes, protocol="refcoco", model="fake", split="val")


def test_figures_of_masks_worked_out_by_hand(of_masks: dict[str, Any]) -> None:
    """True masks of 16, 10 and 1 pixels; a missing answer is a miss, a pair without a true mask does not count."""
    found = of_masks["methods"]["masks"]  # 0 of 16 pixels, 5 of 10, 0 of 6
    assert (of_masks["n"], found["n_masks"]) == (4, 3)
    assert found["ciou"] == pytest.approx(5 / 32) and found["giou"] == pytest.approx(0.5 / 3)
    assert found["mask_p@0.5"] == pytest.approx(1 / 3)
    boxes = of_masks["methods"]["boxes"]  # 16 of 40, 10 of 40, 1 of 40
    assert boxes["ciou"] == pytest.approx(27 / 120) and boxes["giou"] == pytest.approx((0.4 + 0.25 + 0.025) / 3)
    assert boxes["mask_p@0.5"] == 0
    # Two images are drawn: the first twice, the second twice, or both.
    assert found["ciou_ci95"] == pytest.approx([0, 5 / 26]) and found["giou_ci95"] == pytest.approx([0, 0.25])


def test_phrases_without_a_target_have_figures_of_their_own(doubtful: Path) -> None:
    """Of four such, "zebra" twice and "yak" twice, two are answered absent; of four others one would be."""
    methods = [FakeMethod("doubts", whole, gone=["zebra", "left"]), FakeMethod("never", whole)]

    def found(no_target: bool) -> dict[str, Any]:
        samples = select("phrases", doubtful / "refs.json", split="val", no_target=no_target)
        asked = run(samples, methods, Journal(None, {}), no_target=no_target)
        return summarise([one for some in asked for one in some], protocol="phrases", model="fake")

    results, without = found(True), found(False)
    doubts, never = results["methods"]["doubts"], results["methods"]["never"]
    assert (doubts["n_acc"], doubts["t_acc"], doubts["n_no_target"]) == (0.5, 0.75, 4)
    assert (never["n_acc"], never["t_acc"]) == (0, 1)
    assert (results["n"], results["images"]) == (4, 2)  # no box, no image of the other figures
    plain = without["methods"]["doubts"]
    assert (plain["n_acc"], plain["t_acc"], plain["n_no_target"]) == (None, None, 0)
    assert {"N-acc", "T-acc"} <= set(to_markdown(results).splitlines()[2].split(" | "))
    assert "N-acc" not in to_markdown(without) and "0.750" in printed(results)
    own = {"n_acc", "t_acc", "n_no_target", "seconds_per_image"}
    assert {key: doubts[key] for key in doubts if key not in own} == {
        key: plain[key] for key in plain if key not in own
    }


def test_data_with_masks_has_columns_for_them(of_masks: dict[str, Any]) -> None:
    for text in (printed(of_masks), to_markdown(of_masks)):
        for piece in ("refcoco val: 4 boxes", "cIoU", "gIoU", "0.156", "0.167", "0.225"):
            assert piece in text
    header, _, row = to_markdown(of_masks).splitlines()[2:5]
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert (cells["cIoU"], cells["gIoU"], cells["P@0.5 (>=)"], cells["invalid"]) == ("0.156", "0.167", "0.250", "0.250")


def test_data_without_masks_has_none(results: dict[str, Any]) -> None:
    for text in (printed(results), to_markdown(results)):
        assert "cIoU" not in text and "gIoU" not in text
    figures = results["methods"]["centre"]
    empty = [figures[key] for key in ("ciou", "ciou_ci95", "giou", "giou_ci95", "mask_p@0.5", "n_masks")]
    assert empty == [None] * 5 + [0]


def test_draws_without_a_mask_say_nothing_of_masks() -> None:
    """Of two images one has a mask: a quarter of the draws have none, and in all others its IoU is the figure."""
    box = (0.0, 0.0, 5.0, 5.0)
    outcomes = [
        Outcome(f"{i}.png", 10, 10, "a", 0.1, (Record("cat", box, box, 0.5, None, 1.0, overlap),))
        for i, overlap in enumerate([(5, 10), None])
    ]
    found = summarise(outcomes, protocol="pairs", model="fake")["methods"]["a"]
    assert (found["n_masks"], found["ciou"], found["giou"]) == (1, 0.5, 0.5)
    assert found["ciou_ci95"] == found["giou_ci95"] == [0.5, 0.5]


def test_pointing_looks_at_the_middle_of_the_answer(results: dict[str, Any]) -> None:
    """The middle of the image lies in all four boxes, on the edge of three; that of the left half in the two cats."""
    assert results["methods"]["centre"]["pointing"] == 1.0
    assert results["methods"]["no dogs"]["pointing"] == 0.5


def test_scores_that_are_probabilities_are_checked(dataset: Path) -> None:
    """Every answer is right from 0.5 on and says 0.9; invalid ones have no score."""
    methods = [FakeMethod(name, no_dogs if name == "no dogs" else whole) for name in ("no dogs", "whole", "other")]
    samples = select("pin", dataset / "annotations.json", dataset / "images")
    outcomes = [outcome for some in run(samples, methods, Journal(None, {})) for outcome in some]
    kinds = {"no dogs": "token_probability", "whole": "token_probability", "other": "attention_share"}
    found = summarise(outcomes, protocol="pin", model="fake", score_kinds=kinds)["methods"]
    assert found["no dogs"]["ece"] == found["whole"]["ece"] == pytest.approx(0.1)
    assert found["other"]["ece"] is None
    unknown = summarise(outcomes, protocol="pin", model="fake")["methods"]
    assert all(figures["ece"] is None for figures in unknown.values())


def test_every_method_is_compared_with_the_baseline_and_the_first(dataset: Path, results: dict[str, Any]) -> None:
    assert set(results["paired"]) == {"no dogs - centre", "other - centre", "other - no dogs"}
    found = results["paired"]["no dogs - centre"]
    assert found["difference"] == pytest.approx(0.375 - 0.625) and 0 < found["p"] <= 1
    assert results["paired"]["other - centre"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    assert set(figures(dataset, "a", "b")["paired"]) == {"b - a"}
    assert set(figures(dataset, "centre", "b")["paired"]) == {"b - centre"}
    assert figures(dataset, "centre")["paired"] == {}


def test_json_is_written_whole(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    write_json(results, path)
    assert json.loads(path.read_text()) == results
    assert [one.name for one in tmp_path.glob("out*")] == ["out.json"]
    with pytest.raises(InputError, match="Cannot write to .*out.json"):
        write_json(results, tmp_path / "nowhere" / "out.json")


def test_table_and_markdown_show_the_figures(results: dict[str, Any]) -> None:
    for text in (printed(results), to_markdown(results)):
        for piece in ("pin: 4 boxes in 2 images, model fake", "centre", "0.625", "0.375", "no dogs - centre: -0.250"):
            assert piece in text
    assert to_markdown(results).splitlines()[2].count("|") == to_markdown(results).splitlines()[4].count("|")


def test_the_best_box_of_a_repeated_name_is_a_column_beside_the_mean(results: dict[str, Any]) -> None:
    header, _, *rows = to_markdown(results).splitlines()[2:6]
    cells = [dict(zip(header.split(" | "), row.split(" | "), strict=True)) for row in rows]
    assert [cell["mIoU"] for cell in cells] == ["0.375", "0.625"]
    assert [cell["mIoU best"] for cell in cells] == ["0.333", "0.667"]  # of two cats in one image the better counts


def test_names_are_not_read_as_markup(dataset: Path) -> None:
    text = printed({**figures(dataset, "[red]a"), "model": "[bold]m"})
    assert "[red]a" in text and "[bold]m" in text


def test_an_outcome_without_medium_boxes_is_json(results: dict[str, Any]) -> None:
    assert "NaN" not in json.dumps(results)
    assert isinstance(
        Outcome.from_dict({"image": "a", "width": 1, "height": 1, "method": "m", "seconds": 0.0}), Outcome
    )
