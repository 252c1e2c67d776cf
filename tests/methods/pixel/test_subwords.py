"""PL-4: every token of a word is where the word is, however many a tokenizer makes of it; it is read at its last."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers as T

from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.reader import PixelReader
from wherein.methods.pixel.scenes import Scene
from wherein.training.lessons import Lesson, PlacedText
from wherein.training.photographs import PhotographTask, rows_of

PIECES = ["<pad>", "</s>", "<s>", "re", "##d", "bl", "##u", "##e", "a", ",", "A", "long"]
RED, BLUE = [10.0, 20, 40, 60], [60.0, 20, 100, 70]  # xyxy, pixels of the picture
AT_RED, AT_BLUE, NOWHERE = [[5, 10], [20, 30]], [[30, 10], [50, 35]], [[0, 0], [0, 0]]  # corners, at half the size


def reader(tiny: ModuleType, points: int) -> PixelReader:
    """A tiny model, and a tokenizer of which "red" is two tokens and "blue" three."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = T.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = tiny.tiny_config("decoder", len(PIECES), points_per_token=points, end_token_id=tiny.END)
    return PixelReader(tiny.stirred(PixelLM(config)), tokenizer)


def lesson(text: str, width: int = 128, height: int = 80) -> Lesson:
    """A narrative that is at the red box while it says red, and at the blue one while it says blue."""
    named = [(text.find(word), word, box) for word, box in (("red", RED), ("blue", BLUE))]
    trace = tuple(PlacedText(start, start + len(word), np.array(box)) for start, word, box in named if start >= 0)
    whole = np.array([[0.0, 0, width, height]])
    return Lesson("narratives", Scene(np.zeros((height, width, 3), np.uint8), (text,), ("A long",), whole), trace)


@pytest.mark.parametrize("count", [1, 2])
def test_pl_4_each_token_of_a_word_has_its_place(tiny: ModuleType, count: int) -> None:
    """Pictures wider and higher than the square of 64 pixels, padded: half as large in both directions."""
    lessons = [lesson("red, a blue"), lesson("a red", width=112, height=128)]
    rows, _ = rows_of(reader(tiny, count), lessons)
    assert rows["sizes"].tolist() == [[64, 40], [56, 64]]
    end, filler = PIECES.index("</s>"), [-100] * 4
    read = [["re", "##d", ",", "a", "bl", "##u", "##e"], ["a", "re", "##d"]]
    ids = [[*map(PIECES.index, tokens), end] for tokens in read]
    assert rows["labels"].tolist() == [ids[0], [*ids[1], *filler]]
    corners = torch.tensor(
        [
            [AT_RED, AT_RED, NOWHERE, NOWHERE, AT_BLUE, AT_BLUE, AT_BLUE, NOWHERE],
            [NOWHERE, AT_RED, AT_RED, NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE],
        ]
    ).float()
    assert torch.equal(rows["points"], corners if count == 2 else corners.mean(2, keepdim=True))


class Told:
    """Narratives of one picture."""

    scales, mirrors = None, False

    def __len__(self) -> int:
        return 1

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        return lesson("red, a blue")


def test_a_word_is_measured_at_its_last(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a tenth of the square is said to be off, and everywhere else far more."""
    forward, far = PixelLM.forward, torch.tensor([999, 6.4, 999, 999, 999, 999, 6.4, 999])

    def said(self: PixelLM, **rows: Any) -> Any:
        out = forward(self, **rows)
        out.points = rows["points"] + far[:, None, None]
        return out

    monkeypatch.setattr(PixelLM, "forward", said)
    told = {"narratives": [Told()]}
    figures = PhotographTask(reader(tiny, 2), told, told, {"narratives": 1}, 1, seed=0).evaluate(0, tmp_path)
    assert figures["words_off"] == pytest.approx(0.1)
