"""Captions against true ones, by the standard scorers of COCO's captions (pycocoevalcap 1.2).

Notable choices:
- texts are cut into words by the Penn Treebank tokenizer first, as published figures are; it and METEOR need Java
- nothing of the scorers is in this package: they are an extra, `wherein[captions]`, of 104 MB. Their Python is BSD-2;
  METEOR (LGPL) and the tokenizer (Stanford CoreNLP, GPL) are jars of that wheel, run as programs of their own
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from wherein.errors import InputError

BLEUS = ("bleu1", "bleu2", "bleu3", "bleu4")
FIGURES = (*BLEUS, "rouge_l", "cider", "meteor")


def score_captions(said: Sequence[str], true: Sequence[Sequence[str]]) -> dict[str, float]:
    """`FIGURES` of N captions against one or more true ones each: higher is better, 0..1 but CIDEr, which is 0..10.

    Published tables multiply each by 100. CIDEr weighs words by how rare they are among all that is true here, so it is
    a figure of the whole set, and 0 for a single caption.

    Raises:
        InputError: there is no caption, or one without a true one; pycocoevalcap or Java is not installed.
    """
    if not said or len(said) != len(true) or not all(true):
        raise InputError(f"{len(said)} captions need true ones each, and some: {len(true)} were given.")
    parts = _scorers("bleu.bleu", "rouge.rouge", "cider.cider", "tokenizer.ptbtokenizer")
    tokenizer = parts["tokenizer.ptbtokenizer"].PTBTokenizer()
    ours, theirs = (
        tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(each)})
        for each in ([[text] for text in said], true)
    )
    with contextlib.redirect_stdout(io.StringIO()):  # BLEU reports its lengths there
        bleus, _ = parts["bleu.bleu"].Bleu(4).compute_score(theirs, ours)
        rouge, _ = parts["rouge.rouge"].Rouge().compute_score(theirs, ours)
        cider, _ = parts["cider.cider"].Cider().compute_score(theirs, ours)
    meteor = Meteor().mean([texts[0] for texts in ours.values()], list(theirs.values()))
    return dict(zip(FIGURES, map(float, [*bleus, rouge, cider, meteor]), strict=True))


class Meteor:
    """METEOR 1.5 of one caption at a time, 0..1: what dense captioning's figure asks for (`dense.dense_map`).

    One Java program answers all calls; it ends with this object.
    Raises InputError where pycocoevalcap or Java is not installed.
    """

    def __init__(self) -> None:
        self._scorer: Any = _scorers("meteor.meteor")["meteor.meteor"].Meteor()

    def __call__(self, said: str, true: Sequence[str]) -> float:
        """A caption against true ones; in lower case, without punctuation."""
        return self.mean([_words(said)], [[_words(text) for text in true]])

    def mean(self, said: Sequence[str], true: Sequence[Sequence[str]]) -> float:
        """Of a set of captions in words, METEOR's own mean, which counts matches over the whole set."""
        ours = {i: [text] for i, text in enumerate(said)}
        return float(self._scorer.compute_score(dict(enumerate(map(list, true))), ours)[0])


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w'-]+", text.lower()))


def _scorers(*names: str) -> dict[str, ModuleType]:
    """Modules of pycocoevalcap."""
    from importlib import import_module

    try:
        found = {name: import_module(f"pycocoevalcap.{name}") for name in names}
    except ImportError as error:
        raise InputError("Scores of captions need pycocoevalcap: run pip install 'wherein[captions]'.") from error
    if shutil.which("java") is None:
        raise InputError("Scores of captions need Java, which tokenizes texts and runs METEOR: install a JRE.")
    return found
