"""The search for heads, on the tiny model: what it writes, that it goes on where it stopped, what it is told."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wherein import methods
from wherein.data import LabelledBox, Sample
from wherein.errors import InputError
from wherein.methods.heads import Heads
from wherein.training import heads as search
from wherein.training.heads import find
from wherein.training.heads_boxes import calibrate
from wherein.training.heads_plot import save_plot
from wherein.training.pairs import Pairs, composites, labelled
from wherein.training.store import Labelled


@pytest.fixture
def deep(tiny_vlm: Any) -> Any:
    """The tiny model with four layers, two of which count."""
    return type(tiny_vlm)(name="deep", layers=4)


@pytest.fixture
def pairs(deep: Any) -> Pairs:
    return composites(deep, 6, 0)


def test_a_file_says_all_that_is_known(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    out = tmp_path / "heads.json"
    found = find(deep, pairs, out, samples=4, trials=3, top=2, seed=1)
    about = json.loads(out.read_text())
    assert about["method"] == "heads" and about["fingerprint"] == deep.fingerprint
    facts = about["found"]
    assert facts["by"] == "criteria" and facts["trials"] == 3 and facts["samples"] <= 4 and facts["seed"] == 1
    assert "6 composites" in facts["data"] and 0 < facts["tau"] < 1 and 0 <= facts["absent_roc_auc"] <= 1
    for head in facts["heads"]:
        assert head["layer"] >= 2 and 0 <= head["frequency"] <= 1 and head["deviation"] >= 0
        assert head["attention_sum"] <= 1 and head["mean_entropy"] >= 0
    frequencies = [head["frequency"] for head in facts["heads"]]
    assert frequencies == sorted(frequencies, reverse=True)
    assert about["config"]["heads"] == [[head["layer"], head["head"]] for head in facts["heads"][:2]]
    assert len(about["config"]["absent"]) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["heads.json"]
    method = methods.create("auto", deep, out)
    assert isinstance(method, Heads) and method.config == found.config


def test_fewer_heads_than_were_asked_for_are_told(
    deep: Any, pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find(deep, pairs, tmp_path / "heads.json", samples=4, trials=2, top=99)
    assert f"Only {len(found.config.heads)} heads of 99 look at the image enough" in capsys.readouterr().err
    assert len(found.facts["sum only"]) >= len(found.config.heads)


def test_the_same_seed_finds_the_same(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    """LH-6."""
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        find(deep, pairs, file, samples=4, trials=2)
    assert files[0].read_text() == files[1].read_text()


def test_by_agreement_the_boxes_decide(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    """The head whose boxes are best comes first, then the one that draws the best boxes with it; all others stand in
    the order of their maps' agreement."""
    found = find(deep, pairs, tmp_path / "heads.json", by="agreement", top=2)
    facts = json.loads((tmp_path / "heads.json").read_text())["found"]
    order = [(head["layer"], head["head"]) for head in facts["heads"]]
    agreements = [head["agreement"] for head in facts["heads"][2:]]
    assert facts["by"] == "agreement" and agreements == sorted(agreements, reverse=True)

    def overlap(*heads: tuple[int, int]) -> float:
        figure = calibrate(deep, pairs, replace(found.config, heads=heads), seed=0)[1]["miou"]
        assert figure is not None
        return figure

    first, second = found.config.heads
    assert (first, second) == tuple(order[:2]) and facts["miou"] == pytest.approx(overlap(first, second))
    assert overlap(first) == max(overlap(head) for head in order)
    assert overlap(first, second) == max(overlap(first, head) for head in order if head != first)


