"""What the built-in model says about the example photographs, beside what it said before.

The tolerances are measured. One and two threads agree in every bit. A CPU without bfloat16 instructions, made to run
in bfloat16 (the same kernels limited to AVX2), moves an edge by up to 10 pixels, a score by 0.03 and an absent
probability by 0.09 (that of heads, whose calibration is steep), changes one of the five captions, and has pin, where it
is least sure, begin with another digit and so look elsewhere. Of pin it is the mean of each edge that is compared: the
drawn box depends on which draws agree best with all, a choice among near equals.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wherein import images
from wherein.methods import create
from wherein.vlm.base import FrozenVLM

EXAMPLES = Path(str(files("wherein"))) / "examples"
PHRASES = {name: truth["phrase"] for name, truth in json.loads((EXAMPLES / "truth.json").read_text()).items()}
MOVED = {"pin": 1, "heads": 0, "cam": 0, "pixel": 1}  # photographs whose box may be elsewhere
PIXELS, SCORE, ABSENT = 16, 0.06, 0.12  # the most that an edge, a score and an absent probability may move
CAPTIONS = 1  # that may differ


@pytest.mark.parametrize("method", MOVED)
def test_boxes_and_scores(default_vlm: FrozenVLM, golden: Callable[[str, Any], Any], method: str) -> None:
    asked, found = create(method, default_vlm), {}
    for name, phrase in PHRASES.items():
        (answer,) = asked.ground(images.load(EXAMPLES / name), [phrase], absent=False)
        missing = answer.absent_probability
        found[name] = {
            "phrase": phrase,
            "box": np.round(answer.boxes[0] if answer.expected_box is None else answer.expected_box, 1).tolist(),
            "score": round(float(answer.scores[0]), 3),
            "absent_probability": None if missing is None else round(missing, 3),
        }
    known = golden(method, found)
    assert list(found) == list(known)
    moved = [name for name in known if found[name]["box"] != pytest.approx(known[name]["box"], abs=PIXELS)]
    assert len(moved) <= MOVED[method], {name: (known[name]["box"], found[name]["box"]) for name in moved}
    for name, before in known.items():
        now = found[name]
        assert now["phrase"] == before["phrase"]
        assert now["score"] == pytest.approx(before["score"], abs=SCORE), name
        assert now["absent_probability"] == pytest.approx(before["absent_probability"], abs=ABSENT), name


def test_captions(default_vlm: FrozenVLM, golden: Callable[[str, Any], Any]) -> None:
    found = {name: default_vlm.caption([images.load(EXAMPLES / name)])[0] for name in PHRASES}
    known = golden("captions", found)
    assert list(found) == list(known)
    different = {name: (known[name], caption) for name, caption in found.items() if caption != known[name]}
    assert len(different) <= CAPTIONS, different
