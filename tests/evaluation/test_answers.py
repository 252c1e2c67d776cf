"""What an answer is, and what a model's numbers mean."""

from __future__ import annotations

import pytest

from wherein.boxforms import CONVENTIONS, PIXELS, THOUSANDTHS, Convention, Written, native, written
from wherein.evaluation.answers import read, settle, verdict
from wherein.vlm.families import FAMILIES

PROMPT = "Provide a bounding box around the cat as [x_min, y_min, x_max, y_max]."


def test_a_reading_says_how_it_was_made() -> None:
    reading = read("[100, 100, 300, 400]", 1000, 500, THOUSANDTHS)
    assert reading is not None
    assert (reading.box.tolist(), reading.form, reading.convention) == ([100, 50, 300, 200], "list", "0-1000")
    assert read("[0.1, 0.1, 0.3, 0.4]", 1000, 500, THOUSANDTHS).convention == "0-1"  # type: ignore[union-attr]
    assert read("[300, 100, 100, 400]", 1000, 500, THOUSANDTHS) is None
    assert read("a cat", 1000, 500, THOUSANDTHS) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat on a mat.", "chatty"),
        ("There are 2 cats (brown).", "chatty"),
        ("2 cats and 3 dogs", "chatty"),
        ("I see 2 cats, 1 dog, 4 mice.", "chatty"),
        ("a 5-year-old child, 2D art, and 3 dogs", "chatty"),
        ("1. A cat\n2. A dog", "chatty"),
        ("1) A cat 2) A dog", "chatty"),
        ("2 or 3 cats", "chatty"),
        ("the cat", "chatty"),  # two words of the prompt are chance
        ("", "empty"),
        (" \n. ", "empty"),
        (PROMPT, "echo"),
        (f"Sure! {PROMPT.upper()} 12", "echo"),
        ("[x_min, y_min, x_max, y_max]", "echo"),
        ("around the cat", "echo"),
        ("[x1, y1, x2, y2]", "unparsable"),
        ("[]", "unparsable"),
        ("[300, 100, 100, 400]", "unparsable"),
        ("at 120 and 30", "unparsable"),
        ("The 2 cats are at 120 and 30.", "unparsable"),
        ("120 pixels from the left, 30 px from the top", "unparsable"),
        ("10.5, 20.5", "unparsable"),
        ("x1, y1, x2, y2", "unparsable"),
        ("<loc0100>", "unparsable"),
    ],
)
def test_verdicts(text: str, expected: str) -> None:
    assert verdict(text, PROMPT, boxed=False) == expected
    assert verdict(text, PROMPT, boxed=True) == "box"


def found(*texts: str) -> list[tuple[Written, int, int]]:
    return [(one, 640, 480) for one in map(written, texts) if one is not None]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], PIXELS),
        (["[0.1, 0.2, 0.3, 0.4]"], PIXELS),  # fractions say nothing of the rest
        (["<loc_1><loc_2><loc_900><loc_900>"], PIXELS),
        (["[10%, 20%, 90%, 90%]"] * 3, PIXELS),  # nor do percents
        (["[10, 20, 300, 400]"] * 3, PIXELS),
        (["[10, 20, 900, 400]"] + ["[10, 20, 300, 400]"] * 4, THOUSANDTHS),
        (["[10, 20, 300, 900]"] + ["[10, 20, 300, 400]"] * 4, THOUSANDTHS),
        (["[10, 20, 900, 400]"] + ["[10, 20, 300, 400]"] * 9, PIXELS),  # one in ten may be a slip
        (["[10, 20, 900, 400]", "[10, 20, 1900, 400]"], PIXELS),
        (['{"box_2d": [10, 20, 300, 400]}'] * 2 + ["[10, 20, 900, 400]"], CONVENTIONS["0-1000-y-first"]),
        (['{"box_2d": [10, 20, 300, 400]}', "[10, 20, 300, 400]"], PIXELS),
    ],
)
def test_one_rule_settles_what_all_numbers_of_a_model_mean(texts: list[str], expected: Convention) -> None:
    convention, why = settle(found(*texts))
    assert convention == expected and why.startswith("rule: ")


def test_the_boxes_that_families_were_trained_to_write() -> None:
    """A family whose description is not understood would be read by the rule, and nobody would notice."""
    told = {family.family: native(family.native) for family in FAMILIES if family.native}
    assert told == {
        "llava": Convention(1),
        "qwen2_vl": THOUSANDTHS,
        "qwen2_5_vl": PIXELS,
        "qwen3_vl": THOUSANDTHS,
        "paligemma": Convention(1023, y_first=True),
        "internvl": THOUSANDTHS,
        "kosmos2": None,  # its tokens say themselves what they mean
    }