def test_an_interrupted_search_goes_on(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    asked: list[int] = []

    def failing(i: int) -> Labelled:
        asked.append(i)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return pairs.source(i)

    broken = replace(pairs, source=failing)
    with pytest.raises(KeyboardInterrupt):
        find(deep, broken, tmp_path / "heads.json", samples=4, trials=2)
    assert not (tmp_path / "heads.json").exists() and (tmp_path / "heads.json.rows").exists()
    find(deep, broken, tmp_path / "heads.json", samples=4, trials=2)
    assert asked[:7] == [0, 1, 2, 3, 3, 4, 5]
    find(deep, pairs, tmp_path / "whole.json", samples=4, trials=2)
    assert (tmp_path / "heads.json").read_text() == (tmp_path / "whole.json").read_text()


def test_a_full_disk_is_one_sentence_and_loses_nothing(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    rows, (soft, hard) = tmp_path / "heads.json.rows", resource.getrlimit(resource.RLIMIT_FSIZE)
    asked: list[int] = []

    def filling(i: int) -> Labelled:
        asked.append(i)
        if asked == [0, 1, 2]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (rows.stat().st_size + 10, hard))
        return pairs.source(i)

    filled = replace(pairs, source=filling)
    try:
        with pytest.raises(InputError, match=r"^Cannot write to .*heads.json.rows: File too large.$"):
            find(deep, filled, tmp_path / "heads.json", samples=4, trials=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    find(deep, filled, tmp_path / "heads.json", samples=4, trials=2)
    assert asked[:7] == [0, 1, 2, 2, 3, 4, 5]


def test_what_was_measured_with_other_settings_is_never_lost(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    def stopped(i: int) -> Labelled:
        if i == 3:
            raise KeyboardInterrupt
        return pairs.source(i)

    broken = replace(pairs, source=stopped)
    with pytest.raises(KeyboardInterrupt):
        find(deep, broken, tmp_path / "heads.json")
    measured = (tmp_path / "heads.json.rows").read_bytes()
    for other in ({"preset": "relative"}, {"pairs": replace(pairs, about="others")}):
        with pytest.raises(InputError, match=r"heads.json.rows was made with (prompt|data) .*: repeat the options"):
            find(**{"vlm": deep, "pairs": pairs, "out": tmp_path / "heads.json", **other})  # type: ignore[arg-type]
        assert (tmp_path / "heads.json.rows").read_bytes() == measured
    (tmp_path / "heads.json.rows").write_bytes(measured.replace(b"figures", b"figure5"))
    with pytest.raises(InputError, match="heads.json.rows is damaged"):
        find(deep, pairs, tmp_path / "heads.json")


def test_nothing_of_the_model_moves(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    """LH-15: a whole search, with gradients on around it."""
    before = [parameter.clone() for parameter in deep.parameters()]
    with torch.enable_grad():
        find(deep, pairs, tmp_path / "heads.json", samples=4, trials=1)
    for parameter, was in zip(deep.parameters(), before, strict=True):
        assert torch.equal(parameter, was) and parameter.grad is None


def test_too_little_to_fit_is_no_figure(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    find(deep, replace(pairs, images=1, names=()), tmp_path / "heads.json", samples=1, trials=1)
    about = json.loads((tmp_path / "heads.json").read_text())
    assert about["found"]["absent_roc_auc"] is None and about["config"]["absent"] == []


def test_other_boxes_are_other_data(tmp_path: Path) -> None:
    """A search that goes on never mixes images or boxes that only share their names."""
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes = [np.array([1.0, 2.0, 9.0, 9.0]), np.array([1.0, 2.0, 9.0, 10.0])]
    one, two = (
        labelled([Sample("a", tmp_path / "a.png", 40, 30, (LabelledBox("cat", box),))], "x", 5, 0).about
        for box in boxes
    )
    assert one != two


def test_real_pairs_are_drawn_by_seed(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    box = np.array([1.0, 2.0, 9.0, 9.0])
    samples = [
        Sample(f"{i}", tmp_path / "a.png", 40, 30, (LabelledBox(f"cat {i}", box), LabelledBox(f"cat {i}", box * 2)))
        for i in range(20)
    ]
    one, same, other = (labelled(samples, "x.json", 5, seed) for seed in (0, 0, 1))
    assert one.images == 5 and one.about == same.about != other.about
    image = one.source(3)
    assert image.image.shape == (30, 40, 3) and len(image.objects) == 1
    np.testing.assert_array_equal(image.objects[0][1], box)  # of a phrase that several objects have, the first
    missing = [Sample("b", tmp_path / "b.png", 40, 30, (LabelledBox("cat", box),))]
    with pytest.raises(InputError, match="'b' of x.json"):
        labelled(missing, "x.json", 5, 0)
    with pytest.raises(InputError, match="no phrase with a box"):
        labelled([Sample("e", tmp_path / "a.png", 40, 30, ())], "x.json", 5, 0)


def test_a_search_is_drawn(deep: Any, pairs: Pairs, tmp_path: Path) -> None:
    found = find(deep, pairs, tmp_path / "heads.json", samples=4, trials=2)
    path = save_plot(deep, pairs, found, tmp_path / "heads.png")
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("unknown", [{"preset": "mine"}, {"by": "luck"}])
def test_unknown_choices_are_refused(deep: Any, pairs: Pairs, tmp_path: Path, unknown: dict[str, str]) -> None:
    with pytest.raises(InputError, match=next(iter(unknown.values()))):
        find(deep, pairs, tmp_path / "heads.json", **unknown)  # type: ignore[arg-type]


def test_a_model_of_which_no_layer_counts_is_refused(tiny_vlm: Any, pairs: Pairs, tmp_path: Path) -> None:
    shallow = type(tiny_vlm)(name="shallow", layers=2)
    with pytest.raises(InputError, match="shallow has 2 layers; heads of the first 2 never count"):
        find(shallow, pairs, tmp_path / "heads.json")


def test_presets_differ_where_they_say() -> None:
    paper, relative = search.PRESETS["paper"], search.PRESETS["relative"]
    assert (paper.sigma, paper.kernel, paper.threshold, paper.zoom, paper.references) == (1.0, 7, "mean", 1, ())
    assert paper.prompt == " {phrase}." and relative.references
